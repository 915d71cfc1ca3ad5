"""Interfaces and their addresses as the kernel describes them: bytes in, `Link` and text out; pure."""

import struct
from ipaddress import ip_address

from felix_py.kernel.messages import U32, attribute, attributes
from felix_py.kernel.objects import Link

IFINFOMSG = struct.Struct("=BxHiII")  # family type index flags change
IFADDRMSG = struct.Struct("=BBBBI")  # family prefix length, flags, scope, index

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_EXT_MASK = 3, 4, 5, 29
IFA_ADDRESS, IFA_LOCAL = 1, 2
AF_UNSPEC = 0
IFF_UP, IFF_RUNNING = 0x1, 0x40
"""Set up by the administrator; and able to carry packets. include/uapi/linux/if.h."""

RTEXT_FILTER_SKIP_STATS = 8
"""Leave the counters out: they are most of the bytes of a link. include/uapi/linux/rtnetlink.h."""

ALL_LINKS = IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_EXT_MASK, U32.pack(RTEXT_FILTER_SKIP_STATS))
"""The question for every interface."""


def all_addresses(family: int) -> bytes:
    """Return the question for every address of a family."""
    return IFADDRMSG.pack(family, 0, 0, 0, 0)


def decode_link(body: bytes) -> Link | None:
    """Decode an interface, without its addresses; None for anything else that goes by the same message type.

    A bridge tells of its ports with messages of its own family: RTM_DELLINK is then the end of the membership, not of
    the interface.
    """
    if len(body) < IFINFOMSG.size:
        return None
    family, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    named = mtu = b""
    for kind, value in attributes(body, IFINFOMSG.size):
        if kind == IFLA_IFNAME:
            named = value
        elif kind == IFLA_MTU:
            mtu = value
        if named and mtu:
            break  # some forty follow, in each message of a storm of flaps
    name = named.rstrip(b"\0").decode(errors="replace")
    if family != AF_UNSPEC or not name or len(mtu) != U32.size:
        return None
    return Link(name, index, U32.unpack(mtu)[0], bool(flags & IFF_UP), bool(flags & IFF_RUNNING))


def peer(body: bytes) -> int:
    """Return the index of a veth's other end, in the namespace where that is; 0 of what has none."""
    found = (value for kind, value in attributes(body, IFINFOMSG.size) if kind == IFLA_LINK)
    return int(U32.unpack(next(found, bytes(U32.size)))[0])


def decode_address(body: bytes) -> tuple[int, str] | None:
    """Decode an address into interface index and text, as `172.31.1.11/24`; None for link-local IPv6 and rubbish.

    Link-local addresses of IPv6 say nothing of a host's place in the network: every interface has one.
    """
    if len(body) < IFADDRMSG.size:
        return None
    _, length, _, _, index = IFADDRMSG.unpack_from(body)
    found = dict(attributes(body, IFADDRMSG.size))
    # Of a point-to-point address, IFA_ADDRESS is the far end.
    packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    if len(packed) not in (4, 16):
        return None
    address = ip_address(packed)
    return None if address.version == 6 and address.is_link_local else (index, f"{address}/{length}")  # noqa: PLR2004
