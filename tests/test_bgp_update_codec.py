"""UPDATEs as they should be: what BIRD, FRR and GoBGP send, each attribute, both families, and what is remembered."""

import pickle
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from update_words import (
    AS_PATH,
    BOTH,
    EBGP,
    FIRST,
    IBGP,
    LOCAL_PREF,
    NEXT_HOP,
    NLRI,
    NLRI2,
    NLRI6,
    OLD,
    ORIGIN,
    PEER,
    PLAIN,
    SECOND,
    THIRD,
    attribute,
    decode,
    reach,
    unreach,
    update,
    withdraws,
)

from bgp.attribute_codec import Terms
from bgp.prefixes import Prefixes
from bgp.types import Attributes, EndOfRib, Family, Origin, UpdateReceived
from bgp.update_codec import SETS_KNOWN, Decoded, Decoder, bodies

GOLDEN = Path(__file__).parent / "golden" / "updates"


def heard(name: str, terms: Terms) -> Iterator[object]:
    """Yield what the recorded UPDATEs of a daemon say; none of them has a fault."""
    for line in (GOLDEN / f"{name}.txt").read_text().split():
        decoded = decode(bytes.fromhex(line), terms)
        assert decoded.faults == ()
        yield from decoded.heard


def networks(*texts: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, texts))


RICH = {
    "communities": ((64512, 77),),
    "large_communities": ((64512, 7, 8),),
    "extended_communities": (bytes.fromhex("0002fc0000000009"),),
}
BIRDS_OTHERS = networks("0.0.0.0/0", "10.65.3.0/24", "10.65.2.0/26", "192.0.2.1/32")
BIRDS_SIX = (THIRD, IPv6Network("2001:db8::/32"))
ENDS = (EndOfRib(PEER), EndOfRib(PEER, Family.IPV6_UNICAST))


@pytest.mark.parametrize(
    ("name", "terms", "as_path", "local_preference", "med", "next_hop6"),
    [
        pytest.param("bird-ebgp", EBGP, (64500,), None, None, "fd00::1", id="eBGP"),
        pytest.param("bird-ibgp", IBGP, (), 100, 30, "fd00::9", id="iBGP"),
        pytest.param("bird-as2", OLD, (4200000001,), None, None, "fd00::1", id="two-octet AS numbers, merged"),
    ],
)
def test_bird(
    name: str,
    terms: Terms,
    as_path: tuple[int, ...],
    local_preference: int | None,
    med: int | None,
    next_hop6: str,
) -> None:
    common = {"as_path": as_path, "local_preference": local_preference}
    six = Attributes(IPv6Address(next_hop6), **common)  # type: ignore[arg-type]
    rich = Attributes(PEER, med=med, **common, **RICH)  # type: ignore[arg-type]
    assert list(heard(name, terms)) == [
        UpdateReceived(PEER, BIRDS_OTHERS, attributes=Attributes(PEER, **common)),  # type: ignore[arg-type]
        UpdateReceived(PEER, (FIRST,), attributes=rich),
        ENDS[0],
        UpdateReceived(PEER, BIRDS_SIX, attributes=six),
        ENDS[1],
    ]


@pytest.mark.parametrize(
    ("name", "terms", "asn"),
    [pytest.param("frr-ebgp", EBGP, 64500, id="eBGP"), pytest.param("frr-as2", OLD, 4200000002, id="two octets")],
)
def test_frr(name: str, terms: Terms, asn: int) -> None:
    aggregate = Attributes(
        IPv4Address("10.9.0.2"), as_path=(asn,), med=0, atomic_aggregate=True, aggregator=(asn, PEER)
    )
    six = Attributes(IPv6Address("::ffff:10.9.0.2"), as_path=(asn,), med=0)
    assert list(heard(name, terms)) == [
        UpdateReceived(PEER, networks("10.64.0.0/14"), attributes=aggregate),
        UpdateReceived(PEER, (THIRD,), attributes=six),
        *ENDS,
    ]


