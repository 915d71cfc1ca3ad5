"""Next-hop objects as bytes, against what a kernel dumped and against themselves."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from codec_forms import INDEXES, NAMES, damaged, encapsulations, ipv4, ipv6, protocols
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel import next_hop_codec
from felix_py.kernel.hop_codec import NoDevice
from felix_py.kernel.next_hop_codec import decode, encode, normalised
from felix_py.kernel.objects import NextHop, NextHopObject
from felix_py.kernel.route_codec import ip_encapsulation

WRAP = ip_encapsulation(IPv4Address("1.2.3.4"), key=5)
WRAPPED = (
    "0c0001000000000000000005" "0800020001020304" "0800030000000000" "0500050000000000" "0500040000000000"
    "0600060000000000" "0600070002000000"
)  # fmt: skip
"""The payload of RTA_ENCAP in full, and the attribute for its kind behind it."""

GOLDEN = [
    pytest.param(
        5,
        NextHopObject(NextHop(IPv4Address("172.31.1.2"), "eth1", onlink=True)),
        "0200500004000000" "0800010005000000" "0800050003000000" "08000600ac1f0102",
        "02fd500004000000" "0800010005000000" "0800050003000000" "08000600ac1f0102",
        id="onlink gateway",
    ),
    pytest.param(
        7,
        NextHopObject(NextHop(None, "eth1")),
        "0200500000000000" "0800010007000000" "0800050003000000",
        "02fe500010000000" "0800010007000000" "0800050003000000",
        id="device, without carrier in the dump",
    ),
    pytest.param(
        8,
        NextHopObject(NextHop(IPv6Address("fe80::1"), "eth0"), protocol=4),
        "0a00040000000000" "0800010008000000" "0800050002000000" "14000600fe800000000000000000000000000001",
        "0afd040000000000" "0800010008000000" "0800050002000000" "14000600fe800000000000000000000000000001",
        id="IPv6",
    ),
    pytest.param(
        12,
        NextHopObject(NextHop(IPv4Address("172.31.2.2"), "eth1", encapsulation=WRAP)),
        "0200500000000000" "080001000c000000" "0800050003000000" "08000600ac1f0202" "38000880" + WRAPPED,
        "02fd500000000000" "080001000c000000" "0800050003000000" "08000600ac1f0202" "38000800" + WRAPPED,
        id="encapsulation",
    ),
    pytest.param(
        10,
        NextHopObject(group=((5, 3), (6, 1))),
        "0000500000000000" "080001000a000000" "0600030000000000" "14000200" "0500000002000000" "0600000000000000",
        "0000500000000000" "080001000a000000" "0600030000000000" "14000200" "0500000002000000" "0600000000000000"
        "08000e0000000080",
        id="group",
    ),
]  # fmt: skip
"""ID, object, what we send, and what a kernel 6.18 dumped for it."""

golden = pytest.mark.parametrize(("number", "entry", "sent", "dumped"), GOLDEN)


@golden
def test_what_we_send_is_what_the_kernel_dumps(number: int, entry: NextHopObject, sent: str, dumped: str) -> None:
    assert encode(number, entry, INDEXES).hex() == sent
    assert normalised(bytes.fromhex(dumped)).hex() == sent


@golden
def test_dumps_are_understood(number: int, entry: NextHopObject, sent: str, dumped: str) -> None:
    assert decode(bytes.fromhex(dumped), NAMES) == (number, entry)
    assert decode(bytes.fromhex(sent), NAMES) == (number, entry)


@golden
def test_what_is_said_without_decoding(number: int, entry: NextHopObject, sent: str, dumped: str) -> None:
    for body in map(bytes.fromhex, (sent, dumped)):
        assert next_hop_codec.number_of(body) == number
        assert next_hop_codec.protocol_of(body) == entry.protocol
        left = [index for index in range(9) if next_hop_codec.leaves_by(body, index)]
        assert left == ([INDEXES[entry.hop.device]] if entry.hop and entry.hop.device else [])


BEYOND_US = [
    pytest.param("0200000000000000" "0800010010000000" "04000400", id="blackhole"),
    pytest.param("0afd500000000000" "0800010011000000" "0800050003000000", id="IPv6 without a gateway"),
    pytest.param(
        "0000500000000000" "080001000d000000" "0600030001000000" "0c000200" "0500000000000000"
        "0c000c80" "0600010020000000",
        id="resilient group",
    ),
    pytest.param("0200500000000000" "0800050003000000", id="no ID"),
    pytest.param("0000500000000000" "080001000d000000" "0a000200" "0500000000000000", id="half a member"),
    pytest.param("0200500000000000" "0800010005000000" "0800050003000000" "07000600ac1f0100", id="half a gateway"),
    pytest.param("02005000000000", id="half a head"),
]  # fmt: skip


@pytest.mark.parametrize("body", BEYOND_US)
def test_what_we_cannot_hold_is_none(body: str) -> None:
    assert decode(bytes.fromhex(body), NAMES) is None


def test_a_device_that_does_not_exist_is_named() -> None:
    with pytest.raises(NoDevice, match="cali9 does not exist"):
        encode(5, NextHopObject(NextHop(None, "cali9")), INDEXES)


def test_to_be_deleted_an_object_has_an_id_and_nothing_else() -> None:
    assert next_hop_codec.by_number(10).hex() == "0000000000000000080001000a000000"


hops = st.builds(
    NextHop,
    st.none() | ipv4 | ipv6,
    st.sampled_from(sorted(INDEXES)),
    st.booleans(),
    st.just(1),
    st.none() | encapsulations,
)
numbers = st.integers(1, 2**32 - 1)
groups = st.lists(st.tuples(numbers, st.integers(1, 2**16)), min_size=1, max_size=4).map(tuple)
objects = st.builds(NextHopObject, hops, st.just(()), protocols) | st.builds(
    NextHopObject, st.none(), groups, protocols
)


@given(numbers, objects)
def test_round_trip(number: int, entry: NextHopObject) -> None:
    body = encode(number, entry, INDEXES)
    assert decode(body, NAMES) == (number, entry)
    assert normalised(body) == body
    assert next_hop_codec.number_of(body) == number


BODIES = tuple(bytes.fromhex(text) for case in GOLDEN for text in case.values[2:] if isinstance(text, str))


@examples(400)
@given(damaged(BODIES) | st.binary(max_size=60))
def test_rubbish_never_raises(body: bytes) -> None:
    calm = normalised(body)
    assert normalised(calm) == calm
    decoded = decode(body, NAMES)
    assert decoded is None or decoded[0] == next_hop_codec.number_of(body)
    assert next_hop_codec.protocol_of(body) in range(256)
    assert next_hop_codec.leaves_by(body, 0) is False
