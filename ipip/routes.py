"""The IPv4 routes out of one interface, led out of another one in place: no packet meets a moment without.

The formats are those of include/uapi/linux/{rtnetlink,nexthop}.h. Everything raises OSError with the kernel's errno.
"""

import errno
import socket
from collections.abc import Iterator
from struct import Struct

from ipip.links import GETROUTE, RTA_OIF, RTMSG
from ipip.netlink import ATTRIBUTE, CREATE, DUMP, REPLACE, U32, ask, attribute, attributes, do_each

NEWROUTE, NEWNEXTHOP, GETNEXTHOP = 24, 104, 106
RTA_MULTIPATH, RTA_NH_ID = 9, 30
NHA_OIF, NHA_ENCAP = 5, 8

NHMSG = Struct("=BBBBI")  # family, scope, protocol, reserved, flags
HOP = Struct("=HBBI")  # struct rtnexthop: length, flags, weight, interface

BY_KERNEL = 2  # RTPROT_KERNEL: those of an interface's own addresses, which come with the address
ONLINK = 4  # RTNH_F_ONLINK; the kernel's other flags tell how a next hop is, and are not taken back
NESTED = 0x8000  # NLA_F_NESTED, which the kernel leaves out where it lists and asks for where it is told


def move(before: int, after: int) -> None:
    """Lead every IPv4 route out of an interface, and every next-hop object, out of another one; whoever made it.

    One that the kernel does not take back as it listed it stays where it is.

    Args:
        before: index of the interface that they leave by.
        after: index of the one that they shall leave by, which is up.
    """
    do_each(NEWNEXTHOP, CREATE | REPLACE, [_object_by(after, body) for body in _objects(before)])
    do_each(NEWROUTE, CREATE | REPLACE, [_route_by(before, after, body) for body in _routes(before)])


def _routes(index: int) -> list[bytes]:
    """Return the routes that name an interface themselves."""
    wanted = RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_OIF, U32.pack(index))
    found = [body for kind, body in ask(GETROUTE, DUMP, wanted) if kind == NEWROUTE]
    return [
        body
        for body in found
        if RTMSG.unpack_from(body)[5] != BY_KERNEL and RTA_NH_ID not in attributes(body, RTMSG.size)
    ]


def _objects(index: int) -> list[bytes]:
    """Return the next-hop objects that leave by an interface."""
    wanted = NHMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(NHA_OIF, U32.pack(index))
    try:
        return [body for kind, body in ask(GETNEXTHOP, DUMP, wanted) if kind == NEWNEXTHOP]
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # before Linux 5.3
            return []
        raise


def _object_by(after: int, body: bytes) -> bytes:
    family, _, protocol, _, flags = NHMSG.unpack_from(body)
    moved = NHMSG.pack(family, 0, protocol, 0, flags & ONLINK)
    for kind, payload in _attributes(body, NHMSG.size):
        if kind == NHA_OIF:
            moved += attribute(kind, U32.pack(after))
        else:
            moved += attribute(kind | NESTED if kind == NHA_ENCAP else kind, payload)
    return moved


def _route_by(before: int, after: int, body: bytes) -> bytes:
    *head, flags = RTMSG.unpack_from(body)
    moved = RTMSG.pack(*head, flags & ONLINK)
    for kind, payload in _attributes(body, RTMSG.size):
        if kind == RTA_OIF:
            moved += attribute(kind, U32.pack(after))
        elif kind == RTA_MULTIPATH:
            moved += attribute(kind, _hops_by(before, after, payload))
        else:
            moved += attribute(kind, payload)
    return moved


def _hops_by(before: int, after: int, hops: bytes) -> bytes:
    moved, at = b"", 0
    while at + HOP.size <= len(hops):
        length, flags, weight, index = HOP.unpack_from(hops, at)
        moved += HOP.pack(length, flags & ONLINK, weight, after if index == before else index)
        end = at + max(HOP.size, (length + 3) & ~3)
        moved += hops[at + HOP.size : end]
        at = end
    return moved


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each attribute, in the kernel's order."""
    while at + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, at)
        yield kind, body[at + ATTRIBUTE.size : at + length]
        at += max(ATTRIBUTE.size, (length + 3) & ~3)
