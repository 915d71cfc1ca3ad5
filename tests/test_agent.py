"""The loop against a fake kernel and a fake speaker: turns, repairs, waiting pods, refusals, restarts."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

import pytest
from builders import TWO_RACKS, link, links
from fakes import FakeKernel

from felix_py import documents
from felix_py.agent import Agent
from felix_py.config import Config
from felix_py.kernel.objects import KernelRefused, PutRoute, Route, RouteKey, RouteType, Scope
from felix_py.model import NodeName, WorkloadEndpoint
from felix_py.state import Event

POD = RouteKey(IPv4Network("10.65.0.5/32"))
BLOCK = RouteKey(IPv4Network("10.65.0.0/26"))
REMOTE = RouteKey(IPv4Network("10.65.1.0/26"))
DIRECT = Route(via=IPv4Address("172.31.1.12"), device="eth0", onlink=True)


@dataclass
class FakeSpeaker:
    """BGP as the loop sees it: paths, and whether their absence means something."""

    paths: dict[IPv4Network, Any] = field(default_factory=dict)
    done: bool = True
    configured: Any = None

    def configure(self, settings: Any) -> None:
        self.configured = settings

    def best_paths(self) -> Mapping[IPv4Network, Any]:
        return self.paths

    def peer_name(self, path: Any) -> str:
        return str(path.path.peer)

    def converged(self) -> bool:
        return self.done

    def learn(self, prefix: str, next_hop: str) -> None:
        attributes = SimpleNamespace(next_hop=IPv4Address(next_hop))
        path = SimpleNamespace(attributes=attributes, stale=False, peer=next_hop)
        self.paths[IPv4Network(prefix)] = SimpleNamespace(path=path)


class NoDatastore:
    """A datastore that never says anything; tests tell the agent themselves."""

    faults: tuple[str, ...] = ()

    async def events(self) -> AsyncIterator[tuple[Event, ...]]:
        await asyncio.Event().wait()
        yield ()


def node(kernel: FakeKernel, speaker: FakeSpeaker) -> Agent:
    agent = Agent(
        Config(NodeName("a1"), settle_milliseconds=0.1), kernel, NoDatastore(), speaker, lambda block: block[1]
    )
    agent.tell(*TWO_RACKS)
    return agent


def host() -> FakeKernel:
    default = {RouteKey(IPv4Network("0.0.0.0/0")): Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)}
    return FakeKernel(links(link("lo"), link("eth0", "172.31.1.11/24"), link("cali0000000web0")), default)


def test_the_first_turn_makes_it_so_and_the_second_writes_nothing() -> None:
    kernel, speaker = host(), FakeSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")

    async def scenario() -> int:
        agent = node(kernel, speaker)
        await agent.turn()
        after_first = len(kernel.writes)
        await agent.turn()
        return after_first

    written = asyncio.run(scenario())
    assert kernel.routes[POD] == Route(device="cali0000000web0", scope=Scope.LINK)
    assert kernel.routes[BLOCK] == Route(RouteType.BLACKHOLE)
    assert kernel.routes[REMOTE] == DIRECT
    assert len(kernel.writes) == written


def test_a_restarted_agent_writes_nothing_before_bgp_has_converged() -> None:
    kernel, speaker = host(), FakeSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")

    async def life(speaker: FakeSpeaker) -> None:
        await node(kernel, speaker).turn()

    asyncio.run(life(speaker))
    before = len(kernel.writes)
    asyncio.run(life(FakeSpeaker(done=False)))
    assert kernel.writes[before:] == []
    asyncio.run(life(FakeSpeaker(done=True)))
    assert REMOTE not in kernel.routes, "once BGP has converged, a path that nobody announced is gone"


def test_a_repair_is_counted_by_its_cause() -> None:
    kernel, speaker = host(), FakeSpeaker()

    async def scenario() -> Agent:
        agent = node(kernel, speaker)
        await agent.turn()
        del kernel.routes[POD]
        agent.wake("route deleted")
        await agent.turn()
        return agent

    agent = asyncio.run(scenario())
    assert POD in kernel.routes
    assert agent.repairs == {"route deleted": 1}


def test_nothing_happens_before_the_datastore_is_in_sync() -> None:
    kernel = host()

    async def scenario() -> Agent:
        agent = Agent(Config(NodeName("a1")), kernel, NoDatastore(), FakeSpeaker(), lambda _: None)
        agent.tell(*TWO_RACKS[:-1])
        await agent.turn()
        return agent

    agent = asyncio.run(scenario())
    assert kernel.writes == []
    assert agent.not_ready() == "node a1 is not in sync yet; see `felixctl status`"


def running(agent: Agent, then: Any) -> Any:
    async def scenario() -> Any:
        loop = asyncio.create_task(agent.run())
        try:
            return await then()
        finally:
            loop.cancel()

    return scenario()


def pod(name: str, interface: str, address: str) -> WorkloadEndpoint:
    return WorkloadEndpoint(name, NodeName("a1"), interface, (IPv4Network(address),))


def test_a_pod_is_answered_for_when_its_route_stands() -> None:
    kernel = host()

    async def scenario() -> None:
        agent = node(kernel, FakeSpeaker())
        kernel.interfaces["cali1"] = link("cali1")
        await running(agent, lambda: agent.put_endpoint(pod("default/new", "cali1", "10.65.0.7/32")))

    asyncio.run(scenario())
    assert kernel.routes[RouteKey(IPv4Network("10.65.0.7/32"))].device == "cali1"


def test_a_pod_that_takes_over_an_address_waits_for_its_own_route() -> None:
    kernel = host()
    kernel.routes[POD] = Route(device="cali0000000web0", scope=Scope.LINK)

    async def scenario() -> None:
        agent = node(kernel, FakeSpeaker())
        kernel.interfaces["cali1"] = link("cali1")
        await agent.turn()
        await running(agent, lambda: agent.put_endpoint(pod("default/web-0", "cali1", "10.65.0.5/32")))

    asyncio.run(scenario())
    assert kernel.routes[POD].device == "cali1"


@dataclass
class ReadOnlyKernel(FakeKernel):
    """Refuses every route, as a kernel does to a process without CAP_NET_ADMIN."""

    def _refusal(self, step: Any) -> str | None:
        return "not permitted; run as root" if isinstance(step, PutRoute) else None


def test_a_pod_whose_route_is_refused_gets_the_kernels_reason() -> None:
    kernel = ReadOnlyKernel(links(link("lo"), link("eth0", "172.31.1.11/24"), link("cali1")))

    async def scenario() -> None:
        agent = node(kernel, FakeSpeaker())
        with pytest.raises(KernelRefused, match="default/new: not permitted; run as root"):
            await running(agent, lambda: agent.put_endpoint(pod("default/new", "cali1", "10.65.0.7/32")))

    asyncio.run(scenario())


def test_routes_and_status_tell_the_same_story() -> None:
    kernel, speaker = host(), FakeSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")

    async def scenario() -> Agent:
        agent = node(kernel, speaker)
        await agent.turn()
        kernel.interfaces["cali0000000web0"] = link("cali0000000web0", up=False)
        del kernel.routes[POD]
        await agent.turn()
        return agent

    agent = asyncio.run(scenario())
    rows = {row["prefix"]: (row["kind"], row["state"], row["reason"]) for row in documents.routes(agent)["routes"]}
    assert rows == {
        "10.65.0.0/26": ("blackhole", "installed", None),
        "10.65.0.5/32": ("workload", "missing", "cali0000000web0 is down"),
        "10.65.1.0/26": ("remote", "installed", None),
    }
    status = documents.status(agent, {}, ())
    assert status["problems"] == ["10.65.0.5/32 is missing: cali0000000web0 is down"]
    assert not status["healthy"]
