"""Everybody pings everybody: one raw socket in each namespace, all echo requests at once, and who answered."""

import contextlib
import os
import select
import socket
import statistics
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from felix_py.lab import namespaces

DEADLINE = 2.0
"""Seconds to wait for the last answer."""

PACE = 0.0005
"""Seconds between two requests: so many at the same moment would measure only each other."""

ECHO_REPLY, ECHO_REQUEST = 0, 8
"""ICMP types, RFC 792."""

ECHO_REQUEST6, ECHO_REPLY6 = 128, 129
"""ICMPv6 types, RFC 4443."""

ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number

PAYLOAD = 56
"""Bytes of data in each request, as ping(8) sends."""


@dataclass(frozen=True, slots=True)
class End:
    """Somebody who pings and is pinged.

    Attributes:
        namespace: empty is the one that we are in.
        group: what it is shown under: its node, or its network.
    """

    name: str
    namespace: str
    address: str
    group: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Who reached whom: by names of source and target, the seconds of the round trip; missing where none came.

    Attributes:
        sources: those of the ends who sent.
    """

    ends: tuple[End, ...]
    seconds: Mapping[tuple[str, str], float]
    sources: tuple[End, ...]

    @property
    def asked(self) -> int:
        """How many pairs there are."""
        return len(self.sources) * (len(self.ends) - 1)

    @property
    def lost(self) -> tuple[tuple[str, str], ...]:
        """The pairs without an answer."""
        return tuple(
            (source.name, target.name)
            for source in self.sources
            for target in self.ends
            if source != target and (source.name, target.name) not in self.seconds
        )


def checksum(data: bytes) -> int:
    """Return the Internet checksum, RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(identifier: int, sequence: int) -> bytes:
    """Return an ICMP echo request, RFC 792."""
    body = bytes(range(PAYLOAD))
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head + body), identifier, sequence) + body


def echo_request6(identifier: int, sequence: int) -> bytes:
    """Return an ICMPv6 echo request, RFC 4443 section 4.1; the kernel writes the checksum."""
    return struct.pack("!BBHHH", ECHO_REQUEST6, 0, 0, identifier, sequence) + bytes(range(PAYLOAD))


def reply6(packet: bytes, identifier: int) -> int | None:
    """Return the sequence number of an ICMPv6 echo reply to us; None for any other packet."""
    if len(packet) < ECHO.size:
        return None
    kind, _, _, found, sequence = ECHO.unpack_from(packet)
    return int(sequence) if (kind, found) == (ECHO_REPLY6, identifier) else None


def reply(packet: bytes, identifier: int) -> int | None:
    """Return the sequence number of an echo reply to us; None for any other packet."""
    header = (packet[0] & 0xF) * 4
    fields: tuple[int, ...] = struct.unpack_from("!BBHHH", packet, header)
    kind, _, _, found, sequence = fields
    return sequence if (kind, found) == (ECHO_REPLY, identifier) else None


RAW = socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
RAW6 = socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6
"""The socket that an end of each version of IP sends by."""

Pair = tuple[str, str]
"""Names of source and target."""


def ping_all(ends: Sequence[End], sources: Sequence[End] | None = None) -> Matrix:
    """Send one echo request from everybody to everybody else, one every PACE seconds, and wait for the answers.

    Args:
        ends: all that are pinged; their addresses are of the same version of IP.
        sources: those of them who ping; None is all.
    """
    sources = ends if sources is None else sources
    identifier = os.getpid() & 0xFFFF
    sockets: dict[socket.socket, End] = {}
    try:
        for end in sources:
            with namespaces.inside(end.namespace) if end.namespace else contextlib.nullcontext():
                raw = socket.socket(*(RAW6 if ":" in end.address else RAW))
            raw.settimeout(0)
            sockets[raw] = end
        return Matrix(tuple(ends), _exchange(sockets, ends, identifier), tuple(sources))
    finally:
        for each in sockets:
            each.close()


def _exchange(sockets: Mapping[socket.socket, End], ends: Sequence[End], identifier: int) -> dict[Pair, float]:
    """Send all requests, gathering answers meanwhile and until none is missing or DEADLINE has passed."""
    sent: dict[Pair, float] = {}
    seconds: dict[Pair, float] = {}
    for raw, source in sockets.items():
        for sequence, target in enumerate(ends):
            if target is source:
                continue
            with contextlib.suppress(OSError):  # no route: that is an answer too, and the pair counts as lost
                now = time.monotonic()
                request = echo_request6 if ":" in target.address else echo_request
                raw.sendto(request(identifier, sequence), (target.address, 0))
                sent[source.name, target.name] = now
            _gather(sockets, ends, identifier, sent, seconds, until=time.monotonic() + PACE)
    _gather(sockets, ends, identifier, sent, seconds, until=time.monotonic() + DEADLINE)
    return seconds


def _gather(
    sockets: Mapping[socket.socket, End],
    ends: Sequence[End],
    identifier: int,
    sent: Mapping[Pair, float],
    seconds: dict[Pair, float],
    *,
    until: float,
) -> None:
    """Note in `seconds` the answers that arrive."""
    while len(seconds) < len(sent) and (left := until - time.monotonic()) > 0:
        for raw in select.select(list(sockets), [], [], left)[0]:
            packet, (address, *_) = raw.recvfrom(2048)
            sequence = (reply6 if raw.family == socket.AF_INET6 else reply)(packet, identifier)
            if sequence is None or sequence >= len(ends) or ends[sequence].address != address:
                continue
            pair = sockets[raw].name, ends[sequence].name
            if pair in sent:
                seconds.setdefault(pair, time.monotonic() - sent[pair])


def table(matrix: Matrix, *, plain: bool = False) -> str:
    """Draw the matrix: a row for each source, a column for each target, in groups."""
    good, bad, own = ("o", "X", ".") if plain else ("✓", "✗", "·")
    groups = list(dict.fromkeys(end.group for end in matrix.ends))
    members = {group: [end for end in matrix.ends if end.group == group] for group in groups}
    widths = {group: max(len(group), 2 * len(members[group]) - 1) for group in groups}
    left = max(len(end.name) for end in matrix.sources)
    lines = [f"{'':{left}}  " + "  ".join(group.ljust(widths[group]) for group in groups).rstrip()]
    for source in matrix.sources:
        cells = []
        for group in groups:
            marks = (
                own if target == source else good if (source.name, target.name) in matrix.seconds else bad
                for target in members[group]
            )
            cells.append(" ".join(marks).ljust(widths[group]))
        lines.append(f"{source.name:{left}}  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def summary(matrix: Matrix) -> str:
    """Say in one line how many answered, how fast, and who did not."""
    answered = len(matrix.seconds)
    text = f"{answered} of {matrix.asked} pings answered"
    if answered:
        times = [seconds * 1000 for seconds in matrix.seconds.values()]
        text += f", round trip {min(times):.2f} ms to {max(times):.2f} ms, median {statistics.median(times):.2f} ms"
    if matrix.lost:
        named = ", ".join(f"{source} to {target}" for source, target in matrix.lost[:5])
        more = len(matrix.lost) - 5
        text += f"; lost: {named}" + (f" and {more} more" if more > 0 else "")
    return text
