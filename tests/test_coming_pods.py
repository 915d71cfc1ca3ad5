"""Pods that are attached ahead of the loop's turns: no turn takes their routes away, whatever it knew before."""

import asyncio
from dataclasses import replace

from agent_node import POD, host, node
from builders import link
from fakes import FakeHost
from loops import in_a_loop
from test_agent import pod
from told import ToldSpeaker

from felix_py.agent import Agent
from felix_py.kernel.objects import RouteKey

NEW = pod("default/new", "cali1", "10.65.0.7/32")
ROUTE = RouteKey(NEW.networks[0])  # type: ignore[arg-type]


async def unfiltered() -> tuple[FakeHost, Agent]:
    """Return a host with an interface that is nobody's yet, and its agent, which has no packet filter to guard pods."""
    made = host(link("cali1"))
    agent = node(made, ToldSpeaker())
    agent.config = replace(agent.config, netfilter=False)
    await agent.turn()
    return made, agent


@in_a_loop
async def test_a_turn_before_the_loop_has_heard_of_a_pod_leaves_its_route() -> None:
    made, agent = await unfiltered()
    assert await asyncio.to_thread(agent.attach, NEW, link("cali1").index)
    assert made.routes[ROUTE].device == "cali1"
    await agent.turn()
    assert made.routes[ROUTE].device == "cali1"
    agent.attached(NEW)
    await agent.turn()
    assert made.routes[ROUTE].device == "cali1"


@in_a_loop
async def test_a_pod_that_went_before_any_turn_has_no_route_after_one() -> None:
    made, agent = await unfiltered()
    assert await asyncio.to_thread(agent.attach, NEW, link("cali1").index)
    agent.attached(NEW)
    await agent.remove_endpoint(NEW.name)
    await agent.turn()
    assert ROUTE not in made.routes


@in_a_loop
async def test_an_address_that_another_pod_has_takes_a_turn() -> None:
    made, agent = await unfiltered()
    before = made.routes[POD]
    second = pod("default/second", "cali1", "10.65.0.5/32")
    assert not await asyncio.to_thread(agent.attach, second, link("cali1").index)
    assert made.routes[POD] == before
