"""The arithmetic of a block: never two holders, nothing lost, freed addresses last."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from felix_py import ipam
from felix_py.ipam import Assigned, Block, NotAssigned

BLOCK = Block(IPv4Network("10.65.0.0/30"))
FIRST, SECOND, THIRD, FOURTH = BLOCK.cidr


def given_out(*handles: str, block: Block = BLOCK) -> Block:
    for handle in handles:
        answer = ipam.assign(block, handle)
        assert isinstance(answer, Assigned)
        block = answer.block
    return block


def test_every_address_of_a_block_can_be_given() -> None:
    assert given_out("a", "b", "c", "d").holders == {FIRST: "a", SECOND: "b", THIRD: "c", FOURTH: "d"}


def test_a_full_block_says_so() -> None:
    assert ipam.assign(given_out("a", "b", "c", "d"), "e") == NotAssigned("block 10.65.0.0/30 is full: 4 of 4 in use")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        pytest.param("10.65.0.0", "10.65.0.0 is held by a", id="held"),
        pytest.param("10.65.0.4", "10.65.0.4 is outside block 10.65.0.0/30", id="outside"),
    ],
)
def test_one_particular_address_is_refused_with_the_reason(address: str, why: str) -> None:
    assert ipam.assign_this(given_out("a"), "b", IPv4Address(address)) == NotAssigned(why)


def test_one_particular_address_is_given() -> None:
    answer = ipam.assign_this(given_out("a"), "b", FOURTH)
    assert isinstance(answer, Assigned)
    assert answer.block.holders == {FIRST: "a", FOURTH: "b"}


SIX = Block(IPv6Network("fd65::/126"))


def test_a_pod_has_one_address_of_each_version_of_ip_or_none() -> None:
    both = IPv4Address("10.65.0.0"), IPv6Address("fd65::")
    assert ipam.addresses_from((BLOCK, SIX), "a") == both
    assert ipam.addresses_from((SIX,), "a") == both[1:]
    full = given_out("a", "b", "c", "d")
    assert ipam.addresses_from((full, SIX), "e") == NotAssigned("block 10.65.0.0/30 is full: 4 of 4 in use")
    assert ipam.addresses_from((full, BLOCK, SIX), "e") == both, "another block of the same version has room"
    assert ipam.addresses_from((), "a") == NotAssigned("there is no block to take an address from")


def test_addresses_that_are_asked_for_are_all_that_is_given() -> None:
    wanted = IPv6Address("fd65::2"), IPv6Address("fd65::1")
    assert ipam.addresses_from((BLOCK, SIX), "a", wanted) == wanted
    assert ipam.addresses_from((BLOCK,), "a", wanted[:1]) == NotAssigned("there is no block to take an address from")


def test_blocks_are_full_where_those_of_one_version_of_ip_are() -> None:
    full = given_out("a", "b", "c", "d")
    assert ipam.full((BLOCK, SIX)) is None
    assert ipam.full((full, SIX)) == "block 10.65.0.0/30 is full: 4 of 4 in use"
    assert ipam.full((full, BLOCK, SIX)) is None


def test_freed_addresses_are_given_last_and_in_the_order_of_their_release() -> None:
    block = given_out("a", "b", "c")
    for address in (SECOND, FIRST):
        block = ipam.release(block, address)
    assert list(block.free()) == [FOURTH, SECOND, FIRST]


def test_an_address_that_was_given_again_no_longer_cools_down() -> None:
    block = ipam.release(given_out("a", "b"), FIRST)
    answer = ipam.assign_this(block, "c", FIRST)
    assert isinstance(answer, Assigned)
    assert answer.block.released == ()


def test_releasing_what_nobody_holds_changes_nothing() -> None:
    assert ipam.release(BLOCK, FIRST) is BLOCK
    assert ipam.release(BLOCK, IPv4Address("192.0.2.1")) is BLOCK


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        pytest.param(None, "block 10.65.0.0/30 is full: 4 of 4 in use; block 10.65.1.0/31 is full: 2 of 2 in use"),
        pytest.param("192.0.2.1", "192.0.2.1 is outside block 10.65.0.0/30; 192.0.2.1 is outside block 10.65.1.0/31"),
    ],
    ids=["any", "a particular one"],
)
def test_several_blocks_say_each_why_not(ask: str | None, why: str) -> None:
    full = given_out("a", "b", "c", "d"), given_out("e", "f", block=Block(IPv4Network("10.65.1.0/31")))
    assert ipam.assign_from(full, "g", IPv4Address(ask) if ask else None) == NotAssigned(why)


def test_the_next_block_is_used_when_the_first_is_full() -> None:
    second = Block(IPv4Network("10.65.1.0/31"))
    answer = ipam.assign_from((given_out("a", "b", "c", "d"), second), "e")
    assert isinstance(answer, Assigned)
    assert answer.address == IPv4Address("10.65.1.0")


def test_without_a_block_there_is_a_reason() -> None:
    assert ipam.assign_from((), "a") == NotAssigned("there is no block to take an address from")


def _after(steps: list[tuple[IPv4Address, str]]) -> Block:
    block = BLOCK
    for address, step in steps:
        answer = ipam.assign_this(block, "x", address)
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
    answer = ipam.assign(block, "y")
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
        address = self._take(lambda: ipam.assign(self.block, handle), handle)
        assert address == next(iter([*never, *sorted(waiting, key=self.freed_at.__getitem__)]), None)
        return address or FIRST

    @rule(address=st.sampled_from(list(BLOCK.cidr)), handle=st.text(max_size=3))
    def assign_this(self, address: IPv4Address, handle: str) -> None:
        self._take(lambda: ipam.assign_this(self.block, handle, address), handle)

    @rule(address=addresses)
    def release(self, address: IPv4Address) -> None:
        self.clock += 1
        if self.held.pop(address, None) is not None:
            self.freed_at[address] = self.clock
        self.block = ipam.release(self.block, address)

    @invariant()
    def the_block_agrees(self) -> None:
        assert self.block.holders == self.held


TestOneHolderEach = OneHolderEach.TestCase
TestOneHolderEach.settings = examples(30, stateful_step_count=30)
