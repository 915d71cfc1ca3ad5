"""The loop on a kernel in memory and a fake speaker: turns, repairs, waiting pods, refusals, restarts, dead sockets."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from agent_node import (
    BLOCK,
    DIRECT,
    POD,
    POD_LINK,
    POD_ROUTE,
    REMOTE,
    Clock,
    host,
    node,
    pod_routes,
    running,
)
from builders import TWO_RACKS, link
from fakes import FakeHost, FakeParameters, FakeTunnels
from loops import in_a_loop
from told import SilentDatastore, ToldSpeaker

from felix_py import documents
from felix_py.agent import Agent
from felix_py.config import Config
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, Route, RouteKey, RouteType, Scope
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.wire import Mode, Refusal, Verb, WireBroken
from felix_py.model import FelixConfiguration, Key, NodeName, WorkloadEndpoint
from felix_py.state import Present


def test_the_first_turn_makes_it_so_and_the_second_writes_nothing() -> None:
    made, speaker = host(), ToldSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")

    async def scenario() -> int:
        agent = node(made, speaker)
        await agent.turn()
        after_first = len(made.written)
        await agent.turn()
        return after_first

    written = asyncio.run(scenario())
    assert pod_routes(made) == {POD: POD_ROUTE, BLOCK: Route(RouteType.BLACKHOLE), REMOTE: DIRECT}
    assert len(made.written) == written == 3


def test_a_restarted_agent_writes_nothing_before_bgp_has_converged() -> None:
    made, speaker = host(), ToldSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")

    async def life(speaker: ToldSpeaker) -> None:
        await node(made, speaker).turn()

    asyncio.run(life(speaker))
    before = len(made.written)
    asyncio.run(life(ToldSpeaker(done=False)))
    assert made.written[before:] == []
    asyncio.run(life(ToldSpeaker(done=True)))
    assert REMOTE not in made.routes, "once BGP has converged, a path that nobody announced is gone"


@in_a_loop
async def test_a_restarted_agent_takes_no_other_path_before_every_peer_has_spoken() -> None:
    made, before, after = host(), ToldSpeaker(), ToldSpeaker(done=False, chooses=False)
    before.learn("10.65.1.0/26", "172.31.1.12")
    after.learn("10.65.1.0/26", "172.31.1.13")
    await node(made, before).turn()
    agent = node(made, after)
    await agent.turn()
    assert made.routes[REMOTE] == DIRECT
    after.chooses = True
    agent.bgp_changed()
    await agent.turn()
    assert made.routes[REMOTE] == replace(DIRECT, via=IPv4Address("172.31.1.13"))


@in_a_loop
async def test_what_a_restarted_agent_has_heard_and_lost_again_is_not_kept() -> None:
    made, before, after = host(), ToldSpeaker(), ToldSpeaker(done=False)
    before.learn("10.65.1.0/26", "172.31.1.12")
    after.learn("10.65.1.0/26", "172.31.1.12")
    await node(made, before).turn()
    agent = node(made, after)
    await agent.turn()
    assert made.routes[REMOTE] == DIRECT
    after.paths.clear()
    agent.bgp_changed()
    await agent.turn()
    assert REMOTE not in made.routes
    assert BLOCK in made.routes


def test_a_repair_is_counted_by_its_cause() -> None:
    made = host()

    async def scenario() -> Agent:
        agent = node(made, ToldSpeaker())
        await agent.turn()
        made.foreign(Verb.DELETE_ROUTE, Mode.NONE, POD, POD_ROUTE)
        agent.stir()
        await agent.turn()
        return agent

    agent = asyncio.run(scenario())
    assert made.routes[POD] == POD_ROUTE
    assert agent.repairs == {"route deleted": 1}


def test_nothing_happens_before_the_datastore_is_in_sync() -> None:
    made = host()

    async def scenario() -> Agent:
        kernel = Kernel(made, FakeTunnels(made), KernelRefused, FakeParameters(made), NoPurger())
        agent = Agent(Config(NodeName("a1")), kernel, SilentDatastore(), ToldSpeaker(), lambda _: None)
        agent.tell(*TWO_RACKS[:-1])
        await agent.turn()
        return agent

    agent = asyncio.run(scenario())
    assert made.written == []
    assert agent.not_ready() == "node a1 is not in sync yet; see `felixctl status`"


def pod(name: str, interface: str, address: str) -> WorkloadEndpoint:
    return WorkloadEndpoint(name, NodeName("a1"), interface, (IPv4Network(address),))


@in_a_loop
async def test_a_pod_is_answered_for_when_its_route_stands() -> None:
    made = host(link("cali1"))
    agent = node(made, ToldSpeaker())
    await running(agent, lambda: agent.put_endpoint(pod("default/new", "cali1", "10.65.0.7/32")))
    assert made.routes[RouteKey(IPv4Network("10.65.0.7/32"))].device == "cali1"


@in_a_loop
async def test_a_pod_that_takes_over_an_address_waits_for_its_own_route() -> None:
    made = host(link("cali1"))
    agent = node(made, ToldSpeaker())
    await agent.turn()
    assert made.routes[POD] == POD_ROUTE
    await running(agent, lambda: agent.put_endpoint(pod("default/web-0", "cali1", "10.65.0.5/32")))
    assert made.routes[POD].device == "cali1"


class ReadOnlyHost(FakeHost):
    """Refuses every route, as a kernel does to a process without CAP_NET_ADMIN."""

    def write(self, _verb: Verb, _mode: Mode, bodies: Iterable[bytes]) -> Mapping[int, Refusal]:
        refusal = Refusal(1, "Operation not permitted")
        return {position: refusal for position, _ in enumerate(bodies)}


@in_a_loop
async def test_a_pod_whose_route_is_refused_gets_the_kernels_reason() -> None:
    made = ReadOnlyHost(link("eth0", "172.31.1.11/24"), link("cali1"))
    agent = node(made, ToldSpeaker())
    with pytest.raises(KernelRefused, match="default/new: Operation not permitted; tried again in"):
        await running(agent, lambda: agent.put_endpoint(pod("default/new", "cali1", "10.65.0.7/32")))


def test_routes_and_status_tell_the_same_story() -> None:
    made, speaker = host(), ToldSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")

    async def scenario() -> tuple[documents.Document, documents.Document]:
        agent = node(made, speaker)
        await agent.turn()
        made.set_link(POD_LINK, up=False)
        await agent.turn()
        routes = await agent.ask(partial(documents.routes, agent))
        return routes, await agent.ask(partial(documents.status, agent, extra={}, problems=()))

    routes, status = asyncio.run(scenario())
    rows = {row["prefix"]: (row["kind"], row["state"], row["reason"]) for row in routes["routes"]}
    assert rows == {
        "10.65.0.0/26": ("blackhole", "installed", None),
        "10.65.0.5/32": ("workload", "missing", "cali0000000web0 is down"),
        "10.65.1.0/26": ("remote", "installed", None),
    }
    assert status["problems"] == ["10.65.0.5/32 is missing: cali0000000web0 is down"]
    assert not status["healthy"]


class DeadHost(FakeHost):
    """A kernel whose socket is dead until it is opened anew, and for as long after that as a test says."""

    dead = False
    refuses_to_open = False

    def events(self) -> Any:
        if self.dead:
            raise WireBroken("reading events failed: Bad file descriptor")
        return super().events()

    def reopen(self) -> None:
        if self.refuses_to_open:
            raise WireBroken("opening a route socket failed: Too many open files")
        self.dead = False
        super().reopen()


def test_a_dead_socket_is_opened_anew_and_what_happened_meanwhile_is_repaired() -> None:
    made = DeadHost(link("eth0", "172.31.1.11/24"), link(POD_LINK))

    async def scenario() -> Agent:
        agent = node(made, ToldSpeaker())
        await agent.turn()
        made.foreign(Verb.DELETE_ROUTE, Mode.NONE, POD, POD_ROUTE)
        made.dead = True
        assert await agent.turn() == 0.1
        assert agent.picture.problems == ("reading events failed: Bad file descriptor",)
        await agent.turn()
        return agent

    agent = asyncio.run(scenario())
    assert made.routes[POD] == POD_ROUTE
    assert agent.picture.problems == ()
    assert agent.repairs == {"socket failed": 1}


@in_a_loop
async def test_a_kernel_that_stays_unreadable_ends_the_agent_with_the_reason() -> None:
    made, clock = DeadHost(link("eth0", "172.31.1.11/24")), Clock()
    made.dead = made.refuses_to_open = True
    agent = node(made, ToldSpeaker(), clock)
    pauses = [await agent.turn() for _ in range(9)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    clock.now += 61
    with pytest.raises(KernelRefused, match="Too many open files; this has lasted 60 s, so the agent ends"):
        await agent.turn()


def test_everything_is_read_back_when_its_time_has_come() -> None:
    made, clock = host(), Clock()

    async def scenario() -> float:
        agent = node(made, ToldSpeaker(), clock)
        await agent.turn()
        made.foreign(Verb.DELETE_ROUTE, Mode.NONE, POD, POD_ROUTE)
        made.events()  # nobody told us
        await agent.turn()
        assert POD not in made.routes
        clock.now += 60
        pause = await agent.turn()
        assert agent.repairs == {"resync": 1}
        return pause

    assert asyncio.run(scenario()) == 60
    assert made.routes[POD] == POD_ROUTE


def test_the_plan_names_what_is_in_the_way_and_what_is_waited_for() -> None:
    made, speaker = host(), ToldSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")
    static = Route(via=IPv4Address("172.31.1.99"), device="eth0", protocol=4)
    made.foreign(Verb.NEW_ROUTE, Mode.CREATE, REMOTE, static)
    made.set_link(POD_LINK, up=False)

    async def scenario() -> list[documents.Document]:
        agent = node(made, speaker)
        await agent.turn()
        steps: list[documents.Document] = (await agent.planned(documents.plan))["steps"]
        return steps

    rows = {row["object"]: (row["action"], row["when"]) for row in asyncio.run(scenario())}
    assert rows == {
        "10.65.1.0/26": (
            "leave route",
            (
                "waits: a route of protocol static stands there (via 172.31.1.99 dev eth0); "
                "remove it with `ip route del 10.65.1.0/26 proto static`"
            ),
        ),
        "10.65.0.5/32": ("add route", "waits: cali0000000web0 is down"),
    }
    assert made.routes[REMOTE] == static


def test_what_the_kernel_holds_is_ours_or_foreign_by_the_same_rule_that_removes_it() -> None:
    made = host()
    stray = RouteKey(IPv4Network("10.65.0.9/32"))
    settings = FelixConfiguration(remove_external_routes=False)

    async def scenario() -> dict[str, str]:
        agent = node(made, ToldSpeaker())
        agent.tell(Present(Key("FelixConfiguration", "default"), settings))
        await agent.turn()
        made.foreign(Verb.NEW_ROUTE, Mode.CREATE, stray, Route(device=POD_LINK, scope=Scope.LINK, protocol=4))
        await agent.turn()
        rows = (await agent.ask(partial(documents.routes, agent, which="kernel")))["routes"]
        return {row["prefix"]: row["state"] for row in rows}

    states = asyncio.run(scenario())
    assert states["10.65.0.9/32"] == "foreign", "removeExternalRoutes is false, so it is not ours to remove"
    assert states["10.65.0.5/32"] == "installed"
    assert made.routes[stray].protocol == 4
