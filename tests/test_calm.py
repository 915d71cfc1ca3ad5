"""When a turn may wait for pods that come one after the other."""

import asyncio
from ipaddress import IPv4Network

import pytest

from felix_py.calm import FULL, LONGEST, Calm
from felix_py.model import BlockAffinity, Key, NodeName, WorkloadEndpoint
from felix_py.rests import Rests
from felix_py.state import ClusterState, Present

ME = NodeName("n1")
BLOCK = BlockAffinity("b", ME, IPv4Network("10.65.1.0/26"))
CLUSTER = ClusterState().after_all([Present(Key("BlockAffinity", "b"), BLOCK)])


def pod(number: int, block: str = "10.65.1") -> WorkloadEndpoint:
    return WorkloadEndpoint(f"p{number}", ME, f"cali{number}", (IPv4Network(f"{block}.{number % 64}/32"),))


def quiet() -> Calm:
    calm = Calm(ME)
    calm.begin()
    return calm


def test_nothing_is_calm_before_the_first_turn() -> None:
    assert not Calm(ME).lasts(0.0)


def test_pods_of_our_own_blocks_need_no_turn() -> None:
    calm = quiet()
    calm.came(pod(1), CLUSTER)
    assert calm.lasts(LONGEST / 2)


def test_a_pod_with_a_borrowed_address_needs_one_for_others_have_to_be_told() -> None:
    calm = quiet()
    calm.came(pod(1, "10.65.9"), CLUSTER)
    assert not calm.lasts(0.1)


@pytest.mark.parametrize(
    ("addresses", "covered"), [(["10.65.1.9"], True), (["10.65.9.9"], False), (["10.65.1.9", "10.65.9.9"], False)]
)
def test_what_our_blocks_cover(addresses: list[str], *, covered: bool) -> None:
    calm, networks = Calm(ME), tuple(IPv4Network(f"{each}/32") for each in addresses)
    assert calm.covers(WorkloadEndpoint("p", ME, "cali1", networks), CLUSTER) is covered
    assert not calm.covers(WorkloadEndpoint("p", ME, "cali1", networks), ClusterState()), "it is not ours any more"


@pytest.mark.parametrize(("pods", "now", "lasts"), [(FULL - 1, 0.1, True), (FULL, 0.1, False), (1, LONGEST, False)])
def test_a_turn_comes_in_the_end(pods: int, now: float, *, lasts: bool) -> None:
    calm = quiet()
    calm.expect(0.0)
    for number in range(pods):
        calm.came(pod(number), CLUSTER)
    assert calm.lasts(now) is lasts


def test_anything_else_ends_it_until_a_turn_has_begun() -> None:
    calm = quiet()
    calm.disturb()
    assert not calm.lasts(0.0)
    calm.begin()
    assert calm.lasts(0.2)


def test_the_time_counts_from_the_first_pod_and_not_from_a_turn_that_was_long_ago() -> None:
    calm = quiet()
    assert calm.lasts(100 * LONGEST)
    calm.expect(100 * LONGEST)
    calm.expect(100 * LONGEST + 0.9)
    assert calm.lasts(100 * LONGEST + 0.95)
    assert not calm.lasts(101 * LONGEST)
    calm.begin()
    assert calm.lasts(101 * LONGEST)


def looks(*, move: bool, hurry: bool = False, needed: int = 3) -> int:
    """Return how often the kernel was asked until the turn went on."""
    rests, asked = Rests(ME, lambda: 10.0), []
    rests.calm.begin()
    if move:
        rests.pods_move()
    if hurry:
        rests.hurry.set()

    async def calm() -> bool:
        asked.append(1)
        return len(asked) < needed

    asyncio.run(asyncio.wait_for(rests.wait_for_pods(calm), 5))
    return len(asked)


def test_the_kernel_is_asked_until_it_needs_a_turn() -> None:
    assert looks(move=True) == 3


@pytest.mark.parametrize(("move", "hurry"), [(False, False), (True, True)])
def test_no_turn_waits_without_pods_or_where_somebody_waits_for_it(*, move: bool, hurry: bool) -> None:
    assert looks(move=move, hurry=hurry) == 0
