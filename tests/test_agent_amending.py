"""The loop amends what it wants by BGP's news while next hops come and go: that comes to what the whole would."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from builders import pool
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from loops import in_a_loop
from test_agent_next_hops import A2, B1, BY_A2, DEFAULT, PREFIX, Node

from bgp.types import PeerDown, UpdateReceived
from felix_py import kernel_thread, turn
from felix_py.kernel.objects import Route, RouteKey
from felix_py.kernel.wire import Mode, Verb
from felix_py.kernel_thread import asked
from felix_py.model import IpipMode, Key, NodeName
from felix_py.model import Node as ClusterNode
from felix_py.state import Present

PREFIXES = [PREFIX.dst, *(IPv4Network(f"10.65.{number}.0/26") for number in (8, 10))]
NOWHERE = "10.88.0.1"
"""A next hop that only a route to 10.88.0.0/16 makes reachable."""

BEYOND = RouteKey(IPv4Network("10.88.0.0/16")), Route(via=IPv4Address("172.31.1.2"), device="eth0", protocol=3)

Step = Callable[[Node], None]


def announced(peer: IPv4Address, preference: int, prefix: IPv4Network, next_hop: str | None) -> Step:
    return lambda node: node.speaker.announce(peer, preference, prefix, next_hop=next_hop or str(peer))


def withdrawn(peer: IPv4Address, prefixes: list[IPv4Network]) -> Step:
    return lambda node: node.speaker.hear(UpdateReceived(peer, withdrawn=tuple(prefixes)))


def lost(peer: IPv4Address) -> Step:
    def lose(node: Node) -> None:
        node.speaker.hear(PeerDown(peer, "gone", notified=True))
        node.speaker.up(peer)

    return lose


def underlay(route: tuple[RouteKey, Route], node: Node) -> None:
    """Add a route of somebody else's, or take it away again."""
    if node.host.routes.get(route[0]) == route[1]:
        node.host.foreign(Verb.DELETE_ROUTE, Mode.NONE, *route)
    else:
        node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, *route)


def uplink(node: Node) -> None:
    node.host.set_link("eth0", up=not node.host.link("eth0").up)


peers, prefixes = st.sampled_from([A2, B1]), st.sampled_from(PREFIXES)
announcements = st.builds(
    announced, peers, st.sampled_from([100, 200]), prefixes, st.sampled_from([None, None, NOWHERE, "172.31.1.13"])
)
steps: st.SearchStrategy[Step] = st.one_of(
    announcements,
    announcements,
    announcements,
    st.builds(withdrawn, peers, st.lists(prefixes, min_size=1, unique=True)),
    st.builds(lost, peers),
    st.sampled_from([uplink, *(partial(underlay, route) for route in (DEFAULT, BEYOND))]),
)
histories = st.lists(st.lists(steps, min_size=1, max_size=3), max_size=8)


def state(node: Node) -> tuple[Any, ...]:
    """Return what the agent has come to."""
    return node.agent.picture.desired, node.host.routes, node.speaker.told, len(node.host.written)


@examples(60)
@given(histories)
@in_a_loop
async def test_amending_comes_to_what_the_whole_would_at_every_turn(history: list[list[Step]]) -> None:
    amending, whole = Node(), Node()
    whole.speaker.changes = lambda: None  # type: ignore[method-assign]  # all may have changed, always
    for node in (amending, whole):
        await node.begin((A2, 100))
    for some in history:
        for node in (amending, whole):
            for step in some:
                step(node)
            await node.agent.turn()
        assert state(amending) == state(whole)
    for node in (amending, whole):
        await node.settle()
    assert state(amending) == state(whole)


