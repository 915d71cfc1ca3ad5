"""A lab for tests of a whole node that is disturbed; each file has its own, and each test must leave it healthy."""

from collections.abc import Iterator

import pytest
from lab_node import NAME
from labs import eventually, felix_lab, left_of

from felix_py.lab import health
from felix_py.lab.state import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of a file."""
    try:
        called = felix_lab(NAME, "up")
        assert called.status == 0, called.error
        yield Lab(NAME)
    finally:
        felix_lab(NAME, "down")
        assert left_of(NAME) == []


@pytest.fixture
def healthy_afterwards(lab: Lab) -> Iterator[None]:
    """Hold a test to it: whatever was done to the node, it is well again at the end."""
    yield
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 30), felix_lab(NAME, "status").out
