"""What several files of tests need: a lab, of which each file has its own and which each test must leave healthy; and
both ways to exchange messages with the kernel."""

from collections.abc import Iterator

import pytest
from lab_node import NAME
from labs import eventually, felix_lab, standing
from spaces import Space

from felix_py.kernel.roundtrip import FUNCTIONS, Library
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


@pytest.fixture(params=["compiled", "in Python"])
def functions(request: pytest.FixtureRequest) -> Library | None:
    """Give both ways to exchange messages with the kernel, one after the other."""
    if request.param == "in Python":
        return None
    assert FUNCTIONS is not None, "`make setup` compiles felix_py/kernel/exchange.c, and needs a C compiler"
    return FUNCTIONS


@pytest.fixture
def here() -> Iterator[Space]:
    """Give a network namespace to ask from."""
    made = Space()
    yield made
    made.close()
