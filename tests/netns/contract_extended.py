"""What both kernels do with IPv4 routes through an IPv6 gateway (RTA_VIA, RFC 8950): as with any other."""

import errno
from ipaddress import IPv4Address, IPv6Address

from contract_labs import ADD, REPLACE, Lab
from contract_routes import DELETE, NEW, REMOTE

from felix_py.kernel.objects import NextHop, Route, RouteKey
from felix_py.kernel.wire import Mode


def via6(last: int, protocol: int = 80) -> Route:
    return Route(via=IPv6Address(f"fd00:1::{last}"), device="eth0", onlink=True, protocol=protocol)


A6, B6 = via6(12), via6(13)
A4 = Route(via=IPv4Address("172.31.1.12"), device="eth0", onlink=True)
BOTH = Route(hops=(NextHop(A4.via, "eth0", onlink=True), NextHop(A6.via, "eth0", onlink=True)))


def an_ipv6_gateway_is_read_back_byte_for_byte(lab: Lab) -> None:
    for number, route in enumerate((A6, BOTH, Route(via=A6.via, device="eth0"), Route(hops=BOTH.hops[::-1]))):
        key = RouteKey(REMOTE.dst, metric=number)
        lab.add(key, route)
        assert lab.raw(key) == [lab.body(key, route)], route


def gateways_of_both_versions_take_each_others_place(lab: Lab) -> None:
    lab.add(REMOTE, A6)
    lab.events()
    for route in (B6, A4, A6, BOTH):
        lab.foreign_route(NEW, REPLACE, REMOTE, route)
        assert lab.stack(REMOTE) == [route]
    told = [(verb, mode, route) for verb, mode, _, route in lab.route_events()]
    assert told == [(NEW, Mode.REPLACE, route) for route in (B6, A4, A6, BOTH)]


def an_ipv6_gateway_is_compared_when_a_route_is_deleted(lab: Lab) -> None:
    lab.add(REMOTE, A6)
    for other in (B6, A4, via6(12, protocol=4)):
        lab.delete(REMOTE, other)
        assert lab.stack(REMOTE) == [A6], other
    lab.events()
    lab.foreign_route(DELETE, Mode.NONE, REMOTE, A6)
    assert lab.stack(REMOTE) == []
    assert [(verb, route) for verb, _, _, route in lab.route_events()] == [(DELETE, A6)]


def an_ipv6_gateway_that_is_our_own_or_nowhere_is_refused(lab: Lab) -> None:
    assert lab.code(ADD, REMOTE, via6(11)) == errno.EINVAL
    assert lab.code(ADD, REMOTE, Route(via=IPv6Address("fd99::1"), device="eth0")) == errno.EHOSTUNREACH
    assert lab.code(ADD, REMOTE, Route(via=IPv6Address("fd99::1"), device="eth0", onlink=True)) == 0


def down_loses_ipv4_routes_through_an_ipv6_gateway_without_a_word(lab: Lab) -> None:
    key = RouteKey(REMOTE.dst, metric=9)
    lab.add(key, Route(via=IPv6Address("fd00:9::1"), device="cali1", onlink=True))
    lab.events()
    lab.down("cali1")
    assert lab.route_events() == []
    assert lab.stack(key) == []
