"""The loop and the real speaker, without its wire, on a kernel in memory: next hops that are reached, or are not."""

from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from agent_node import Clock
from bgp_builders import attributes, offered
from builders import TWO_RACKS, link
from fakes import FakeHost, FakeParameters, FakeTunnels
from loops import in_a_loop
from structlog.testing import capture_logs
from told import SilentDatastore

from bgp.moved import Moved
from bgp.speaker import BestPath, Speaker, SpeakerSettings
from bgp.speaker_words import Configured, Event, NextHops, RoutesChanged, WireStarted
from bgp.types import EndOfRib, IPAddress, IPNetwork, OpenReceived, PeerUp, UpdateReceived
from felix_py import documents
from felix_py.agent import Agent
from felix_py.calc.hearsay import Change
from felix_py.config import Config
from felix_py.kernel import route_codec
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, Route, RouteKey
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.wire import Mode, Verb
from felix_py.model import NodeName

A2, B1 = IPv4Address("172.31.1.12"), IPv4Address("172.31.2.11")
PREFIX = RouteKey(IPv4Network("10.65.9.0/26"))
BY_A2 = Route(via=A2, device="eth0", onlink=True, protocol=80)
BY_B1 = Route(via=B1, device="tunl0", onlink=True, protocol=80)
DEFAULT = RouteKey(IPv4Network("0.0.0.0/0")), Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)


class SpeakerWithoutWire:
    """What `bgp.exabgp_process.BgpService` is but for the process: whatever the speaker says reaches the agent.

    Attributes:
        told: what the agent said of next hops.
    """

    def __init__(self) -> None:
        self.speaker: Any = None
        self.told: list[NextHops] = []
        self.moved = Moved()
        self.changed: Callable[[], None] = lambda: None

    def hear(self, *events: Event, now: float = 1.0) -> None:
        before = self.speaker.next_hops
        effects = [effect for event in events for effect in self.speaker.on(event, now=now)]
        changes = [effect.prefixes for effect in effects if isinstance(effect, RoutesChanged)]
        for prefixes in changes:
            self.moved.note(prefixes)
        if self.speaker.next_hops != before or changes:
            self.changed()

    def configure(self, settings: SpeakerSettings) -> None:
        if self.speaker is None:
            self.speaker = Speaker(settings, 0.0)
            self.hear(WireStarted())
        self.hear(Configured(settings))

    def best_paths(self) -> Mapping[IPNetwork, BestPath]:
        return {**self.speaker.loc_rib.waiting, **self.speaker.loc_rib.best}

    def changes(self) -> list[Change] | None:
        return self.moved.taken(self.speaker.loc_rib) if self.speaker else None

    def peer_name(self, best: BestPath) -> str:
        return str(best.path.peer)

    def converged(self) -> bool:
        return self.speaker is not None and bool(self.speaker.converged(2.0))

    def selecting(self) -> bool:
        return self.speaker is not None and bool(self.speaker.selecting(2.0))

    def next_hops(self) -> frozenset[IPAddress]:
        return self.speaker.next_hops if self.speaker else frozenset()

    def tell(self, event: NextHops) -> None:
        self.told.append(event)
        self.hear(event)

    def up(self, *peers: IPAddress) -> None:
        for peer in peers:
            self.hear(OpenReceived(peer, offered(router_id=IPv4Address(peer))), PeerUp(peer, 90), EndOfRib(peer))

    def announce(self, peer: IPAddress, local_preference: int, prefix: IPNetwork = PREFIX.dst, **said: Any) -> None:
        what = attributes(said.pop("next_hop", str(peer)), local_preference=local_preference, **said)
        self.hear(UpdateReceived(peer, (prefix,), attributes=what))


