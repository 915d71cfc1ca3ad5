"""Packets that find out what passes between two nodes: echo requests, each way with or without IP in IP; pure.

An echo request to a node's own address is answered to the address that it came from: to this node's own, and the answer
comes plain; to this node's tunnel address, and it comes through the tunnel. The request itself goes plain, or in IP
protocol 4. So four requests tell which way protocol 4 passes, and the other node needs to know nothing of it.
"""

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import NamedTuple

IPV4 = struct.Struct(
    "!BBHHHBBH4s4s"
)  # version and length, TOS, length, ID, fragment, TTL, protocol, checksum, two ends
ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number: RFC 792
ECHO_REPLY, UNREACHABLE, ECHO_REQUEST = 0, 3, 8
FRAGMENTATION_NEEDED = 4
"""ICMP types, and the code of a router that would have to fragment (RFC 1191)."""

ICMP, IPIP = 1, 4
"""IP protocol numbers."""

DONT_FRAGMENT, OFFSET = 0x4000, 0x1FFF
TTL = 64
VERSION_4_WITHOUT_OPTIONS = 0x45

SMALL = 104
"""Bytes of the outer packet of a probe that every path takes."""

SEQUENCES = 1 << 16


class Way(Enum):
    """How a request goes, and how its answer comes back."""

    PLAIN = (False, False)
    THERE = (True, False)
    BACK = (False, True)
    BOTH = (True, True)

    @property
    def wrapped(self) -> bool:
        """The request is in protocol 4."""
        return bool(self.value[0])

    @property
    def wrapped_back(self) -> bool:
        """The answer has to be."""
        return bool(self.value[1])


WAYS = tuple(Way)


class Ends(NamedTuple):
    """The two ends of a probe: this node's own address and that of its tunnel, and the other node's own."""

    here: IPv4Address
    tunnel: IPv4Address
    there: IPv4Address


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        size: bytes of the packet as it goes over the wire, the outer header included where there is one.
    """

    ends: Ends
    way: Way
    size: int = SMALL


class Answered(NamedTuple):
    """An answer: to which request, by its number, and whether it came in protocol 4."""

    number: int
    wrapped: bool
    source: IPv4Address


class TooLarge(NamedTuple):
    """A router says what it can pass on to a destination."""

    router: IPv4Address
    destination: IPv4Address
    mtu: int


def checksum(data: bytes) -> int:
    """Return the Internet checksum, RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def header(source: IPv4Address, destination: IPv4Address, protocol: int, payload: int) -> bytes:
    """Return an IPv4 header (RFC 791) that forbids fragments."""
    fields = [VERSION_4_WITHOUT_OPTIONS, 0, IPV4.size + payload, 0, DONT_FRAGMENT, TTL, protocol, 0]
    ends = (source.packed, destination.packed)
    fields[7] = checksum(IPV4.pack(*fields, *ends))
    return IPV4.pack(*fields, *ends)


def packet(request: Request, identifier: int, number: int) -> bytes:
    """Return the whole packet of a request, outer header first."""
    ends, way = request.ends, request.way
    room = request.size - IPV4.size * (1 + way.wrapped) - ECHO.size
    data = bytes(room)
    echo = ECHO.pack(ECHO_REQUEST, 0, 0, identifier, number) + data
    echo = ECHO.pack(ECHO_REQUEST, 0, checksum(echo), identifier, number) + data
    inner = header(ends.tunnel if way.wrapped_back else ends.here, ends.there, ICMP, len(echo)) + echo
    return header(ends.here, ends.there, IPIP, len(inner)) + inner if way.wrapped else inner


def read(data: bytes, identifier: int) -> Answered | TooLarge | None:
    """Return what a packet from the wire says to us; None for all others."""
    outer = _split(data)
    if outer is None:
        return None
    source, _, protocol, rest = outer
    if protocol == IPIP:
        inner = _split(rest)
        number = _reply(inner[3], identifier) if inner is not None and inner[2] == ICMP else None
        return None if number is None else Answered(number, wrapped=True, source=source)
    if protocol != ICMP or len(rest) < ECHO.size:
        return None
    kind, code, _, _, mtu = ECHO.unpack_from(rest)
    if (kind, code) == (UNREACHABLE, FRAGMENTATION_NEEDED):
        about = _split(rest[ECHO.size :])
        return TooLarge(source, about[1], mtu) if about is not None else None
    number = _reply(rest, identifier)
    return None if number is None else Answered(number, wrapped=False, source=source)


def _split(data: bytes) -> tuple[IPv4Address, IPv4Address, int, bytes] | None:
    """Return source, destination, protocol and payload of an IPv4 packet; None for later fragments and rubbish."""
    if len(data) < IPV4.size or data[0] >> 4 != 4:  # noqa: PLR2004 - version of IP
        return None
    _, _, _, _, fragment, _, protocol, _, source, destination = IPV4.unpack_from(data)
    if fragment & OFFSET:
        return None
    return IPv4Address(source), IPv4Address(destination), protocol, data[(data[0] & 0xF) * 4 :]


def _reply(data: bytes, identifier: int) -> int | None:
    if len(data) < ECHO.size:
        return None
    kind, _, _, found, number = ECHO.unpack_from(data)
    return int(number) if (kind, found) == (ECHO_REPLY, identifier) else None
