"""What Calico's own tests ask of a node whose kernel sockets fail; the numbers are theirs.

Events that are lost, tables that change while they are read, sockets that break, and a kernel that cannot be reached.
"""

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Network
from itertools import count

import pytest
from faulty_wire import Call, Failure, Fault, FaultyWire
from route_node import BLACKHOLE, CLUSTER, DEFAULT, POD, REMOTE, Lab, changes, lab, one_pod
from spaces import SECONDS, Space
from wire_lab import hosts

from felix_py.kernel import sysctl
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, KernelState, Route, RouteKey, Scope
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Family, Mode, Verb, Wire
from ipip.device import Device, TunnelRefused

pytestmark = pytest.mark.netns


@pytest.fixture
def made() -> Iterator[Lab]:
    with lab() as each:
        yield each


def test_15_events_that_found_no_room_are_made_good_without_one_deletion_too_many(made: Lab) -> None:
    running, _ = one_pod(made, event_buffer=4096)
    space, monitor = running.space, made.monitor(running, only=running.rtnetlink.port)
    wanted = space.routes()
    with space.do(strangers) as other:
        storm = space.do(hosts, 3000, STRANGE, first="10.200.0.0")
        assert other.write(Verb.NEW_ROUTE, Mode.CREATE | Mode.EXCLUSIVE, storm) == {}
        space.ip("route del 10.65.1.0/26", "route del 10.65.0.2")
        assert other.write(Verb.DELETE_ROUTE, Mode.NONE, storm) == {}
    assert running.until(lambda: space.routes() == wanted)
    running.settle()
    assert running.events("kernel.events_lost"), "the storm was large enough"
    assert sorted(changes(monitor)) == [("add", "10.65.0.2/32"), ("add", "10.65.1.0/26")]
    assert running.loud() == []


STRANGE = Route(device="eth0", scope=Scope.LINK, protocol=4)


def strangers() -> "closing[Rtnetlink]":
    """Return the sockets of another program."""
    return closing(Rtnetlink())


@contextmanager
def restless(space: Space) -> Iterator[None]:
    """Let another program add and delete routes between ours all the while."""
    routes = [f"10.0.{number}.128/32 dev eth0 proto static" for number in range(20)]
    lines = [f"route {verb} {each}\n" for verb in ("add", "del") for each in routes] * 100
    with tempfile.NamedTemporaryFile("w") as commands:
        commands.writelines(lines)
        commands.flush()
        # As long as it takes: how fast this machine is decides how long our turns last.
        command = ["sh", "-c", f"while ip -batch {commands.name}; do :; done"]
        with space.do(subprocess.Popen, command, start_new_session=True) as process:
            try:
                yield
                assert process.poll() is None, "nothing changed any more"
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def test_15_a_table_that_changes_while_it_is_read_costs_no_route(made: Lab) -> None:
    space = made.uplinked()
    wire = made.enter_context(space.do(strangers))
    kernel = space.do(engine, wire)
    prefixes = [IPv4Network(f"10.0.{high}.{low}/32") for high in range(20) for low in range(250) if low != 128]
    want = KernelState(dict.fromkeys(map(RouteKey, prefixes), Route(device="eth0", scope=Scope.LINK)))
    space.do(kernel.resync)
    space.do(kernel.make, want, 0.0)
    monitor = made.monitor(space, only=wire.port)
    lengths = set()

    def turn(now: float) -> None:
        kernel.catch_up(now)
        kernel.must_read("a test")
        kernel.resync()
        lengths.add(len(kernel.routes.books.fibs[Family.IPV4]))
        report = kernel.make(want, now)
        assert (report.routes.broken, report.routes.refused) == (None, {})

    deadline = time.monotonic() + 30
    with restless(space):
        for number in count():
            space.do(turn, float(number))
            if number >= 30 and len(lengths) > 3:  # the other one may have been kept from its processor
                break
            assert time.monotonic() < deadline, "the table did not change"
    space.do(turn, number + 100.0)
    assert monitor.events() == []
    assert len(space.routes("proto", "80")) == len(prefixes)
    assert space.do(lambda: kernel.routes.is_due(number + 101.0)) is False


