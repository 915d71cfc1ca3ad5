"""Links, addresses and neighbours over rtnetlink, without a library in between: what a pod's veth needs.

pyroute2 would do the same in 4 to 12 ms a pod where this takes less than one, and its import alone costs a node 20 MB
of memory. Message formats are those of include/uapi/linux/{if_link,rtnetlink,neighbour}.h.
"""

import errno
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from felix_py.kernel import link_codec, messages, neighbour_codec, netlink_socket, roundtrip, route_codec
from felix_py.kernel.messages import U32, attribute
from felix_py.kernel.objects import MAIN_TABLE, KernelRefused, Neighbour, Route, RouteKey
from felix_py.kernel.roundtrip import ANSWER_SECONDS
from felix_py.model import IPAddress

IFINFOMSG = struct.Struct("=BxHiII")  # family type index flags change
IFADDRMSG = struct.Struct("=BBBBI")  # family prefix length, flags, scope, index
NDMSG = struct.Struct("=BxxxiHBB")  # family index state flags type
NDA_DST, NDA_LLADDR, NUD_STALE = 1, 2, 0x04

RTM_GETLINK, RTM_SETLINK, RTM_NEWNEIGH, RTM_GETADDR, RTM_GETNEIGH, RTM_SETNEIGHTBL = 18, 19, 28, 22, 30, 67
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK = 1, 3, 4, 5
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 18, 20, 26, 27, 28
IFLA_INET_CONF = 1
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD = 0x02
"""Usable at once, instead of after the second in which others could object; include/uapi/linux/if_addr.h."""

IFF_UP, IFF_RUNNING = 0x1, 0x40

LINK_LOCAL_BITS = 64
"""Of the prefix of link-local addresses (RFC 4291 section 2.5.6)."""

DOOMED = "felix gone"
"""Alias of an interface that is to be removed; its pod is gone."""

DOOMED_GROUP = 0x66656C78
"""And its group, by which the kernel removes many at once ("felx"; `ip link show group 1717922936`)."""

ONE_QUEUE = attribute(31, U32.pack(1)) + attribute(32, U32.pack(1))
"""IFLA_NUM_TX_QUEUES and IFLA_NUM_RX_QUEUES. A veth has as many as there are processors, and takes as much longer to
make; without XDP they serve nothing, for it neither queues nor locks (drivers/net/veth.c)."""

NO_COUNTERS = attribute(link_codec.IFLA_EXT_MASK, U32.pack(link_codec.RTEXT_FILTER_SKIP_STATS))
"""In a question: leave out what is most of the bytes of the answer."""

INTERFACE_PARAMETERS = {"forwarding": 1, "proxy_arp": 3, "rp_filter": 8, "route_localnet": 26}
"""Parameters of net.ipv4.conf that a message to an interface sets, IPV4_DEVCONF_ of include/uapi/linux/ip.h."""

NDTMSG = bytes([socket.AF_INET, 0, 0, 0])
"""struct ndtmsg of include/uapi/linux/neighbour.h, which has the numbers of these attributes too."""

NDTA_NAME, NDTA_PARMS, NDTPA_IFINDEX, NDTPA_PROXY_DELAY = 1, 6, 1, 13
U64 = struct.Struct("=Q")

MAXIMUM_ALIAS = 255
"""Bytes of an interface's alias, IFALIASZ without its final zero, include/uapi/linux/if.h."""


