"""The packets of RFC 2003, against bytes from the wire and against themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipip import header
from ipip.header import Outer

A1, B1 = bytes([172, 31, 1, 11]), bytes([172, 31, 2, 11])

ECHO = bytes.fromhex(
    "45000054f41340003f01300a0a4101050a410205"  # IPv4, don't fragment, 10.65.1.5 -> 10.65.2.5, ICMP
    "0800f7fd00010001" + "00" * 56
)
"""A ping of the usual size."""

ENCAPSULATED = bytes.fromhex("4500006800004000400" + "4df3dac1f010bac1f020b") + ECHO


def ipv4(*, protocol: int = 17, fragment: int = 0, source: str = "0a410105", destination: str = "0a410205") -> bytes:
    head = bytes.fromhex("4500001c0000") + fragment.to_bytes(2, "big") + bytes([64, protocol, 0, 0])
    return head + bytes.fromhex(source + destination) + bytes.fromhex("0800f7fd00010001")


def test_encapsulates_as_the_kernel_does() -> None:
    assert header.encapsulate(ECHO, A1, B1) == ENCAPSULATED


def test_takes_the_header_off_again() -> None:
    split = header.decode(ENCAPSULATED)
    assert split is not None
    assert split[0] == Outer(A1, B1, type_of_service=0, dont_fragment=True, payload=84)
    assert bytes(split[1]) == ECHO


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param("0001f203f4f5f6f7", 0x220D, id="the example of RFC 1071 section 3"),
        pytest.param("4500002c00004000400600000a0000010a000002", 0x26CA, id="a header"),
        pytest.param("", 0xFFFF, id="nothing"),
        pytest.param("0000", 0xFFFF, id="zero"),
        pytest.param("ffff", 0, id="all ones"),
        pytest.param("01", 0xFEFF, id="odd length is padded"),
    ],
)
def test_checksum(data: str, expected: int) -> None:
    assert header.checksum(bytes.fromhex(data)) == expected


def by_words(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=100))
def test_the_remainder_is_the_one_complement_sum(data: bytes) -> None:
    assert header.checksum(data) == by_words(data)


addresses = st.binary(min_size=4, max_size=4)
outers = st.builds(
    Outer,
    addresses,
    addresses,
    st.integers(0, 255),
    st.booleans(),
    st.integers(0, 1500),
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
)


@given(outers)
def test_header_round_trip(outer: Outer) -> None:
    split = header.decode(header.encode(outer) + bytes(outer.payload))
    assert split is not None
    assert split[0] == outer
    assert len(split[1]) == outer.payload


@given(outers, addresses, addresses)
def test_packet_round_trip(inner: Outer, source: bytes, destination: bytes) -> None:
    packet = header.encode(inner) + bytes(inner.payload)
    split = header.decode(header.encapsulate(packet, source, destination))
    assert split is not None
    assert bytes(split[1]) == packet
    assert split[0] == Outer(source, destination, inner.type_of_service, inner.dont_fragment, len(packet))


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda data: b"\x45" + data))
def test_rubbish_never_raises(data: bytes) -> None:
    header.fault(data)
    header.decode(data)
    header.fragmentation_needed(data, 1380)


@given(st.integers(0, len(ENCAPSULATED) - 1), st.integers(1, 255))
def test_a_damaged_outer_header_is_never_taken_for_another(at: int, damage: int) -> None:
    packet = bytearray(ENCAPSULATED)
    packet[at] ^= damage
    split = header.decode(bytes(packet))
    assert (split is None) == (at < header.SIZE)


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        pytest.param(ECHO, None, id="good"),
        pytest.param(ECHO + b"padding", None, id="padded"),
        pytest.param(b"", "shorter than an IPv4 header", id="empty"),
        pytest.param(ECHO[:19], "shorter than an IPv4 header", id="no whole header"),
        pytest.param(b"\x60" + ECHO[1:], "not IPv4", id="IPv6"),
        pytest.param(b"\x44" + ECHO[1:], "lengths contradict each other", id="header length below 20"),
        pytest.param(ECHO[:2] + b"\0\x13" + ECHO[4:], "lengths contradict each other", id="total below header"),
        pytest.param(ECHO[:-1], "cut short", id="cut short"),
    ],
)
def test_what_is_wrong_with_a_packet_is_said(packet: bytes, why: str | None) -> None:
    assert header.fault(packet) == why


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(
            header.encode(Outer(A1, B1))[:9] + b"\x11" + header.encode(Outer(A1, B1))[10:], id="not protocol 4"
        ),
        pytest.param(ENCAPSULATED[:6] + b"\x20\x00" + ENCAPSULATED[8:], id="a fragment"),
    ],
)
def test_what_is_no_encapsulated_packet_is_not_split(packet: bytes) -> None:
    assert header.decode(packet) is None


NOT_ECT, ECT_1, ECT_0, CE = range(4)


@pytest.mark.parametrize(
    ("inner", "not_ect", "ect_0", "ect_1", "ce"),
    [
        pytest.param(NOT_ECT, NOT_ECT, NOT_ECT, NOT_ECT, None, id="inner is not capable"),
        pytest.param(ECT_0, ECT_0, ECT_0, ECT_1, CE, id="inner is ECT(0)"),
        pytest.param(ECT_1, ECT_1, ECT_1, ECT_1, CE, id="inner is ECT(1)"),
        pytest.param(CE, CE, CE, CE, CE, id="inner is marked"),
    ],
)
def test_congestion_bits_combine_as_in_figure_4_of_rfc_6040(
    inner: int, not_ect: int, ect_0: int, ect_1: int, ce: int | None
) -> None:
    dscp = 0xB8
    row = [header.congestion(outer, dscp | inner) for outer in (NOT_ECT, ECT_0, ECT_1, CE)]
    assert row == [None if bits is None else dscp | bits for bits in (not_ect, ect_0, ect_1, ce)]


@given(outers, st.integers(0, 255))
def test_another_type_of_service_leaves_a_valid_packet(outer: Outer, service: int) -> None:
    packet = header.encode(outer) + bytes(outer.payload)
    split = header.decode(header.with_type_of_service(packet, service))
    assert split is not None
    assert split[0] == outer._replace(type_of_service=service)


def test_the_sender_is_told_the_mtu_with_the_head_of_its_packet() -> None:
    message = header.fragmentation_needed(ECHO, 1380)
    assert message is not None
    assert message.hex() == "0304f7970000" + "0564" + ECHO.hex()
    assert header.checksum(message) == 0


def test_a_quote_ends_so_that_the_error_has_576_bytes() -> None:
    packet = header.encode(Outer(A1, B1, payload=1440)) + bytes(1440)
    message = header.fragmentation_needed(packet, 1380)
    assert message is not None
    assert header.SIZE + len(message) == 576


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ipv4(protocol=1)[:20] + b"\x03" + bytes(7), id="an ICMP error"),
        pytest.param(ipv4(fragment=185), id="a later fragment"),
        pytest.param(ipv4(source="00000000"), id="from nowhere"),
        pytest.param(ipv4(source="e0000001"), id="from a group"),
        pytest.param(ipv4(source="7f000001"), id="from loopback"),
        pytest.param(ipv4(destination="e00000fb"), id="to a group"),
        pytest.param(ipv4(destination="ffffffff"), id="to everybody"),
    ],
)
def test_nobody_is_told_about(packet: bytes) -> None:
    assert header.fragmentation_needed(packet, 1380) is None


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ipv4(), id="UDP"),
        pytest.param(ipv4(protocol=1), id="an ICMP question"),
        pytest.param(ipv4(fragment=0x2000), id="a first fragment"),
    ],
)
def test_the_sender_is_told_about(packet: bytes) -> None:
    assert header.fragmentation_needed(packet, 1380) is not None
