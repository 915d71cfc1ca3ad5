"""An hour of changes in one process, compressed: 100,000 and more routes written, nothing lost, nothing left behind."""

import gc
import queue
import statistics
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from wire_lab import SECONDS, in_a_namespace, ip

from felix_py.kernel import sysctl
from felix_py.kernel.conntrack import Conntrack
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import MAIN_TABLE, KernelState, Route, RouteKey, RouteType, Scope
from felix_py.kernel.route_codec import Encoder, decode
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Family, Mode, Verb
from felix_py.model import IPAddress
from ipip.device import Device, TunnelRefused

pytestmark = pytest.mark.netns

HELD, CHANGED = 3000, 1200
"""Routes that are held, and how many of them each step changes."""

CYCLES = 24
"""Each writes some 4,900 routes."""

SECONDS_A_STEP = 6.0
"""By the engine's clock: between two steps of ours a disturbance is half forgotten."""

NEXT_HOPS = tuple(Route(via=IPv4Address(f"172.31.1.{last}"), device="eth0", onlink=True) for last in range(12, 20))
PODS = tuple(Route(device=f"cali{number}", scope=Scope.LINK) for number in (1, 2))
STRANGE = Route(RouteType.BLACKHOLE, protocol=4)


def resident() -> int:
    """Return this process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def block(number: int) -> RouteKey:
    return RouteKey(IPv4Network((int(IPv4Address("10.128.0.0")) + number * 64, 26)))


def address(number: int) -> RouteKey:
    return RouteKey(IPv4Network((int(IPv4Address("10.65.0.0")) + number, 32)))


@dataclass
class Churn:
    """A node whose wish moves on through the address space, and others who interfere."""

    kernel: Kernel
    wire: Rtnetlink
    other: Rtnetlink
    forgotten: "queue.Queue[IPAddress]"
    routes: dict[RouteKey, Route] = field(default_factory=dict)
    now: float = 0.0
    first: int = 0
    written: int = 0

    def turn(self) -> None:
        """Take turns until nothing is due now; purges are waited for."""
        want = KernelState(dict(self.routes))
        for _ in range(1000):
            self.kernel.catch_up(self.now)
            if self.kernel.resync_cause:
                self.kernel.resync()
            report = self.kernel.make(want, self.now)
            assert (report.failed, report.routes.refused, report.routes.broken) == ((), {}, None)
            self.written += len(report.routes)
            purge = self.kernel.routes.books.purge
            if purge.active and not purge.has_finished:
                while not purge.has_finished:  # of earlier ones, too, the queue tells
                    self.forgotten.get(timeout=SECONDS)
            elif not self.kernel.routes.is_due(self.now):
                return
        raise AssertionError("still busy")

    def step(self) -> None:
        self.now += SECONDS_A_STEP
        self.turn()

    def cycle(self, number: int) -> None:
        """Add, change, delete, move pods, and let others delete, put in the way, and flap an interface."""
        last = self.first + HELD
        self.routes |= {block(each): NEXT_HOPS[each % 8] for each in range(last, last + CHANGED)}
        self.step()
        for each in range(self.first, self.first + CHANGED):
            del self.routes[block(each)]
        self.first += CHANGED
        self.step()
        self.routes |= {block(self.first + each): NEXT_HOPS[(number + each) % 8] for each in range(CHANGED)}
        self.step()
        for each in range(100):
            self.routes.pop(address((number - 1) * 100 + each), None)
            self.routes[address(number * 100 + each)] = PODS[0]
        self.step()
        self.routes |= {address(number * 100 + each): PODS[1] for each in range(50)}
        self.step()
        self.interfere(number)
        self.step()

    def interfere(self, number: int) -> None:
        encode = Encoder({name: link.index for name, link in self.kernel.links.items()})
        keys = list(self.routes)[:: len(self.routes) // 800]
        self.other.write(Verb.DELETE_ROUTE, Mode.NONE, [encode(key, self.routes[key]) for key in keys])
        strangers = [encode(block(200_000 + number * 100 + each), STRANGE) for each in range(100)]
        self.other.write(Verb.NEW_ROUTE, Mode.CREATE, strangers)
        if number % 4 == 0:
            ip("link set cali2 down\nlink set cali2 up\nlink set cali2 down\nlink set cali2 up\n")
        self.turn()
        assert len(self.kernel.others()) >= 100
        self.other.write(Verb.DELETE_ROUTE, Mode.NONE, strangers)

    def sizes(self) -> dict[str, int]:
        """Return how much the engine remembers, by what."""
        books = self.kernel.routes.books
        return {
            "wish": len(books.wish.bodies),
            "mirror": sum(map(len, books.fibs.values())),
            "behind": sum(len(fib.behind) for fib in books.fibs.values()),
            "since": len(books.since),
            "owners": len(books.purge.owners),
            "others": len(books.others),
            **{name: len(getattr(books, name)) for name in ("holds", "due", "conflicts", "surprises")},
            "quarrels": len(books.damping.quarrels),
            "purges": len(books.purge.active),
            "without device": len(books.wish.without_device),
            "next hops": len(books.next_hops.held) + len(books.next_hops.refused),
            "steps": len(self.kernel._holds),
        }


def growth(values: list[int]) -> float:
    """Return by which part of the mean a straight line through the values rises from the first to the last."""
    slope = statistics.linear_regression(range(len(values)), values).slope
    return slope * (len(values) - 1) / statistics.mean(values)


def in_the_kernel(wire: Rtnetlink, names: dict[int, str]) -> dict[RouteKey, Route]:
    entries = (decode(body, names) for body in wire.dump_routes(Family.IPV4, MAIN_TABLE))
    return {key: route for key, route in filter(None, entries) if route.protocol == 80}


@in_a_namespace
@pytest.mark.alone
def test_an_hour_of_changes_loses_no_route_and_leaves_nothing_behind() -> None:
    for name in ("cali1", "cali2"):
        ip(f"link add {name} type veth peer name {name}x\nlink set {name}x up\nlink set {name} up\n")
    wire, other = Rtnetlink(), Rtnetlink()
    forgotten: queue.Queue[IPAddress] = queue.Queue()
    conntrack = Conntrack(forgotten.put)
    churn = Churn(Kernel(wire, Device(), TunnelRefused, sysctl, conntrack), wire, other, forgotten)
    churn.kernel.resync()
    churn.routes = {block(each): NEXT_HOPS[each % 8] for each in range(HELD)}
    churn.turn()
    memory, sizes = [], []
    for number in range(1, CYCLES + 1):
        churn.cycle(number)
        gc.collect()
        memory.append(resident())
        sizes.append(churn.sizes())
    assert churn.written >= 100_000
    assert in_the_kernel(wire, dict(churn.kernel.interfaces.names)) == churn.routes
    churn.now += 600
    churn.turn()
    held = len(churn.routes)
    expected = {"wish": held, "since": held, "owners": 100}
    final = churn.sizes()
    assert {name: final[name] for name in expected} == expected
    left = {"behind", "holds", "due", "conflicts", "surprises", "quarrels", "purges", "without device", "next hops"}
    assert {name: final[name] for name in left} == dict.fromkeys(left, 0)
    assert final["others"] == sizes[0]["others"]
    for name in sizes[0]:
        later = [each[name] for each in sizes[CYCLES // 2 :]]
        assert max(later) <= max(each[name] for each in sizes[: CYCLES // 2]), name
    assert growth(memory[-10:]) < 0.01, memory
    conntrack.close()
