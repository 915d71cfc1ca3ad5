"""The bytes that pass between the agent and the kernel's connection tracking, as a kernel 6.18 sent and took them."""

import random
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel import conntrack_codec as codec
from felix_py.kernel.conntrack_codec import Direction, Entry
from felix_py.kernel.wire import Family

TO_SERVICE = bytes.fromhex(
    "02000000"
    "34000180 14000180 08000100 0a410109 08000200 0a60000a"  # original: 10.65.1.9 asks 10.96.0.10
    "1c000280 05000100 11000000 06000200 00070000 06000300 00350000"  # UDP, port 7 to 53
    "34000280 14000180 08000100 0a410006 08000200 0a410109"  # reply: 10.65.0.6 answers
    "1c000280 05000100 11000000 06000200 00350000 06000300 00070000"
    "06001200 00070000"  # zone 7
    "08000300 0000000a 08000800 00000000 08000c00 d3db77f0 08000b00 00000001 08000700 00000257"
    "1c001880 08000100 00000000 08000200 00000000 08000300 00000000"
)
"""An entry with NAT, as the kernel dumped it."""

OVER_IPV6 = bytes.fromhex(
    "0a000000"
    "4c000180 2c000180 14000300 fd000000000000000000000000000005 14000400 fd000000000000000000000000000009"
    "1c000280 05000100 11000000 06000200 00090000 06000300 00350000"
    "4c000280 2c000180 14000300 fd000000000000000000000000000009 14000400 fd000000000000000000000000000005"
    "1c000280 05000100 11000000 06000200 00350000 06000300 00090000"
    "08000300 0000000a 08000800 00000000 08000c00 b0b0ae04 08000b00 00000001 08000700 00000257"
    "1c001880 08000100 00000000 08000200 00000000 08000300 00000000"
)

PING_IN_HALF_A_ZONE = bytes.fromhex(
    "02000000"
    "44000180 14000180 08000100 0a410005 08000200 0a410005"
    "24000280 05000100 01000000 06000400 65960000 05000500 08000000 05000600 00000000"
    "06000300 00050000"  # zone 5, of the original direction only
    "3c000280 14000180 08000100 0a410005 08000200 0a410005"
    "24000280 05000100 01000000 06000400 65960000 05000500 00000000 05000600 00000000"
    "08000300 0000000a 08000800 00000000 08000c00 a305663b 08000b00 00000001 08000700 0000001d"
)

DUMPED = {"to a service": TO_SERVICE, "over IPv6": OVER_IPV6, "ping, half in a zone": PING_IN_HALF_A_ZONE}
of_each = pytest.mark.parametrize("body", DUMPED.values(), ids=DUMPED.keys())


def packed(address: str) -> bytes:
    return ip_address(address).packed


def test_who_answers_stands_in_the_reply_and_not_in_the_question() -> None:
    assert codec.decode(TO_SERVICE) == Entry(
        family=Family.IPV4,
        original_source=packed("10.65.1.9"),
        reply_source=packed("10.65.0.6"),
        original=TO_SERVICE[8:56],
        identity=bytes.fromhex("d3db77f0"),
        zone=bytes.fromhex("0007"),
    )


def test_ipv6() -> None:
    entry = codec.decode(OVER_IPV6)
    assert entry is not None
    assert entry[:3] == (Family.IPV6, packed("fd00::5"), packed("fd00::9"))
    assert (entry.identity.hex(), entry.zone) == ("b0b0ae04", b"")


def test_a_deletion_names_tuple_identity_and_zone_as_the_kernel_told_them() -> None:
    entry = codec.decode(TO_SERVICE)
    assert entry is not None
    assert codec.deletion(entry) == TO_SERVICE[:56] + bytes.fromhex("08000c00 d3db77f0 06001200 00070000")


def test_a_deletion_keeps_the_zone_of_one_direction() -> None:
    entry = codec.decode(PING_IN_HALF_A_ZONE)
    assert entry is not None
    assert codec.deletion(entry) == PING_IN_HALF_A_ZONE[:72] + bytes.fromhex("08000c00 a305663b")