def test_gobgp() -> None:
    plain = {"origin": Origin.INCOMPLETE, "as_path": (64500,)}
    rich = Attributes(IPv4Address("10.9.0.9"), Origin.EGP, (64500, 4200000001, 65001), med=30, **RICH)  # type: ignore[arg-type]
    aggregated = Attributes(PEER, **plain, aggregator=(64999, IPv4Address("10.9.0.7")))  # type: ignore[arg-type]
    assert list(heard("gobgp-ebgp", EBGP)) == [
        UpdateReceived(PEER, (THIRD,), attributes=Attributes(IPv6Address("fd00::1"), **plain)),  # type: ignore[arg-type]
        ENDS[1],
        UpdateReceived(PEER, networks("10.66.0.0/16"), attributes=aggregated),
        UpdateReceived(PEER, (FIRST,), attributes=rich),
        UpdateReceived(PEER, (SECOND,), attributes=Attributes(PEER, **plain)),  # type: ignore[arg-type]
        ENDS[0],
    ]


def said(attributes: bytes, terms: Terms = IBGP) -> Attributes:
    """Return what attributes become with one prefix behind them."""
    (only,) = decode(update(attributes, NLRI), terms).heard
    assert isinstance(only, UpdateReceived)
    assert only.attributes is not None
    return only.attributes


SET_AND_SEQUENCE = bytes.fromhex("0202 0000fde9 0000fdea 0102 00000003 00000004")
CONFEDERATION = bytes.fromhex("0301 0000fde9 0201 0000fdea")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param(b"", Attributes(PEER, local_preference=100), id="nothing more"),
        pytest.param(attribute(0x80, 9, b"\1\1\1\1"), {"originator_id": IPv4Address("1.1.1.1")}, id="originator"),
        pytest.param(
            attribute(0x80, 10, bytes.fromhex("01010101 02020202")),
            {"cluster_list": (IPv4Address("1.1.1.1"), IPv4Address("2.2.2.2"))},
            id="cluster list",
        ),
        pytest.param(
            attribute(0xC0, 32, bytes.fromhex("0000fc000000000700000008") * 2),
            {"large_communities": ((64512, 7, 8),)},
            id="a large community twice counts once",
        ),
        pytest.param(
            attribute(0xC0, 8, bytes.fromhex("ffff0000 ffffff01")),
            {"communities": ((65535, 0), (65535, 65281))},
            id="well-known communities",
        ),
        pytest.param(attribute(0xC0, 200, b"abc"), {"unrecognized": ((0xC0, 200, b"abc"),)}, id="passed on"),
        pytest.param(attribute(0x80, 200, b"abc"), {}, id="not passed on"),
        pytest.param(attribute(0xE0, 8, bytes.fromhex("fc00004d")), {"communities": ((64512, 77),)}, id="partial bit"),
        pytest.param(attribute(0xC0, 17, b"\2\1\0\0\0\7"), {}, id="AS4_PATH means nothing with four octets"),
    ],
)
def test_attributes(more: bytes, expected: Attributes | dict[str, object]) -> None:
    if isinstance(expected, dict):
        expected = Attributes(PEER, local_preference=100, **expected)  # type: ignore[arg-type]
    assert said(PLAIN + more) == expected


def test_sets_count_once_and_confederations_are_left_out() -> None:
    rest = ORIGIN + NEXT_HOP + LOCAL_PREF
    assert said(rest + attribute(0x40, 2, SET_AND_SEQUENCE)).as_path == (65001, 65002, frozenset({3, 4}))
    assert said(rest + attribute(0x40, 2, CONFEDERATION)).as_path == (65002,)


@pytest.mark.parametrize(
    ("as_path", "as4_path", "expected"),
    [
        pytest.param("0202 5ba0 fde9", "0201 fa56ea01", (23456, 4200000001), id="the last ones"),
        pytest.param("0202 5ba0 fde9", "0202 fa56ea01 0000fde9", (4200000001, 65001), id="all"),
        pytest.param("0201 5ba0", "0202 fa56ea01 0000fde9", (23456,), id="more than there are count for nothing"),
        pytest.param("0202 fde8 5ba0", "0301 00000009 0201 fa56ea01", (65000, 4200000001), id="confederations count 0"),
    ],
)
def test_four_octets_take_the_place_of_two(as_path: str, as4_path: str, expected: tuple[int, ...]) -> None:
    given_path = attribute(0x40, 2, bytes.fromhex(as_path))
    merged = said(ORIGIN + given_path + NEXT_HOP + attribute(0xC0, 17, bytes.fromhex(as4_path)), OLD)
    assert merged.as_path == expected


