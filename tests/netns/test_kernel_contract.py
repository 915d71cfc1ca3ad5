"""One suite for the kernel and for the fake that the unit tests use: whoever passes it behaves the same to the engine.

The cases stand in the modules `contract_*`, one rule each; `contract_labs` is what runs them on either kernel.
"""

import inspect
from collections.abc import Callable
from types import ModuleType

import contract_extended
import contract_histories
import contract_ipv6
import contract_links
import contract_objects
import contract_routes
import pytest
from contract_labs import FakeLab, Lab, in_a_namespace

Case = Callable[[Lab], None]


def cases(module: ModuleType) -> list[Case]:
    """Return the rules of a module: functions of its own that take a lab and give nothing back."""
    functions = [
        case for _, case in inspect.getmembers(module, inspect.isfunction) if case.__module__ == module.__name__
    ]
    return [case for case in functions if inspect.get_annotations(case) == {"lab": Lab, "return": None}]


CASES = [
    case
    for module in (contract_routes, contract_extended, contract_ipv6, contract_links, contract_objects)
    for case in cases(module)
]
named = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.replace("_", " "))


@named
def test_fake(case: Case) -> None:
    case(FakeLab())


@pytest.mark.netns
@named
def test_kernel(case: Case) -> None:
    in_a_namespace(case)


@pytest.mark.netns
@pytest.mark.parametrize("seed", range(20))
def test_any_history(seed: int) -> None:
    """Both kernels go through it side by side."""
    in_a_namespace(contract_histories.same_history(seed))
