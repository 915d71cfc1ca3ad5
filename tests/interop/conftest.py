"""Scenarios and drivers stand outside test modules, and say as much as these when they fail."""

from collections.abc import Iterator
from pathlib import Path

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

from bgp_lab import Lab  # noqa: E402
from child_parties import everybodys_namespace  # noqa: E402 - its assertions are rewritten from here on


@pytest.fixture
def namespace() -> Iterator[str]:
    """Make a namespace that has everybody's address, for the child and its far ends."""
    with everybodys_namespace() as made:
        yield made


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Make two nodes and a router on one wire, without a program on any of them."""
    made = Lab(tmp_path)
    try:
        made.up()
        yield made
    finally:
        made.down()
