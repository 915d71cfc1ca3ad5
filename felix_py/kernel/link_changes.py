"""Changes of links, addresses and neighbours as messages of rtnetlink: what a pod's veth needs. Pure.

Message formats are those of include/uapi/linux/{if_link,rtnetlink,neighbour}.h.
"""

import socket
import struct
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from felix_py.kernel import messages, neighbour_codec, route_codec
from felix_py.kernel.link_codec import IFA_ADDRESS, IFA_LOCAL, IFADDRMSG, IFF_UP, IFINFOMSG, IFLA_IFNAME, IFLA_MTU
from felix_py.kernel.messages import U32, attribute
from felix_py.kernel.objects import Neighbour, Route, RouteKey
from felix_py.model import IPAddress

NDMSG = struct.Struct("=BxxxiHBB")  # family index state flags type
NDA_DST, NDA_LLADDR, NUD_STALE = 1, 2, 0x04

RTM_SETLINK, RTM_NEWNEIGH, RTM_SETNEIGHTBL = 19, 28, 67
IFLA_ADDRESS = 1
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 18, 20, 26, 27, 28
IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE = 1, 8
NO_LINK_LOCAL = attribute(socket.AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, b"\1"))  # IN6_ADDR_GEN_MODE_NONE
IFLA_INFO_DATA, VETH_INFO_PEER = 2, 1
VETH = attribute(1, b"veth")  # IFLA_INFO_KIND

ANY_LINK = IFINFOMSG.pack(0, 0, 0, 0, 0)
"""Head of a message about a link that attributes name."""

IFA_F_NODAD = 0x02
"""Usable at once, instead of after the second in which others could object; include/uapi/linux/if_addr.h."""

LINK_LOCAL_BITS = 64
"""Of the prefix of link-local addresses (RFC 4291 section 2.5.6)."""

DOOMED = "felix gone"
"""Alias of an interface that is to be removed; its pod is gone."""

DOOMED_GROUP = 0x66656C78
"""And its group, by which the kernel removes many at once ("felx"; `ip link show group 1717922936`)."""

NO_GROUP = 0
"""The group of an interface that nobody has put into another one."""

ONE_QUEUE = attribute(31, U32.pack(1)) + attribute(32, U32.pack(1))
"""IFLA_NUM_TX_QUEUES and IFLA_NUM_RX_QUEUES. A veth has as many as there are processors, and takes as much longer to
make; without XDP they serve nothing, for it neither queues nor locks (drivers/net/veth.c)."""

INTERFACE_PARAMETERS = {"forwarding": 1, "proxy_arp": 3, "rp_filter": 8, "route_localnet": 26}
"""Parameters of net.ipv4.conf that a message to an interface sets, IPV4_DEVCONF_ of include/uapi/linux/ip.h."""

NDTMSG = bytes([socket.AF_INET, 0, 0, 0])
"""struct ndtmsg of include/uapi/linux/neighbour.h, which has the numbers of these attributes too."""

ARP_TABLE = NDTMSG + attribute(1, b"arp_cache\0")  # NDTA_NAME

NDTA_PARMS, NDTPA_IFINDEX, NDTPA_PROXY_DELAY = 6, 1, 13
U64 = struct.Struct("=Q")

MAXIMUM_ALIAS = 255
"""Bytes of an interface's alias, IFALIASZ without its final zero, include/uapi/linux/if.h."""


class Change(NamedTuple):
    """One message to the kernel.

    Attributes:
        does: what it does in words, with a place for each of what it is about.
        of: what it is about.
    """

    does: str
    kind: int
    flags: int
    body: bytes
    of: tuple[object, ...] = ()

    @property
    def words(self) -> str:
        """What it does in words; they are put together for whoever asks, which is nobody where all goes well."""
        return self.does.format(*self.of)


def named(interface: str) -> bytes:
    """Return the attribute that says which interface is meant."""
    return attribute(IFLA_IFNAME, interface.encode() + b"\0")


