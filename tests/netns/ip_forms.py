"""Routes and next-hop objects in the words of `ip`, and what we call the same."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from felix_py.kernel.objects import NextHop, NextHopObject, Route, RouteEncapsulation, RouteKey, RouteType, Scope
from felix_py.kernel.route_codec import ip_encapsulation

E0, E1 = "e0", "e1"


def key(dst: str, **others: int) -> RouteKey:
    return RouteKey(ip_network(dst), **others)


def via(gateway: str, device: str = E0, **others: Any) -> Route:
    return replace(Route(via=ip_address(gateway), device=device), **others)


def hop(gateway: str | None, device: str, **others: Any) -> NextHop:
    return replace(NextHop(None if gateway is None else ip_address(gateway), device), **others)


WRAP = ip_encapsulation(IPv4Address("1.2.3.4"), key=5)
WRAP_IN_FULL = ip_encapsulation(IPv4Address("1.2.3.4"), source=IPv4Address("9.9.9.9"), key=5, ttl=6, tos=4)
WRAP_IN_IPV6 = RouteEncapsulation(
    4,
    bytes.fromhex(
        "0c0001000000000000000005" "14000200fd000000000000000000000000000004" "1400030000000000000000000000000000000000"
        "0500050000000000" "0500040000000000" "0600060000000000"
    ),
)  # fmt: skip

FORMS = {
    "10.1.0.0/24 via 172.31.1.2": (key("10.1.0.0/24"), via("172.31.1.2")),
    "10.1.0.7 via 172.31.1.2 dev e0": (key("10.1.0.7/32"), via("172.31.1.2")),
    "default via 172.31.1.2": (key("0.0.0.0/0"), via("172.31.1.2")),
    "default via 172.31.1.2 metric 50 table 77": (key("0.0.0.0/0", table=77, metric=50), via("172.31.1.2")),
    "128.0.0.0/1 dev e0": (key("128.0.0.0/1"), Route(device=E0, scope=Scope.LINK)),
    "10.1.0.5 dev e0 scope link": (key("10.1.0.5/32"), Route(device=E0, scope=Scope.LINK)),
    "10.1.0.5 dev e0 scope host": (key("10.1.0.5/32"), Route(device=E0, scope=Scope.HOST)),
    "10.1.0.5 dev e0 scope global": (key("10.1.0.5/32"), Route(device=E0)),
    "10.1.0.0/24 via 10.9.9.9 dev e0 onlink": (key("10.1.0.0/24"), via("10.9.9.9", onlink=True)),
    "10.1.0.0/24 via 172.31.1.2 metric 7": (key("10.1.0.0/24", metric=7), via("172.31.1.2")),
    "10.1.0.0/24 via 172.31.1.2 metric 4294967295": (key("10.1.0.0/24", metric=2**32 - 1), via("172.31.1.2")),
    "10.1.0.0/24 via 172.31.1.2 table 255": (key("10.1.0.0/24", table=255), via("172.31.1.2")),
    "10.1.0.0/24 via 172.31.1.2 table 256": (key("10.1.0.0/24", table=256), via("172.31.1.2")),
    "10.1.0.0/24 via 172.31.1.2 table 4000000000": (key("10.1.0.0/24", table=4000000000), via("172.31.1.2")),
    "10.1.0.0/24 via 172.31.1.2 tos 0x10": (key("10.1.0.0/24", tos=16), via("172.31.1.2")),
    "10.1.0.0/24 via 172.31.1.2 src 172.31.1.11": (
        key("10.1.0.0/24"), via("172.31.1.2", source=IPv4Address("172.31.1.11"))
    ),
    "10.1.0.0/24 via 172.31.1.2 mtu 1400": (key("10.1.0.0/24"), via("172.31.1.2", mtu=1400)),
    "10.1.0.0/24 via 172.31.1.2 mtu 70000": (key("10.1.0.0/24"), via("172.31.1.2", mtu=70000)),
    "10.1.0.1 via 10.9.9.9 dev e0 onlink metric 7 table 1000 src 172.31.1.11 mtu 1400": (
        key("10.1.0.1/32", table=1000, metric=7),
        via("10.9.9.9", onlink=True, source=IPv4Address("172.31.1.11"), mtu=1400),
    ),
    "blackhole 10.2.0.0/26": (key("10.2.0.0/26"), Route(RouteType.BLACKHOLE)),
    "blackhole 10.2.0.0/26 metric 9": (key("10.2.0.0/26", metric=9), Route(RouteType.BLACKHOLE)),
    "unreachable 10.2.0.0/26": (key("10.2.0.0/26"), Route(RouteType.UNREACHABLE)),
    "prohibit 10.2.0.0/26": (key("10.2.0.0/26"), Route(RouteType.PROHIBIT)),
    "throw 10.2.0.0/26 table 90": (key("10.2.0.0/26", table=90), Route(RouteType.THROW)),
    "local 10.2.0.1 dev e0": (key("10.2.0.1/32", table=255), Route(RouteType.LOCAL, device=E0, scope=Scope.HOST)),
    "10.3.0.0/24 nexthop via 172.31.1.2 dev e0 weight 3 nexthop via 172.30.2.9 dev e1 onlink weight 256": (
        key("10.3.0.0/24"),
        Route(hops=(hop("172.31.1.2", E0, weight=3), hop("172.30.2.9", E1, onlink=True, weight=256))),
    ),
    "10.3.0.0/24 nexthop dev e0 nexthop dev e1": (
        key("10.3.0.0/24"), Route(hops=(hop(None, E0), hop(None, E1)))
    ),
    "10.3.0.0/24 src 172.31.1.11 mtu 1300 metric 8 nexthop via 172.31.1.2 dev e0 nexthop via 172.31.2.2 dev e1": (
        key("10.3.0.0/24", metric=8),
        Route(
            source=IPv4Address("172.31.1.11"), mtu=1300,
            hops=(hop("172.31.1.2", E0), hop("172.31.2.2", E1)),
        ),
    ),
    "10.3.0.0/24 nexthop via 172.31.1.2 dev e0 nexthop encap ip id 5 dst 1.2.3.4 via inet6 fe80::1 dev e1": (
        key("10.3.0.0/24"), Route(hops=(hop("172.31.1.2", E0), hop("fe80::1", E1, encapsulation=WRAP)))
    ),
    "10.3.0.0/24 nexthop via 172.31.1.2 dev e0": (key("10.3.0.0/24"), Route(hops=(hop("172.31.1.2", E0),))),
    "10.4.0.0/24 encap ip id 5 dst 1.2.3.4 via 172.31.1.2 dev e0": (
        key("10.4.0.0/24"), via("172.31.1.2", encapsulation=WRAP)
    ),
    "10.4.0.0/24 encap ip id 5 src 9.9.9.9 dst 1.2.3.4 ttl 6 tos 4 dev e0": (
        key("10.4.0.0/24"), Route(device=E0, scope=Scope.LINK, encapsulation=WRAP_IN_FULL)
    ),
    "10.4.0.0/24 encap ip6 id 5 dst fd00::4 dev e0": (
        key("10.4.0.0/24"), Route(device=E0, scope=Scope.LINK, encapsulation=WRAP_IN_IPV6)
    ),
    "10.4.0.0/24 via inet6 fe80::1 dev e0": (key("10.4.0.0/24"), via("fe80::1")),
    "10.4.0.0/24 via inet6 fe80::1 dev e0 onlink metric 3": (key("10.4.0.0/24", metric=3), via("fe80::1", onlink=True)),
    "fd10::/64 via fd01::2": (key("fd10::/64"), via("fd01::2")),
    "fd10::/64 via fe80::1 dev e0 metric 5": (key("fd10::/64", metric=5), via("fe80::1")),
    "default via fe80::1 dev e0": (key("::/0"), via("fe80::1")),
    "fd10::5 dev e0": (key("fd10::5/128"), Route(device=E0)),
    "fd10::5 dev e0 table 1000 mtu 1400": (key("fd10::5/128", table=1000), Route(device=E0, mtu=1400)),
    "fd10::5 via fd77::1 dev e0 onlink src fd01::11 mtu 1400": (
        key("fd10::5/128"), via("fd77::1", onlink=True, source=IPv6Address("fd01::11"), mtu=1400)
    ),
    "blackhole fd10::/122": (key("fd10::/122"), Route(RouteType.BLACKHOLE)),
    "unreachable fd10::/122 metric 8": (key("fd10::/122", metric=8), Route(RouteType.UNREACHABLE)),
    "prohibit fd10::/122": (key("fd10::/122"), Route(RouteType.PROHIBIT)),
    "throw fd10::/122 table 90": (key("fd10::/122", table=90), Route(RouteType.THROW)),
    "fd10::/64 nexthop via fd01::2 dev e0 weight 3 nexthop via fd02::2 dev e1 weight 256": (
        key("fd10::/64"), Route(hops=(hop("fd01::2", E0, weight=3), hop("fd02::2", E1, weight=256)))
    ),
    "fd10::/64 mtu 1300 src fd01::11 metric 6 nexthop via fd99::2 dev e0 onlink nexthop via fe80::2 dev e1": (
        key("fd10::/64", metric=6),
        Route(
            source=IPv6Address("fd01::11"), mtu=1300,
            hops=(hop("fd99::2", E0, onlink=True), hop("fe80::2", E1)),
        ),
    ),
    "fd10::/64 nexthop encap ip id 5 dst 1.2.3.4 via fd01::2 dev e0 nexthop via fd02::2 dev e1": (
        key("fd10::/64"), Route(hops=(hop("fd01::2", E0, encapsulation=WRAP), hop("fd02::2", E1)))
    ),
    "fd10::/64 encap ip6 id 5 dst fd00::4 via fd01::2 dev e0": (
        key("fd10::/64"), via("fd01::2", encapsulation=WRAP_IN_IPV6)
    ),
}  # fmt: skip
"""By the words after `ip route add`, what we call the same."""


OBJECTS = {
    "id 5 via 172.31.9.2 dev e0 onlink": (5, NextHopObject(hop("172.31.9.2", E0, onlink=True))),
    "id 4000000000 via 172.31.2.2 dev e1": (4000000000, NextHopObject(hop("172.31.2.2", E1))),
    "id 7 dev e1": (7, NextHopObject(hop(None, E1))),
    "id 8 via fe80::1 dev e1": (8, NextHopObject(hop("fe80::1", E1))),
    "id 9 via fd77::1 dev e1 onlink": (9, NextHopObject(hop("fd77::1", E1, onlink=True))),
    "id 10 encap ip id 5 dst 1.2.3.4 via 172.31.2.2 dev e1": (
        10, NextHopObject(hop("172.31.2.2", E1, encapsulation=WRAP))
    ),
    "id 11 group 101,3/102": (11, NextHopObject(group=((101, 3), (102, 1)))),
    "id 12 group 102,256": (12, NextHopObject(group=((102, 256),))),
}  # fmt: skip
"""By the words after `ip nexthop add`, what we call the same."""


def command(words: str) -> str:
    family = "-6" if "::" in words.split()[0 if words[0] in "1fd" else 1] or "via fe80" in words else "-4"
    before, several, after = words.partition(" nexthop")
    return f"{family} route add {before} proto 80{several}{after}"