class LinkRefused(KernelRefused):
    """The kernel said no to a change of a link, an address or a neighbour; `code` is its errno."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class End:
    """One end of a veth as it is now.

    Attributes:
        running: it carries packets: the kernel has taken note of its carrier.
        body: all that the kernel says of it.
    """

    index: int
    running: bool
    body: bytes

    @property
    def peer(self) -> int:
        """The index of the other end, in the namespace where that is; 0 of what has none."""
        found = (value for kind, value in messages.attributes(self.body, IFINFOMSG.size) if kind == IFLA_LINK)
        return int(U32.unpack(next(found, bytes(U32.size)))[0])


@dataclass(frozen=True, slots=True)
class Change:
    """One message to the kernel, and what it does in words."""

    words: str
    kind: int
    flags: int
    body: bytes


def open_socket() -> socket.socket:
    """Open a route socket in the network namespace of this thread."""
    sock = netlink_socket.open_socket()
    roundtrip.wait_at_most(sock, ANSWER_SECONDS)
    return sock


def carry_out(sock: socket.socket, changes: Sequence[Change]) -> None:
    """Do these changes in one send.

    Raises:
        LinkRefused: naming the first change that was refused; those after it may have been done.
    """
    requests = acknowledged(changes)
    require_done(requests, _exchange(sock, requests))


def carry_out_and_look(sock: socket.socket, changes: Sequence[Change], interface: str | int) -> End:
    """Do these changes and look at an interface then, all in one send.

    Args:
        sock: of the interface's namespace.
        changes: none at all, to have nothing but a look.
        interface: its name, or its index.

    Raises:
        LinkRefused: as `carry_out`; also where there is no such interface.
    """
    requests = with_look(changes, interface)
    return seen(requests, _exchange(sock, requests))


def with_look(changes: Sequence[Change], interface: str | int) -> list[Change]:
    """Return changes, and behind them the question after an interface, by its name or its index; for `seen`."""
    index, name = (0, _name(interface)) if isinstance(interface, str) else (interface, b"")
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + name + NO_COUNTERS
    return [*changes, Change(f"looking at {interface}", RTM_GETLINK, 0, body)]


def seen(requests: Sequence[Change], answers: bytes) -> End:
    """Return the interface that was asked for.

    Raises:
        LinkRefused: where one of the changes was refused, or there is no such interface.
    """
    found = require_done(requests, answers)
    _, _, index, flags, _ = IFINFOMSG.unpack_from(found)
    return End(index, bool(flags & IFF_RUNNING), found)


def acknowledged(changes: Sequence[Change]) -> list[Change]:
    """Return changes of which the last one is answered, so that all of them are done then."""
    *before, last = changes
    return [*before, Change(last.words, last.kind, last.flags | messages.ACK, last.body)]


def packed(requests: Sequence[Change]) -> bytes:
    """Return messages, numbered from 0; the kernel answers a refusal even where nobody asked for an answer."""
    parts = []
    for number, each in enumerate(requests):
        head = messages.HEADER.pack(16 + len(each.body), each.kind, messages.REQUEST | each.flags, number, 0)
        parts += [head, each.body]
    return b"".join(parts)


def _exchange(sock: socket.socket, requests: Sequence[Change]) -> bytes:
    try:
        return roundtrip.exchange(sock, packed(requests), len(requests) - 1)
    except BlockingIOError as late:
        raise LinkRefused(f"the kernel did not answer within {ANSWER_SECONDS} s", errno.ETIMEDOUT) from late


def require_done(requests: Sequence[Change], answers: bytes) -> bytes:
    """Return the answer to the last request.

    Raises:
        LinkRefused: naming the first one that was refused.
    """
    refused, found = list[tuple[int, int, str]](), b""
    for kind, flags, number, _, found in messages.messages(answers):
        code, why = messages.refusal(flags, found) if kind == messages.ERROR else (0, "")
        if code:
            refused.append((number, code, why))
    if refused:
        number, code, why = min(refused)
        raise LinkRefused(f"{requests[number].words} was refused: {why}", code)
    return found


def _name(interface: str) -> bytes:
    return attribute(IFLA_IFNAME, interface.encode() + b"\0")


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 16)
    except BlockingIOError as late:
        raise LinkRefused(f"the kernel did not answer within {ANSWER_SECONDS} s", errno.ETIMEDOUT) from late


def veth(host: str, host_mac: str, peer: str, peer_mac: str, mtu: int, netns: int) -> Change:
    """Make a pair: `host` here and `peer` in the network namespace behind the descriptor `netns`, both of them down."""
    inside = IFINFOMSG.pack(0, 0, 0, 0, 0) + _link(peer, peer_mac, mtu) + attribute(IFLA_NET_NS_FD, U32.pack(netns))
    data = attribute(IFLA_INFO_KIND, b"veth") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, inside))
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + _link(host, host_mac, mtu) + attribute(IFLA_LINKINFO, data)
    return Change(f"veth {host} with peer {peer}", messages.RTM_NEWLINK, messages.CREATE | messages.EXCLUSIVE, body)


def _link(name: str, mac: str, mtu: int) -> bytes:
    return (
        _name(name)
        + attribute(IFLA_MTU, U32.pack(mtu))
        + attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        + ONE_QUEUE
    )


def described(name: str, text: str, parameters: Mapping[str, int]) -> Change:
    """Write a note on an interface and set parameters of it: all in one message, where /proc takes a lock for each.

    Args:
        name: of the interface.
        text: the note.
        parameters: below net.ipv4.conf, of those that INTERFACE_PARAMETERS knows.
    """
    conf = b"".join(attribute(INTERFACE_PARAMETERS[each], U32.pack(value)) for each, value in parameters.items())
    inet = attribute(socket.AF_INET, attribute(IFLA_INET_CONF, conf))
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + _name(name)
    body += attribute(IFLA_IFALIAS, text.encode()[:MAXIMUM_ALIAS]) + attribute(IFLA_AF_SPEC, inet)
    return Change(f"parameters of {name}", RTM_SETLINK, 0, body)


def proxy_delay(index: int, name: str, milliseconds: int) -> Change:
    """Set how long an interface waits before it answers for others (net.ipv4.neigh.*.proxy_delay)."""
    of_link = attribute(NDTPA_IFINDEX, U32.pack(index)) + attribute(NDTPA_PROXY_DELAY, U64.pack(milliseconds))
    body = NDTMSG + attribute(NDTA_NAME, b"arp_cache\0") + attribute(NDTA_PARMS, of_link)
    return Change(f"proxy_delay of {name}", RTM_SETNEIGHTBL, 0, body)


def doom(name: str) -> Change:
    """Mark an interface to be removed."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + _name(name)
    body += attribute(IFLA_IFALIAS, DOOMED.encode()) + attribute(IFLA_GROUP, U32.pack(DOOMED_GROUP))
    return Change(f"marking {name}", RTM_SETLINK, 0, body)


