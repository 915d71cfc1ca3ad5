"""The bytes by which the kernel is asked for tracked connections, tells of them, and is told to forget one.

Bodies are what follows the netlink header. Formats and numbers are those of
include/uapi/linux/netfilter/{nfnetlink,nfnetlink_conntrack}.h.
"""

import struct
from collections.abc import Collection, Iterable, Iterator
from enum import IntEnum
from ipaddress import IPv4Address
from typing import NamedTuple

from felix_py.kernel.messages import U32, attribute, attributes
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress

NFGENMSG = struct.Struct("=BBH")  # family, version, resource ID

GET_ENTRY, DELETE_ENTRY, GET_COUNT = 0x101, 0x102, 0x105
"""IPCTNL_MSG_CT_GET, _DELETE and _GET_STATS, in the second byte the number of the subsystem, NFNL_SUBSYS_CTNETLINK."""

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 12, 18, 25
CTA_TUPLE_IP = 1
CTA_IP_SRC = {Family.IPV4: 1, Family.IPV6: 3}
CTA_STATS_GLOBAL_ENTRIES = 1
NESTED = 0x8000
"""NLA_F_NESTED: the attribute holds attributes; newer kernels insist on it."""

ADDRESS_SIZE = {Family.IPV4: 4, Family.IPV6: 16}
"""Bytes of a packed address."""

FILTER_BY_SOURCE = 1
"""Bit 0 of a filter's flags: compare the source address; CTA_FILTER_F_CTA_IP_SRC, net/netfilter/nf_internals.h."""


FEW = 8
"""Addresses up to which it is quicker to search an entry for their bytes than to decode it."""


class Direction(IntEnum):
    """Which of a connection's two sides; both its tuple and its flags in a filter have this number."""

    ORIGINAL = 1
    REPLY = 2


class Entry(NamedTuple):
    """One tracked connection: whose it is, and what the kernel knows it by.

    Attributes:
        original_source: packed address of who opened it.
        reply_source: packed address of who answers; with NAT this is not the one that was asked.
        original: the attributes of the original tuple, as the kernel told them, zone of that direction included.
        identity: the payload of CTA_ID: another connection with the same tuple has another.
        zone: the payload of CTA_ZONE; empty in the default zone.
    """

    family: Family
    original_source: bytes
    reply_source: bytes
    original: bytes
    identity: bytes = b""
    zone: bytes = b""

    @property
    def sources(self) -> frozenset[bytes]:
        """Both sources; one where a connection has the same at either end."""
        return frozenset((self.original_source, self.reply_source))


def all_entries(family: Family) -> bytes:
    """Encode the question for every entry of a family."""
    return NFGENMSG.pack(family, 0, 0)


def entries_from(address: IPAddress, direction: Direction) -> bytes:
    """Encode the question for entries whose source in one direction is this address; Linux 5.8 and later filter."""
    family = Family.IPV4 if isinstance(address, IPv4Address) else Family.IPV6
    return _filtered(family, direction, _nested(CTA_TUPLE_IP, attribute(CTA_IP_SRC[family], address.packed)))


def trick_question() -> bytes:
    """Encode the question for replies from an address that it does not name.

    A kernel whose filter works refuses it (EINVAL). One without filters answers it with everything. And those from
    Linux 5.8 to the repair of its reply filter, which takes the flags of the original direction for those of the
    reply, answer it with nothing, as they would answer the question for any address.
    """
    return _filtered(Family.IPV4, Direction.REPLY, b"")


def how_many() -> bytes:
    """Encode the question for the number of entries in this network namespace (message type `GET_COUNT`)."""
    return NFGENMSG.pack(0, 0, 0)


def decode_count(body: bytes) -> int | None:
    """Decode the answer to `how_many`; None when it does not say."""
    count = dict(attributes(body, NFGENMSG.size)).get(CTA_STATS_GLOBAL_ENTRIES, b"")
    return int.from_bytes(count, "big") if len(count) == U32.size else None


def decode(body: bytes) -> Entry | None:
    """Decode one entry of a dump; None for what is not one, or of another family."""
    if len(body) < NFGENMSG.size or body[0] not in (Family.IPV4, Family.IPV6):
        return None
    found = dict(attributes(body, NFGENMSG.size))
    original, reply = found.get(CTA_TUPLE_ORIG, b""), found.get(CTA_TUPLE_REPLY, b"")
    family = Family(body[0])
    sources = _source(family, original), _source(family, reply)
    if not all(sources):
        return None
    return Entry(family, *sources, original, found.get(CTA_ID, b""), found.get(CTA_ZONE, b""))


def matching(bodies: Iterable[bytes], sources: Collection[bytes]) -> Iterator[Entry]:
    """Yield the entries of a dump whose source in either direction is one of these packed addresses, and no others.

    It is here that connections are chosen; what the kernel filters only saves work.
    """
    few = tuple(sources) if len(sources) <= FEW else ()
    for body in bodies:
        if few and not any(source in body for source in few):
            continue
        entry = decode(body)
        if entry is not None and (entry.original_source in sources or entry.reply_source in sources):
            yield entry


def deletion(entry: Entry) -> bytes:
    """Encode the body that makes the kernel forget this entry and no other (message type `DELETE_ENTRY`).

    The original tuple is never left out: without one the kernel would forget every connection there is.
    """
    named = _nested(CTA_TUPLE_ORIG, entry.original)
    identity = attribute(CTA_ID, entry.identity) if entry.identity else b""
    zone = attribute(CTA_ZONE, entry.zone) if entry.zone else b""
    return NFGENMSG.pack(entry.family, 0, 0) + named + identity + zone


def _filtered(family: Family, direction: Direction, tuple_of: bytes) -> bytes:
    flags = attribute(direction, U32.pack(FILTER_BY_SOURCE))
    return NFGENMSG.pack(family, 0, 0) + _nested(direction, tuple_of) + _nested(CTA_FILTER, flags)


def _source(family: Family, of_tuple: bytes) -> bytes:
    """Return the packed source address in a tuple; empty when it has none of this family."""
    inner = dict(attributes(of_tuple, 0)).get(CTA_TUPLE_IP, b"")
    address = dict(attributes(inner, 0)).get(CTA_IP_SRC[family], b"")
    return address if len(address) == ADDRESS_SIZE[family] else b""


def _nested(kind: int, payload: bytes) -> bytes:
    return attribute(kind | NESTED, payload)