def test_an_aggregator_of_two_octets_that_is_not_as_trans_outdates_both() -> None:
    later = attribute(0xC0, 7, b"\xfd\xe9\1\1\1\1")
    older = attribute(0xC0, 18, bytes.fromhex("fa56ea01 02020202")) + attribute(0xC0, 17, b"\2\1\xfa\x56\xea\1")
    merged = said(ORIGIN + attribute(0x40, 2, b"\2\1\x5b\xa0") + NEXT_HOP + later + older, OLD)
    assert merged.aggregator == (65001, IPv4Address("1.1.1.1"))
    assert merged.as_path == (23456,)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(update(withdrawn=NLRI + NLRI2), withdraws(FIRST, SECOND), id="withdrawn"),
        pytest.param(update(unreach()), withdraws(THIRD), id="withdrawn, IPv6"),
        pytest.param(
            update(PLAIN, NLRI2, NLRI),
            (UpdateReceived(PEER, (SECOND,), (FIRST,), Attributes(PEER, local_preference=100)),),
            id="withdrawn and announced",
        ),
        pytest.param(
            update(PLAIN, bytes.fromhex("1a0a41013f")),
            (UpdateReceived(PEER, (FIRST,), attributes=Attributes(PEER, local_preference=100)),),
            id="host bits mean nothing",
        ),
        pytest.param(
            update(PLAIN + reach() + unreach(b"\x40" + bytes(8)), NLRI, NLRI2),
            (
                UpdateReceived(PEER, (FIRST,), (SECOND, IPv6Network("::/64")), Attributes(PEER, local_preference=100)),
                UpdateReceived(PEER, (THIRD,), attributes=Attributes(IPv6Address("fd00::1"), local_preference=100)),
            ),
            id="everything at once",
        ),
        pytest.param(update(), (EndOfRib(PEER),), id="End-of-RIB"),
        pytest.param(update(unreach(b"")), (EndOfRib(PEER, Family.IPV6_UNICAST),), id="End-of-RIB, IPv6"),
        pytest.param(update(unreach(b"", b"\0\1\1")), (EndOfRib(PEER),), id="End-of-RIB, IPv4 the long way"),
        pytest.param(update(PLAIN), (), id="attributes of nothing"),
    ],
)
def test_messages(body: bytes, expected: tuple[object, ...]) -> None:
    assert decode(body) == Decoded(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("next_hop", "expected"),
    [
        pytest.param("fd00::1", "fd00::1", id="global"),
        pytest.param("fd00::1 fe80::1", "fd00::1", id="global and of the link"),
        pytest.param(":: fe80::1", "fe80::1", id="of the link only"),
    ],
)
def test_next_hops_of_ipv6(next_hop: str, expected: str) -> None:
    (only,) = decode(update(ORIGIN + AS_PATH + LOCAL_PREF + reach(next_hop))).heard
    assert isinstance(only, UpdateReceived)
    assert only.attributes == Attributes(IPv6Address(expected), local_preference=100)


def test_ipv4_prefixes_with_an_ipv6_next_hop() -> None:
    terms = Terms(families=BOTH, ipv6_next_hops=True)
    body = update(ORIGIN + AS_PATH + LOCAL_PREF + reach("fd00::1", NLRI, b"\0\1\1"))
    expected = Attributes(IPv6Address("fd00::1"), local_preference=100)
    assert decode(body, terms).heard == (UpdateReceived(PEER, (FIRST,), attributes=expected),)


def test_equal_attributes_are_one_object_whatever_comes_with_them() -> None:
    decoder = Decoder(PEER, IBGP, Prefixes())
    body6 = ORIGIN + AS_PATH + LOCAL_PREF
    four = [decoder.update(update(PLAIN, nlri)).heard[0] for nlri in (NLRI, NLRI2)]
    six = [decoder.update(update(reach("fd00::1", nlri) + body6)).heard[0] for nlri in (NLRI6, b"\x40" + bytes(8))]
    for one, other in (four, six):
        assert isinstance(one, UpdateReceived)
        assert isinstance(other, UpdateReceived)
        assert one.attributes is other.attributes


