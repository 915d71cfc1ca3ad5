"""IPv4 headers around IPv4 packets, and the ICMP message about packets that do not fit; bytes in, bytes out.

Addresses are four bytes each, as packets and sockets hold them. Nothing here raises on what a stranger may send.
"""

from struct import Struct
from typing import NamedTuple

IPV4 = Struct("!BBHHHBBH4s4s")
"""Version and header length, type of service, total length, identification, flags and fragment offset, time to live,
protocol, checksum, source, destination: RFC 791 section 3.1."""

SIZE = IPV4.size
ICMP, IPIP = 1, 4
"""Protocol numbers: RFC 792 and RFC 2003 section 3.1."""

DONT_FRAGMENT = 0x4000
FRAGMENT_OFFSET = 0x1FFF
VERSION_4 = 4
SHORTEST_LENGTH = 5
"""Words of 32 bits: a header without options, RFC 791 section 3.1."""

TIME_TO_LIVE = 64
"""Hops for the outer packet; a tunnel is one hop of the inner one, so the inner value is not copied: RFC 2003
section 3.1."""

NOT_ECT, ECT_1, ECT_0, CONGESTION = 0, 1, 2, 3
"""Codepoints of explicit congestion notification: RFC 3168 section 5."""

LONGEST_QUOTE = 576 - SIZE - 8
"""Bytes of the offending packet in an ICMP error, so that the whole stays within 576: RFC 1812 section 4.3.2.3."""

ICMP_UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4
ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
"""Types that report about another packet; none of them may cause a further one: RFC 1122 section 3.2.2."""

Packet = bytes | bytearray | memoryview


class Outer(NamedTuple):
    """What varies in the header that a tunnel puts before a packet.

    Attributes:
        payload: bytes after the header.
    """

    source: bytes
    destination: bytes
    type_of_service: int = 0
    dont_fragment: bool = False
    payload: int = 0
    time_to_live: int = TIME_TO_LIVE
    identification: int = 0


def checksum(data: Packet) -> int:
    """Return the Internet checksum (RFC 1071) of `data`; over data that carries its right checksum it is 0.

    A one's complement sum of 16-bit words is the remainder modulo 65535, for 65536 leaves 1.
    """
    number = int.from_bytes(data, "big") << 8 * (len(data) % 2)
    if number == 0:
        return 0xFFFF
    return 0xFFFF - (number % 0xFFFF or 0xFFFF)


def encode(outer: Outer) -> bytes:
    """Return the 20 bytes of the header, checksum included."""
    bare = IPV4.pack(
        VERSION_4 << 4 | SHORTEST_LENGTH,
        outer.type_of_service,
        SIZE + outer.payload,
        outer.identification,
        DONT_FRAGMENT if outer.dont_fragment else 0,
        outer.time_to_live,
        IPIP,
        0,
        outer.source,
        outer.destination,
    )
    return bare[:10] + checksum(bare).to_bytes(2, "big") + bare[12:]


def decode(packet: Packet) -> tuple[Outer, memoryview] | None:
    """Split a protocol 4 packet into its header and the inner packet; None where it is not one."""
    if fault(packet) is not None:
        return None
    first, service, total, identification, fragment, time_to_live, protocol, _, source, destination = IPV4.unpack_from(
        packet
    )
    size = (first & 15) * 4
    if protocol != IPIP or fragment & ~DONT_FRAGMENT or checksum(packet[:size]) != 0:
        return None
    dont_fragment = bool(fragment & DONT_FRAGMENT)
    outer = Outer(source, destination, service, dont_fragment, total - size, time_to_live, identification)
    return outer, memoryview(packet)[size:total]


def encapsulate(packet: Packet, source: bytes, destination: bytes) -> bytes:
    """Put the outer header before a valid inner packet.

    "Don't fragment" and the type of service are the inner ones (RFC 2003 section 3.1; RFC 6040 section 4.1 for the
    congestion bits in it).
    """
    _, service, _, _, fragment, *_ = IPV4.unpack_from(packet)
    outer = Outer(source, destination, service, bool(fragment & DONT_FRAGMENT), len(packet))
    return encode(outer) + bytes(packet)


def fault(packet: Packet) -> str | None:
    """Say what keeps these bytes from being an IPv4 packet; None where nothing does."""
    if len(packet) < SIZE:
        return "shorter than an IPv4 header"
    if packet[0] >> 4 != VERSION_4:
        return "not IPv4"
    size, total = (packet[0] & 15) * 4, packet[2] << 8 | packet[3]
    if size < SIZE or total < size:
        return "lengths contradict each other"
    if total > len(packet):
        return "cut short"
    return None


def congestion(outer: int, inner: int) -> int | None:
    """Combine the type of service of both headers on the way out of the tunnel; None: drop (RFC 6040 section 4.2).

    Args:
        outer: type of service of the header that is taken off.
        inner: that of the packet inside.
    """
    mark, ours = outer & 3, inner & 3
    if mark == CONGESTION:
        return None if ours == NOT_ECT else inner | CONGESTION
    if mark == ECT_1 and ours == ECT_0:
        return inner & ~3 | ECT_1
    return inner


def with_type_of_service(packet: Packet, value: int) -> bytes:
    """Return a valid packet with another type of service and the checksum that goes with it."""
    size = (packet[0] & 15) * 4
    head = bytes((packet[0], value)) + bytes(packet[2:10]) + bytes(2) + bytes(packet[12:size])
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + bytes(packet[size:])


def fragmentation_needed(packet: Packet, mtu: int) -> bytes | None:
    """Return the ICMP message that tells the sender of `packet` the largest size that fits; None: it must not be told.

    Type 3 code 4 (RFC 792) with the next hop's MTU (RFC 1191 section 4). Who must not be told: RFC 1122 section 3.2.2.

    Args:
        packet: what did not fit.
        mtu: bytes that would have.
    """
    if not answerable(packet):
        return None
    quote = bytes(packet[:LONGEST_QUOTE])
    bare = bytes((ICMP_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0)) + mtu.to_bytes(2, "big") + quote
    return bare[:2] + checksum(bare).to_bytes(2, "big") + bare[4:]


def answerable(packet: Packet) -> bool:
    """Say whether an ICMP error may be sent about this packet: RFC 1122 section 3.2.2."""
    if fault(packet) is not None:
        return False
    size = (packet[0] & 15) * 4
    first_fragment = (packet[6] << 8 | packet[7]) & FRAGMENT_OFFSET == 0
    about_icmp_error = packet[9] == ICMP and len(packet) > size and packet[size] in ICMP_ERRORS
    return first_fragment and not about_icmp_error and _one_host(packet[12]) and _one_host(packet[16])


def _one_host(first_byte: int) -> bool:
    """Say whether an address that begins so names one host: not this network, loopback, multicast, broadcast."""
    return first_byte not in (0, 127) and first_byte < 224  # noqa: PLR2004 - RFC 1122 section 3.2.1.3
