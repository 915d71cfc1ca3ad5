"""The loop of one node on a kernel in memory, with a speaker and a clock that tests drive."""

import asyncio
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from builders import TWO_RACKS, link
from fakes import FakeFilter, FakeHost, FakeParameters, FakeTunnels
from told import SilentDatastore, ToldSpeaker

from felix_py.agent import Agent
from felix_py.config import Config
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, Link, Route, RouteKey, Scope
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.wire import Mode, Verb
from felix_py.model import NodeName

POD = RouteKey(IPv4Network("10.65.0.5/32"))
BLOCK = RouteKey(IPv4Network("10.65.0.0/26"))
REMOTE = RouteKey(IPv4Network("10.65.1.0/26"))
DIRECT = Route(via=IPv4Address("172.31.1.12"), device="eth0", onlink=True)
POD_LINK = "cali0000000web0"
POD_ROUTE = Route(device=POD_LINK, scope=Scope.LINK)


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


def node(made: FakeHost, speaker: ToldSpeaker, clock: Clock | None = None, guard: FakeFilter | None = None) -> Agent:
    kernel = Kernel(made, FakeTunnels(made), KernelRefused, FakeParameters(made), NoPurger(), netfilter=guard)
    config = Config(NodeName("a1"), settle_milliseconds=0.1)
    agent = Agent(config, kernel, SilentDatastore(), speaker, lambda block: block[1], clock or Clock())
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
