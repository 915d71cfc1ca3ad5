"""One interface of this network namespace over rtnetlink: read it, make it, change it, remove it.

The few messages that a tunnel device needs, coded here: a netlink library would cost the agent 12 MB of memory. The
formats are those of include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h. Everything raises OSError with the
kernel's errno.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from struct import Struct

MESSAGE = Struct("=IHHII")  # length, type, flags, sequence, port
IFINFOMSG = Struct("=BxHiII")  # family, device type, index, flags, mask of flags to change
IFADDRMSG = Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTMSG = Struct("=BBBBBBBBI")  # family, lengths of destination and source, tos, table, protocol, scope, type, flags
ATTRIBUTE = Struct("=HH")  # length, type
U32 = Struct("=I")

ERROR, DONE = 2, 3
NEWLINK, DELLINK, GETLINK, NEWADDR, DELADDR, GETADDR, GETROUTE = 16, 17, 18, 20, 21, 22, 26
REQUEST, ACK, DUMP, EXCLUSIVE, CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 4, 13, 18, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
IFF_UP = 0x1
SOL_NETLINK, STRICT_CHECK = 270, 12

Gateways = frozenset[tuple[IPv4Network, IPv4Address]]


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it.

    Attributes:
        kind: the driver's name (`ipip`, `tun`); empty where the kernel names none.
        queue: packets that may wait to be sent.
    """

    index: int
    kind: str
    mtu: int
    queue: int
    up: bool


def read(name: str) -> Link | None:
    """Return the interface, None where there is none of this name."""
    try:
        answers = _ask(GETLINK, 0, IFINFOMSG.pack(0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0"))
        body = next(body for kind, body in answers if kind == NEWLINK)
    except OSError as error:
        if error.errno == 19:  # noqa: PLR2004 - ENODEV
            return None
        raise
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = _attributes(body, IFINFOMSG.size)
    kind = _attributes(found.get(IFLA_LINKINFO, b""), 0).get(IFLA_INFO_KIND, b"")
    return Link(
        index=index,
        kind=kind.rstrip(b"\0").decode(),
        mtu=U32.unpack(found[IFLA_MTU])[0],
        queue=U32.unpack(found[IFLA_TXQLEN])[0],
        up=bool(flags & IFF_UP),
    )


def create(name: str, kind: str) -> None:
    """Make an interface; the kernel loads the driver's module where it can."""
    info = _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, kind.encode()))
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0") + info
    _do(NEWLINK, CREATE | EXCLUSIVE, body)


def remove(index: int) -> None:
    """Remove an interface."""
    _do(DELLINK, 0, IFINFOMSG.pack(0, 0, index, 0, 0))


def change(index: int, *, up: bool | None = None, mtu: int | None = None, queue: int | None = None) -> None:
    """Set what is given, leave the rest."""
    mask = 0 if up is None else IFF_UP
    body = IFINFOMSG.pack(0, 0, index, mask if up else 0, mask)
    body += b"" if mtu is None else _attribute(IFLA_MTU, U32.pack(mtu))
    body += b"" if queue is None else _attribute(IFLA_TXQLEN, U32.pack(queue))
    _do(NEWLINK, 0, body)


def addresses(index: int) -> frozenset[IPv4Interface]:
    """Return the IPv4 addresses of an interface with their masks."""
    found = set()
    for kind, body in _ask(GETADDR, DUMP, IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, index)):
        if kind == NEWADDR:
            local = _attributes(body, IFADDRMSG.size)[IFA_LOCAL]
            found.add(IPv4Interface((local, body[1])))
    return frozenset(found)


def add_address(index: int, address: IPv4Interface) -> None:
    """Add an address."""
    _do(NEWADDR, CREATE | EXCLUSIVE, _address_body(index, address))


def remove_address(index: int, address: IPv4Interface) -> None:
    """Remove an address."""
    _do(DELADDR, 0, _address_body(index, address))


def gateways(index: int) -> Gateways:
    """Return every IPv4 prefix that is routed out of an interface through a gateway."""
    body = RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + _attribute(RTA_OIF, U32.pack(index))
    found = set()
    for _, route in _ask(GETROUTE, DUMP, body):
        via = _attributes(route, RTMSG.size)
        if RTA_GATEWAY in via:
            found.add((IPv4Network((via.get(RTA_DST, bytes(4)), route[1])), IPv4Address(via[RTA_GATEWAY])))
    return frozenset(found)


def _address_body(index: int, address: IPv4Interface) -> bytes:
    head = IFADDRMSG.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
    return head + _attribute(IFA_LOCAL, address.ip.packed) + _attribute(IFA_ADDRESS, address.ip.packed)


def _attribute(kind: int, payload: bytes) -> bytes:
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) & 3)


def _attributes(body: bytes, start: int) -> dict[int, bytes]:
    found = {}
    while start + 4 <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = body[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def _do(kind: int, flags: int, body: bytes) -> None:
    for _ in _ask(kind, flags | ACK, body):
        pass


def _ask(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """Send one request and yield type and body of every answer; raise OSError where the kernel refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.setsockopt(SOL_NETLINK, STRICT_CHECK, 1)
        sock.send(MESSAGE.pack(MESSAGE.size + len(body), kind, REQUEST | flags, 1, 0) + body)
        many = bool(flags & (DUMP | ACK))
        while True:
            for answer, content in _messages(sock.recv(1 << 17)):
                if answer in (ERROR, DONE):
                    code = -int.from_bytes(content[:4], "little", signed=True)
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield answer, content
                if not many:
                    return


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + MESSAGE.size <= len(data):
        length, kind, *_ = MESSAGE.unpack_from(data, offset)
        yield kind, data[offset + MESSAGE.size : offset + length]
        offset += (length + 3) & ~3