def delete_doomed() -> Change:
    """Remove all interfaces that are marked."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(IFLA_GROUP, U32.pack(DOOMED_GROUP))
    return Change("removing the veths of pods that are gone", messages.RTM_DELLINK, 0, body)


def up(index: int, name: str) -> Change:
    """Set an interface up."""
    return Change(f"{name} up", RTM_SETLINK, 0, IFINFOMSG.pack(0, 0, index, IFF_UP, IFF_UP))


def resize(index: int, name: str, mtu: int) -> Change:
    """Give an interface another MTU, in bytes."""
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + attribute(IFLA_MTU, U32.pack(mtu))
    return Change(f"MTU {mtu} of {name}", RTM_SETLINK, 0, body)


def address(index: int, name: str, of_host: IPAddress) -> Change:
    """Give an interface a single address, /32 or /128, of which the caller knows that nobody else has it."""
    flags = 0 if of_host.version == 4 else IFA_F_NODAD  # noqa: PLR2004 - IP versions
    head = IFADDRMSG.pack(_family(of_host), of_host.max_prefixlen, flags, 0, index)
    body = head + attribute(IFA_LOCAL, of_host.packed) + attribute(IFA_ADDRESS, of_host.packed)
    return Change(f"address {of_host} of {name}", messages.RTM_NEWADDR, messages.CREATE | messages.EXCLUSIVE, body)


def link_local(index: int, name: str, of_link: IPv6Address) -> Change:
    """Give an interface a link-local address at once, which the kernel would do some time after it has a carrier."""
    head = IFADDRMSG.pack(socket.AF_INET6, LINK_LOCAL_BITS, IFA_F_NODAD, 0, index)
    body = head + attribute(IFA_LOCAL, of_link.packed) + attribute(IFA_ADDRESS, of_link.packed)
    return Change(f"address {of_link} of {name}", messages.RTM_NEWADDR, messages.CREATE | messages.REPLACE, body)


def stale_neighbour(index: int, name: str, of_host: IPAddress, mac: str) -> Change:
    """Tell an interface where an address was last: the first packet goes there at once, and is asked for meanwhile."""
    head = NDMSG.pack(_family(of_host), index, NUD_STALE, 0, 0)
    lladdr = bytes.fromhex(mac.replace(":", ""))
    body = head + attribute(NDA_DST, of_host.packed) + attribute(NDA_LLADDR, lladdr)
    return Change(f"neighbour {of_host} of {name}", RTM_NEWNEIGH, messages.CREATE | messages.REPLACE, body)


def neighbour(index: int, name: str, of_host: IPAddress, mac: str) -> Change:
    """Tell an interface for good where an address is, so that nothing is asked for it."""
    body = neighbour_codec.encode(Neighbour(of_host, name, mac), {name: index})
    return Change(f"neighbour {of_host} of {name}", RTM_NEWNEIGH, messages.CREATE | messages.REPLACE, body)


def route(index: int, key: RouteKey, entry: Route) -> Change:
    """Add a route; one that is there already is not replaced."""
    body = route_codec.Encoder({} if entry.device is None else {entry.device: index})(key, entry)
    return Change(f"route {key} {entry}", messages.RTM_NEWROUTE, messages.CREATE | messages.EXCLUSIVE, body)


def delete(name: str) -> Change:
    """Remove an interface, and with it the peer and every route out of it."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + _name(name)
    return Change(f"removing {name}", messages.RTM_DELLINK, 0, body)


