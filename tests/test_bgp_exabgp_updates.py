"""The child's stream cut into lines and UPDATEs, sessions that are kept apart, and rubbish."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from update_words import EBGP, FIRST, IBGP, NLRI, ORIGIN, PEER, PLAIN, SECOND, attribute, unreach, update

from bgp.attribute_codec import Terms
from bgp.exabgp_events import Rubbish
from bgp.exabgp_updates import LONGEST, CloseSession, Piece, Pieces, Updates, read_terms
from bgp.types import Attributes, EndOfRib, Family, UpdateFaulty, UpdateReceived

TITLE = b"UPDATES 10.9.0.1 1 four-octet,ipv4-unicast"
RESETTING = update(PLAIN + attribute(0x40, 201, b"abc"), NLRI)


def message(body: bytes) -> bytes:
    return b"\xff" * 16 + (19 + len(body)).to_bytes(2, "big") + b"\2" + body


def piece(*messages: bytes, title: bytes = TITLE) -> Piece:
    follows = b"".join(map(message, messages))
    return Piece(b"%s %d" % (title, len(follows)), follows)


def stream(*pieces: Piece) -> bytes:
    return b"".join(each.line + b"\n" + each.follows for each in pieces)


def test_updates_of_a_session() -> None:
    heard = list(Updates().heard(piece(update(PLAIN, NLRI), update(withdrawn=NLRI), update())))
    assert heard == [
        UpdateReceived(PEER, (FIRST,), attributes=Attributes(PEER, local_preference=100)),
        UpdateReceived(PEER, withdrawn=(FIRST,)),
        EndOfRib(PEER),
    ]


def test_a_fault_is_told_after_what_could_be_read() -> None:
    heard = list(Updates().heard(piece(update(attribute(0x40, 1, b"\x09") + PLAIN[4:], NLRI))))
    assert heard == [
        UpdateReceived(PEER, withdrawn=(FIRST,)),
        UpdateFaulty(
            PEER,
            "UPDATE: ORIGIN is 9, which means nothing (RFC 7606 section 7.1): its prefixes were treated as withdrawn",
        ),
    ]


def test_after_an_update_that_ends_the_session_nothing_of_it_is_heard() -> None:
    updates = Updates()
    fine = update(PLAIN, NLRI)
    first, told, close = updates.heard(piece(fine, RESETTING, fine))
    sentence = "UPDATE: attribute 201 says that it is well-known (RFC 4271 section 6.3): the session was closed"
    assert isinstance(first, UpdateReceived)
    assert told == UpdateFaulty(PEER, sentence)
    assert close == CloseSession(PEER, 1, 3, 2, b"\x50\xc9\0\3abc", sentence)
    assert list(updates.heard(piece(fine))) == []
    others = TITLE.replace(b"10.9.0.1", b"10.9.0.2")
    assert len(list(updates.heard(piece(fine, title=others)))) == 1
    following_session = TITLE.replace(b" 1 ", b" 2 ")
    assert len(list(updates.heard(piece(fine, title=following_session)))) == 1


def test_each_session_is_read_by_its_own_terms() -> None:
    updates = Updates()
    two_octets = ORIGIN + attribute(0x40, 2, b"\2\1\xfb\xf4") + PLAIN[7:14]
    (old,) = updates.heard(piece(update(two_octets, NLRI), title=b"UPDATES 10.9.0.1 1 external,ipv4-unicast"))
    assert isinstance(old, UpdateReceived)
    assert old.attributes == Attributes(PEER, as_path=(64500,))
    both = b"UPDATES 10.9.0.1 2 ipv4-unicast,ipv6-unicast,four-octet"
    assert list(updates.heard(piece(update(unreach(b"")), title=both))) == [EndOfRib(PEER, Family.IPV6_UNICAST)]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        pytest.param("four-octet,ipv4-unicast,ipv6-unicast", IBGP, id="iBGP"),
        pytest.param("external,four-octet,ipv6-unicast,ipv4-unicast", EBGP, id="eBGP"),
        pytest.param("external,ipv4-unicast", Terms(external=True, four_octet=False), id="two octets"),
        pytest.param("four-octet,ipv6-next-hops,ipv4-unicast", Terms(ipv6_next_hops=True), id="RFC 8950"),
        pytest.param("four-octet,l2vpn-evpn,ipv4-unicast", Terms(), id="a family that is none of ours"),
    ],
)
def test_terms(text: str, terms: Terms) -> None:
    assert read_terms(text) == terms


PIECES = [Piece(b'{"type": "pong"}'), piece(update(PLAIN, NLRI)), piece(update()), Piece(b""), piece(b"\n" * 40)]


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.lists(st.integers(0, 300), max_size=8))
def test_a_stream_is_cut_the_same_however_it_arrives(some: list[Piece], cuts: list[int]) -> None:
    data, pieces = stream(*some), Pieces()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(places)]
    assert [each for chunk in chunks for each in pieces.cut(chunk)] == some


def test_a_line_without_an_end_is_rubbish() -> None:
    pieces = Pieces()
    assert list(pieces.cut(b"x" * LONGEST)) == []
    with pytest.raises(Rubbish, match="a line of more than 16 MiB"):
        list(pieces.cut(b"x"))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(TITLE + b" much", id="a word for a number"),
        pytest.param(TITLE + b" 99999999999999999999", id="too much"),
        pytest.param(TITLE + b" -1", id="less than nothing"),
        pytest.param(b"UPDATES ", id="nothing"),
    ],
)
def test_a_title_without_a_number_is_rubbish(line: bytes) -> None:
    with pytest.raises(Rubbish, match="no number of bytes"):
        list(Pieces().cut(line + b"\n"))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(Piece(b"UPDATES 5", b"12345"), id="no title"),
        pytest.param(Piece(b"UPDATES nobody 1 ipv4-unicast 0"), id="no address"),
        pytest.param(Piece(b"UPDATES 10.9.0.1 one ipv4-unicast 0"), id="no session"),
        pytest.param(Piece(b"UPDATES \xff 1 ipv4-unicast 0"), id="bytes"),
        pytest.param(Piece(TITLE + b" 5", b"12345"), id="no message"),
        pytest.param(Piece(TITLE + b" 19", b"\xff" * 16 + b"\0\x13\4"), id="a KEEPALIVE"),
    ],
)
def test_what_is_no_run_of_updates_is_rubbish(wrong: Piece) -> None:
    with pytest.raises(Rubbish, match="the BGP child wrote"):
        list(Updates().heard(wrong))


def test_a_peer_that_flaps_leaves_one_decoder_behind() -> None:
    updates = Updates()
    for session in range(100):
        title = b"UPDATES 10.9.0.1 %d ipv4-unicast,four-octet" % session
        assert list(updates.heard(piece(update(withdrawn=bytes.fromhex("1a0a410200")), title=title))) == [
            UpdateReceived(PEER, withdrawn=(SECOND,))
        ]
    assert len(updates._talks) == 1
