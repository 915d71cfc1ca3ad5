"""One VXLAN interface of this network namespace over rtnetlink: read it, make it, change it, remove it.

The formats are those of include/uapi/linux/{if_link,if_addr}.h. Everything raises OSError with the kernel's errno.
"""

import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import TypeAlias

from ipip.links import (
    DELADDR,
    GETADDR,
    GETLINK,
    IFA_ADDRESS,
    IFA_LOCAL,
    IFADDRMSG,
    IFF_UP,
    IFINFOMSG,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    NEWADDR,
    NEWLINK,
)
from ipip.netlink import CREATE, DUMP, EXCLUSIVE, U32, ask, attribute, attributes, do, text, word
from vxlan.tunnel import NOTHING, IPAddress, Vxlan

KIND = "vxlan"
ID, LOCAL, LEARNING, PORT, LOCAL6 = 1, 4, 7, 15, 17
"""IFLA_VXLAN_...; the port is in network byte order."""

BE16 = Struct("!H")
NO_DETECTION = 0x02
"""IFA_F_NODAD: an address that is usable at once, include/uapi/linux/if_addr.h."""

OwnAddress: TypeAlias = tuple[IPAddress, int]
"""An address and the length of its prefix."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it.

    Attributes:
        kind: the driver's name; what follows `mac` means something only where it is `vxlan`.
        learning: whether it makes entries of what it receives.
    """

    index: int
    kind: str
    mtu: int
    up: bool
    mac: str
    vni: int = 0
    port: int = 0
    local: IPAddress = NOTHING
    learning: bool = True


def read(name: str) -> Link | None:
    """Return the interface, None where there is none of this name."""
    try:
        answers = ask(GETLINK, 0, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name))
        body = next(body for kind, body in answers if kind == NEWLINK)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _decode(body)


def _decode(body: bytes) -> Link:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = attributes(body, IFINFOMSG.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    kind = word(info.get(IFLA_INFO_KIND, b""))
    common = (index, kind, U32.unpack(found[IFLA_MTU])[0], bool(flags & IFF_UP), found.get(IFLA_ADDRESS, b"").hex(":"))
    if kind != KIND:
        return Link(*common)
    data = attributes(info.get(IFLA_INFO_DATA, b""))
    local: IPAddress = IPv6Address(data[LOCAL6]) if LOCAL6 in data else IPv4Address(data.get(LOCAL, bytes(4)))
    learning = data.get(LEARNING, b"\1") != b"\0"
    return Link(*common, U32.unpack(data[ID])[0], BE16.unpack(data[PORT])[0], local, learning)


def create(wanted: Vxlan) -> None:
    """Make the interface, down; the kernel loads the driver's module where it can."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, wanted.name)
    data = attribute(ID, U32.pack(wanted.vni)) + attribute(PORT, BE16.pack(wanted.port)) + _local(wanted.local)
    shape = attribute(IFLA_MTU, U32.pack(wanted.mtu)) + _hardware(wanted.mac)
    do(NEWLINK, CREATE | EXCLUSIVE, body + shape + _info(data + attribute(LEARNING, b"\0")))


def move(index: int, local: IPAddress) -> None:
    """Let an interface that carries packets send from another address of the same version of IP, and learn nothing."""
    do(NEWLINK, 0, IFINFOMSG.pack(0, 0, index, 0, 0) + _info(_local(local) + attribute(LEARNING, b"\0")))


def set_hardware(index: int, mac: str) -> None:
    """Give an interface another hardware address; the kernel forgets its neighbours with the old one."""
    do(NEWLINK, 0, IFINFOMSG.pack(0, 0, index, 0, 0) + _hardware(mac))


def _hardware(mac: str) -> bytes:
    return attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def _info(data: bytes) -> bytes:
    return attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, KIND.encode()) + attribute(IFLA_INFO_DATA, data))


def _local(address: IPAddress) -> bytes:
    return attribute(LOCAL if isinstance(address, IPv4Address) else LOCAL6, address.packed)


def addresses(index: int, version: int) -> frozenset[OwnAddress]:
    """Return the addresses of an interface of a version of IP, without link-local ones of IPv6."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP versions
    found = set()
    for kind, body in ask(GETADDR, DUMP, IFADDRMSG.pack(family, 0, 0, 0, index)):
        if kind != NEWADDR:
            continue
        parts = attributes(body, IFADDRMSG.size)
        packed = parts.get(IFA_LOCAL) or parts[IFA_ADDRESS]
        address: IPAddress = IPv4Address(packed) if version == 4 else IPv6Address(packed)  # noqa: PLR2004 - same
        if version == 4 or not address.is_link_local:  # noqa: PLR2004 - same
            found.add((address, body[1]))
    return frozenset(found)


def add_address(index: int, address: OwnAddress) -> None:
    """Add an address."""
    do(NEWADDR, CREATE | EXCLUSIVE, _address_body(index, address))


def remove_address(index: int, address: OwnAddress) -> None:
    """Remove an address."""
    do(DELADDR, 0, _address_body(index, address))


def _address_body(index: int, of_link: OwnAddress) -> bytes:
    address, length = of_link
    four = isinstance(address, IPv4Address)
    head = IFADDRMSG.pack(socket.AF_INET if four else socket.AF_INET6, length, 0 if four else NO_DETECTION, 0, index)
    return head + attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)