def _family(of_host: IPAddress) -> int:
    return socket.AF_INET if of_host.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP versions


@dataclass(frozen=True, slots=True)
class Seen:
    """An interface as the kernel lists it, with the note on it.

    Attributes:
        mtu: in bytes.
        peer: the index of a veth's other end, in the namespace where that is; 0 of all other interfaces.
        running: it carries packets: the kernel has taken note of its carrier.
    """

    name: str
    index: int
    up: bool
    alias: str = ""
    mtu: int = 0
    peer: int = 0
    running: bool = False


def listing(sock: socket.socket) -> tuple[Seen, ...]:
    """Return every interface of the socket's namespace."""
    return tuple(map(_seen, dump(sock, RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0))))


def read(sock: socket.socket, name: str) -> Seen | None:
    """Return one interface of the socket's namespace; None where there is none of that name."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + _name(name)
    sock.send(messages.HEADER.pack(16 + len(body), RTM_GETLINK, messages.REQUEST, 1, 0) + body)
    for kind, _, _, _, content in messages.messages(_receive(sock)):
        return None if kind == messages.ERROR else _seen(content)
    return None


def addresses(sock: socket.socket, index: int) -> frozenset[str]:
    """Return the addresses of an interface of the socket's namespace, as `10.65.0.5/32`, but link-local IPv6 ones."""
    bodies = dump(sock, RTM_GETADDR, IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    return frozenset(text for of_link, text in filter(None, map(link_codec.decode_address, bodies)) if of_link == index)


def has_default_route(sock: socket.socket, index: int, version: int = 4) -> bool:
    """Say whether the socket's namespace has a default route of this version of IP out of this interface."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP versions
    head = messages.RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    bodies = dump(sock, messages.RTM_GETROUTE, head + attribute(messages.RTA_TABLE, U32.pack(MAIN_TABLE)))
    entries = filter(None, (route_codec.decode(body, {index: "pod"}) for body in bodies))
    return any(key.dst.prefixlen == 0 and entry.device == "pod" for key, entry in entries)


def dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """Return the bodies of everything that the kernel lists for this question."""
    sock.send(messages.HEADER.pack(16 + len(body), kind, messages.REQUEST | messages.DUMP, 1, 0) + body)
    found: list[bytes] = []
    while True:
        for answer, _, _, _, content in messages.messages(_receive(sock)):
            if answer in (messages.DONE, messages.ERROR):
                return found
            found.append(content)


def _seen(body: bytes) -> Seen:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = dict(messages.attributes(body, IFINFOMSG.size))
    name = found[IFLA_IFNAME].rstrip(b"\0").decode()
    note = found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace")
    mtu, peer = (U32.unpack(found.get(kind, bytes(U32.size)))[0] for kind in (IFLA_MTU, IFLA_LINK))
    return Seen(name, index, bool(flags & IFF_UP), note, mtu, peer, bool(flags & IFF_RUNNING))
