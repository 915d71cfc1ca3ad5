"""What IPv6 does differently with routes: next hops of one identity are siblings, and make up one route."""

import errno
from ipaddress import IPv6Address, IPv6Network

from contract_labs import ADD, APPEND, REPLACE, Lab
from contract_routes import DELETE, NEW

from felix_py.kernel import route_codec
from felix_py.kernel.objects import NextHop, Route, RouteKey, RouteType
from felix_py.kernel.wire import Mode, Verb

SIX = RouteKey(IPv6Network("fd10:1::/64"))


def six(last: int, protocol: int = 80) -> Route:
    return Route(via=IPv6Address(f"fd00:1::{last}"), device="eth0", protocol=protocol)


def siblings(*routes: Route) -> Route:
    return Route(hops=tuple(NextHop(route.via, route.device) for route in routes), protocol=routes[0].protocol)


A6, B6, C6, STATIC6 = six(12), six(13), six(14), six(99, protocol=4)


def ipv6_is_read_back_without_what_the_kernel_adds(lab: Lab) -> None:
    kinds = (A6, Route(RouteType.BLACKHOLE), Route(RouteType.UNREACHABLE), Route(device="cali1"), siblings(A6, B6))
    for number, route in enumerate(kinds):
        key = RouteKey(IPv6Network(f"fd10:{number:x}::/64"))
        lab.add(key, route)
        raw = lab.raw(key)
        assert [route_codec.normalised(body) for body in raw] == [lab.body(key, route)], route
        assert raw != [lab.body(key, route)], "a dump says more than that"


def ipv6_append_makes_siblings_of_one_route(lab: Lab) -> None:
    lab.add(SIX, A6, B6)
    lab.events()
    lab.foreign_route(NEW, APPEND, SIX, STATIC6)
    assert lab.stack(SIX) == [siblings(A6, B6, STATIC6)], "the first one's protocol stands for all"
    told = siblings(STATIC6, A6, B6)
    assert lab.route_events() == [(NEW, Mode.CREATE | Mode.APPEND, lab.foreign_port, told)]


def ipv6_replace_takes_all_siblings_and_always_tells(lab: Lab) -> None:
    lab.add(SIX, A6, STATIC6, B6)
    lab.events()
    lab.foreign_route(NEW, REPLACE, SIX, C6)
    lab.foreign_route(NEW, REPLACE, SIX, C6)
    lab.foreign_route(NEW, REPLACE, SIX, siblings(A6, B6))
    assert lab.stack(SIX) == [siblings(A6, B6)]
    assert [(verb, mode, route) for verb, mode, _, route in lab.route_events()] == [
        (NEW, Mode.REPLACE, C6),
        (NEW, Mode.REPLACE, C6),
        (NEW, Mode.REPLACE, siblings(A6, B6)),
    ]


def ipv6_replace_changes_the_kind_of_route(lab: Lab) -> None:
    lab.add(SIX, siblings(A6, B6))
    assert lab.code(REPLACE, SIX, Route(RouteType.BLACKHOLE)) == 0
    assert lab.stack(SIX) == [Route(RouteType.BLACKHOLE)]
    assert lab.code(REPLACE, SIX, A6) == 0
    assert lab.stack(SIX) == [A6]


def ipv6_exclusive_meets_what_stands_there(lab: Lab) -> None:
    lab.add(SIX, STATIC6)
    assert [lab.code(ADD, SIX, A6), lab.code(ADD, SIX, siblings(A6, B6))] == [errno.EEXIST] * 2
    assert [lab.code(APPEND, SIX, STATIC6), lab.code(APPEND, SIX, six(99))] == [errno.EEXIST] * 2, "by next hop alone"
    assert lab.stack(SIX) == [STATIC6]


def ipv6_delete_takes_one_sibling_or_all(lab: Lab) -> None:
    lab.add(SIX, A6, B6, C6)
    lab.events()
    lab.foreign_route(DELETE, Mode.NONE, SIX, B6)
    assert lab.stack(SIX) == [siblings(A6, C6)]
    lab.foreign_route(DELETE, Mode.NONE, SIX, siblings(A6, C6))
    assert lab.stack(SIX) == []
    assert [(verb, route) for verb, _, _, route in lab.route_events()] == [(DELETE, B6), (DELETE, A6), (DELETE, C6)]


def ipv6_delete_compares_protocol_gateway_and_device_but_not_the_type(lab: Lab) -> None:
    lab.add(SIX, A6)
    for other in (six(12, protocol=4), B6, Route(via=A6.via, device="cali1"), Route(RouteType.BLACKHOLE)):
        lab.delete(SIX, other)
        assert lab.stack(SIX) == [A6], other
    lab.delete(SIX, A6)
    lab.add(SIX, Route(RouteType.BLACKHOLE))
    lab.delete(SIX, Route(RouteType.PROHIBIT))
    assert lab.stack(SIX) == []


def ipv6_delete_takes_only_its_metric(lab: Lab) -> None:
    lab.add(RouteKey(SIX.dst, metric=77), A6)
    lab.delete(SIX, A6)
    assert lab.stack(RouteKey(SIX.dst, metric=77)) == [A6]


def ipv6_refusals_say_why(lab: Lab) -> None:
    gone = route_codec.Encoder({"gone": 9999})
    asked = (
        lab.body(SIX, Route(device="cali2")),
        lab.body(SIX, Route(via=IPv6Address("fd99::1"), device="eth0")),
        lab.body(SIX, six(11)),
        lab.body(SIX, Route()),
        gone(SIX, Route(device="gone")),
    )
    answers = lab.wire.write(Verb.NEW_ROUTE, ADD, asked)
    assert [answers[position].text for position in range(len(asked))] == [
        "Network is down: Nexthop device is not up",
        "No route to host",
        "Invalid argument: Gateway can not be a local address",
        "No such device",
        "No such device",
    ]
    assert lab.code(ADD, SIX, Route(via=IPv6Address("fd99::1"), device="eth0", onlink=True)) == 0


def siblings_keep_the_order_in_which_they_came(lab: Lab) -> None:
    lab.add(SIX, B6, A6)
    assert lab.stack(SIX) == [siblings(B6, A6)]
    lab.foreign_route(NEW, REPLACE, SIX, siblings(A6, B6))
    assert lab.stack(SIX) == [siblings(A6, B6)]


def what_stands_between_siblings_is_not_dumped(lab: Lab) -> None:
    """A dump goes on behind the last sibling (fib6_dump_node, net/ipv6/ip6_fib.c)."""
    lab.add(SIX, A6, Route(device="cali1"), B6)
    assert lab.stack(SIX) == [siblings(A6, B6)]
    lab.delete(SIX, B6)
    assert lab.stack(SIX) == [A6, Route(device="cali1")]
