"""The route codec, against bytes that `ip` sends and against itself."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel import rtnetlink
from felix_py.kernel.objects import Route, RouteKey, RouteType, Scope

NAMES = {2: "eth0", 7: "cali0123456789a"}
INDEX = {name: index for index, name in NAMES.items()}

GOLDEN = [
    pytest.param(
        RouteKey(IPv4Network("10.65.1.0/26")),
        Route(via=IPv4Address("172.31.1.12"), device="eth0"),
        "021a0000fe50000100000000" "08000f00fe000000" "080001000a410100" "08000500ac1f010c" "0800040002000000",
        id="through a gateway",
    ),
    pytest.param(
        RouteKey(IPv4Network("10.65.0.5/32")),
        Route(device="cali0123456789a", scope=Scope.LINK),
        "02200000fe50fd0100000000" "08000f00fe000000" "080001000a410005" "0800040007000000",
        id="pod on its veth",
    ),
    pytest.param(
        RouteKey(IPv4Network("10.65.0.0/26")),
        Route(RouteType.BLACKHOLE),
        "021a0000fe50000600000000" "08000f00fe000000" "080001000a410000",
        id="blackhole",
    ),
    pytest.param(
        RouteKey(IPv4Network("10.65.2.0/26"), metric=7),
        Route(via=IPv4Address("172.31.2.11"), device="eth0", onlink=True, mtu=1400),
        "021a0000fe50000104000000" "08000f00fe000000" "080001000a410200" "0800060007000000"
        "0c000800" "0800020078050000" "08000500ac1f020b" "0800040002000000",
        id="metric, onlink, mtu",
    ),
    pytest.param(
        RouteKey(IPv6Network("fd00::/122")),
        Route(via=IPv6Address("fe80::1"), device="eth0"),
        "0a7a0000fe50000100000000" "08000f00fe000000" "14000100fd000000000000000000000000000000"
        "14000500fe800000000000000000000000000001" "0800040002000000",
        id="IPv6 needs no code of its own",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "route", "body"), GOLDEN)
def test_encodes_what_the_kernel_dumps(key: RouteKey, route: Route, body: str) -> None:
    assert rtnetlink.encode(key, route, INDEX.get(route.device or "")).hex() == body


@pytest.mark.parametrize(("key", "route", "body"), GOLDEN)
def test_decodes_what_it_encodes(key: RouteKey, route: Route, body: str) -> None:
    assert rtnetlink.decode(bytes.fromhex(body), NAMES) == (key, route)


addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
prefixes = st.tuples(addresses, st.integers(0, 32)).map(lambda pair: IPv4Network(pair, strict=False))
keys = st.builds(RouteKey, prefixes, st.integers(1, 2**32 - 1), st.integers(0, 255), st.integers(0, 2**32 - 1))
routes = st.builds(
    Route,
    st.sampled_from(RouteType),
    st.none() | addresses,
    st.none() | st.sampled_from(sorted(INDEX)),
    st.sampled_from(Scope),
    st.booleans(),
    st.none() | addresses,
    st.none() | st.integers(1, 2**32 - 1),
    st.integers(0, 255),
)


@given(keys, routes)
def test_round_trip(key: RouteKey, route: Route) -> None:
    body = rtnetlink.encode(key, route, INDEX.get(route.device or ""))
    assert rtnetlink.decode(body, NAMES) == (key, route)


@given(st.binary(max_size=200))
def test_rubbish_never_raises(data: bytes) -> None:
    for *_, body in rtnetlink.messages(data):
        rtnetlink.decode(body, NAMES)
    rtnetlink.decode(data, NAMES)


def test_refusal_carries_the_kernels_sentence() -> None:
    text = rtnetlink.attribute(1, b"Nexthop has invalid gateway\0")
    body = (-101).to_bytes(4, "little", signed=True) + bytes(16) + text
    flags = rtnetlink.ACK_TLVS | rtnetlink.CAPPED
    assert rtnetlink.refusal(flags, body) == (101, "Network is unreachable: Nexthop has invalid gateway")
