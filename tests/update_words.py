"""UPDATE messages in few words, for tests that read them: attributes as bytes, and a decoder for a session."""

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from bgp.attribute_codec import Terms
from bgp.prefixes import Prefixes
from bgp.types import Family, IPNetwork, UpdateReceived
from bgp.update_codec import Decoded, Decoder

PEER = IPv4Address("10.9.0.1")
BOTH = frozenset(Family)
IBGP = Terms(families=BOTH)
EBGP = Terms(external=True, families=BOTH)
OLD = Terms(external=True, four_octet=False, families=BOTH)

ORIGIN = bytes.fromhex("40010100")
AS_PATH = bytes.fromhex("400200")
NEXT_HOP = bytes.fromhex("4003040a090001")
LOCAL_PREF = bytes.fromhex("40050400000064")
PLAIN = ORIGIN + AS_PATH + NEXT_HOP + LOCAL_PREF
"""What every path has, over iBGP."""

FIRST, SECOND = IPv4Network("10.65.1.0/26"), IPv4Network("10.65.2.0/26")
THIRD = IPv6Network("fd00:10:65::/122")
NLRI, NLRI2, NLRI6 = bytes.fromhex("1a0a410100"), bytes.fromhex("1a0a410200"), bytes.fromhex("7a") + THIRD[0].packed


def attribute(flags: int, code: int, value: bytes) -> bytes:
    if len(value) > 255:
        return struct.pack("!BBH", flags | 0x10, code, len(value)) + value
    return bytes((flags, code, len(value))) + value


def update(attributes: bytes = b"", announced: bytes = b"", withdrawn: bytes = b"") -> bytes:
    return struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes)) + attributes + announced


def reach(next_hop: str = "fd00::1", nlri: bytes = NLRI6, family: bytes = b"\0\2\1") -> bytes:
    octets = b"".join(IPv6Address(each).packed for each in next_hop.split())
    return attribute(0x80, 14, family + bytes((len(octets),)) + octets + b"\0" + nlri)


def unreach(nlri: bytes = NLRI6, family: bytes = b"\0\2\1") -> bytes:
    return attribute(0x80, 15, family + nlri)


def decode(body: bytes, terms: Terms = IBGP) -> Decoded:
    return Decoder(PEER, terms, Prefixes()).update(body)


def withdraws(*prefixes: IPNetwork) -> tuple[UpdateReceived, ...]:
    return (UpdateReceived(PEER, withdrawn=prefixes),)
