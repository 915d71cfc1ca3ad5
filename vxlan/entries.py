"""Neighbours and forwarding entries of a VXLAN device as bytes; pure.

Formats and numbers are those of include/uapi/linux/neighbour.h.
"""

from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import NamedTuple

from ipip.netlink import U32, attribute, attributes
from vxlan.tunnel import IPAddress

NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NDMSG = Struct("=BxxxiHBB")  # family index state flags type
NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
PERMANENT, SELF = 0x80, 0x02
"""NUD_PERMANENT: it does not age. NTF_SELF: it is the device's own, and not that of a bridge above it."""

INET, BRIDGE, INET6 = 2, 7, 10
"""AF_INET, AF_BRIDGE and AF_INET6, which are the families of neighbours and of forwarding entries."""

MAC_BYTES = 6


class Entry(NamedTuple):
    """A neighbour of IP, or a forwarding entry.

    Attributes:
        family: INET, INET6, or BRIDGE for a forwarding entry.
        address: whose hardware address it is; of a forwarding entry the node to send to.
    """

    family: int
    mac: str
    address: IPAddress


def neighbour(mac: str, address: IPAddress) -> Entry:
    """Return the neighbour that says which hardware address an address has."""
    return Entry(INET if isinstance(address, IPv4Address) else INET6, mac, address)


def forwarding(mac: str, node: IPAddress) -> Entry:
    """Return the entry that says which node frames for a hardware address are sent to."""
    return Entry(BRIDGE, mac, node)


def encode(entry: Entry, index: int) -> bytes:
    """Return the body of the message that makes an entry or removes it."""
    head = NDMSG.pack(entry.family, index, PERMANENT, SELF if entry.family == BRIDGE else 0, 0)
    hardware = bytes.fromhex(entry.mac.replace(":", ""))
    return head + attribute(NDA_DST, entry.address.packed) + attribute(NDA_LLADDR, hardware)


def all_of(family: int, index: int) -> bytes:
    """Return the question for every entry of a family that a device has."""
    if family == BRIDGE:
        return NDMSG.pack(family, index, 0, 0, 0)
    return NDMSG.pack(family, 0, 0, 0, 0) + attribute(NDA_IFINDEX, U32.pack(index))


def decode(body: bytes) -> tuple[Entry, bool] | None:
    """Return an entry and whether it is permanent; None for what leads nowhere, as multicast, and for rubbish."""
    if len(body) < NDMSG.size:
        return None
    family, _, state, _, _ = NDMSG.unpack_from(body)
    found = attributes(body, NDMSG.size)
    destination, hardware = found.get(NDA_DST, b""), found.get(NDA_LLADDR, b"")
    if family not in (INET, INET6, BRIDGE) or len(hardware) != MAC_BYTES or len(destination) not in (4, 16):
        return None
    address = IPv4Address(destination) if len(destination) == 4 else IPv6Address(destination)  # noqa: PLR2004
    return Entry(family, hardware.hex(":"), address), bool(state & PERMANENT)
