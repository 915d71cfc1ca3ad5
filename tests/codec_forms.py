"""Routes of every form that `Route` has words for, as literals of bytes and as Hypothesis strategies."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import strategies as st

from felix_py.kernel.objects import NextHop, Route, RouteEncapsulation, RouteKey, RouteType, Scope
from felix_py.kernel.route_codec import ip_encapsulation

NAMES = {1: "lo", 2: "eth0", 3: "eth1", 7: "cali0123456789a"}
INDEXES = {name: index for index, name in NAMES.items()}

IPV6_FIGURES = "24000c00" + "00" * 32 + "0500140000000000"
"""With this the kernel ends what it says of an IPv6 route: RTA_CACHEINFO and RTA_PREF."""

GOLDEN: dict[str, tuple[RouteKey, Route, str]] = {
    "through a gateway": (
        RouteKey(IPv4Network("10.65.1.0/26")),
        Route(via=IPv4Address("172.31.1.12"), device="eth0"),
        ("021a0000fe50000100000000" "08000f00fe000000" "080001000a410100" "08000500ac1f010c" "0800040002000000"),
    ),
    "pod on its veth": (
        RouteKey(IPv4Network("10.65.0.5/32")),
        Route(device="cali0123456789a", scope=Scope.LINK),
        ("02200000fe50fd0100000000" "08000f00fe000000" "080001000a410005" "0800040007000000"),
    ),
    "blackhole": (
        RouteKey(IPv4Network("10.65.0.0/26")),
        Route(RouteType.BLACKHOLE),
        ("021a0000fe50000600000000" "08000f00fe000000" "080001000a410000"),
    ),
    "metric, onlink, mtu": (
        RouteKey(IPv4Network("10.65.2.0/26"), metric=7),
        Route(via=IPv4Address("172.31.2.11"), device="eth0", onlink=True, mtu=1400),
        ("021a0000fe50000104000000" "08000f00fe000000" "080001000a410200" "0800060007000000"
        "0c000800" "0800020078050000" "08000500ac1f020b" "0800040002000000"),
    ),
    "default in a table beyond 255, with source and tos": (
        RouteKey(IPv4Network("0.0.0.0/0"), table=1000, tos=16),
        Route(via=IPv4Address("172.31.1.12"), device="eth0", source=IPv4Address("172.31.1.11")),
        ("02000010fc50000100000000" "08000f00e8030000" "08000700ac1f010b" "08000500ac1f010c" "0800040002000000"),
    ),
    "IPv4 by an IPv6 gateway": (
        RouteKey(IPv4Network("10.4.0.0/24")),
        Route(via=IPv6Address("fe80::1"), device="eth0"),
        ("02180000fe50000100000000" "08000f00fe000000" "080001000a040000"
        "160012000a00fe8000000000000000000000000000010000" "0800040002000000"),
    ),
    "several next hops": (
        RouteKey(IPv4Network("10.3.0.0/24")),
        Route(
            hops=(
                NextHop(IPv4Address("172.31.1.2"), "eth0", weight=3),
                NextHop(IPv4Address("172.31.2.9"), "eth1", onlink=True, weight=256),
            )
        ),
        ("02180000fe50000100000000" "08000f00fe000000" "080001000a030000" "24000900"
        "1000000202000000" "08000500ac1f0102" "100004ff03000000" "08000500ac1f0209"),
    ),
    "encapsulation": (
        RouteKey(IPv4Network("10.4.0.0/24")),
        Route(
            via=IPv4Address("172.31.1.2"),
            device="eth0",
            encapsulation=ip_encapsulation(
                IPv4Address("1.2.3.4"), source=IPv4Address("9.9.9.9"), key=5, ttl=6, tos=4
            ),
        ),
        ("02180000fe50000100000000" "08000f00fe000000" "080001000a040000" "08000500ac1f0102" "0800040002000000"
        "38001600" "0c0001000000000000000005" "0800020001020304" "0800030009090909" "0500050004000000"
        "0500040006000000" "0600060000000000" "0600150002000000"),
    ),
    "through a next-hop object": (
        RouteKey(IPv4Network("10.5.0.0/24"), metric=4),
        Route(through=10, mtu=1400, source=IPv4Address("172.31.1.11")),
        ("02180000fe50000100000000" "08000f00fe000000" "080001000a050000" "0800060004000000"
        "0c000800" "0800020078050000" "08000700ac1f010b" "08001e000a000000"),
    ),
    "IPv6": (
        RouteKey(IPv6Network("fd00::/122")),
        Route(via=IPv6Address("fe80::1"), device="eth0"),
        ("0a7a0000fe50000100000000" "08000f00fe000000" "14000100fd000000000000000000000000000000" "0800060000040000"
        "14000500fe800000000000000000000000000001" "0800040002000000"),
    ),
    "IPv6 with all of it": (
        RouteKey(IPv6Network("fd10::5/128"), metric=8),
        Route(
            via=IPv6Address("fd77::1"), device="eth0", onlink=True, source=IPv6Address("fd01::11"), mtu=1400
        ),
        ("0a800000fe50000104000000" "08000f00fe000000" "14000100fd100000000000000000000000000005"
        "14000700fd010000000000000000000000000011" "0c000800" "0800020078050000" "0800060008000000"
        "14000500fd770000000000000000000000000001" "0800040002000000"),
    ),
    "IPv6 blackhole, which hangs on lo": (
        RouteKey(IPv6Network("fd10::/64")),
        Route(RouteType.BLACKHOLE),
        ("0a400000fe50000600000000" "08000f00fe000000" "14000100fd100000000000000000000000000000" "0800060000040000"
        "0800040001000000"),
    ),
    "IPv6 with several next hops": (
        RouteKey(IPv6Network("fd10::/64")),
        Route(
            hops=(
                NextHop(IPv6Address("fd01::2"), "eth0", weight=3),
                NextHop(IPv6Address("fd02::2"), "eth1", onlink=True),
            )
        ),
        ("0a400000fe50000100000000" "08000f00fe000000" "14000100fd100000000000000000000000000000" "0800060000040000"
        "3c000900" "1c00000202000000" "14000500fd010000000000000000000000000002"
        "1c00040003000000" "14000500fd020000000000000000000000000002"),
    ),
}  # fmt: skip
"""What we say and its body in hexadecimal, as a kernel 6.18 dumped it for `ip` but for the figures of IPv6."""

GOLDEN_BODIES = tuple(bytes.fromhex(body) for _, _, body in GOLDEN.values())

ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)
devices = st.sampled_from(sorted(INDEXES.keys() - {"lo"}))
encapsulations = st.builds(
    RouteEncapsulation, st.integers(1, 5) | st.integers(7, 2**16 - 1), st.binary(max_size=8).map(lambda half: half * 4)
)
protocols = st.integers(0, 255)
mtus = st.none() | st.integers(1, 65520)


def keys(networks: st.SearchStrategy[IPv4Network] | st.SearchStrategy[IPv6Network]) -> st.SearchStrategy[RouteKey]:
    return st.builds(RouteKey, networks, st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 2**32 - 1))


def hops(gateways: st.SearchStrategy[IPv4Address | IPv6Address]) -> st.SearchStrategy[NextHop]:
    return st.builds(
        NextHop, st.none() | gateways, devices, st.booleans(), st.integers(1, 256), st.none() | encapsulations
    )


ipv4_keys = keys(
    st.tuples(ipv4, st.integers(0, 32)).map(lambda pair: IPv4Network((int(pair[0]), pair[1]), strict=False))
)
ipv6_keys = keys(
    st.tuples(ipv6, st.integers(0, 128)).map(lambda pair: IPv6Network((int(pair[0]), pair[1]), strict=False))
)


def routes(
    addresses: st.SearchStrategy[IPv4Address] | st.SearchStrategy[IPv6Address],
    gateways: st.SearchStrategy[IPv4Address | IPv6Address],
    scopes: st.SearchStrategy[Scope],
) -> st.SearchStrategy[Route]:
    """Return routes of one family: by one next hop, by several, through an object, and those that send nothing."""
    common = {"protocol": protocols, "mtu": mtus, "source": st.none() | addresses, "scope": scopes}
    sending = st.sampled_from([kind for kind in RouteType if kind < RouteType.BLACKHOLE])
    plain = st.builds(
        Route,
        type=sending,
        via=st.none() | gateways,
        device=st.none() | devices,
        onlink=st.booleans(),
        encapsulation=st.none() | encapsulations,
        **common,
    )
    several = st.builds(Route, type=sending, hops=st.lists(hops(gateways), min_size=2, max_size=5).map(tuple), **common)
    through = st.builds(Route, type=sending, through=st.integers(1, 2**32 - 1), **common)
    nowhere = st.builds(
        Route, type=st.sampled_from([kind for kind in RouteType if kind >= RouteType.BLACKHOLE]), **common
    )
    return plain | several | through | nowhere


ipv4_routes = routes(ipv4, ipv4 | ipv6, st.sampled_from(Scope))
ipv6_routes = routes(ipv6, ipv6, st.just(Scope.UNIVERSE))
entries = st.tuples(ipv4_keys, ipv4_routes) | st.tuples(ipv6_keys, ipv6_routes)


@st.composite
def damaged(draw: st.DrawFn, bodies: tuple[bytes, ...]) -> bytes:
    """Return a good body that was cut short, had bits flipped, or had bytes put in between; or mere rubbish."""
    body = bytearray(draw(st.sampled_from(bodies)))
    for _ in range(draw(st.integers(0, 3))):
        position = draw(st.integers(0, len(body) - 1))
        body[position] ^= 1 << draw(st.integers(0, 7))
    if draw(st.booleans()):
        position = draw(st.integers(0, len(body)))
        body[position:position] = draw(st.binary(max_size=12))
    return bytes(body[: draw(st.integers(0, len(body)) | st.just(len(body)))])