class Node:
    """Node a1 of TWO_RACKS with its two peers."""

    def __init__(self) -> None:
        self.host = FakeHost(link("eth0", "172.31.1.11/24"), link("cali0000000web0"))
        self.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, *DEFAULT)
        self.speaker = SpeakerWithoutWire()
        kernel = Kernel(self.host, FakeTunnels(self.host), KernelRefused, FakeParameters(self.host), NoPurger())
        config = Config(NodeName("a1"), settle_milliseconds=0.1)
        self.agent = Agent(config, kernel, SilentDatastore(), self.speaker, lambda block: block[1], Clock())
        self.speaker.changed = self.agent.bgp_changed
        self.agent.tell(*TWO_RACKS)

    async def settle(self) -> int:
        """Turn until a turn changes nothing; return how many turns that took."""
        for turns in range(10):
            before = len(self.host.written), len(self.speaker.told)
            await self.agent.turn()
            if (len(self.host.written), len(self.speaker.told)) == before:
                return turns
        raise AssertionError("it never comes to rest")

    async def begin(self, *announced: tuple[IPv4Address, int]) -> None:
        await self.settle()
        self.speaker.up(A2, B1)
        for peer, preference in announced:
            self.speaker.announce(peer, preference)
        await self.settle()

    async def row(self, prefix: RouteKey = PREFIX) -> tuple[str, str | None] | None:
        document = await self.agent.ask(partial(documents.routes, self.agent, prefix=str(prefix)))
        return next(((row["state"], row["reason"]) for row in document["routes"]), None)

    def written(self, since: int) -> list[tuple[Verb, Mode]]:
        """Return what was asked of the kernel about the prefix since so much was written."""
        name = route_codec.identity_of(PREFIX)
        return [
            (verb, mode)
            for verb, mode, body in self.host.written[since:]
            if verb in (Verb.NEW_ROUTE, Verb.DELETE_ROUTE) and route_codec.identity(body) == name
        ]

    @property
    def route(self) -> Route | None:
        return self.host.routes.get(PREFIX)


@in_a_loop
async def test_another_path_takes_over_while_no_route_leads_to_the_better_one_s_next_hop() -> None:
    node = Node()
    await node.begin((A2, 100), (B1, 200))
    assert node.route == BY_B1
    assert node.speaker.told == [NextHops({}, {A2: "eth0", B1: "eth0"})]
    before = len(node.host.written)
    node.host.foreign(Verb.DELETE_ROUTE, Mode.NONE, *DEFAULT)
    await node.agent.turn()
    assert node.route == BY_A2, "one turn does it all"
    assert node.written(before) == [(Verb.NEW_ROUTE, Mode.REPLACE | Mode.CREATE)], "it was never gone"
    await node.settle()
    assert node.speaker.told[1:] == [NextHops({B1: f"no route leads to next hop {B1}"}, {A2: "eth0"})]
    assert await node.row() == ("installed", None)
    node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, *DEFAULT)
    await node.settle()
    assert node.route == BY_B1
    assert node.speaker.told[2:] == [NextHops({}, {A2: "eth0", B1: "eth0"})]


@in_a_loop
async def test_a_prefix_that_nobody_can_be_reached_for_is_missing_with_the_reason_and_comes_back() -> None:
    node = Node()
    await node.begin((B1, 200))
    node.host.set_link("eth0", up=False)
    await node.settle()
    assert (node.route, node.speaker.speaker.loc_rib.best) == (None, {})
    assert await node.row() == ("missing", f"no route leads to next hop {B1}"), "the kernel dropped them with eth0"
    node.speaker.announce(A2, 100, IPv4Network("10.65.8.0/26"))
    await node.settle()
    assert await node.row(RouteKey(IPv4Network("10.65.8.0/26"))) == ("missing", "eth0 is down")
    node.host.set_link("eth0", up=True)
    node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, *DEFAULT)
    await node.settle()
    assert node.route == BY_B1
    assert len(node.speaker.speaker.loc_rib.best) == 2


@in_a_loop
async def test_a_better_path_to_nowhere_does_not_touch_the_route_that_there_is() -> None:
    node = Node()
    await node.begin((A2, 100))
    before = len(node.host.written)
    node.speaker.announce(B1, 200, next_hop="172.31.77.1")
    node.host.foreign(Verb.DELETE_ROUTE, Mode.NONE, *DEFAULT)
    await node.settle()
    assert node.route == BY_A2
    assert node.written(before) == []
    (row,) = (await node.agent.ask(partial(documents.routes, node.agent, prefix=str(PREFIX))))["routes"]
    assert (row["state"], row["from"]) == ("installed", f"bgp {A2}")