class CountingWire(FaultyWire):
    """Counts how often it was opened anew."""

    reopened = 0

    def reopen(self) -> None:
        super().reopen()
        self.reopened += 1


BREAKS = [
    pytest.param(call, failure, id=f"{call}, {failure}")
    for call, failures in {
        Call.WRITE: (Failure.BROKEN_BEFORE, Failure.BROKEN_HALFWAY, Failure.BROKEN_AFTER, Failure.DEAD),
        Call.DUMP_ROUTES: (Failure.BROKEN_BEFORE, Failure.DEAD),
        Call.DUMP_NEXT_HOPS: (Failure.BROKEN_BEFORE, Failure.DEAD),
        Call.DUMP_LINKS: (Failure.BROKEN_BEFORE, Failure.DEAD),
        Call.EVENTS: (Failure.BROKEN_BEFORE, Failure.DEAD),
    }.items()
    for failure in failures
]


@pytest.mark.parametrize(("call", "failure"), BREAKS)
def test_16_a_socket_that_fails_once_is_opened_anew_once_and_no_other_route_suffers(
    made: Lab, call: Call, failure: Failure
) -> None:
    wires: list[CountingWire] = []

    def wrap(wire: Wire) -> Wire:
        wires.append(CountingWire(wire))
        return wires[-1]

    running, _ = one_pod(made, wrap=wrap)
    space, monitor, wire = running.space, made.monitor(running), wires[-1]
    third = made.pod(space, "cali3", "10.65.0.3")
    running.settle()
    wire.faults = [Fault(call, failure)]
    running.kernel.must_read("a test")
    running.tell(third.present("default/other"))
    space.ip("route del 10.65.1.0/26")
    other = "10.65.0.3 dev cali3 proto 80 scope link"
    assert running.until(lambda: space.routes() == {POD, BLACKHOLE, DEFAULT, REMOTE, other}, SECONDS), space.routes()
    running.settle()
    assert [fault.met for fault in wire.faults] == [1]
    assert wire.reopened == 1
    assert {seen.key for seen in monitor.events()} == {"10.65.0.3/32", "10.65.1.0/26"}
    assert [event["event"] for event in running.loud()] == ["kernel.broken"]


def test_17_a_kernel_that_cannot_be_reached_for_long_ends_the_agent(made: Lab) -> None:
    wires: list[FaultyWire] = []

    def wrap(wire: Wire) -> Wire:
        wires.append(FaultyWire(wire))
        return wires[-1]

    running, _ = one_pod(made, wrap=wrap)
    before = running.space.routes()
    wires[-1].faults = [
        Fault(Call.EVENTS, Failure.DEAD, times=None),
        Fault(Call.REOPEN, Failure.BROKEN_BEFORE, times=None),
    ]
    running.space.ip("route add 192.0.2.0/24 via 172.31.1.1")
    assert running.until(lambda: running.agent.picture.problems)
    running.pass_time(61)
    assert running.until(lambda: running.failure is not None, SECONDS)
    with pytest.raises(KernelRefused, match="this has lasted 60 s, so the agent ends, to be started anew"):
        raise running.failure or AssertionError
    assert before <= running.space.routes(), "it leaves everything as it is"
    assert len(running.events("kernel.broken")) == 1, "and does not say the same thing all the time"


def engine(wire: Wire) -> Kernel:
    """Return a kernel without an agent: for wishes that no setting of the agent makes yet."""
    return Kernel(wire, Device(), TunnelRefused, sysctl, NoPurger())


@pytest.mark.parametrize("steps", range(7))
def test_17_an_agent_that_is_stopped_at_the_very_moment_of_news_stops(made: Lab, steps: int) -> None:
    running = made.node(*CLUSTER)

    async def both() -> bool:
        running.agent.stir()
        for _ in range(steps):  # of the loop, between the news and the end
            await asyncio.sleep(0)
        running.task.cancel()
        await asyncio.wait([running.task], timeout=2)
        return running.task.done()

    assert running.in_loop(both())
