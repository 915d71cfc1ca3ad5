"""One interface of this network namespace over rtnetlink: read it, make it, change it, remove it.

The formats are those of include/uapi/linux/{if_link,if_addr,veth}.h. Everything raises OSError with the kernel's errno.
"""

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from struct import Struct

from ipip.netlink import CREATE, DUMP, EXCLUSIVE, U32, ask, attribute, attributes, do, text, word

IFINFOMSG = Struct("=BxHiII")  # family, device type, index, flags, mask of flags to change
IFADDRMSG = Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTMSG = Struct("=BBBBBBBBI")  # family, lengths of destination and source, tos, table, protocol, scope, type, flags

NEWLINK, DELLINK, GETLINK, NEWADDR, DELADDR, GETADDR, GETROUTE = 16, 17, 18, 20, 21, 22, 26
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_TXQLEN, IFLA_LINKINFO = 1, 3, 4, 10, 13, 18
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
IFF_UP, IFF_NOARP, IFF_MULTICAST, IFF_LOWER_UP = 0x1, 0x80, 0x1000, 0x10000
ETHERNET = 1  # ARPHRD_ETHER, include/uapi/linux/if_arp.h

Gateways = frozenset[tuple[IPv4Network, IPv4Address]]


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it.

    Attributes:
        kind: the driver's name (`ipip`, `tun`); empty where the kernel names none.
        queue: packets that may wait to be sent.
        up: administrative state.
        hardware: what its packets begin with; ETHERNET or another ARPHRD_ number.
        address: of its hardware.
        carrier: whether it could send now.
        mastered: whether it is a part of another, as a bridge's port is.
    """

    index: int
    kind: str
    mtu: int
    queue: int
    up: bool
    hardware: int = ETHERNET
    address: bytes = b""
    carrier: bool = True
    mastered: bool = False


def read(name: str) -> Link | None:
    """Return the interface, None where there is none of this name."""
    try:
        answers = ask(GETLINK, 0, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name))
        body = next(body for kind, body in answers if kind == NEWLINK)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _decode(body)[1]


def every() -> Mapping[str, Link]:
    """Return all interfaces by name."""
    return dict(_decode(body) for kind, body in ask(GETLINK, DUMP, IFINFOMSG.pack(0, 0, 0, 0, 0)) if kind == NEWLINK)


def _decode(body: bytes) -> tuple[str, Link]:
    _, hardware, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = attributes(body, IFINFOMSG.size)
    return word(found[IFLA_IFNAME]), Link(
        index=index,
        kind=word(attributes(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")),
        mtu=U32.unpack(found[IFLA_MTU])[0],
        queue=U32.unpack(found[IFLA_TXQLEN])[0],
        up=bool(flags & IFF_UP),
        hardware=hardware,
        address=found.get(IFLA_ADDRESS, b""),
        carrier=bool(flags & IFF_LOWER_UP),
        mastered=IFLA_MASTER in found,
    )


def create(name: str, kind: str) -> None:
    """Make an interface; the kernel loads the driver's module where it can."""
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode()))
    do(NEWLINK, CREATE | EXCLUSIVE, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + info)


def create_pair(name: str, other: str, address: bytes, mtu: int) -> None:
    """Make a veth pair whose ends have one MAC, ask for no other's and take no part in multicast, both down.

    Args:
        name: of one end.
        other: of the other.
        address: the MAC, six bytes.
        mtu: of the other end, in bytes.
    """

    def end(called: str, *, up: bool) -> bytes:
        flags = IFF_NOARP | (IFF_UP if up else 0)
        head = IFINFOMSG.pack(0, 0, 0, flags, flags | IFF_MULTICAST)
        return head + text(IFLA_IFNAME, called) + attribute(IFLA_ADDRESS, address)

    peer = attribute(VETH_INFO_PEER, end(other, up=False) + attribute(IFLA_MTU, U32.pack(mtu)))
    data = attribute(IFLA_INFO_KIND, b"veth") + attribute(IFLA_INFO_DATA, peer)
    do(NEWLINK, CREATE | EXCLUSIVE, end(name, up=False) + attribute(IFLA_LINKINFO, data))


def remove(index: int) -> None:
    """Remove an interface."""
    do(DELLINK, 0, IFINFOMSG.pack(0, 0, index, 0, 0))


def rename(index: int, name: str) -> None:
    """Give an interface that is down another name."""
    do(NEWLINK, 0, IFINFOMSG.pack(0, 0, index, 0, 0) + text(IFLA_IFNAME, name))


def change(index: int, *, up: bool | None = None, mtu: int | None = None, queue: int | None = None) -> None:
    """Set what is given, leave the rest."""
    mask = 0 if up is None else IFF_UP
    body = IFINFOMSG.pack(0, 0, index, mask if up else 0, mask)
    body += b"" if mtu is None else attribute(IFLA_MTU, U32.pack(mtu))
    body += b"" if queue is None else attribute(IFLA_TXQLEN, U32.pack(queue))
    do(NEWLINK, 0, body)


def addresses(index: int) -> frozenset[IPv4Interface]:
    """Return the IPv4 addresses of an interface with their masks."""
    found = set()
    for kind, body in ask(GETADDR, DUMP, IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, index)):
        if kind == NEWADDR:
            local = attributes(body, IFADDRMSG.size)[IFA_LOCAL]
            found.add(IPv4Interface((local, body[1])))
    return frozenset(found)


def holders() -> frozenset[int]:
    """Return the indexes of the interfaces that have an IPv4 address which others can reach."""
    found = set()
    for kind, body in ask(GETADDR, DUMP, IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, 0)):
        if kind == NEWADDR:
            _, _, _, _, index = IFADDRMSG.unpack_from(body)
            if not IPv4Address(attributes(body, IFADDRMSG.size)[IFA_LOCAL]).is_link_local:
                found.add(index)
    return frozenset(found)


def add_address(index: int, address: IPv4Interface) -> None:
    """Add an address."""
    do(NEWADDR, CREATE | EXCLUSIVE, _address_body(index, address))


def remove_address(index: int, address: IPv4Interface) -> None:
    """Remove an address."""
    do(DELADDR, 0, _address_body(index, address))


def gateways(index: int) -> Gateways:
    """Return every IPv4 prefix that is routed out of an interface through a gateway."""
    body = RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_OIF, U32.pack(index))
    found = set()
    for _, route in ask(GETROUTE, DUMP, body):
        via = attributes(route, RTMSG.size)
        if RTA_GATEWAY in via:
            found.add((IPv4Network((via.get(RTA_DST, bytes(4)), route[1])), IPv4Address(via[RTA_GATEWAY])))
    return frozenset(found)


def _address_body(index: int, address: IPv4Interface) -> bytes:
    head = IFADDRMSG.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
    return head + attribute(IFA_LOCAL, address.ip.packed) + attribute(IFA_ADDRESS, address.ip.packed)
