"""Nodes that claim, give up, assign and release at once, and die anywhere: every interleaving of their steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from exploring import Job, NodeState, World, persevering, worlds

from felix_py import claims, ipam
from felix_py.claims import Ask, Claimed, Lost
from felix_py.ipam import ANY, Block, Holder, NotAssigned
from felix_py.model import BlockAffinity, Claim, NodeName

A, B, C = map(NodeName, "abc")
CIDR = IPv4Network("10.65.0.0/31")
OTHER = IPv4Network("10.65.0.2/31")
ADDRESSES = frozenset(CIDR) | frozenset(OTHER)


@dataclass(frozen=True)
class Released:
    """A node was told that these addresses are free again."""

    handle: str


def claim(node: NodeName, cidr: IPv4Network = CIDR) -> Job:
    return persevering(lambda: claims.claim(node, cidr))


def give_up(node: NodeName, cidr: IPv4Network = CIDR) -> Job:
    return persevering(lambda: claims.give_up(node, cidr, lambda block: not block.held))


def assign(node: NodeName, *handles: str, owner: NodeName | None = None, cidr: IPv4Network = CIDR) -> Job:
    asks = [Ask(Holder(handle, node)) for handle in handles]

    def run() -> claims.Protocol[tuple[tuple[str, Any], ...]]:
        found = yield from claims.assign(cidr, asks, ANY, owner)
        return tuple(zip(handles, found, strict=True))

    return run


def release(handle: str, cidr: IPv4Network = CIDR) -> Job:
    def run() -> claims.Protocol[Released]:
        yield from claims.change(cidr, lambda block: ipam.release_handle(block, handle))
        return Released(handle)

    return run


Releasing = dict[str, tuple[int, int]]
"""Handle to node and job that give it back, by their numbers."""


def given(world: World, releasing: Releasing) -> dict[str, IPv4Address]:
    """Return which handles were told that they have an address, and have not begun to give it back."""
    gone = set()
    for handle, (position, job) in releasing.items():
        node = world.nodes[position]
        if node.number > job or (node.number == job and node.heard):
            gone.add(handle)
    results = (result for node in world.nodes for result in node.results if isinstance(result, tuple))
    return {
        handle: answer
        for result in results
        for handle, answer in result
        if not isinstance(answer, NotAssigned) and handle not in gone
    }


def laws(world: World, releasing: Releasing) -> None:
    """Check what holds in every world, whoever is in the middle of whatever."""
    stored = world.values()
    blocks = {each.cidr: each for each in stored.values() if isinstance(each, Block)}
    owners: dict[IPv4Network, NodeName] = {}
    for affinity in stored.values():
        if isinstance(affinity, BlockAffinity) and affinity.confirmed:
            block = blocks.get(affinity.cidr)
            assert block is not None, f"{affinity} is announced, and there is no block"
            assert block.affinity == affinity.node, f"{affinity} is announced, and the block is {block.affinity}'s"
            assert affinity.cidr not in owners, f"two nodes announce {affinity.cidr}"
            owners[affinity.cidr] = affinity.node
    told = given(world, releasing)
    assert len(set(told.values())) == len(told), f"one address has two holders: {told}"
    held = {str(holder): address for block in blocks.values() for address, holder in block.holders.items()}
    for handle, address in told.items():
        assert held.get(handle) == address, f"{handle} was given {address}, and lost it"


def explore(*jobs: Iterable[Job], lives: tuple[int, ...] = (), releasing: Releasing | None = None) -> list[World]:
    """Check the laws in every world; return those in which everybody is done.

    Args:
        jobs: of each node.
        lives: how often each node may die; none of them where nothing is said.
        releasing: who gives which handle back.
    """
    programs = tuple(map(tuple, jobs))
    start = World(nodes=tuple(NodeState(lives=each) for each in lives or (0,) * len(programs)))
    ends: list[World] = []
    checked: set[object] = set()
    for world in worlds(start, programs):
        told = given(world, releasing or {})
        matters = world.stored, tuple(told.items())
        if matters not in checked:  # the laws do not ask who is about to do what
            checked.add(matters)
            laws(world, releasing or {})
        if all(node.number == len(program) for node, program in zip(world.nodes, programs, strict=True)):
            ends.append(world)
    assert ends
    return ends


def healed(world: World, *nodes: NodeName) -> World:
    """Let every node run once more, alone and without dying: as agents do when they are started again."""
    for node in nodes:
        program = ((claim(node), claim(node, OTHER)),)
        *_, last = worlds(World(world.stored, (NodeState(),)), program)
        laws(last, {})
        world = last
    return world


def test_two_nodes_claim_one_block_and_exactly_one_has_it() -> None:
    for world in explore([claim(A)], [claim(B)]):
        results = [node.results[0] for node in world.nodes]
        assert {type(each) for each in results} == {Claimed, Lost}
        assert sum(isinstance(each, BlockAffinity) for each in world.values().values()) == 1, "the loser cleaned up"


def test_three_nodes_claim_one_block_and_exactly_one_has_it() -> None:
    for world in explore([claim(A)], [claim(B)], [claim(C)]):
        assert [node.results[0] for node in world.nodes].count(Claimed(CIDR)) == 1
        assert sum(isinstance(each, BlockAffinity) for each in world.values().values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("lives", [pytest.param((1, 1), id="two nodes"), pytest.param((2, 0, 0), id="three nodes")])
def test_nodes_that_die_while_they_claim_lose_no_block(lives: tuple[int, ...]) -> None:
    """Whoever dies starts again, claims again, and in the end the block has exactly one node."""
    jobs = ([claim(node)] * (1 + died) for node, died in zip((A, B, C), lives, strict=False))
    ends = explore(*jobs, lives=lives)
    lived = [world for world in ends if all(node.results[-1] is not None for node in world.nodes)]
    assert len(lived) < len(ends)
    for world in lived:
        owners = [each.node for each in world.values().values() if isinstance(each, BlockAffinity) and each.confirmed]
        assert len(owners) == 1
        assert len(world.values()) == 2, "one block, one affinity, nothing left of the others"


@pytest.mark.slow
@pytest.mark.parametrize("lives", [(1, 0), (0, 1)], ids=["the node dies", "the cleaner dies"])
def test_a_block_is_claimed_again_while_somebody_gives_it_up(lives: tuple[int, ...]) -> None:
    """What a cleaner does to the claim of a node that was thought dead, and dies itself, costs no law."""
    explore([claim(A), claim(A)], [give_up(A), give_up(A)], lives=lives)


@pytest.mark.slow
@pytest.mark.parametrize("lives", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["first dies", "cleaner dies", "second dies"])
def test_giving_up_claiming_and_assigning_by_three_nodes(lives: tuple[int, ...]) -> None:
    ends = explore(
        [claim(A), assign(A, "a1", owner=A)],
        [give_up(A)],
        [claim(B), assign(B, "b1", owner=B)],
        lives=lives,
    )
    for world in ends[:: max(1, len(ends) // 200)]:
        after = healed(world, A, B)
        owners = {each.cidr for each in after.values().values() if isinstance(each, BlockAffinity) and each.confirmed}
        assert owners == {CIDR, OTHER}, "no block is lost"


def test_an_address_is_given_once_however_many_borrow_it() -> None:
    for world in explore([claim(A), assign(A, "a1", owner=A)], [assign(B, "b1")], [assign(C, "c1")], lives=(1, 1, 1)):
        assert len(given(world, {})) <= 2


def test_release_and_assign_of_two_nodes_never_share_an_address() -> None:
    explore(
        [claim(A), assign(A, "a1", "a2", owner=A), release("a1")],
        [assign(B, "b1"), release("b1")],
        lives=(1, 1),
        releasing={"a1": (0, 2), "b1": (1, 1)},
    )


def test_a_block_that_was_given_up_with_a_borrowed_address_stays_until_that_is_released() -> None:
    ends = explore(
        [claim(A), persevering(lambda: claims.give_up(A, CIDR, lambda _: True))],
        [assign(B, "b1"), release("b1")],
        releasing={"b1": (1, 1)},
    )
    for world in ends:
        left = [each for each in world.values().values() if isinstance(each, Block)]
        given_up = world.nodes[0].results[1] is None
        assert given_up == (left == []), "once it is given up, the last release removes it"


def test_an_affinity_is_pending_before_the_block_is_there_and_confirmed_after() -> None:
    seen: list[tuple[Claim | None, bool]] = []
    program = ((claim(A),),)
    for world in worlds(World(nodes=(NodeState(),)), program):
        affinity = world.found(claims.affinity_key(A, CIDR))
        state = affinity.value.claim if affinity and isinstance(affinity.value, BlockAffinity) else None
        now = state, world.found(claims.block_key(CIDR)) is not None
        seen += [now] if now not in seen else []
    assert seen == [(None, False), (Claim.PENDING, False), (Claim.PENDING, True), (Claim.CONFIRMED, True)]
