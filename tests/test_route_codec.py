"""Routes as bytes, against what a kernel dumped and against themselves."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from codec_forms import (
    GOLDEN,
    GOLDEN_BODIES,
    INDEXES,
    IPV6_FIGURES,
    NAMES,
    damaged,
    entries,
)
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel import route_codec
from felix_py.kernel.objects import NextHop, Route, RouteKey, RouteType, Scope
from felix_py.kernel.route_codec import Encoder, NoDevice, decode, identity, identity_of, normalised

encode = Encoder(INDEXES)
golden = pytest.mark.parametrize(("key", "route", "body"), GOLDEN.values(), ids=GOLDEN)

GATEWAY = Route(via=IPv4Address("172.31.1.12"), device="eth0")
BLOCK = RouteKey(IPv4Network("10.65.1.0/26"))
BLOCK_BODY = GOLDEN["through a gateway"][2]
SEVERAL = GOLDEN["several next hops"][2]
SEVERAL_IPV6 = GOLDEN["IPv6 with several next hops"][2]


@golden
def test_encodes_what_the_kernel_dumps(key: RouteKey, route: Route, body: str) -> None:
    assert encode(key, route).hex() == body


@golden
def test_decodes_what_it_encodes(key: RouteKey, route: Route, body: str) -> None:
    assert decode(bytes.fromhex(body), NAMES) == (key, route)


@golden
def test_what_we_send_is_normal_already(key: RouteKey, route: Route, body: str) -> None:
    assert normalised(encode(key, route)).hex() == body


@given(entries)
def test_round_trip(entry: tuple[RouteKey, Route]) -> None:
    assert decode(encode(*entry), NAMES) == entry


@given(entries)
def test_every_body_has_the_identity_of_its_key(entry: tuple[RouteKey, Route]) -> None:
    assert identity(encode(*entry)) == identity_of(entry[0])


@given(st.lists(entries, min_size=1, max_size=6))
def test_many_keys_of_one_route_are_encoded_as_each_of_them_is(several: list[tuple[RouteKey, Route]]) -> None:
    route, version = several[0][1], several[0][0].dst.version
    keys = [key for key, _ in several if key.dst.version == version]
    assert encode.named(route, keys) == {identity_of(key): encode(key, route) for key in keys}


few_keys = st.builds(
    RouteKey,
    st.sampled_from([IPv4Network("0.0.0.0/0"), IPv4Network("0.0.0.0/8"), IPv6Network("::/0"), IPv6Network("::/8")]),
    st.sampled_from([254, 1024]),
    st.sampled_from([0, 16]),
    st.sampled_from([0, 16, 254, 1024]),
)


@given(few_keys, few_keys)
def test_identities_are_equal_where_keys_are(one: RouteKey, other: RouteKey) -> None:
    assert (identity_of(one) == identity_of(other)) is (one == other)


@given(entries)
def test_what_we_say_is_what_we_compare(entry: tuple[RouteKey, Route]) -> None:
    body = encode(*entry)
    assert normalised(body) == body
    if entry[0].dst.version == 6:
        assert normalised(body + bytes.fromhex(IPV6_FIGURES)) == body


@given(entries)
def test_equal_routes_are_encoded_alike_whoever_made_them(entry: tuple[RouteKey, Route]) -> None:
    key, route = entry
    fresh = Encoder(INDEXES)
    assert [fresh(key, replace(route)), fresh(key, route), fresh(key, replace(route))] == [encode(key, route)] * 3


@pytest.mark.parametrize(
    ("key", "route", "wanted"),
    [
        pytest.param(
            RouteKey(IPv6Network("fd00::5/128")),
            Route(device="eth0", scope=Scope.LINK),
            Route(device="eth0"),
            id="IPv6 has no scope",
        ),
        pytest.param(
            BLOCK,
            Route(hops=(NextHop(IPv4Address("172.31.1.12"), "eth0", onlink=True, weight=7),)),
            replace(GATEWAY, onlink=True),
            id="one of one next hop is a plain route",
        ),
        pytest.param(
            BLOCK, replace(GATEWAY, mtu=65536), replace(GATEWAY, mtu=65520), id="MTU beyond the kernel's most"
        ),
        pytest.param(BLOCK, replace(GATEWAY, mtu=0), GATEWAY, id="MTU 0 is none"),
    ],
)
def test_what_the_kernel_would_make_of_it_is_said_at_once(key: RouteKey, route: Route, wanted: Route) -> None:
    assert encode(key, route) == encode(key, wanted)


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(Route(device="cali9"), id="device"),
        pytest.param(Route(hops=(NextHop(None, "eth0"), NextHop(None, "cali9"))), id="leg"),
    ],
)
def test_a_device_that_does_not_exist_is_named(route: Route) -> None:
    for _ in range(2):
        with pytest.raises(NoDevice, match="cali9 does not exist") as raised:
            encode(BLOCK, route)
        assert raised.value.device == "cali9"


def test_an_encoder_forgets_what_it_made_when_it_made_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_codec, "LIMIT", 2)
    fresh = Encoder(INDEXES)
    for metric in range(1, 9):
        key, route = BLOCK._replace(metric=metric), replace(GATEWAY, mtu=1400 + metric)
        assert fresh(key, route) == encode(key, route)
        assert max(map(len, (fresh._ipv4.by_object, fresh._ipv4.by_value, fresh._ipv4.frames))) <= 2


NORMAL = [
    pytest.param(BLOCK_BODY.replace("0001" "00000000", "0001" "11000000"), BLOCK_BODY, id="dead, link down"),
    pytest.param(BLOCK_BODY.replace("0001" "00000000", "0001" "00c00020"), BLOCK_BODY, id="offloaded, trapped, failed"),
    pytest.param(SEVERAL.replace("10000002", "10001102"), SEVERAL, id="leg dead, link down"),
    pytest.param(SEVERAL.replace("100004ff", "10006cff"), SEVERAL, id="leg offloaded, unresolved, trapped"),
    pytest.param(
        SEVERAL_IPV6.replace("1c000002", "1c001002") + IPV6_FIGURES, SEVERAL_IPV6, id="IPv6 leg without carrier"
    ),
    pytest.param(
        GOLDEN["IPv6"][2] + IPV6_FIGURES.replace("24000c00" "00000000", "24000c00" "10270000"),
        GOLDEN["IPv6"][2],
        id="figures of the cache",
    ),
    pytest.param(
        GOLDEN["IPv6"][2] + IPV6_FIGURES.replace("0500140000", "0500140001"),
        GOLDEN["IPv6"][2] + "0500140001000000",
        id="high preference is somebody's will",
    ),
    pytest.param(
        "02180000fe50000104000000" "08000f00fe000000" "080001000a050000" "08001e0005000000"
        "08000500ac1f0102" "0800040003000000",
        "02180000fe50000100000000" "08000f00fe000000" "080001000a050000" "08001e0005000000",
        id="object: what it says of an onlink gateway",
    ),
    pytest.param(
        "02180000fe50000100000000" "08000f00fe000000" "080001000a050000" "08001e000a000000"
        "24000900" "1000040203000000" "08000500ac1f0102" "1000000005000000" "08000500ac1f0202",
        "02180000fe50000100000000" "08000f00fe000000" "080001000a050000" "08001e000a000000",
        id="object: what it says of several next hops",
    ),
    pytest.param(
        "0a400000fe50000100000000" "08000f00fe000000" "14000100fd100000000000000000000000000000" "0800060000040000"
        "08001e0008000000" "14000500fe800000000000000000000000000001" "0800040005000000" + IPV6_FIGURES,
        "0a400000fe50000100000000" "08000f00fe000000" "14000100fd100000000000000000000000000000" "0800060000040000"
        "08001e0008000000",
        id="object: IPv6",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "wanted"), NORMAL)
def test_what_the_kernel_adds_by_itself_is_taken_away(body: str, wanted: str) -> None:
    assert normalised(bytes.fromhex(body)).hex() == wanted


def test_the_descriptor_of_a_program_is_taken_away() -> None:
    wrap = route_codec.bpf_encapsulation(9, "felix")
    wanted = route_codec.bpf_encapsulation(4711, "felix")
    plain, other = (encode(BLOCK, replace(GATEWAY, encapsulation=each)) for each in (wrap, wanted))
    assert plain != other
    assert normalised(plain) == normalised(other)
    assert (
        normalised(plain).hex() == BLOCK_BODY + "14001600100003000a000200" + b"felix\0\0\0".hex() + "0600150006000000"
    )


def test_a_strange_order_of_attributes_has_the_same_identity() -> None:
    key = RouteKey(IPv4Network("10.65.2.0/26"), 300, 16, 7)
    usual = encode(key, GATEWAY)
    head, table, dst, metric, rest = usual[:12], usual[12:20], usual[20:28], usual[28:36], usual[36:]
    orders = [
        table + dst + metric + rest,
        dst + table + metric + rest,
        table + dst + rest + metric,
        rest + metric + dst + table,
    ]
    assert {identity(head + order) for order in orders} == {identity_of(key)}


@pytest.mark.parametrize(
    ("body", "key"),
    [
        pytest.param("021a0000fe50000100000000" "080001000a410100", BLOCK, id="the table in the head alone"),
        pytest.param(
            "021a0000fe50000100000000" "08000f00fe000000" "080001000a410100" "0800060000000000", BLOCK, id="metric 0"
        ),
        pytest.param(
            "0a400000fe50000100000000" "08000f00fe000000" "14000100fd100000000000000000000000000000",
            RouteKey(IPv6Network("fd10::/64"), metric=1024),
            id="IPv6 without a metric",
        ),
    ],
)  # fmt: skip
def test_what_is_left_out_has_its_usual_value(body: str, key: RouteKey) -> None:
    assert identity(bytes.fromhex(body)) == identity_of(key)
    assert route_codec.table_of(bytes.fromhex(body)) == 254


def test_a_route_by_source_address_is_another_route_and_beyond_us() -> None:
    plain = bytes.fromhex(GOLDEN["IPv6"][2])
    by_source = plain[:2] + b"\x40" + plain[3:40] + bytes.fromhex("14000200fd20" + "00" * 14) + plain[40:]
    other = by_source.replace(bytes.fromhex("fd20"), bytes.fromhex("fd21"))
    assert len({identity(plain), identity(by_source), identity(other)}) == 3
    assert route_codec.is_beyond_us(by_source)
    assert decode(by_source, NAMES) is None


BEYOND_US = [
    pytest.param("1c" + BLOCK_BODY[2:], id="MPLS"),
    pytest.param(BLOCK_BODY.replace("fe500001", "fe50000b"), id="unknown type"),
    pytest.param(BLOCK_BODY.replace("fe500001", "fe500701"), id="unknown scope"),
    pytest.param("0221" + BLOCK_BODY[4:], id="prefix of 33 bits"),
    pytest.param(BLOCK_BODY.replace("080001000a410100", "060001000a410000"), id="destination of two bytes"),
    pytest.param(BLOCK_BODY.replace("08000500ac1f010c", "07000500ac1f0100"), id="gateway of three bytes"),
    pytest.param(BLOCK_BODY[:22], id="half a head"),
    pytest.param("", id="nothing"),
]


@pytest.mark.parametrize("body", BEYOND_US)
def test_what_we_cannot_hold_is_none(body: str) -> None:
    assert decode(bytes.fromhex(body), NAMES) is None


def test_an_unknown_interface_is_named_by_its_index() -> None:
    decoded = decode(bytes.fromhex(BLOCK_BODY), {})
    assert decoded is not None
    assert decoded[1].device == "if2"


@golden
def test_what_is_said_without_decoding(key: RouteKey, route: Route, body: str) -> None:
    raw = bytes.fromhex(body)
    on_loopback = (1,) if key.dst.version == 6 and route.type is RouteType.BLACKHOLE else ()
    assert route_codec.family_of(raw) == (2 if key.dst.version == 4 else 10)
    assert route_codec.protocol_of(raw) == route.protocol
    assert route_codec.table_of(raw) == key.table
    assert route_codec.through_of(raw) == route.through
    assert route_codec.devices_of(raw) == tuple(INDEXES[name] for name in route.devices) or on_loopback
    assert [index for index in range(9) if route_codec.leaves_by(raw, index)] == sorted(
        {INDEXES[name] for name in route.devices} | set(on_loopback)
    )
    assert not route_codec.is_beyond_us(raw)


def test_the_bytes_of_a_device_are_found_in_its_routes() -> None:
    assert route_codec.device_attribute(2) in encode(BLOCK, GATEWAY)
    assert route_codec.device_attribute(3) not in encode(BLOCK, GATEWAY)
    assert route_codec.through_attribute(10) in encode(BLOCK, Route(through=10))
    assert route_codec.through_attribute(11) not in encode(BLOCK, Route(through=10))


def test_an_index_among_other_bytes_is_no_device() -> None:
    key = RouteKey(IPv4Network("10.0.0.0/32"), metric=int.from_bytes(bytes([7, 0, 0, 0]), "little"))
    assert struct.pack("=I", 7) in encode(key, GATEWAY)
    assert not route_codec.leaves_by(encode(key, GATEWAY), 7)


@examples(500)
@given(
    damaged((*GOLDEN_BODIES, *(body + bytes.fromhex(IPV6_FIGURES) for body in GOLDEN_BODIES))) | st.binary(max_size=80)
)
def test_rubbish_never_raises(body: bytes) -> None:
    calm = normalised(body)
    assert normalised(calm) == calm
    assert len(calm) <= len(body) + 3  # a last attribute without its padding gets it
    decoded = decode(body, NAMES)
    assert decoded is None or not route_codec.is_beyond_us(body)
    for name in (identity(body), identity(calm)):
        assert isinstance(hash(name), int)
    route_codec.leaves_by(body, 2)
    route_codec.devices_of(body)
    assert route_codec.family_of(body) in range(256)
    assert route_codec.protocol_of(body) in range(256)
    assert route_codec.table_of(body) in range(2**32)
    assert route_codec.through_of(body) != 0
    route_codec.is_host(body)
    route_codec.is_link_affair(body)
