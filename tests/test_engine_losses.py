"""Whatever others do to a node, told or not: in the end the kernel holds the wish, and the mirror shows the kernel."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from effort import examples
from engine_node import EngineNode
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel import next_hop_codec, route_codec
from felix_py.kernel.objects import (
    MAIN_TABLE,
    KernelState,
    Link,
    NextHop,
    NextHopObject,
    Route,
    RouteKey,
    RouteType,
    Scope,
)
from felix_py.kernel.wire import Family, Mode, Verb

ADDRESS, ADDRESS6 = "172.31.1.11/24", "fd00:1::11/64"
LINKS = (
    Link("eth0", 3, 1500, up=True, running=True, addresses=frozenset({ADDRESS, ADDRESS6})),
    Link("cali1", 5, 1500, up=True, running=True),
)
POD, REMOTE, MULTIPATH, MOVABLE = (
    RouteKey(IPv4Network(cidr)) for cidr in ("10.65.0.5/32", "10.65.1.0/26", "10.65.2.0/26", "10.65.3.0/26")
)
POD6, REMOTE6, MULTIPATH6 = (RouteKey(IPv6Network(cidr)) for cidr in ("fd10::5/128", "fd10:1::/64", "fd10:2::/64"))
OBJECT = 2887713036


def via(last: int, protocol: int = 80) -> Route:
    return Route(via=IPv4Address(f"172.31.1.{last}"), device="eth0", onlink=True, protocol=protocol)


def six(last: int, protocol: int = 80) -> Route:
    return Route(via=IPv6Address(f"fd00:1::{last}"), device="eth0", onlink=True, protocol=protocol)


def legs(*routes: Route) -> Route:
    return Route(hops=tuple(NextHop(route.via, route.device, onlink=True) for route in routes))


WISH = KernelState(
    {
        RouteKey(IPv4Network("10.65.0.0/26")): Route(RouteType.BLACKHOLE),
        POD: Route(device="cali1", scope=Scope.LINK),
        REMOTE: via(12),
        MULTIPATH: legs(via(12), via(13)),
        MOVABLE: Route(through=OBJECT),
        POD6: Route(device="cali1"),
        REMOTE6: six(12),
        MULTIPATH6: legs(six(12), six(13)),
    },
    {OBJECT: NextHopObject(NextHop(IPv4Address("172.31.1.12"), "eth0", onlink=True))},
)
STATIC = 4
NEW, DELETE = Verb.NEW_ROUTE, Verb.DELETE_ROUTE


def new_node() -> EngineNode:
    node = EngineNode(*LINKS)
    node.settle(WISH)
    assert_right(node)
    return node


def assert_right(node: EngineNode) -> None:
    stacks = {**node.host.stacks(Family.IPV4), **node.host.stacks(Family.IPV6)}
    # A static route that came to stand in front is left alone by design; ours may then be missing.
    blocked = {key for key, stack in stacks.items() if stack[0].protocol == STATIC}
    assert {key: stacks.get(key, (None,))[0] for key in WISH.routes.keys() - blocked} == {
        key: each for key, each in WISH.routes.items() if key not in blocked
    }
    for key, stack in stacks.items():
        ours = [each for each in stack if each.protocol == 80]
        assert ours == [WISH.routes.get(key)] or (ours == [] and key in blocked), key
    assert node.host.next_hops == WISH.next_hops
    for family, fib in node.kernel.routes.books.fibs.items():
        dump = map(route_codec.normalised, node.host.dump_routes(family, MAIN_TABLE))
        assert sorted(fib) == sorted(dump), "the mirror shows what is there"


def add_cali1(node: EngineNode) -> None:
    if "cali1" not in node.host.indexes:
        node.host.add_link(Link("cali1", 0, 1500, up=True, running=True))


def addresses(node: EngineNode) -> None:
    for address in (ADDRESS, ADDRESS6):
        if address not in node.host.link("eth0").addresses:
            node.host.add_address("eth0", address)


def heal(node: EngineNode) -> None:
    """Give back what a node needs: interfaces, carriers, addresses."""
    add_cali1(node)
    for name in ("eth0", "cali1"):
        node.host.set_link(name, up=True)
        node.host.set_link(name, running=True)
    addresses(node)


def then(*actions: Callable[[EngineNode], None]) -> Callable[[EngineNode], None]:
    """Do one after the other, before anybody looks."""

    def disturb(node: EngineNode) -> None:
        for action in actions:
            action(node)

    return disturb


def on_cali1(do: Callable[[EngineNode], None]) -> Callable[[EngineNode], None]:
    return lambda node: do(node) if "cali1" in node.host.indexes else None


def route(verb: Verb, mode: Mode, key: RouteKey, entry: Route) -> Callable[[EngineNode], None]:
    """Let somebody change a route; what the kernel does not take from him is none of our business."""

    def disturb(node: EngineNode) -> None:
        if set(entry.devices) <= node.host.indexes.keys():
            node.host.foreign(verb, mode, key, entry)

    return disturb


def take_address(node: EngineNode) -> None:
    if ADDRESS in node.host.link("eth0").addresses:
        node.host.delete_address("eth0", ADDRESS)


def delete_object(node: EngineNode) -> None:
    node.host.foreign_write(Verb.DELETE_NEXT_HOP, Mode.NONE, next_hop_codec.by_number(OBJECT))


def replace_object(node: EngineNode) -> None:
    other = NextHopObject(NextHop(IPv4Address("172.31.1.66"), "eth0", onlink=True))
    body = next_hop_codec.encode(OBJECT, other, node.host.indexes)
    node.host.foreign_write(Verb.NEW_NEXT_HOP, Mode.CREATE | Mode.REPLACE, body)


REPLACE, APPEND, CREATE = Mode.CREATE | Mode.REPLACE, Mode.CREATE | Mode.APPEND, Mode.CREATE
DISTURBANCES: dict[str, Callable[[EngineNode], None]] = {
    "eth0 down": lambda node: node.host.set_link("eth0", up=False),
    "eth0 up": lambda node: node.host.set_link("eth0", up=True),
    "eth0 flaps": then(lambda node: node.host.set_link("eth0", up=False), heal),
    "eth0 without carrier": lambda node: node.host.set_link("eth0", running=False),
    "eth0 with carrier again": lambda node: node.host.set_link("eth0", running=True),
    "eth0's carrier flaps": then(lambda node: node.host.set_link("eth0", running=False), heal),
    "eth0 without address": take_address,
    "eth0 with address again": addresses,
    "eth0's address flaps": then(take_address, heal),
    "cali1 down": on_cali1(lambda node: node.host.set_link("cali1", up=False)),
    "cali1 up": on_cali1(lambda node: node.host.set_link("cali1", up=True)),
    "cali1 deleted": on_cali1(lambda node: node.host.delete_link("cali1")),
    "cali1 made anew": add_cali1,
    "cali1 deleted and made anew": on_cali1(then(lambda node: node.host.delete_link("cali1"), add_cali1)),
    "events lost": lambda node: node.host.overflow(),
    "our route deleted": route(DELETE, Mode.NONE, REMOTE, via(12)),
    "our route replaced": route(NEW, REPLACE, REMOTE, via(66, protocol=3)),
    "our route changed in our name": route(NEW, REPLACE, REMOTE, via(66)),
    "a route in front of ours": route(NEW, CREATE, REMOTE, via(67, protocol=3)),
    "a route behind ours": route(NEW, APPEND, REMOTE, via(68, protocol=4)),
    "a route behind ours in our name": route(NEW, APPEND, REMOTE, via(69)),
    "a route that nobody wants in our name": route(NEW, CREATE, RouteKey(IPv4Network("10.65.7.0/26")), via(12)),
    "a multipath route replaced": route(NEW, REPLACE, MULTIPATH, via(66, protocol=3)),
    "our IPv6 route deleted": route(DELETE, Mode.NONE, REMOTE6, six(12)),
    "our IPv6 route replaced": route(NEW, REPLACE, REMOTE6, six(66, protocol=3)),
    "an IPv6 sibling appended": route(NEW, APPEND, REMOTE6, six(67, protocol=3)),
    "an IPv6 sibling deleted": route(DELETE, Mode.NONE, MULTIPATH6, six(13)),
    "the IPv6 pod's route deleted": route(DELETE, Mode.NONE, POD6, Route(device="cali1")),
    "our next hop deleted": delete_object,
    "our next hop replaced": replace_object,
}


@pytest.mark.parametrize("disturb", DISTURBANCES.values(), ids=DISTURBANCES)
def test_one_disturbance(disturb: Callable[[EngineNode], None]) -> None:
    node = new_node()
    disturb(node)
    node.settle(WISH)
    heal(node)
    node.settle(WISH)
    assert_right(node)


@examples(150)
@given(st.lists(st.tuples(st.sampled_from(sorted(DISTURBANCES)), st.sampled_from((0.0, 0.05, 1.0))), max_size=12))
def test_any_disturbances(history: list[tuple[str, float]]) -> None:
    """No resync at the end: what was heard must have been enough."""
    node = new_node()
    for name, pause in history:
        DISTURBANCES[name](node)
        if pause:
            node.turn(WISH)
            node.now += pause
    heal(node)
    node.settle(WISH, seconds=120.0)
    assert_right(node)
