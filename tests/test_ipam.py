"""The arithmetic of a block: never two holders, nothing lost, freed addresses last."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from felix_py import ipam
from felix_py.ipam import Assigned, Block, Holder, NotAssigned, Terms
from felix_py.model import IPAddress

BLOCK = Block(IPv4Network("10.65.0.0/30"))
FIRST, SECOND, THIRD, FOURTH = BLOCK.cidr


def given_out(*handles: str, block: Block = BLOCK) -> Block:
    for handle in handles:
        answer = ipam.assign(block, Holder(handle))
        assert isinstance(answer, Assigned)
        block = answer.block
    return block


def shown(block: Block) -> dict[IPAddress, str]:
    return {address: str(holder) for address, holder in block.holders.items()}


def test_every_address_of_a_block_can_be_given() -> None:
    assert shown(given_out("a", "b", "c", "d")) == {FIRST: "a", SECOND: "b", THIRD: "c", FOURTH: "d"}


def test_a_full_block_says_so() -> None:
    assert ipam.assign(given_out("a", "b", "c", "d"), Holder("e")) == NotAssigned(
        "block 10.65.0.0/30 is full: 4 of 4 in use"
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        pytest.param("10.65.0.0", "10.65.0.0 is held by a", id="held"),
        pytest.param("10.65.0.4", "10.65.0.4 is outside block 10.65.0.0/30", id="outside"),
    ],
)
def test_one_particular_address_is_refused_with_the_reason(address: str, why: str) -> None:
    assert ipam.assign_this(given_out("a"), Holder("b"), IPv4Address(address)) == NotAssigned(why)


def test_one_particular_address_is_given() -> None:
    answer = ipam.assign_this(given_out("a"), Holder("b"), FOURTH)
    assert isinstance(answer, Assigned)
    assert shown(answer.block) == {FIRST: "a", FOURTH: "b"}


SIX = Block(IPv6Network("fd65::/126"))
NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def later(seconds: float, **more: object) -> Terms:
    return Terms(NOON + timedelta(seconds=seconds), cooldown=60, **more)  # type: ignore[arg-type]


def test_an_address_cools_down_before_it_is_given_again_to_anybody() -> None:
    block = ipam.release(given_out("a", "b", "c", "d"), SECOND, NOON)
    assert list(block.free(later(59))) == []
    assert ipam.assign(block, Holder("e"), later(59)) == NotAssigned(
        "block 10.65.0.0/30 is full: 3 of 4 in use, 1 cool down (ipCooldownSeconds)"
    )
    assert ipam.assign_this(block, Holder("e"), SECOND, later(59)) == NotAssigned(
        "10.65.0.1 was given back less than 60 s ago (ipCooldownSeconds)"
    )
    assert not block.idle(later(59))
    answer = ipam.assign(block, Holder("e"), later(60))
    assert isinstance(answer, Assigned)
    assert answer.address == SECOND


def test_reserved_addresses_are_given_to_those_who_ask_for_them_by_name_only() -> None:
    terms = Terms(reserved=(IPv4Network("10.65.0.0/31"), IPv4Network("10.65.0.3/32")))
    assert list(BLOCK.free(terms)) == [THIRD]
    assert isinstance(ipam.assign_this(BLOCK, Holder("a"), FIRST, terms), Assigned)
    assert ipam.assign(given_out("a", "b", "c"), Holder("e"), terms) == NotAssigned(
        "block 10.65.0.0/30 is full: 3 of 4 in use, 1 reserved (IPReservation)"
    )


def test_a_handle_gives_all_its_addresses_back() -> None:
    block = ipam.release_handle(given_out("a", "b", "a"), "a", NOON)
    assert shown(block) == {SECOND: "b"}
    assert block.released == {0: NOON, 2: NOON}
    assert ipam.release_handle(block, "a") is block


def test_an_address_that_somebody_else_has_by_now_is_not_taken_from_him() -> None:
    held = given_out("a", "b")
    stranger, younger = Holder("z"), Holder("a", since=NOON)
    assert ipam.release_holders(held, [(FIRST, stranger), (SECOND, younger)]) is held
    assert shown(ipam.release_holders(held, [(FIRST, Holder("a")), (THIRD, Holder("b"))])) == {SECOND: "b"}


def test_a_block_of_ipv6_counts_in_ipv6_however_low_its_addresses() -> None:
    low = Block(IPv6Network("::10/126"))
    assert [str(address) for address in low.free()] == ["::10", "::11", "::12", "::13"]


def test_a_huge_block_costs_no_more_than_what_is_held() -> None:
    block = Block(IPv6Network("fd65::/64"))
    answer = ipam.assign(block, Holder("a"))
    assert isinstance(answer, Assigned)
    assert answer.address == IPv6Address("fd65::")
    assert answer.block.size == 2**64


def test_freed_addresses_are_given_last_and_in_the_order_of_their_release() -> None:
    block = given_out("a", "b", "c")
    for address in (SECOND, FIRST):
        block = ipam.release(block, address)
    assert list(block.free()) == [FOURTH, SECOND, FIRST]


def test_an_address_that_was_given_again_no_longer_cools_down() -> None:
    block = ipam.release(given_out("a", "b"), FIRST)
    answer = ipam.assign_this(block, Holder("c"), FIRST)
    assert isinstance(answer, Assigned)
    assert answer.block.released == {}


def test_releasing_what_nobody_holds_changes_nothing() -> None:
    assert ipam.release(BLOCK, FIRST) is BLOCK
    assert ipam.release(BLOCK, IPv4Address("192.0.2.1")) is BLOCK


def _after(steps: list[tuple[IPv4Address, str]]) -> Block:
    block = BLOCK
    for address, step in steps:
        answer = ipam.assign_this(block, Holder("x"), address)
        if step == "release":
            block = ipam.release(block, address)
        elif isinstance(answer, Assigned):
            block = answer.block
    return block


steps = st.tuples(st.sampled_from(list(BLOCK.cidr)), st.sampled_from(["hold", "release"]))
blocks = st.lists(steps, max_size=12).map(_after)


@given(blocks)
def test_each_address_is_either_held_or_free_and_free_ones_are_listed_once(block: Block) -> None:
    free = list(block.free())
    assert sorted([*free, *block.holders]) == list(block.cidr)


@given(blocks)
def test_release_undoes_assign(block: Block) -> None:
    answer = ipam.assign(block, Holder("y"))
    if isinstance(answer, Assigned):
        assert ipam.release(answer.block, answer.address).holders == block.holders
    else:
        assert block.used == block.size


@given(blocks, st.sampled_from(list(BLOCK.cidr)))
def test_release_may_be_repeated(block: Block, address: IPv4Address) -> None:
    once = ipam.release(block, address)
    assert ipam.release(once, address) == once


class OneHolderEach(RuleBasedStateMachine):
    """Whatever order things happen in: an address that somebody holds is given to nobody else."""

    addresses: Bundle[IPv4Address] = Bundle("addresses")

    def __init__(self) -> None:
        super().__init__()
        self.block = BLOCK
        self.held: dict[IPv4Address, str] = {}
        self.freed_at: dict[IPv4Address, int] = {}
        self.clock = 0

    def _take(self, assign: Callable[[], ipam.Answer], handle: str) -> IPv4Address | None:
        answer = assign()
        if isinstance(answer, NotAssigned):
            return None
        assert answer.address not in self.held
        self.block = answer.block
        self.held[answer.address] = handle
        return answer.address

    @rule(target=addresses, handle=st.text(max_size=3))
    def assign(self, handle: str) -> IPv4Address:
        waiting = [each for each in self.freed_at if each not in self.held]
        never = [each for each in self.block.cidr if each not in self.held and each not in self.freed_at]
        address = self._take(lambda: ipam.assign(self.block, Holder(handle)), handle)
        assert address == next(iter([*never, *sorted(waiting, key=self.freed_at.__getitem__)]), None)
        return address or FIRST

    @rule(address=st.sampled_from(list(BLOCK.cidr)), handle=st.text(max_size=3))
    def assign_this(self, address: IPv4Address, handle: str) -> None:
        self._take(lambda: ipam.assign_this(self.block, Holder(handle), address), handle)

    @rule(address=addresses)
    def release(self, address: IPv4Address) -> None:
        self.clock += 1
        if self.held.pop(address, None) is not None:
            self.freed_at[address] = self.clock
        self.block = ipam.release(self.block, address)

    @invariant()
    def the_block_agrees(self) -> None:
        assert shown(self.block) == self.held


TestOneHolderEach = OneHolderEach.TestCase
TestOneHolderEach.settings = examples(30, stateful_step_count=30)