class NewEnd(NamedTuple):
    """One end of a veth that is to be made; the kernel chooses an index that is 0, here only together with the other's.

    With an index that somebody has already, it refuses both ends (EEXIST, EBUSY).
    """

    name: str
    mac: str
    ifindex: int = 0


def veth(host: NewEnd, peer: NewEnd, mtu: int, netns: int, group: int = NO_GROUP) -> Change:
    """Make a pair: `host` here and `peer` in the network namespace behind the descriptor `netns`, both of them down.

    The host's end is in this group.
    """
    inside = _link(peer, mtu) + attribute(IFLA_NET_NS_FD, U32.pack(netns))
    data = VETH + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, inside))
    body = _link(host, mtu) + attribute(IFLA_LINKINFO, data)
    if group != NO_GROUP:
        body += attribute(IFLA_GROUP, U32.pack(group))
    flags = messages.CREATE | messages.EXCLUSIVE
    return Change("veth {} with peer {}", messages.RTM_NEWLINK, flags, body, (host.name, peer.name))


def _link(end: NewEnd, mtu: int) -> bytes:
    head = IFINFOMSG.pack(0, 0, end.ifindex, 0, 0)
    return head + named(end.name) + attribute(IFLA_ADDRESS, _octets(end.mac)) + _size(mtu)


@lru_cache
def _size(mtu: int) -> bytes:
    """Return what nearly all links of a node have in common."""
    return attribute(IFLA_MTU, U32.pack(mtu)) + ONE_QUEUE


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def specification(parameters: Mapping[str, int], *, six: bool = True) -> bytes:
    """Return the attribute that sets parameters of an interface, for `described`.

    Args:
        parameters: below net.ipv4.conf, of those that INTERFACE_PARAMETERS knows.
        six: with a link-local address of IPv6; without as `no_link_local` has it.
    """
    conf = b"".join(attribute(INTERFACE_PARAMETERS[each], U32.pack(value)) for each, value in parameters.items())
    inet = attribute(socket.AF_INET, attribute(IFLA_INET_CONF, conf))
    return attribute(IFLA_AF_SPEC, inet if six else inet + NO_LINK_LOCAL)


def no_link_local(index: int, name: str) -> Change:
    """Have an interface no link-local address of IPv6, which the kernel gives to each one that comes up.

    Without, it need not look for others who have that address, nor tell of groups that it has joined.
    """
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + attribute(IFLA_AF_SPEC, NO_LINK_LOCAL)
    return Change("no link-local address of {}", RTM_SETLINK, 0, body, (name,))


def described(index: int, name: str, text: str, parameters: bytes) -> Change:
    """Write a note on an interface and set parameters of it: all in one message, where /proc takes a lock for each.

    Args:
        index: of the interface; 0 has it found by its name.
        name: of the interface.
        text: the note.
        parameters: their `specification`.
    """
    body = (
        IFINFOMSG.pack(0, 0, index, 0, 0)
        + (b"" if index else named(name))
        + attribute(IFLA_IFALIAS, text.encode()[:MAXIMUM_ALIAS])
        + parameters
    )
    return Change("parameters of {}", RTM_SETLINK, 0, body, (name,))


def proxy_delay(index: int, name: str, milliseconds: int) -> Change:
    """Set how long an interface waits before it answers for others (net.ipv4.neigh.*.proxy_delay)."""
    of_link = attribute(NDTPA_IFINDEX, U32.pack(index)) + attribute(NDTPA_PROXY_DELAY, U64.pack(milliseconds))
    return Change("proxy_delay of {}", RTM_SETNEIGHTBL, 0, ARP_TABLE + attribute(NDTA_PARMS, of_link), (name,))


def doom(name: str) -> Change:
    """Mark an interface to be removed."""
    mark = attribute(IFLA_IFALIAS, DOOMED.encode()) + attribute(IFLA_GROUP, U32.pack(DOOMED_GROUP))
    return Change("marking {}", RTM_SETLINK, 0, ANY_LINK + named(name) + mark, (name,))


