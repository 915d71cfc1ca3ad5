"""A turn takes what has happened bit by bit, and lets pods in that wait for the kernel."""

import asyncio
import threading
import time
from ipaddress import IPv4Address, IPv4Network

import pytest
from agent_node import host, node
from builders import link
from fakes import FakeFilter, FakeHost, FakeParameters, FakeTunnels
from loops import in_a_loop
from test_agent import pod
from told import ToldSpeaker

from felix_py import kernel_thread
from felix_py.kernel.kernel import Kernel, News
from felix_py.kernel.objects import KernelRefused, Route, RouteKey
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.wire import Mode, Verb
from felix_py.kernel_thread import InTurn
from felix_py.model import Key
from felix_py.state import Absent

NEW = pod("default/new", "cali1", "10.65.0.7/32")
VIA = Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=4)
SECONDS = 10.0


def disturbed() -> tuple[FakeHost, Kernel]:
    """Return a host on which somebody has made five routes since it was read."""
    made = host()
    kernel = Kernel(made, FakeTunnels(made), KernelRefused, FakeParameters(made), NoPurger())
    kernel.catch_up(0.0)
    kernel.resync()
    for number in range(5):
        made.foreign(Verb.NEW_ROUTE, Mode.CREATE, RouteKey(IPv4Network(f"10.9.{number}.0/24")), VIA)
    return made, kernel


def test_what_has_happened_is_taken_in_parts_as_it_is_at_once() -> None:
    (_, whole), (_, parts) = disturbed(), disturbed()
    at_once, taken = whole.catch_up(0.0), [parts.catch_up(0.0, 2)]
    while parts.is_behind():
        taken.append(parts.catch_up(0.0, 2))
    assert [each.events for each in taken] == [2, 2, 1]
    assert News().and_then(taken[0]).and_then(taken[1]).and_then(taken[2]) == at_once
    assert routes(parts) == routes(whole)


def routes(kernel: Kernel) -> set[bytes]:
    return {body for fib in kernel.routes.books.fibs.values() for body in fib}


def test_a_turn_takes_what_was_left_before_what_comes_after() -> None:
    made, kernel = disturbed()
    kernel.catch_up(0.0, 2)
    gone = RouteKey(IPv4Network("10.9.4.0/24"))
    made.foreign(Verb.DELETE_ROUTE, Mode.NONE, gone, VIA)
    assert kernel.catch_up(0.0).events == 4
    assert not kernel.is_behind()
    assert not any(bytes([10, 9, 4, 0]) in body for body in routes(kernel))


def test_whoever_waits_comes_before_who_gave_it_back() -> None:
    lock, order = InTurn(), list[str]()

    def come() -> None:
        with lock:
            order.append("pod")

    lock.acquire()
    coming = threading.Thread(target=come)
    coming.start()
    until = time.monotonic() + SECONDS
    while not lock._next.locked():
        assert time.monotonic() < until
    lock.release()
    with lock:
        order.append("turn")
    coming.join()
    assert order == ["pod", "turn"]


def test_nobody_waits_longer_than_it_says() -> None:
    lock = InTurn()
    lock.acquire()
    assert not lock.acquire(timeout=0.01)
    lock.release()
    assert lock.acquire(timeout=0.01)


@in_a_loop
async def test_a_turn_lets_a_pod_be_routed_that_is_guarded_already() -> None:
    made, guard = host(link("cali1")), FakeFilter()
    agent = node(made, ToldSpeaker(), guard=guard)
    await agent.turn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_thread, "MOMENT", SECONDS)
        (admitted,) = await asyncio.to_thread(agent.admit, [(NEW, link("cali1").index)])
        assert admitted is not None
        before = len(guard.written)
        agent.tell(Absent(Key("WorkloadEndpoint", "default/nobody")))
        turning = asyncio.create_task(agent.turn())
        assert await asyncio.to_thread(agent.attach, [admitted]) == [True]
        await turning
    assert [each for each in guard.written[before:] if each is None or '"cali1"' not in each.elements["pods"]] == []
    assert made.routes[RouteKey(NEW.networks[0])].device == "cali1"  # type: ignore[arg-type]
