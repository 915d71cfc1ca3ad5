"""What the kernel tells amid pods that come one after the other, and whether it asks for a turn at once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from agent_node import POD, POD_LINK, POD_ROUTE, host, node
from builders import link
from fakes import FakeHost
from loops import in_a_loop
from test_coming_pods import NEW, ROUTE, attached
from told import ToldSpeaker

from felix_py.agent import Agent
from felix_py.kernel.objects import Route, Scope
from felix_py.kernel.wire import Mode, Verb


async def amid_pods() -> tuple[FakeHost, Agent]:
    """Return a host with a pod that turns know, and one more that was guarded and routed since the last turn."""
    made = host()
    agent = node(made, ToldSpeaker())
    agent.config = replace(agent.config, netfilter=False)
    await agent.turn()
    await agent.turn()
    made.add_link(link("cali1"))
    assert await asyncio.to_thread(attached, agent, NEW) == [True]
    return made, agent


@in_a_loop
async def test_a_pod_that_was_guarded_and_routed_needs_no_turn() -> None:
    _, agent = await amid_pods()
    assert await agent._kernel.calm()


@in_a_loop
async def test_nor_does_an_interface_that_nobody_has_told_of_yet() -> None:
    made, agent = await amid_pods()
    made.add_link(link("cali22"))
    assert await agent._kernel.calm()


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(lambda made: made.foreign(Verb.DELETE_ROUTE, Mode.NONE, POD, POD_ROUTE), id="a route is deleted"),
        pytest.param(
            lambda made: made.foreign(Verb.DELETE_ROUTE, Mode.NONE, ROUTE, Route(device="cali1", scope=Scope.LINK)),
            id="the new pod's route is deleted",
        ),
        pytest.param(lambda made: made.set_link(POD_LINK, mtu=1300), id="a pod's MTU is changed"),
        pytest.param(lambda made: made.delete_link(POD_LINK), id="a pod's interface goes"),
        pytest.param(lambda made: made.delete_link("cali1"), id="the new pod's interface goes"),
        pytest.param(lambda made: made.set_link("eth0", running=False), id="the uplink loses its carrier"),
        pytest.param(lambda made: made.add_address("eth0", "172.31.9.1/24"), id="the uplink has one more address"),
        pytest.param(lambda made: made.change_parameter("net/ipv4/conf/all/forwarding", "0"), id="no more forwarding"),
        pytest.param(lambda made: made.overflow(), id="events are lost"),
    ],
)
@in_a_loop
async def test_whatever_somebody_does_asks_for_a_turn_at_once(happens: Callable[[FakeHost], object]) -> None:
    made, agent = await amid_pods()
    assert await agent._kernel.calm()
    happens(made)
    assert not await agent._kernel.calm()
