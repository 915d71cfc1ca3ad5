"""UPDATEs that are not as they should be: the table of RFC 7606, and bytes that nobody would send."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from update_words import (
    AS_PATH,
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
from bgp.types import Attributes, EndOfRib, Family, UpdateReceived
from bgp.update_codec import Decoder, SessionReset
from bgp.update_faults import Approach

NOT_PLAIN = AS_PATH + NEXT_HOP + LOCAL_PREF


def path(segments: bytes) -> bytes:
    return ORIGIN + attribute(0x40, 2, segments) + NEXT_HOP + LOCAL_PREF


WITHDRAWN = [
    pytest.param(IBGP, attribute(0x40, 1, b"\x09") + NOT_PLAIN, "ORIGIN is 9, which means nothing", id="ORIGIN 9"),
    pytest.param(IBGP, attribute(0x40, 1, b"\0\0") + NOT_PLAIN, "ORIGIN has 2 octets, not 1", id="ORIGIN of 2 octets"),
    pytest.param(IBGP, attribute(0x40, 1, b"") + NOT_PLAIN, "ORIGIN is empty", id="ORIGIN of no octets"),
    pytest.param(IBGP, NOT_PLAIN, "ORIGIN is missing", id="no ORIGIN"),
    pytest.param(IBGP, ORIGIN + NEXT_HOP + LOCAL_PREF, "AS_PATH is missing", id="no AS_PATH"),
    pytest.param(IBGP, ORIGIN + AS_PATH + LOCAL_PREF, "NEXT_HOP is missing", id="no NEXT_HOP"),
    pytest.param(
        IBGP, ORIGIN + AS_PATH + attribute(0x40, 3, b"\1\2\3"), "NEXT_HOP has 3 octets, not 4", id="NEXT_HOP of 3"
    ),
    pytest.param(IBGP, path(b"\x09\1\0\0\0\1"), "AS_PATH has a segment of type 9", id="a segment of no type"),
    pytest.param(IBGP, path(b"\2\5\0\0\0\1"), "AS_PATH has a segment longer than what is left", id="segment overrun"),
    pytest.param(IBGP, path(b"\2\1\0\0\0\1\2"), "AS_PATH ends within a segment's head", id="segment underrun"),
    pytest.param(IBGP, path(b"\2\0"), "AS_PATH has a segment without an AS", id="an empty segment"),
    pytest.param(IBGP, path(b"\2\1\0\0\0\0"), "AS_PATH has AS 0", id="AS 0 (RFC 7607)"),
    pytest.param(
        EBGP, path(b"\3\1\0\0\0\1"), "AS_PATH has a confederation's segment", id="a confederation over eBGP (RFC 5065)"
    ),
    pytest.param(
        IBGP, ORIGIN + AS_PATH + NEXT_HOP + attribute(0x40, 5, b"\0d"), "LOCAL_PREF has 2 octets", id="LOCAL_PREF of 2"
    ),
    pytest.param(IBGP, PLAIN + attribute(0x80, 4, bytes(5)), "MULTI_EXIT_DISC has 5 octets, not 4", id="MED of 5"),
    pytest.param(IBGP, PLAIN + attribute(0xC0, 8, bytes(5)), "COMMUNITIES has 5 octets, no multiple", id="communities"),
    pytest.param(IBGP, PLAIN + attribute(0xC0, 8, b""), "COMMUNITIES is empty", id="no communities"),
    pytest.param(IBGP, PLAIN + attribute(0xC0, 32, bytes(11)), "LARGE_COMMUNITIES has 11 octets", id="large ones"),
    pytest.param(IBGP, PLAIN + attribute(0xC0, 16, bytes(9)), "EXTENDED_COMMUNITIES has 9 octets", id="extended ones"),
    pytest.param(IBGP, PLAIN + attribute(0x80, 9, bytes(3)), "ORIGINATOR_ID has 3 octets, not 4", id="ORIGINATOR_ID"),
    pytest.param(IBGP, PLAIN + attribute(0x80, 10, bytes(3)), "CLUSTER_LIST has 3 octets", id="CLUSTER_LIST"),
    pytest.param(IBGP, PLAIN + attribute(0x40, 4, bytes(4)), "MULTI_EXIT_DISC has the flags 0x40", id="flags of MED"),
    pytest.param(IBGP, attribute(0xC0, 1, b"\0") + NOT_PLAIN, "ORIGIN has the flags 0xc0", id="flags of ORIGIN"),
    pytest.param(IBGP, PLAIN + bytes((0xC0, 8, 40)), "COMMUNITIES has 40 octets, and 0 are left", id="overrun"),
    pytest.param(IBGP, PLAIN + b"\xc0\x08", "2 octets are left over after the last attribute", id="a head cut off"),
    pytest.param(IBGP, PLAIN + b"\xd0\x08\0", "3 octets are left over", id="an extended head cut off"),
]


@pytest.mark.parametrize(("terms", "attributes", "reason"), WITHDRAWN)
def test_what_is_treated_as_withdrawn(terms: Terms, attributes: bytes, reason: str) -> None:
    decoded = decode(update(attributes, NLRI, NLRI2), terms)
    assert decoded.heard == withdraws(SECOND, FIRST)
    (fault,) = (each for each in decoded.faults if each.approach is not Approach.DISCARD)
    assert str(fault).startswith(reason)
    assert str(fault).endswith(": its prefixes were treated as withdrawn")


@pytest.mark.parametrize(("terms", "attributes", "reason"), WITHDRAWN)
def test_the_same_of_ipv6(terms: Terms, attributes: bytes, reason: str) -> None:
    decoded = decode(update(reach() + attributes), terms)
    if reason == "NEXT_HOP is missing":  # it need not be there (RFC 4760 section 3)
        assert decoded.heard == decode(update(reach() + PLAIN), terms).heard
    else:
        assert decoded.heard == withdraws(THIRD)
        assert any(str(fault).startswith(reason) for fault in decoded.faults)


DISCARDED = [
    pytest.param(IBGP, attribute(0x40, 6, b"\0"), "ATOMIC_AGGREGATE has 1 octets, not 0", id="ATOMIC_AGGREGATE"),
    pytest.param(IBGP, attribute(0xC0, 7, bytes(5)), "AGGREGATOR has 5 octets, not 8", id="AGGREGATOR"),
    pytest.param(IBGP, attribute(0xC0, 7, bytes(8)), "AGGREGATOR has AS 0", id="AGGREGATOR of AS 0 (RFC 7607)"),
    pytest.param(EBGP, LOCAL_PREF, "LOCAL_PREF came over eBGP", id="LOCAL_PREF over eBGP"),
    pytest.param(EBGP, attribute(0x80, 9, bytes(3)), "ORIGINATOR_ID came over eBGP", id="ORIGINATOR_ID over eBGP"),
    pytest.param(EBGP, attribute(0x80, 10, bytes(4)), "CLUSTER_LIST came over eBGP", id="CLUSTER_LIST over eBGP"),
    pytest.param(OLD, attribute(0xC0, 17, b"\2\2\0\0\0\1"), "AS4_PATH has a segment longer", id="AS4_PATH"),
    pytest.param(OLD, attribute(0xC0, 18, bytes(7)), "AS4_AGGREGATOR has 7 octets, not 8", id="AS4_AGGREGATOR"),
    pytest.param(IBGP, ORIGIN, "ORIGIN stands there twice", id="an attribute twice"),
    pytest.param(IBGP, reach(family=b"\0\2\x80"), "MP_REACH_NLRI is of a family", id="a family nobody agreed on"),
]


@pytest.mark.parametrize(("terms", "more", "reason"), DISCARDED)
def test_what_is_left_out(terms: Terms, more: bytes, reason: str) -> None:
    decoded = decode(update(ORIGIN + AS_PATH + NEXT_HOP + more, NLRI), terms)
    assert decoded.heard == (UpdateReceived(PEER, (FIRST,), attributes=Attributes(PEER)),)
    (fault,) = decoded.faults
    assert str(fault).startswith(reason)
    assert fault.approach is Approach.DISCARD


def test_of_an_attribute_that_stands_there_twice_the_first_counts() -> None:
    decoded = decode(update(PLAIN + attribute(0x80, 4, b"\0\0\0\1") + attribute(0x80, 4, b"\0\0\0\2"), NLRI))
    assert decoded.heard == (UpdateReceived(PEER, (FIRST,), attributes=Attributes(PEER, local_preference=100, med=1)),)


RESET = [
    pytest.param(b"\0\7\0\0", 1, "its lengths are more than it has", id="withdrawn routes too long"),
    pytest.param(b"\0\0\0\xc8" + PLAIN, 1, "its lengths are more than it has", id="attributes too long"),
    pytest.param(update(PLAIN, b"\x21\x0a\x80\0\0\0"), 10, "a prefix of ipv4 unicast is /33", id="/33"),
    pytest.param(
        update(PLAIN, b"\x1a\x0a\x80"), 10, "the last prefix of ipv4 unicast is cut off", id="a prefix cut off"
    ),
    pytest.param(update(b"", b"", b"\x28\1\2\3\4\5"), 10, "a prefix of ipv4 unicast is /40", id="withdrawn /40"),
    pytest.param(update(PLAIN + attribute(0x40, 201, b"abc"), NLRI), 2, "attribute 201 says", id="unknown, well-known"),
    pytest.param(update(PLAIN + reach() + reach(), NLRI), 1, "MP_REACH_NLRI stands there twice", id="MP_REACH twice"),
    pytest.param(update(unreach() + unreach()), 1, "MP_UNREACH_NLRI stands there twice", id="MP_UNREACH twice"),
    pytest.param(update(PLAIN + attribute(0xC0, 14, b"\0\2\1\0\0")), 9, "MP_REACH_NLRI has the flags", id="its flags"),
    pytest.param(update(PLAIN + attribute(0x80, 14, b"\0\2\1\0")), 9, "MP_REACH_NLRI has the flags", id="too short"),
    pytest.param(update(attribute(0x80, 15, b"\0\2")), 9, "MP_UNREACH_NLRI has the flags", id="MP_UNREACH too short"),
    pytest.param(
        update(PLAIN + attribute(0x80, 14, b"\0\2\1\7" + bytes(8) + NLRI6)),
        9,
        "the next hop of ipv6 unicast in MP_REACH_NLRI has 7 octets",
        id="a next hop of 7 octets",
    ),
    pytest.param(
        update(PLAIN + attribute(0x80, 14, b"\0\2\1\x20" + bytes(17))), 9, "the next hop", id="a next hop cut off"
    ),
    pytest.param(
        update(PLAIN + reach("fd00::1", NLRI, b"\0\1\1")), 9, "the next hop of ipv4", id="RFC 8950 not agreed on"
    ),
    pytest.param(update(PLAIN + reach(nlri=b"\x81" + bytes(17))), 9, "MP_REACH_NLRI: a prefix of ipv6", id="/129"),
    pytest.param(update(unreach(b"\x40\xfd")), 9, "MP_UNREACH_NLRI: the last prefix", id="withdrawn IPv6 cut off"),
    pytest.param(update(attribute(0x40, 1, b"\x09") + NOT_PLAIN), 6, "ORIGIN is 9", id="nothing to withdraw"),
    pytest.param(update(PLAIN + b"\xc0\x08", b"", NLRI), 1, "2 octets are left over", id="nothing but withdrawn"),
]


@pytest.mark.parametrize(("body", "subcode", "reason"), RESET)
def test_what_closes_the_session(body: bytes, subcode: int, reason: str) -> None:
    with pytest.raises(SessionReset) as caught:
        decode(body)
    assert caught.value.fault.subcode == subcode
    assert str(caught.value).startswith(reason)
    assert str(caught.value).endswith(": the session was closed")


def test_the_notification_shows_the_attribute() -> None:
    with pytest.raises(SessionReset) as caught:
        decode(update(PLAIN + attribute(0x40, 201, b"abc"), NLRI))
    assert caught.value.fault.data == b"\x50\xc9\0\3abc"


def test_the_strongest_of_several_counts() -> None:
    weak, strong = attribute(0xC0, 7, bytes(5)), attribute(0xC0, 8, bytes(5))
    decoded = decode(update(PLAIN + weak + strong, NLRI))
    assert decoded.heard == withdraws(FIRST)
    assert [fault.approach for fault in decoded.faults] == [Approach.DISCARD, Approach.WITHDRAW]


def test_what_is_of_a_family_that_the_session_does_not_carry_is_passed_over() -> None:
    only6 = Terms(families=frozenset({Family.IPV6_UNICAST}))
    decoded = decode(update(PLAIN, NLRI), only6)
    assert (decoded.heard, len(decoded.faults)) == ((), 1)
    only4 = Terms()
    assert decode(update(unreach()), only4).heard == ()


def test_a_malformed_message_changes_nothing_about_the_next() -> None:
    decoder = Decoder(PEER, IBGP, Prefixes())
    before = decoder.update(update(PLAIN, NLRI))
    for case in RESET:
        with pytest.raises(SessionReset):
            decoder.update(case.values[0])  # type: ignore[arg-type]
    for case in WITHDRAWN:
        decoder.update(update(case.values[1], NLRI))  # type: ignore[operator]
    assert decoder.update(update(PLAIN, NLRI)) == before


some_attribute = st.builds(
    attribute,
    st.sampled_from([0x40, 0x80, 0xC0, 0xE0, 0x00, 0x50]),
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 99]),
    st.binary(max_size=24)
    | st.builds(lambda kind, size, rest: bytes((kind, size)) + rest, *[st.integers(0, 5)] * 2, st.binary(max_size=20)),
)
some_body = st.builds(
    update,
    st.lists(some_attribute, max_size=8)
    .map(b"".join)
    .flatmap(lambda some: st.sampled_from([some, PLAIN + some, some[:-1]])),
    st.sampled_from([b"", NLRI, NLRI + NLRI2, b"\x21"]) | st.binary(max_size=8),
    st.sampled_from([b"", NLRI]) | st.binary(max_size=8),
)


@given(some_body | st.binary(max_size=80), st.sampled_from([IBGP, EBGP, OLD, Terms()]))
@example(b"", IBGP)
@example(b"\0", IBGP)
@example(b"\0\0\0", IBGP)
def test_no_bytes_do_anything_else(body: bytes, terms: Terms) -> None:
    try:
        decoded = decode(body, terms)
    except SessionReset:
        return
    strongest = max((fault.approach for fault in decoded.faults), default=None)
    assert strongest is not Approach.RESET
    for event in decoded.heard:
        if isinstance(event, EndOfRib):
            continue
        assert event.announced or event.withdrawn
        assert not (event.announced and strongest is Approach.WITHDRAW)
        assert (event.attributes is None) == (not event.announced)


@given(st.lists(some_body, max_size=6))
def test_a_decoder_that_has_read_anything_reads_like_a_new_one(messages: list[bytes]) -> None:
    old = Decoder(PEER, IBGP, Prefixes())
    for body in messages:
        outcomes = []
        for decoder in (old, Decoder(PEER, IBGP, Prefixes())):
            try:
                outcomes.append(str(decoder.update(body)))
            except SessionReset as reset:
                outcomes.append(str(reset))
        assert outcomes[0] == outcomes[1]
