"""Scenarios and drivers stand outside test modules, and say as much as these when they fail."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(
    "child_parties",
    "daemons",
    "felix_node",
    "interop_lab",
    "scenarios",
    "daemon_bird",
    "daemon_frr",
    "daemon_gobgp",
    "pings",
)

from child_parties import everybodys_namespace  # noqa: E402 - its assertions are rewritten from here on


@pytest.fixture
def namespace() -> Iterator[str]:
    """Make a namespace that has everybody's address, for the child and its far ends."""
    with everybodys_namespace() as made:
        yield made
