"""Questions about one packet or one neighbour as bytes, and the kernel's answers: what `ip route get` asks; pure.

Formats and numbers are those of include/uapi/linux/{rtnetlink,neighbour}.h and rtnetlink(7).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from felix_py.kernel import hop_codec
from felix_py.kernel.flow import ICMP, ICMPV6, TCP, UDP, Flow
from felix_py.kernel.messages import RTMSG, U32, attribute, attributes
from felix_py.kernel.neighbour_codec import NDA_DST, NDA_LLADDR, NDMSG
from felix_py.kernel.objects import RouteType
from felix_py.kernel.route_body import HEAD
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress, IPNetwork

RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH, RTA_TABLE = 1, 2, 3, 4, 7, 8, 9, 15
RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 27, 28, 29
"""Linux 4.18."""

RTAX_MTU = 2

ASKABLE: Mapping[int, frozenset[int]] = {4: frozenset({TCP, UDP, ICMP}), 6: frozenset({TCP, UDP, ICMPV6})}
"""By version of IP, the protocols that questions may name; rtm_getroute_parse_ip_proto of net/ipv4/netlink.c."""

PORT = struct.Struct("!H")

RTM_F_LOOKUP_TABLE = 0x1000
"""Answer with the table that has the route; without it IPv4 says `main` whatever it is, and IPv6 refuses the flag."""

RTM_F_FIB_MATCH = 0x2000
"""Answer with the route of the table that matches, not with what becomes of the packet; Linux 4.13."""

NTF_USE = 1
"""As if a packet wanted to be sent there: an unknown neighbour is asked for its MAC."""

AF_BRIDGE = 7
"""The family of forwarding entries; include/linux/socket.h."""

NUD_NONE, NUD_INCOMPLETE, NUD_STALE, NUD_FAILED = 0x00, 0x01, 0x04, 0x20
"""States of a neighbour, by name where one is judged."""

NEIGHBOUR_STATES: Mapping[int, str] = {
    0x00: "none",
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}
"""NUD_... in the words of `ip neighbour`."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the kernel does with one packet.

    Attributes:
        prefix: of the route that matches.
        type: unicast, local and so on.
        protocol: who made the route, rtm_protocol.
        device: where the packet leaves; None where it stays.
        via: the gateway; None where the destination itself is on the link.
        source: the address that a packet of this host would get.
        mtu: bytes, where the route has a limit of its own.
        weights: how many next hops share the flows.
        table: number of the routing table; 0 where the kernel does not say.
    """

    prefix: IPNetwork
    type: RouteType
    protocol: int
    device: str | None
    via: IPAddress | None = None
    source: IPAddress | None = None
    mtu: int | None = None
    weights: int = 1
    table: int = 0


def question(
    destination: IPAddress, source: IPAddress | None, device: int, flow: Flow | None = None, *, match: bool
) -> bytes:
    """Ask what becomes of a packet.

    Args:
        destination: of the packet.
        source: of the packet; None where this host is to choose it.
        device: index of the interface that it came in by; 0 where this host sends it.
        flow: protocol and ports; None where they are no matter, and left out where no kernel takes the protocol.
        match: ask for the route of the table instead.
    """
    family = Family.IPV4 if destination.version == 4 else Family.IPV6  # noqa: PLR2004 - IP versions
    whole = destination.max_prefixlen
    table = RTM_F_LOOKUP_TABLE if family is Family.IPV4 else 0
    flags = RTM_F_FIB_MATCH | table if match else 0
    head = RTMSG.pack(family, whole, whole if source is not None else 0, 0, 0, 0, 0, 0, flags)
    origin = attribute(RTA_SRC, source.packed) if source is not None else b""
    incoming = attribute(RTA_IIF, U32.pack(device)) if device else b""
    return head + attribute(RTA_DST, destination.packed) + origin + incoming + _flow(flow, destination.version)


def asked_as(flow: Flow | None, version: int) -> Flow:
    """Return the flow that the kernel takes a question for; what it is not told is UDP from port 0 to port 0."""
    if flow is None or flow.protocol not in ASKABLE[version]:
        return Flow(UDP if version == 4 else 0, 0, 0)  # noqa: PLR2004 - inet_rtm_getroute; IPv6 knows no default
    return Flow(flow.protocol, flow.source_port or 0, flow.destination_port or 0)


def _flow(flow: Flow | None, version: int) -> bytes:
    if flow is None or flow.protocol not in ASKABLE[version]:
        return b""
    ports = ((RTA_SPORT, flow.source_port), (RTA_DPORT, flow.destination_port))
    said = b"".join(attribute(kind, PORT.pack(port)) for kind, port in ports if port is not None)
    return attribute(RTA_IP_PROTO, bytes([flow.protocol])) + said


def found(packet: bytes, matched: bytes, names: Mapping[int, str]) -> Found:
    """Put the two answers about one packet together: what becomes of it, and the route by which.

    Raises:
        ValueError: when the kernel says what we cannot read.
    """
    route, entry = dict(attributes(matched, HEAD)), dict(attributes(packet, HEAD))
    family, length, _, _, _, protocol, *_ = RTMSG.unpack_from(matched)
    kind = RouteType(RTMSG.unpack_from(packet)[7])
    index = hop_codec.number(entry.get(RTA_OIF)) or 0
    metrics = dict(attributes(entry.get(RTA_METRICS, b""), 0))
    return Found(
        _prefix(family, route.get(RTA_DST, b""), length),
        kind,
        protocol,
        hop_codec.name_of(index, names) if index and kind is RouteType.UNICAST else None,
        hop_codec.gateway_of(entry),
        hop_codec.address(entry.get(RTA_PREFSRC)),
        hop_codec.number(metrics.get(RTAX_MTU)),
        len(hop_codec.hops_of(route[RTA_MULTIPATH], names)) if RTA_MULTIPATH in route else 1,
        hop_codec.number(route.get(RTA_TABLE)) or 0,
    )


def prefix_of(body: bytes) -> IPNetwork:
    """Return the destination of a route message."""
    return _prefix(body[0], dict(attributes(body, HEAD)).get(RTA_DST, b""), body[1])


def rejecting(family: Family, kind: RouteType) -> bytes:
    """Ask for all routes of one type, as all blackholes."""
    return RTMSG.pack(family, 0, 0, 0, 0, 0, 0, kind, 0)


def _prefix(family: int, packed: bytes, length: int) -> IPv4Network | IPv6Network:
    size = 4 if family == Family.IPV4 else 16
    return ip_network((packed or bytes(size), length), strict=False)


def neighbour(address: IPAddress, device: int, *, use: bool) -> bytes:
    """Ask for a neighbour by its address; with `use`, the message that has it looked for."""
    family = Family.IPV4 if address.version == 4 else Family.IPV6  # noqa: PLR2004 - IP versions
    return NDMSG.pack(family, device, 0, NTF_USE if use else 0, 0) + attribute(NDA_DST, address.packed)


def neighbour_state(body: bytes, address: IPAddress, device: int) -> int | None:
    """Return the state that a neighbour message tells of this neighbour; None where it tells of another."""
    if len(body) < NDMSG.size:
        return None
    _, index, state, _, _ = NDMSG.unpack_from(body)
    same = index == device and dict(attributes(body, NDMSG.size)).get(NDA_DST) == address.packed
    return int(state) if same else None


def neighbour_mac(body: bytes) -> bytes | None:
    """Return the MAC that a neighbour message tells; None where it tells none."""
    return dict(attributes(body, NDMSG.size)).get(NDA_LLADDR)


def forwarding(device: int) -> bytes:
    """Ask for all forwarding entries of a VXLAN device."""
    return NDMSG.pack(AF_BRIDGE, device, 0, 0, 0)


def forwarded_to(body: bytes, mac: bytes) -> IPAddress | None:
    """Return the node that a forwarding entry names for this hardware address; None where it is about another."""
    found = dict(attributes(body, NDMSG.size))
    return hop_codec.address(found.get(NDA_DST)) if found.get(NDA_LLADDR) == mac else None