@pytest.mark.slow
def test_a_long_table_leaves_no_more_behind_than_the_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    known = 1 << 14  # fewer than it really is, to be exceeded sooner
    monkeypatch.setattr("bgp.prefixes.KNOWN", known)
    prefixes = Prefixes()
    decoder = Decoder(PEER, IBGP, prefixes)
    for number in range(SETS_KNOWN + 100):
        octets = number.to_bytes(4, "big")
        several = [(number << 2 | index).to_bytes(4, "big") for index in range(4)]  # more than are known in all
        nlri = b"".join(b"\x20" + each for each in several)
        body = update(PLAIN + attribute(0x80, 4, octets) + reach(f"fd00::{number:x}"), nlri)
        four, _ = decoder.update(body).heard
        assert isinstance(four, UpdateReceived)
        assert four.attributes is not None
        assert four.attributes.med == number
        assert four.announced[-1] == IPv4Network((several[-1], 32))
    caches = (decoder._sets, decoder._with_next_hop, decoder._reader._known)
    assert [len(cache) <= SETS_KNOWN + 1 for cache in caches] == [True] * 3
    assert [len(table) <= known for table in (prefixes._ipv4, prefixes._ipv6)] == [True] * 2


def test_messages_that_follow_each_other_are_taken_apart() -> None:
    def message(body: bytes) -> bytes:
        return b"\xff" * 16 + (19 + len(body)).to_bytes(2, "big") + b"\2" + body

    some = [update(PLAIN, NLRI), update(), update(withdrawn=NLRI)]
    assert list(bodies(b"".join(map(message, some)))) == some
    for wrong in (message(update())[:-1], message(b"\0\0"), b"\xff" * 16 + b"\0\x13\4"):
        with pytest.raises(ValueError, match="no UPDATE at octet 0"):
            list(bodies(wrong))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=50))
def test_prefixes_are_what_ipaddress_makes_of_them(pairs: list[tuple[int, int]]) -> None:
    field = b"".join(bytes((bits,)) + number.to_bytes(4, "big")[: (bits + 7) // 8] for number, bits in pairs)
    expected = tuple(IPv4Network((number, bits), strict=False) for number, bits in pairs)
    found = Prefixes().read(Family.IPV4_UNICAST, field)
    assert found == expected
    assert list(map(str, found)) == list(map(str, expected))
    assert list(map(hash, found)) == list(map(hash, expected))


@pytest.mark.parametrize("length", range(33))
def test_a_prefix_has_all_that_ipaddress_gives_it(length: int) -> None:
    expected = IPv4Network((0xC0000201, length), strict=False)
    octets = bytes((length,)) + b"\xc0\0\2\1"[: (length + 7) // 8]
    (found,) = Prefixes().read(Family.IPV4_UNICAST, octets)
    assert isinstance(found, IPv4Network)
    names = [name for name in dir(expected) if not name.startswith("_") and not callable(getattr(expected, name))]
    assert {name: getattr(found, name) for name in names} == {name: getattr(expected, name) for name in names}
    assert (found.prefixlen, found.with_netmask) == (expected.prefixlen, expected.with_netmask)
    assert (found.broadcast_address, found.num_addresses) == (expected.broadcast_address, expected.num_addresses)
    assert found in pickle.loads(pickle.dumps([expected]))  # noqa: S301 - our own
    assert next(iter(found.hosts())) == next(iter(expected.hosts()))


@given(st.lists(st.tuples(st.integers(0, 32), st.integers(1, 700)), max_size=5), st.randoms(use_true_random=False))
def test_runs_of_prefixes_of_one_length_are_read_as_each_alone(runs: list[tuple[int, int]], random: Random) -> None:
    octets = [bytes((bits,)) + random.randbytes((bits + 7) // 8) for bits, count in runs for _ in range(count)]
    found = Prefixes().read(Family.IPV4_UNICAST, b"".join(octets))
    assert found == tuple(Prefixes().read(Family.IPV4_UNICAST, each)[0] for each in octets)
    if octets and len(octets[-1]) > 1:
        with pytest.raises(ValueError, match="cut off"):
            Prefixes().read(Family.IPV4_UNICAST, b"".join(octets)[:-1])


@given(st.lists(st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)), max_size=20))
def test_ipv6_prefixes_are_what_ipaddress_makes_of_them(pairs: list[tuple[int, int]]) -> None:
    field = b"".join(bytes((bits,)) + number.to_bytes(16, "big")[: (bits + 7) // 8] for number, bits in pairs)
    expected = tuple(IPv6Network((number, bits), strict=False) for number, bits in pairs)
    assert Prefixes().read(Family.IPV6_UNICAST, field) == expected
