"""Neighbours as bytes, against what a kernel dumped and against themselves."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from codec_forms import INDEXES, NAMES, damaged, devices, ipv4, ipv6
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel.hop_codec import NoDevice
from felix_py.kernel.neighbour_codec import decode, encode
from felix_py.kernel.objects import Neighbour

GOLDEN = [
    pytest.param(
        Neighbour(IPv4Address("172.31.1.9"), "eth1", "aa:bb:cc:dd:ee:0f"),
        "0200000003000000" "80000000" "08000100ac1f0109" "0a000200aabbccddee0f0000",
        id="permanent",
    ),
    pytest.param(
        Neighbour(IPv6Address("fd01::9"), "eth0", "aa:bb:cc:dd:ee:0f", state=0x40),
        "0a00000002000000" "40000000" "14000100fd010000000000000000000000000009" "0a000200aabbccddee0f0000",
        id="IPv6, without ARP",
    ),
    pytest.param(
        Neighbour(IPv4Address("169.254.1.1"), "eth0", proxy=True),
        "0200000002000000" "00000800" "08000100a9fe0101",
        id="proxy",
    ),
]  # fmt: skip
golden = pytest.mark.parametrize(("neighbour", "body"), GOLDEN)


@golden
def test_encodes_what_the_kernel_takes(neighbour: Neighbour, body: str) -> None:
    assert encode(neighbour, INDEXES).hex() == body


@golden
def test_decodes_what_it_encodes(neighbour: Neighbour, body: str) -> None:
    assert decode(bytes.fromhex(body), NAMES) == neighbour


def test_an_address_that_nobody_answers_for_has_no_mac() -> None:
    failed = "02000000030000002000000108000100ac1f01630800040003000000"
    assert decode(bytes.fromhex(failed), NAMES) == Neighbour(IPv4Address("172.31.1.99"), "eth1", state=0x20)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("0700000003000000" "80000000" "0a000200aabbccddee0f0000", id="entry of a bridge"),
        pytest.param("0200000003000000" "80000000" "08000200ac1f0102" "08000100ac1f0109", id="tunnel's own address"),
        pytest.param("0200000003000000" "80000000" "06000100ac1f0000", id="two bytes of address"),
        pytest.param("0200000003000000" "80000000", id="no address"),
        pytest.param("0200000000000000" "80000000" "08000100ac1f0109", id="no interface"),
        pytest.param("02000000030000", id="half a head"),
    ],
)  # fmt: skip
def test_what_is_no_neighbour_of_ours_is_none(body: str) -> None:
    assert decode(bytes.fromhex(body), NAMES) is None


def test_a_device_that_does_not_exist_is_named() -> None:
    with pytest.raises(NoDevice, match="cali9 does not exist"):
        encode(Neighbour(IPv4Address("172.31.1.9"), "cali9"), INDEXES)


macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
states = st.integers(0, 0xFFFF)
neighbours = st.builds(Neighbour, ipv4 | ipv6, devices, st.none() | macs, states) | st.builds(
    Neighbour, ipv4 | ipv6, devices, st.none(), st.just(0x80), st.just(value=True)
)


@given(neighbours)
def test_round_trip(neighbour: Neighbour) -> None:
    assert decode(encode(neighbour, INDEXES), NAMES) == neighbour


BODIES = tuple(bytes.fromhex(str(case.values[1])) for case in GOLDEN)


@examples(300)
@given(damaged(BODIES) | st.binary(max_size=40))
def test_rubbish_never_raises(body: bytes) -> None:
    decoded = decode(body, {})
    assert decoded is None or decoded.device.startswith("if")