def test_a_deletion_never_asks_for_everything() -> None:
    """A body without CTA_TUPLE_ORIG flushes the table; an empty one is refused."""
    empty = Entry(Family.IPV4, b"", b"", original=b"")
    assert codec.deletion(empty) == bytes.fromhex("02000000 04000180")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param(codec.all_entries(Family.IPV4), "02000000", id="all of IPv4"),
        pytest.param(codec.all_entries(Family.IPV6), "0a000000", id="all of IPv6"),
        pytest.param(
            codec.entries_from(ip_address("10.65.0.5"), Direction.ORIGINAL),
            "02000000 10000180 0c000180 08000100 0a410005 0c001980 08000100 01000000",
            id="opened by an address",
        ),
        pytest.param(
            codec.entries_from(ip_address("10.65.0.5"), Direction.REPLY),
            "02000000 10000280 0c000180 08000100 0a410005 0c001980 08000200 01000000",
            id="answered by an address",
        ),
        pytest.param(
            codec.entries_from(ip_address("fd00::5"), Direction.REPLY),
            "0a000000 1c000280 18000180 14000300 fd000000000000000000000000000005 0c001980 08000200 01000000",
            id="answered by an IPv6 address",
        ),
        pytest.param(
            codec.trick_question(), "02000000 04000280 0c001980 08000200 01000000", id="answered by nobody, a trick"
        ),
        pytest.param(codec.how_many(), "00000000", id="how many"),
    ],
)
def test_questions(question: bytes, expected: str) -> None:
    assert question == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("00000000 08000100 00004e84 08000200 00040000", 20_100, id="as the kernel sent it"),
        pytest.param("00000000 08000100 00000000 08000200 00040000", 0, id="none"),
        pytest.param("00000000 08000200 00040000", None, id="only the limit"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_counts(body: str, expected: int | None) -> None:
    assert codec.decode_count(bytes.fromhex(body)) == expected


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        pytest.param(["10.65.1.9"], [TO_SERVICE], id="opened it"),
        pytest.param(["10.65.0.6"], [TO_SERVICE], id="answers"),
        pytest.param(["10.96.0.10"], [], id="was asked, but another answers"),
        pytest.param(["10.65.0.5"], [PING_IN_HALF_A_ZONE], id="talks to itself"),
        pytest.param(["10.65.0.5", "10.65.0.6"], [TO_SERVICE, PING_IN_HALF_A_ZONE], id="two"),
        pytest.param(["fd00::9"], [OVER_IPV6], id="IPv6"),
        pytest.param(["10.0.0.0"], [], id="bytes that occur, but not as a source"),
        pytest.param([f"10.1.0.{last}" for last in range(codec.FEW)] + ["10.65.0.6"], [TO_SERVICE], id="many"),
        pytest.param([], [], id="nobody"),
    ],
)
def test_matching(sources: list[str], expected: list[bytes]) -> None:
    found = list(codec.matching(DUMPED.values(), frozenset(map(packed, sources))))
    assert found == [codec.decode(body) for body in expected]


@of_each
def test_what_is_cut_short_is_no_entry_or_the_same_sources(body: bytes) -> None:
    whole = codec.decode(body)
    assert whole is not None
    for size in range(len(body)):
        cut = codec.decode(body[:size])
        assert cut is None or cut[:4] == whole[:4]


@of_each
def test_rubbish_in_an_entry_breaks_nothing(body: bytes) -> None:
    dice = random.Random(len(body))  # noqa: S311 - the same rubbish each time
    for _ in range(3000):
        spoilt = bytearray(body)
        for _ in range(dice.randint(1, 4)):
            spoilt[dice.randrange(len(body))] = dice.randrange(256)
        entry = codec.decode(bytes(spoilt))
        if entry is not None:
            assert {len(source) for source in entry.sources} <= {codec.ADDRESS_SIZE[entry.family]}
            assert codec.deletion(entry)[6:8] == b"\x01\x80", "the original tuple comes first, always"


@given(st.binary(max_size=200))
def test_any_bytes_break_nothing(body: bytes) -> None:
    entry = codec.decode(body)
    assert entry is None or entry.original
    count = codec.decode_count(body)
    assert count is None or count >= 0