@in_a_loop
async def test_a_path_to_nowhere_is_told_to_bgp_and_amends_what_stands_all_the_same() -> None:
    """The turn that writes nothing hears of it first; the next one must not look at everything for that."""
    node = Node()
    await node.begin((A2, 100))
    node.host.foreign(Verb.DELETE_ROUTE, Mode.NONE, *DEFAULT)
    await node.settle()
    before, told = node.agent.picture.desired, len(node.speaker.told)
    node.speaker.announce(B1, 200, next_hop=NOWHERE)
    node.speaker.announce(B1, 200, PREFIXES[1], next_hop=NOWHERE)
    await node.agent.turn()
    after = node.agent.picture.desired
    assert len(node.speaker.told) == told + 1
    assert after.basis is before.basis, "nothing was worked out anew"
    assert after.state.amended is not None
    assert after.state.amended.before is before.state.routes
    assert node.route == BY_A2
    assert await node.row(RouteKey(PREFIXES[1])) == ("missing", f"no route leads to next hop {NOWHERE}")
    node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, *BEYOND)
    await node.settle()
    assert node.host.routes[RouteKey(PREFIXES[1])].via == IPv4Address(NOWHERE)
    assert await node.row(RouteKey(PREFIXES[1])) == ("installed", None)


class Interrupted:
    """A node whose kernel is at work when the loop hears something else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(turn, "TABLE", 1)
        self.node = Node()
        self.node.agent.tell(pool(mode=IpipMode.NEVER))
        self._start = self.node.host.start

    async def turn(self, *meanwhile: Callable[[], None]) -> None:
        """Turn, and let these happen one after the other whenever the kernel gets a part of a table."""
        loop, several = asyncio.get_running_loop(), list(meanwhile)

        def start(*what: Any) -> Any:
            if several:
                loop.call_soon_threadsafe(several.pop(0))  # before whatever is asked of the loop from now on
            return self._start(*what)

        self.node.host.start = start  # type: ignore[method-assign]
        await self.node.agent.turn()


@in_a_loop
async def test_what_bgp_says_while_the_kernel_is_at_work_is_written_in_the_same_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Interrupted(monkeypatch)
    node = one.node
    await node.begin((A2, 100))
    turns = node.agent.turns
    node.speaker.announce(A2, 100, PREFIXES[1])
    await one.turn(lambda: node.speaker.announce(A2, 100, PREFIXES[2]))
    assert node.host.routes.keys() >= set(map(RouteKey, PREFIXES))
    assert node.agent.turns == turns + 1
    before = node.agent.picture.desired
    await node.agent.turn()
    assert node.agent.picture.desired is before, "the next turn knows of it"


@in_a_loop
async def test_the_turn_at_work_ends_where_somebody_waits_for_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Interrupted(monkeypatch)
    node = one.node
    await node.begin((A2, 100))
    nowhere = Present(Key("Node", "c1"), ClusterNode(NodeName("c1")))

    def else_too() -> None:
        node.agent.tell(nowhere)
        node.speaker.announce(A2, 100, PREFIXES[2])

    node.speaker.announce(A2, 100, PREFIXES[1])
    await one.turn(else_too)
    assert RouteKey(PREFIXES[1]) in node.host.routes
    assert RouteKey(PREFIXES[2]) not in node.host.routes
    await node.agent.turn()
    assert RouteKey(PREFIXES[2]) in node.host.routes


@in_a_loop
async def test_new_next_hops_are_judged_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Interrupted(monkeypatch)
    node = one.node
    await node.begin((A2, 100))
    node.speaker.announce(A2, 100, PREFIXES[1])
    await one.turn(lambda: node.speaker.announce(A2, 100, PREFIXES[2], next_hop="172.31.1.13"))
    assert RouteKey(PREFIXES[2]) not in node.host.routes
    await node.settle()
    assert RouteKey(PREFIXES[2]) in node.host.routes


def test_nobody_answers_where_the_loop_has_ended() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert asked(loop, lambda: 1) is None


@in_a_loop
async def test_a_question_that_came_too_late_is_not_answered_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of the loop says what is new only once; nobody would hear of it a second time."""
    monkeypatch.setattr(kernel_thread, "PATIENCE", 0.01)
    loop, answered = asyncio.get_running_loop(), list[int]()
    with ThreadPoolExecutor(1) as kernel:
        asking = kernel.submit(asked, loop, lambda: answered.append(1))
        assert asking.result() is None, "the loop is busy: it waits here"
    await asyncio.sleep(0)
    assert answered == []


@in_a_loop
async def test_a_question_that_fails_fails_where_it_was_asked() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(asked, asyncio.get_running_loop(), lambda: 1 // 0)
