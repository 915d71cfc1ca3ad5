"""A lab for tests of a whole node that is disturbed; each file has its own, and each test must leave it healthy."""

from collections.abc import Iterator

import pytest
from lab_node import NAME
from labs import eventually, felix_lab, standing

from felix_py.lab import health
from felix_py.lab.state import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of a file."""
    with standing(NAME) as lab:
        yield lab


@pytest.fixture
def healthy_afterwards(lab: Lab) -> Iterator[None]:
    """Hold a test to it: whatever was done to the node, it is well again at the end."""
    yield
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 30), felix_lab(NAME, "status").out
