"""What the child writes, cut into lines and UPDATEs, and the UPDATEs of all sessions as the speaker's words."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

from bgp.attribute_codec import Terms
from bgp.exabgp_events import Rubbish
from bgp.prefixes import Prefixes
from bgp.types import EndOfRib, Family, IPAddress, UpdateFaulty, UpdateReceived
from bgp.update_codec import Decoder, SessionReset, bodies
from bgp.update_faults import UPDATE_ERROR

TITLE = b"UPDATES "
"""How a line begins that bytes follow."""

LONGEST = 16 << 20
"""Bytes of a line, or of what follows it; the child writes much less at once."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A line, and the bytes that follow it."""

    line: bytes
    follows: bytes = b""


class Pieces:
    """Cuts a stream into pieces, however it arrives."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[Piece]:
        """Yield the pieces that are complete.

        Raises:
            Rubbish: a piece is longer than any of ours.
        """
        data, at = self._rest + data, 0
        self._rest = b""
        while (end := data.find(b"\n", at)) >= 0:
            line = data[at:end]
            stop = end + 1 + (following(line) if line.startswith(TITLE) else 0)
            if stop > len(data):
                break
            yield Piece(line, data[end + 1 : stop])
            at = stop
        self._rest = data[at:]
        if len(self._rest) > LONGEST:
            raise Rubbish(f"the BGP child wrote a line of more than {LONGEST >> 20} MiB")


def following(line: bytes) -> int:
    """Return how many bytes follow a line that has a title."""
    number = line.rpartition(b" ")[2]
    if not number.isdigit() or len(number) > len(str(LONGEST)) or int(number) > LONGEST:
        raise Rubbish(f"the BGP child wrote {line[:120]!r}: no number of bytes")
    return int(number)


@dataclass(frozen=True, slots=True)
class CloseSession:
    """A session that cannot go on, and what to tell the peer (RFC 4271 section 6.3).

    Attributes:
        session: the child's number of it; the peer may have another one by the time that the child reads this.
    """

    peer: IPAddress
    session: int
    code: int
    subcode: int
    data: bytes
    sentence: str


@dataclass(slots=True)
class _Talk:
    """The latest session of a peer.

    Attributes:
        over: it is being closed, and whatever comes of it still is passed over.
    """

    title: bytes
    session: int
    decoder: Decoder
    over: bool = False


Heard: TypeAlias = UpdateReceived | EndOfRib | UpdateFaulty | CloseSession


class Updates:
    """Reads the UPDATEs of every session."""

    def __init__(self) -> None:
        self._prefixes = Prefixes()
        self._talks: dict[bytes, _Talk] = {}

    def heard(self, piece: Piece) -> Iterator[Heard]:
        """Yield what the UPDATEs of a piece say.

        Raises:
            Rubbish: it is not what a child of ours would write.
        """
        try:
            talk = self._talk(piece.line)
            for body in bodies(piece.follows):
                if talk.over:
                    return
                yield from _one(talk, body)
        except (ValueError, IndexError) as error:
            raise Rubbish(f"the BGP child wrote {piece.line[:120]!r}: {error}") from error

    def _talk(self, line: bytes) -> _Talk:
        title = line.rpartition(b" ")[0]
        peer = title.split(b" ", 2)[1]
        talk = self._talks.get(peer)
        if talk is None or talk.title != title:
            _, address, session, terms = title.decode("ascii").split(" ")
            decoder = Decoder(ip_address(address), read_terms(terms), self._prefixes)
            talk = self._talks[peer] = _Talk(title, int(session), decoder)
        return talk


def _one(talk: _Talk, body: bytes) -> Iterator[Heard]:
    try:
        decoded = talk.decoder.update(body)
    except SessionReset as reset:
        talk.over = True
        fault = reset.fault
        sentence = f"UPDATE: {fault}"
        yield UpdateFaulty(talk.decoder.peer, sentence)
        yield CloseSession(talk.decoder.peer, talk.session, UPDATE_ERROR, fault.subcode, fault.data, sentence)
        return
    yield from decoded.heard
    yield from (UpdateFaulty(talk.decoder.peer, f"UPDATE: {fault}") for fault in decoded.faults)


def read_terms(text: str) -> Terms:
    """Return what the child's words for the terms of a session mean."""
    words = set(text.split(","))
    return Terms(
        external="external" in words,
        four_octet="four-octet" in words,
        families=frozenset(family for family in Family if family.replace(" ", "-") in words),
        ipv6_next_hops="ipv6-next-hops" in words,
    )