@in_a_loop
async def test_a_next_hop_is_told_when_it_is_new_and_nothing_is_told_twice() -> None:
    node = Node()
    await node.begin((A2, 100))
    node.speaker.announce(A2, 100, IPv4Network("10.65.8.0/26"))
    await node.settle()
    assert node.speaker.told == [NextHops({}, {A2: "eth0"})]
    node.speaker.announce(B1, 50)  # it loses, and is judged all the same
    await node.settle()
    assert node.speaker.told[1:] == [NextHops({}, {A2: "eth0", B1: "eth0"})]
    node.agent.stir()
    await node.settle()
    assert len(node.speaker.told) == 2


@in_a_loop
async def test_a_route_of_ours_makes_no_next_hop_reachable_and_a_stranger_s_does_where_we_want_one_too() -> None:
    """Next hop 10.65.9.1 is behind the very prefix that it is announced for: by our route, or by somebody else's."""
    node = Node()
    node.host.foreign(Verb.DELETE_ROUTE, Mode.NONE, *DEFAULT)
    await node.settle()
    node.speaker.up(A2)
    node.speaker.announce(A2, 100)
    node.speaker.announce(A2, 100, IPv4Network("10.65.8.0/26"), next_hop="10.65.9.1")
    other = RouteKey(IPv4Network("10.65.8.0/26"))
    await node.settle()
    assert node.route == BY_A2
    assert await node.row(other) == ("missing", "no route leads to next hop 10.65.9.1")
    node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, RouteKey(other.dst, metric=5), Route(device="eth0", protocol=4))
    await node.settle()
    assert await node.row(other) == ("missing", "no route leads to next hop 10.65.9.1")
    # Where it stands itself, a stranger's route is in our way, and leads there at the same time.
    node.speaker.announce(A2, 100, IPv4Network("10.65.7.0/26"), next_hop="10.65.7.1")
    own = RouteKey(IPv4Network("10.65.7.0/26"))
    node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, own, Route(device="eth0", protocol=4))
    await node.settle()
    state, reason = await node.row(own) or ("", "")
    assert (state, str(reason).partition(" (")[0]) == ("missing", "a route of protocol static stands there")


@in_a_loop
async def test_what_a_restarted_agent_finds_stays_although_no_next_hop_was_judged_yet() -> None:
    node = Node()
    await node.begin((B1, 200))
    again = Node()
    again.host = node.host
    kernel = Kernel(node.host, FakeTunnels(node.host), KernelRefused, FakeParameters(node.host), NoPurger())
    again.agent = Agent(again.agent.config, kernel, SilentDatastore(), again.speaker, lambda block: block[1], Clock())
    again.speaker.changed = again.agent.bgp_changed
    again.agent.tell(*TWO_RACKS)
    before = len(node.host.written)
    await again.settle()
    assert await again.row() == ("stale", "kept for graceful restart until BGP says it again")
    again.speaker.up(A2)
    await again.settle()
    again.speaker.announce(B1, 200)
    again.speaker.up(B1)
    await again.settle()
    assert await again.row() == ("installed", None)
    assert len(node.host.written) == before, "not a route was touched"


@in_a_loop
async def test_what_became_of_next_hops_is_logged_once_and_counted_where_they_are_many() -> None:
    node = Node()
    await node.begin((B1, 200))
    with capture_logs() as log:
        node.host.foreign(Verb.DELETE_ROUTE, Mode.NONE, *DEFAULT)
        await node.settle()
        node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, *DEFAULT)
        await node.settle()
    said = [each for each in log if each["event"].startswith("bgp.next_hop")]
    assert [(each["event"], each.get("reason", each.get("device"))) for each in said] == [
        ("bgp.next_hop.unreachable", f"no route leads to next hop {B1}"),
        ("bgp.next_hop.reachable", "eth0"),
    ]
    for number in range(150):
        prefix = IPv4Network("10.65.128.0/17").network_address + number * 64
        node.speaker.announce(B1, 100, IPv4Network(f"{prefix}/26"), next_hop=str(B1 + 1 + number))
    await node.settle()
    with capture_logs() as log:
        node.host.set_link("eth0", up=False)
        await node.settle()
    said = [each for each in log if each["event"].startswith("bgp.next_hop")]
    assert [(each["event"], each["unreachable"], each["reachable"]) for each in said] == [
        ("bgp.next_hops.changed", 151, 0)
    ]