def delete_doomed() -> Change:
    """Remove all interfaces that are marked."""
    body = ANY_LINK + attribute(IFLA_GROUP, U32.pack(DOOMED_GROUP))
    return Change("removing the veths of pods that are gone", messages.RTM_DELLINK, 0, body)


def up(index: int, name: str) -> Change:
    """Set an interface up."""
    return Change("{} up", RTM_SETLINK, 0, IFINFOMSG.pack(0, 0, index, IFF_UP, IFF_UP), (name,))


def group_up(group: int) -> Change:
    """Set all interfaces of a group up, up to the first one that cannot be."""
    body = IFINFOMSG.pack(0, 0, 0, IFF_UP, IFF_UP) + attribute(IFLA_GROUP, U32.pack(group))
    return Change("interfaces of pods up", messages.RTM_NEWLINK, 0, body)


def ungrouped(index: int, name: str) -> Change:
    """Take an interface out of its group; one that is down comes up."""
    body = IFINFOMSG.pack(0, 0, index, IFF_UP, IFF_UP) + attribute(IFLA_GROUP, U32.pack(NO_GROUP))
    return Change("{} up", RTM_SETLINK, 0, body, (name,))


def resize(index: int, name: str, mtu: int) -> Change:
    """Give an interface another MTU, in bytes."""
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + attribute(IFLA_MTU, U32.pack(mtu))
    return Change("MTU {} of {}", RTM_SETLINK, 0, body, (mtu, name))


def address(index: int, name: str, of_host: IPAddress) -> Change:
    """Give an interface a single address, /32 or /128, of which the caller knows that nobody else has it."""
    flags = 0 if of_host.version == 4 else IFA_F_NODAD  # noqa: PLR2004 - IP versions
    head = IFADDRMSG.pack(_family(of_host), of_host.max_prefixlen, flags, 0, index)
    how = messages.CREATE | messages.EXCLUSIVE
    return Change("address {} of {}", messages.RTM_NEWADDR, how, head + _local(of_host), (of_host, name))


def link_local(index: int, name: str, of_link: IPv6Address) -> Change:
    """Give an interface a link-local address at once, which the kernel would do some time after it has a carrier."""
    head = IFADDRMSG.pack(socket.AF_INET6, LINK_LOCAL_BITS, IFA_F_NODAD, 0, index)
    how = messages.CREATE | messages.REPLACE
    return Change("address {} of {}", messages.RTM_NEWADDR, how, head + _local(of_link), (of_link, name))


def _local(address: IPAddress) -> bytes:
    return attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)


def stale_neighbour(index: int, name: str, of_host: IPAddress, mac: str) -> Change:
    """Tell an interface where an address was last: the first packet goes there at once, and is asked for meanwhile."""
    head = NDMSG.pack(_family(of_host), index, NUD_STALE, 0, 0)
    body = head + attribute(NDA_DST, of_host.packed) + attribute(NDA_LLADDR, _octets(mac))
    return Change("neighbour {} of {}", RTM_NEWNEIGH, messages.CREATE | messages.REPLACE, body, (of_host, name))


def neighbour(index: int, name: str, of_host: IPAddress, mac: str) -> Change:
    """Tell an interface for good where an address is, so that nothing is asked for it."""
    body = neighbour_codec.encode(Neighbour(of_host, name, mac), {name: index})
    return Change("neighbour {} of {}", RTM_NEWNEIGH, messages.CREATE | messages.REPLACE, body, (of_host, name))


def route(index: int, key: RouteKey, entry: Route) -> Change:
    """Add a route; one that is there already is not replaced."""
    body = route_codec.Encoder({} if entry.device is None else {entry.device: index})(key, entry)
    return Change("route {} {}", messages.RTM_NEWROUTE, messages.CREATE | messages.EXCLUSIVE, body, (key, entry))


def delete(name: str) -> Change:
    """Remove an interface, and with it the peer and every route out of it."""
    return Change("removing {}", messages.RTM_DELLINK, 0, ANY_LINK + named(name), (name,))


def _family(of_host: IPAddress) -> int:
    return socket.AF_INET if of_host.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP versions
