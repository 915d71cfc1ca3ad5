"""Next-hop objects as bytes: the body of a next-hop message, the same whether we send it, a dump or an event brings it.

An object is one next hop or a group of them; routes name it by its ID (RTA_NH_ID), so that replacing one object moves
all of its routes at once. Formats and numbers are those of include/uapi/linux/nexthop.h.
"""

import struct
from collections.abc import Mapping
from ipaddress import IPv6Address

from felix_py.kernel import hop_codec
from felix_py.kernel.hop_codec import RTNH_F_ONLINK, RTNH_VOLATILE
from felix_py.kernel.messages import ATTRIBUTE, U32, attribute, attributes, pieces
from felix_py.kernel.objects import NextHop, NextHopObject
from felix_py.kernel.wire import Family

NHMSG = struct.Struct("=BBBxI")  # family scope protocol flags
MEMBER = struct.Struct("=IBBxx")  # ID, weight less one, its high byte
U16 = struct.Struct("=H")

HEAD = NHMSG.size
"""Bytes before the first attribute; whatever is shorter is no next-hop object."""

NHA_ID, NHA_GROUP, NHA_GROUP_TYPE, NHA_BLACKHOLE, NHA_OIF, NHA_GATEWAY, NHA_ENCAP_TYPE, NHA_ENCAP = range(1, 9)
NHA_FDB, NHA_RES_GROUP, NHA_OP_FLAGS = 11, 12, 14

BEYOND_US = frozenset({NHA_BLACKHOLE, NHA_FDB, NHA_RES_GROUP})
"""What makes an object another thing than `NextHopObject` has words for."""

NESTED = 0x8000
"""NLA_F_NESTED: the kernel wants it on NHA_ENCAP, and leaves it out when it dumps."""

MULTIPATH_GROUP = attribute(NHA_GROUP_TYPE, U16.pack(0))
"""NEXTHOP_GRP_TYPE_MPATH: flows are spread by hash."""


def encode(number: int, entry: NextHopObject, indexes: Mapping[str, int]) -> bytes:
    """Encode an object under its ID, attributes in the order in which the kernel dumps them.

    Args:
        number: the ID, 1 to 4294967295.
        entry: one next hop, or a group. A next hop without a gateway is one of IPv4, as `ip nexthop` has it.
        indexes: interface indexes by name, as they are now.

    Raises:
        NoDevice: when the interface does not exist.
    """
    name = attribute(NHA_ID, U32.pack(number))
    hop = entry.hop
    if hop is None:
        members = b"".join(MEMBER.pack(of, (weight - 1) & 0xFF, (weight - 1) >> 8) for of, weight in entry.group)
        return NHMSG.pack(0, 0, entry.protocol, 0) + name + MULTIPATH_GROUP + attribute(NHA_GROUP, members)
    family = Family.IPV6 if isinstance(hop.via, IPv6Address) else Family.IPV4
    oif = b"" if hop.device is None else attribute(NHA_OIF, U32.pack(hop_codec.index_of(hop.device, indexes)))
    gateway = b"" if hop.via is None else attribute(NHA_GATEWAY, hop.via.packed)
    wrap = hop_codec.encapsulation(hop.encapsulation, NHA_ENCAP | NESTED, NHA_ENCAP_TYPE)
    return NHMSG.pack(family, 0, entry.protocol, RTNH_F_ONLINK if hop.onlink else 0) + name + oif + gateway + wrap


def decode(body: bytes, names: Mapping[int, str]) -> tuple[int, NextHopObject] | None:
    """Decode an object; None for what we cannot hold (blackholes, resilient groups, bridges' objects) and for rubbish.

    An object of IPv6 without a gateway cannot be held either: as a `NextHop` it would be one of IPv4.

    Args:
        body: the message after its netlink header.
        names: interface names by index; an unknown index is named `if<number>`.
    """
    found = dict(attributes(body, HEAD))
    if len(body) < HEAD or BEYOND_US & found.keys():
        return None
    family, _, protocol, flags = NHMSG.unpack_from(body)
    try:
        number = hop_codec.number(found.get(NHA_ID))
        group = _members(found.get(NHA_GROUP, b""))
        hop = None if group else _hop(flags, found, names)
    except ValueError:
        return None
    if not number or (hop is not None and _family(hop) != family):
        return None
    return number, NextHopObject(hop, group, protocol)


def _members(payload: bytes) -> tuple[tuple[int, int], ...]:
    if len(payload) % MEMBER.size:
        raise ValueError(f"{len(payload)} bytes are no list of members of {MEMBER.size} each")
    return tuple((member, weight + (high << 8) + 1) for member, weight, high in MEMBER.iter_unpack(payload))


def _hop(flags: int, found: Mapping[int, bytes], names: Mapping[int, str]) -> NextHop:
    index = hop_codec.number(found.get(NHA_OIF))
    return NextHop(
        via=hop_codec.address(found.get(NHA_GATEWAY)),
        device=hop_codec.name_of(index, names) if index else None,
        onlink=bool(flags & RTNH_F_ONLINK),
        encapsulation=hop_codec.encapsulation_of(found, NHA_ENCAP, NHA_ENCAP_TYPE),
    )


def _family(hop: NextHop) -> Family:
    return Family.IPV6 if isinstance(hop.via, IPv6Address) else Family.IPV4


def by_number(number: int) -> bytes:
    """Return the body that asks for an object by its ID, to delete it: there the kernel refuses a word more."""
    return NHMSG.pack(0, 0, 0, 0) + attribute(NHA_ID, U32.pack(number))


def normalised(body: bytes) -> bytes:
    """Return the body as a request has it: without the scope, volatile flags and the flags of the operation."""
    if len(body) < HEAD:
        return body
    family, _, protocol, flags = NHMSG.unpack_from(body)
    kept = (_as_asked(kind, piece) for kind, piece in pieces(body, HEAD) if kind != NHA_OP_FLAGS)
    return NHMSG.pack(family, 0, protocol, flags & ~RTNH_VOLATILE) + b"".join(kept)


def _as_asked(kind: int, piece: bytes) -> bytes:
    if kind != NHA_ENCAP:
        return piece
    return ATTRIBUTE.pack(ATTRIBUTE.unpack_from(piece)[0], NHA_ENCAP | NESTED) + piece[ATTRIBUTE.size :]


def number_of(body: bytes) -> int:
    """Return the ID; 0, which no object has, where the body holds none."""
    return _number(dict(attributes(body, HEAD)).get(NHA_ID))


def protocol_of(body: bytes) -> int:
    """Return who made the object (nh_protocol); 0 (unspecified) where the body is too short."""
    return body[2] if len(body) >= HEAD else 0


def leaves_by(body: bytes, index: int) -> bool:
    """Say whether packets leave by the interface with this index; of a group only its members can tell."""
    return _number(dict(attributes(body, HEAD)).get(NHA_OIF)) == index > 0


def _number(payload: bytes | None) -> int:
    return int(U32.unpack(payload)[0]) if payload is not None and len(payload) == U32.size else 0
