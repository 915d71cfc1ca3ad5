"""Every fault of the kernel's wire in every operation of the engine: right in the end, and no write too many."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from engine_node import EngineNode
from faulty_wire import Call, Failure, Fault, object_name

from felix_py.kernel import route_codec
from felix_py.kernel.objects import KernelState, Link, NextHop, NextHopObject, Route, RouteKey, RouteType, Scope
from felix_py.kernel.wire import Mode, Verb

LINKS = (
    Link("eth0", 3, 1500, up=True, running=True, addresses=frozenset({"172.31.1.11/24", "fd00:1::11/64"})),
    Link("cali1", 5, 1500, up=True, running=True),
    Link("cali2", 7, 1500, up=True, running=True),
)
BLOCKS = tuple(RouteKey(IPv4Network(f"10.65.{number}.0/26")) for number in range(1, 5))
PODS = tuple(RouteKey(IPv4Network(f"10.65.0.{number}/32")) for number in range(11, 15))
SIX = tuple(RouteKey(IPv6Network(f"fd10:{number}::/64")) for number in range(1, 5))
OBJECT = 2887713036

FOREIGN = RouteKey(IPv4Network("10.90.0.0/24"))
STATIC = Route(via=IPv4Address("172.31.1.99"), device="eth0", protocol=4)

BYSTANDERS = {
    RouteKey(IPv4Network("10.65.0.0/26")): Route(RouteType.BLACKHOLE),
    RouteKey(IPv4Network("10.65.0.5/32")): Route(device="cali1", scope=Scope.LINK),
    RouteKey(IPv4Network("10.65.9.0/26")): Route(via=IPv4Address("172.31.1.19"), device="eth0", onlink=True),
    RouteKey(IPv6Network("fd10::5/128")): Route(device="cali1"),
}
"""Routes that are wanted and there all the time."""


def hop(last: int) -> NextHop:
    return NextHop(IPv4Address(f"172.31.1.{last}"), "eth0", onlink=True)


def via(last: int) -> Route:
    return Route(via=IPv4Address(f"172.31.1.{last}"), device="eth0", onlink=True)


def six(last: int) -> Route:
    return Route(via=IPv6Address(f"fd00:1::{last}"), device="eth0")


def pod(device: str) -> Route:
    return Route(device=device, scope=Scope.LINK)


def wish(keys: tuple[RouteKey, ...] = (), route: Route | None = None, object_hop: NextHop | None = None) -> KernelState:
    routes = dict(BYSTANDERS) if route is None else {**BYSTANDERS, **dict.fromkeys(keys, route)}
    objects = {} if object_hop is None else {OBJECT: NextHopObject(object_hop)}
    return KernelState(routes, objects)


def names(keys: tuple[RouteKey, ...]) -> tuple[bytes, ...]:
    return tuple(map(route_codec.identity_of, keys))


@dataclass(frozen=True)
class Operation:
    """What is wanted before and after, and how often each identity has to be written for that."""

    before: KernelState
    after: KernelState
    needed: Mapping[bytes, int]


def times(number: int, keys: tuple[RouteKey, ...]) -> dict[bytes, int]:
    return dict.fromkeys(names(keys), number)


THROUGH = Route(through=OBJECT)
OPERATIONS = {
    "add": Operation(wish(), wish(BLOCKS, via(12)), times(1, BLOCKS)),
    "change": Operation(wish(BLOCKS, via(12)), wish(BLOCKS, via(13)), times(1, BLOCKS)),
    "delete": Operation(wish(BLOCKS, via(12)), wish(), times(1, BLOCKS)),
    "add a pod": Operation(wish(), wish(PODS, pod("cali1")), times(1, PODS)),
    "move between devices": Operation(wish(PODS, pod("cali1")), wish(PODS, pod("cali2")), times(2, PODS)),
    "remove a pod": Operation(wish(PODS, pod("cali1")), wish(), times(1, PODS)),
    "add IPv6": Operation(wish(), wish(SIX, six(12)), times(1, SIX)),
    "change IPv6": Operation(wish(SIX, six(12)), wish(SIX, six(13)), times(1, SIX)),
    "delete IPv6": Operation(wish(SIX, six(12)), wish(), times(1, SIX)),
    "move a next hop": Operation(
        wish(BLOCKS, THROUGH, hop(12)), wish(BLOCKS, THROUGH, hop(13)), {object_name(OBJECT): 1}
    ),
    "begin to use a next hop": Operation(
        wish(BLOCKS, via(12)), wish(BLOCKS, THROUGH, hop(12)), {object_name(OBJECT): 1, **times(1, BLOCKS)}
    ),
    "cease to use a next hop": Operation(
        wish(BLOCKS, THROUGH, hop(12)), wish(BLOCKS, via(12)), {object_name(OBJECT): 1, **times(1, BLOCKS)}
    ),
}
over_operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def ready(operation: Operation) -> EngineNode:
    """Return a node that holds what is wanted before, and a route of somebody else; counting begins now."""
    node = EngineNode(*LINKS)
    assert node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, FOREIGN, STATIC) is None
    node.settle(operation.before)
    assert_holds(node, operation.before)
    node.wire.asked.clear()
    node.wire.done.clear()
    node.reports.clear()
    return node


def assert_holds(node: EngineNode, want: KernelState) -> None:
    stacks = {
        **node.host.stacks(),
        **{key: (route,) for key, route in node.host.routes.items() if key.dst.version == 6},
    }
    assert stacks == {**{key: (route,) for key, route in want.routes.items()}, FOREIGN: (STATIC,)}
    assert node.host.next_hops == want.next_hops


def strike(
    call: Call, failure: Failure, *, times: int = 1, skip: int = 0, code: int = errno.ENOMEM
) -> Callable[[Operation], list[Fault]]:
    return lambda _: [Fault(call, failure, times, skip, code)]


def one_of(failure: Failure, call: Call) -> Callable[[Operation], list[Fault]]:
    return lambda operation: [Fault(call, failure, only=frozenset(list(operation.needed)[:1]))]


IN_WRITING = {
    "all refused": strike(Call.WRITE, Failure.REFUSED, code=errno.ENOMEM),
    "all refused five times": strike(Call.WRITE, Failure.REFUSED, code=errno.ENOBUFS, times=5),
    "one refused": one_of(Failure.REFUSED, Call.WRITE),
    "broken before": strike(Call.WRITE, Failure.BROKEN_BEFORE),
    "broken halfway": strike(Call.WRITE, Failure.BROKEN_HALFWAY),
    "broken after": strike(Call.WRITE, Failure.BROKEN_AFTER),
    "broken before, five times": strike(Call.WRITE, Failure.BROKEN_BEFORE, times=5),
    "broken after, five times": strike(Call.WRITE, Failure.BROKEN_AFTER, times=5),
    "dead until opened anew": strike(Call.WRITE, Failure.DEAD),
    "dead, and hard to open": lambda _: [
        Fault(Call.WRITE, Failure.DEAD),
        Fault(Call.REOPEN, Failure.BROKEN_BEFORE, times=3),
    ],
    "broken, then the table cannot be read": lambda _: [
        Fault(Call.WRITE, Failure.BROKEN_HALFWAY),
        Fault(Call.DUMP_ROUTES, Failure.BROKEN_BEFORE, times=3),
    ],
}
IN_THE_SECOND_WRITE = {
    "refused": strike(Call.WRITE, Failure.REFUSED, skip=1, code=errno.ENOMEM),
    "broken before": strike(Call.WRITE, Failure.BROKEN_BEFORE, skip=1),
    "broken halfway": strike(Call.WRITE, Failure.BROKEN_HALFWAY, skip=1),
    "broken after": strike(Call.WRITE, Failure.BROKEN_AFTER, skip=1),
}
IN_READING = {
    "events lost": strike(Call.EVENTS, Failure.LOST),
    "events broken": strike(Call.EVENTS, Failure.BROKEN_BEFORE),
    "events dead": strike(Call.EVENTS, Failure.DEAD),
    "routes broken": strike(Call.DUMP_ROUTES, Failure.BROKEN_BEFORE),
    "routes of the second family broken": strike(Call.DUMP_ROUTES, Failure.BROKEN_BEFORE, skip=1),
    "routes dead": strike(Call.DUMP_ROUTES, Failure.DEAD, times=2),
    "next hops broken": strike(Call.DUMP_NEXT_HOPS, Failure.BROKEN_BEFORE),
    "links broken": strike(Call.DUMP_LINKS, Failure.BROKEN_BEFORE),
}
TABLE_SHORT = {
    "all routes missing": strike(Call.DUMP_ROUTES, Failure.SHORT),
    "one route missing": one_of(Failure.SHORT, Call.DUMP_ROUTES),
    "next hops missing": strike(Call.DUMP_NEXT_HOPS, Failure.SHORT),
}


def over(faults: Mapping[str, Callable[[Operation], list[Fault]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("faults", faults.values(), ids=faults)


@over_operations
def test_without_fault(operation: Operation) -> None:
    node = ready(operation)
    node.settle(operation.after)
    assert_holds(node, operation.after)
    assert node.wire.asked == node.wire.done == operation.needed
    node.settle(operation.after)
    assert node.wire.asked == operation.needed, "nothing is written again"


@over_operations
@over(IN_WRITING)
def test_fault_in_writing(operation: Operation, faults: Callable[[Operation], list[Fault]]) -> None:
    node = ready(operation)
    node.wire.faults = faults(operation)
    node.settle(operation.after)
    assert all(fault.met for fault in node.wire.faults)
    assert_holds(node, operation.after)
    assert node.wire.done == operation.needed
    assert node.broken or node.refusals or object_name(OBJECT) in operation.needed


@over_operations
@over(IN_THE_SECOND_WRITE)
def test_fault_in_the_second_write(operation: Operation, faults: Callable[[Operation], list[Fault]]) -> None:
    node = ready(operation)
    node.wire.faults = faults(operation)
    node.settle(operation.after)
    assert_holds(node, operation.after)
    assert node.wire.done == operation.needed


@over_operations
@over(IN_READING)
def test_fault_in_reading(operation: Operation, faults: Callable[[Operation], list[Fault]]) -> None:
    node = ready(operation)
    node.wire.faults = faults(operation)
    node.kernel.must_read("a test")
    node.settle(operation.after)
    assert all(fault.met for fault in node.wire.faults)
    assert_holds(node, operation.after)
    assert node.wire.asked == node.wire.done == operation.needed


@over_operations
@over(TABLE_SHORT)
def test_table_read_short(operation: Operation, faults: Callable[[Operation], list[Fault]]) -> None:
    """Nothing tells of a row that is missing: a route that is there is not written over, and the next reading heals."""
    node = ready(operation)
    node.wire.faults = faults(operation)
    node.kernel.must_read("a test")
    node.settle(operation.after)
    node.kernel.must_read("the timer")
    node.settle(operation.after)
    assert_holds(node, operation.after)
    others = {name: count for name, count in node.wire.done.items() if name not in operation.needed}
    assert others == {}


@over_operations
def test_refused_for_ever(operation: Operation) -> None:
    """One identity is refused for a minute: it is reported and tried ever more rarely, and the others are done."""
    node = ready(operation)
    subject = next(iter(operation.needed))
    fault = Fault(Call.WRITE, Failure.REFUSED, times=None, code=errno.ENOMEM, only=frozenset({subject}))
    node.wire.faults = [fault]
    node.settle(operation.after, seconds=60.0)
    rest = {name: count for name, count in operation.needed.items() if name != subject}
    if subject != object_name(OBJECT):
        assert node.refusals == {"Cannot allocate memory"}
        assert {name: node.wire.done[name] for name in rest} == rest
    assert 5 <= node.wire.asked[subject] <= 20, "0.1, 0.2, 0.4 ... 10 s apart"
    assert not set(node.wire.done) - set(operation.needed)
    node.wire.faults = []
    node.settle(operation.after, seconds=15.0)
    assert_holds(node, operation.after)
    assert node.wire.done == operation.needed


@over_operations
@pytest.mark.parametrize("failure", [Failure.BROKEN_BEFORE, Failure.DEAD], ids=["broken", "dead"])
def test_broken_for_ever(operation: Operation, failure: Failure) -> None:
    """The socket breaks at every write: that is said every time, nothing is lost, and it heals with the socket."""
    node = ready(operation)
    node.wire.faults = [Fault(Call.WRITE, failure, times=None)]
    node.settle(operation.after, seconds=5.0)
    assert len(node.broken) >= 5
    assert_holds(node, operation.before)
    node.wire.faults = []
    node.settle(operation.after)
    assert_holds(node, operation.after)
    assert node.wire.done == operation.needed


@pytest.mark.parametrize("call", [Call.DUMP_ROUTES, Call.DUMP_NEXT_HOPS, Call.DUMP_LINKS, Call.EVENTS, Call.REOPEN])
def test_unreadable_for_ever(call: Call) -> None:
    """A kernel that cannot be read is not written, since what stands there is unknown."""
    operation = OPERATIONS["change"]
    node = ready(operation)
    node.wire.faults = [Fault(call, Failure.BROKEN_BEFORE, times=None), Fault(Call.EVENTS, Failure.DEAD)]
    node.kernel.must_read("a test")
    node.settle(operation.after, seconds=5.0)
    assert len(node.broken) >= 5
    assert node.wire.asked == {}
    node.wire.faults = []
    node.settle(operation.after)
    assert_holds(node, operation.after)
    assert node.wire.done == operation.needed
