"""The loop of one node on a kernel in memory, with a speaker and a clock that tests drive."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

from builders import TWO_RACKS, link
from fakes import FakeHost, FakeParameters, FakeTunnels

from bgp.speaker_words import NextHops
from felix_py.agent import Agent
from felix_py.config import Config
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, Link, Route, RouteKey, Scope
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.wire import Mode, Verb
from felix_py.model import NodeName
from felix_py.state import Event

POD = RouteKey(IPv4Network("10.65.0.5/32"))
BLOCK = RouteKey(IPv4Network("10.65.0.0/26"))
REMOTE = RouteKey(IPv4Network("10.65.1.0/26"))
DIRECT = Route(via=IPv4Address("172.31.1.12"), device="eth0", onlink=True)
POD_LINK = "cali0000000web0"
POD_ROUTE = Route(device=POD_LINK, scope=Scope.LINK)


@dataclass
class FakeSpeaker:
    """BGP as the loop sees it: paths, and whether their absence means something."""

    paths: dict[IPv4Network, Any] = field(default_factory=dict)
    done: bool = True
    chooses: bool = True
    configured: Any = None
    told: list[NextHops] = field(default_factory=list)

    def configure(self, settings: Any) -> None:
        self.configured = settings

    def best_paths(self) -> Mapping[IPv4Network, Any]:
        return self.paths

    def changes(self) -> None:
        """Say that everything may have changed."""

    def peer_name(self, path: Any) -> str:
        return str(path.path.peer)

    def converged(self) -> bool:
        return self.done

    def selecting(self) -> bool:
        return self.done or self.chooses

    def next_hops(self) -> frozenset[IPv4Address]:
        return frozenset(each.path.attributes.next_hop for each in self.paths.values())

    def tell(self, event: NextHops) -> None:
        self.told.append(event)

    def learn(self, prefix: str, next_hop: str) -> None:
        attributes = SimpleNamespace(next_hop=IPv4Address(next_hop))
        path = SimpleNamespace(attributes=attributes, stale=False, peer=next_hop)
        self.paths[IPv4Network(prefix)] = SimpleNamespace(path=path, equal=())


class NoDatastore:
    """A datastore that never says anything; tests tell the agent themselves."""

    faults: tuple[str, ...] = ()

    async def events(self) -> AsyncIterator[tuple[Event, ...]]:
        await asyncio.Event().wait()
        yield ()


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def host(*more: Link) -> FakeHost:
    """Return node a1 of TWO_RACKS with the interface of its pod, and a default route."""
    made = FakeHost(link("eth0", "172.31.1.11/24"), link(POD_LINK), *more)
    gateway = Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)
    made.foreign(Verb.NEW_ROUTE, Mode.CREATE, RouteKey(IPv4Network("0.0.0.0/0")), gateway)
    return made


def node(made: FakeHost, speaker: FakeSpeaker, clock: Clock | None = None) -> Agent:
    kernel = Kernel(made, FakeTunnels(made), KernelRefused, FakeParameters(made), NoPurger())
    config = Config(NodeName("a1"), settle_milliseconds=0.1)
    agent = Agent(config, kernel, NoDatastore(), speaker, lambda block: block[1], clock or Clock())
    agent.tell(*TWO_RACKS)
    return agent


def pod_routes(made: FakeHost) -> dict[RouteKey, Route]:
    """Return what stands in the pool's range."""
    pool = IPv4Network("10.65.0.0/16")
    return {key: route for key, route in made.routes.items() if key.dst.version == 4 and key.dst.subnet_of(pool)}


def running(agent: Agent, then: Any) -> Any:
    async def scenario() -> Any:
        loop = asyncio.create_task(agent.run())
        try:
            return await then()
        finally:
            loop.cancel()

    return scenario()
