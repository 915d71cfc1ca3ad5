"""Pods that are attached ahead of the loop's turns: no turn takes their routes away, whatever it knew before."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from agent_node import POD, host, node
from builders import link
from fakes import FakeFilter, FakeHost
from loops import in_a_loop
from test_agent import pod
from test_power_cuts import allocations
from told import ToldSpeaker

from felix_py import kernel_thread
from felix_py.agent import Agent
from felix_py.cni.coming import Coming, ComingPods, Say
from felix_py.cni.request import Request
from felix_py.cni.spec import Command
from felix_py.kernel.objects import Route, RouteKey
from felix_py.kernel.wire import Mode, Verb
from felix_py.knowledge import Admitted
from felix_py.ledger import Attachment
from felix_py.model import Key, NodeName, WorkloadEndpoint
from felix_py.state import Absent
from felix_py.turn import Turns

NEW = pod("default/new", "cali1", "10.65.0.7/32")
ROUTE = RouteKey(NEW.networks[0])  # type: ignore[arg-type]
NEAR = ("10.65.0.7/32", "10.65.0.8/32", "10.65.0.9/32")


async def unfiltered() -> tuple[FakeHost, Agent]:
    """Return a host with an interface that is nobody's yet, and its agent, which has no packet filter to guard pods."""
    made = host(link("cali1"), link("cali22"), link("cali333"))
    agent = node(made, ToldSpeaker())
    agent.config = replace(agent.config, netfilter=False)
    await agent.turn()
    return made, agent


def attached(agent: Agent, *pods: WorkloadEndpoint) -> list[bool]:
    """Guard and route pods as who attaches them does: each that can be, without a turn."""
    found = agent.admit([(each, link(each.interface).index) for each in pods])
    done = iter(agent.attach([each for each in found if each is not None]))
    return [each is not None and next(done) for each in found]


@in_a_loop
async def test_a_turn_before_the_loop_has_heard_of_a_pod_leaves_its_route() -> None:
    made, agent = await unfiltered()
    assert await asyncio.to_thread(attached, agent, NEW) == [True]
    assert made.routes[ROUTE].device == "cali1"
    await agent.turn()
    assert made.routes[ROUTE].device == "cali1"
    agent.attached(NEW)
    await agent.turn()
    assert made.routes[ROUTE].device == "cali1"


@in_a_loop
async def test_a_pod_that_went_before_any_turn_has_no_route_after_one() -> None:
    made, agent = await unfiltered()
    assert await asyncio.to_thread(attached, agent, NEW) == [True]
    agent.attached(NEW)
    await agent.remove_endpoint(NEW.name)
    await agent.turn()
    assert ROUTE not in made.routes


@in_a_loop
async def test_an_address_that_another_pod_has_takes_a_turn() -> None:
    made, agent = await unfiltered()
    before = made.routes[POD]
    second = pod("default/second", "cali1", "10.65.0.5/32")
    assert await asyncio.to_thread(attached, agent, second) == [False]
    assert made.routes[POD] == before


@in_a_loop
async def test_of_several_each_is_routed_that_can_be() -> None:
    made, agent = await unfiltered()
    second = pod("default/second", "cali22", "10.65.0.8/32")
    third = pod("default/third", "cali333", "10.65.0.9/32")
    static = Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=4)
    made.foreign(Verb.NEW_ROUTE, Mode.CREATE, RouteKey(IPv4Network("10.65.0.8/32")), static)
    assert await asyncio.to_thread(attached, agent, NEW, second, third) == [True, False, True]
    devices = {str(key): route.device for key, route in made.routes.items() if str(key) in NEAR}
    assert devices == {"10.65.0.7/32": "cali1", "10.65.0.8/32": "eth0", "10.65.0.9/32": "cali333"}


@in_a_loop
async def test_a_turn_between_guard_and_route_does_not_leave_a_pod_without_a_guard() -> None:
    made, guard = host(link("cali1")), FakeFilter()
    agent = node(made, ToldSpeaker(), guard=guard)
    await agent.turn()
    (admitted,) = await asyncio.to_thread(agent.admit, [(NEW, link("cali1").index)])
    assert admitted is not None
    assert '"cali1"' in pods_of(guard)
    assert ROUTE not in made.routes, "it is not given any address yet"
    agent.stir()
    agent.tell(Absent(Key("WorkloadEndpoint", "default/nobody")))
    await agent.turn()
    assert '"cali1"' not in pods_of(guard), "the turn does not know of it, and takes the interface for nobody's"
    assert await asyncio.to_thread(agent.attach, [admitted]) == [True]
    assert '"cali1"' in pods_of(guard)
    assert made.routes[ROUTE].device == "cali1"
    await agent.turn()
    assert '"cali1"' in pods_of(guard)


def pods_of(guard: FakeFilter) -> frozenset[str]:
    assert guard.table is not None
    return guard.table.elements["pods"]


@in_a_loop
async def test_where_nobody_is_to_be_routed_no_turn_is_waited_for() -> None:
    _, agent = await unfiltered()
    busy, over = threading.Event(), threading.Event()

    def turning(_: Turns) -> None:
        busy.set()
        over.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_thread, "LONG_TURN", 60.0)
        asking = asyncio.create_task(agent.ask(turning))
        await asyncio.to_thread(busy.wait)
        try:
            assert await asyncio.wait_for(asyncio.to_thread(agent.attach, []), 10) == []
        finally:
            over.set()
            await asking


class Routed:
    """A node that routes whatever it is given."""

    node_name = NodeName("a1")

    def admit(self, pods: Sequence[tuple[WorkloadEndpoint, int]]) -> list[Admitted | None]:
        return [Admitted(pod, index, {}, 0) for pod, index in pods]

    def attach(self, pods: Sequence[Admitted]) -> list[bool]:
        return [True] * len(pods)

    def covers(self, endpoint: WorkloadEndpoint) -> bool:
        return endpoint.name != "borrower"


def test_an_answer_that_cannot_be_given_is_that_pods_failure_and_no_other_ones(tmp_path: Path) -> None:
    """The thread at the door goes on, whatever is wrong with one pod."""
    heard: list[Mapping[str, Any]] = []
    odd = Request(Command.ADD, "1.0.0", container_id="c1", interface="eth0", previous={"interfaces": [], "ips": 7})
    several = [coming(odd, refuse), coming(replace(odd, container_id="c2", previous={}), heard.append)]
    pods = ComingPods(Routed(), allocations(tmp_path), lambda _: None)
    pods._finish(several)
    pods.close()
    assert [str(each.failure) for each in several] == ["it cannot be said", "None"]
    assert [each.routed for each in several] == [True, True]
    assert len(heard) == 1


def test_who_has_an_address_that_others_have_to_be_told_of_is_urgent(tmp_path: Path) -> None:
    asked = Request(Command.ADD, "1.0.0", container_id="c1", interface="eth0")
    several = [coming(asked, lambda _: None) for _ in range(2)]
    several[0].admitted = Admitted(replace(NEW, name="borrower"), 7, {}, 0)
    pods = ComingPods(Routed(), allocations(tmp_path), lambda _: None)
    pods._finish(several)
    pods.close()
    assert [each.is_urgent for each in several] == [True, False]


def refuse(_: Mapping[str, Any]) -> None:
    raise ValueError("it cannot be said")


def coming(request: Request, say: Say) -> Coming:
    made = Attachment(request.container_id, "eth0", request.name, "cali1", (IPv4Address("10.65.0.7"),))
    return Coming(request, 1400, -1, say, 0.0, attachment=made, admitted=Admitted(NEW, 7, {}, 0))
