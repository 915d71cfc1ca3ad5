"""Questions about one packet or one neighbour as bytes, and the kernel's answers: what `ip route get` asks; pure.

Formats and numbers are those of include/uapi/linux/{rtnetlink,neighbour}.h and rtnetlink(7).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from felix_py.kernel import hop_codec
from felix_py.kernel.messages import RTMSG, U32, attribute, attributes
from felix_py.kernel.neighbour_codec import NDA_DST, NDA_LLADDR, NDMSG
from felix_py.kernel.objects import RouteType
from felix_py.kernel.route_body import HEAD
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress, IPNetwork

RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH, RTA_TABLE = 1, 2, 3, 4, 7, 8, 9, 15
RTAX_MTU = 2

RTM_F_FIB_MATCH = 0x2000
"""Answer with the route of the table that matches, not with what becomes of the packet; Linux 4.13."""

NTF_USE = 1
"""As if a packet wanted to be sent there: an unknown neighbour is asked for its MAC."""

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
    """

    prefix: IPNetwork
    type: RouteType
    protocol: int
    device: str | None
    via: IPAddress | None = None
    source: IPAddress | None = None
    mtu: int | None = None
    weights: int = 1


def question(destination: IPAddress, source: IPAddress | None, device: int, *, match: bool) -> bytes:
    """Ask what becomes of a packet.

    Args:
        destination: of the packet.
        source: of the packet; None where this host is to choose it.
        device: index of the interface that it came in by; 0 where this host sends it.
        match: ask for the route of the table instead.
    """
    family = Family.IPV4 if destination.version == 4 else Family.IPV6  # noqa: PLR2004 - IP versions
    whole = destination.max_prefixlen
    flags = RTM_F_FIB_MATCH if match else 0
    head = RTMSG.pack(family, whole, whole if source is not None else 0, 0, 0, 0, 0, 0, flags)
    origin = attribute(RTA_SRC, source.packed) if source is not None else b""
    incoming = attribute(RTA_IIF, U32.pack(device)) if device else b""
    return head + attribute(RTA_DST, destination.packed) + origin + incoming


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
