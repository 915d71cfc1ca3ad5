"""Where packets go next, as bytes: gateways, legs of multipath routes and encapsulations; shared by routes and objects.

Attribute orders are those in which the kernel dumps; numbers are those of include/uapi/linux/{rtnetlink,lwtunnel}.h.
"""

import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address

from felix_py.kernel.messages import U32, attribute, attributes
from felix_py.kernel.objects import NextHop, RouteEncapsulation
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress

RTNEXTHOP = struct.Struct("=HBBI")  # length flags hops index
U16 = struct.Struct("=H")

RTA_GATEWAY, RTA_VIA, RTA_ENCAP_TYPE, RTA_ENCAP = 5, 18, 21, 22

RTNH_F_ONLINK = 4
"""The gateway is on the device's link although no address says so."""

RTNH_VOLATILE = 1 | 8 | 16 | 32 | 64
"""Flags that the kernel sets by itself: DEAD, OFFLOAD, LINKDOWN, UNRESOLVED, TRAP."""

LWTUNNEL_ENCAP_IP, LWTUNNEL_ENCAP_BPF = 2, 6
LWTUNNEL_IP_ID, LWTUNNEL_IP_DST, LWTUNNEL_IP_SRC, LWTUNNEL_IP_TTL, LWTUNNEL_IP_TOS, LWTUNNEL_IP_FLAGS = 1, 2, 3, 4, 5, 6
LWT_BPF_XMIT = 3
LWT_BPF_PROG_FD, LWT_BPF_PROG_NAME = 1, 2
BPF_KIND = U16.pack(LWTUNNEL_ENCAP_BPF)


class NoDevice(Exception):  # noqa: N818 - named for what the caller does: wait for the device
    """The kernel has no interface of this name now, so that what leaves by it cannot be said in bytes."""

    def __init__(self, device: str) -> None:
        super().__init__(f"{device} does not exist")
        self.device = device


def index_of(device: str, indexes: Mapping[str, int]) -> int:
    """Return the index of an interface.

    Raises:
        NoDevice: when there is none of this name.
    """
    index = indexes.get(device)
    if index is None:
        raise NoDevice(device)
    return index


def name_of(index: int, names: Mapping[int, str]) -> str:
    """Return the name of an interface, `if<index>` where nobody knows it."""
    return names.get(index, f"if{index}")


def number(payload: bytes | None) -> int | None:
    """Read an attribute that holds 32 bits.

    Raises:
        ValueError: when it holds anything else.
    """
    if payload is None:
        return None
    if len(payload) != U32.size:
        raise ValueError(f"{len(payload)} bytes instead of {U32.size} for a number")
    return int(U32.unpack(payload)[0])


def address(payload: bytes | None) -> IPAddress | None:
    """Read an attribute that holds an address of either family.

    Raises:
        ValueError: when it is as long as neither.
    """
    if payload is None:
        return None
    if len(payload) not in (4, 16):
        raise ValueError(f"{len(payload)} bytes are no address")
    return ip_address(payload)


def gateway(via: IPAddress | None, family: Family) -> bytes:
    """Encode the gateway of a route of this family, which may be one of the other family (RTA_VIA, RFC 8950)."""
    if via is None:
        return b""
    own = Family.IPV4 if isinstance(via, IPv4Address) else Family.IPV6
    if own is family:
        return attribute(RTA_GATEWAY, via.packed)
    return attribute(RTA_VIA, U16.pack(own) + via.packed)


def gateway_of(found: Mapping[int, bytes]) -> IPAddress | None:
    """Read the gateway out of attributes by kind.

    Raises:
        ValueError: when it is no address.
    """
    via = found.get(RTA_VIA)
    return address(found.get(RTA_GATEWAY) if via is None else via[U16.size :])


def encapsulation(wrap: RouteEncapsulation | None, content: int = RTA_ENCAP, kind: int = RTA_ENCAP_TYPE) -> bytes:
    """Encode what a route wraps packets in; `content` and `kind` are the attributes that take the two halves."""
    return b"" if wrap is None else attribute(content, wrap.payload) + attribute(kind, U16.pack(wrap.kind))


def encapsulation_of(
    found: Mapping[int, bytes], content: int = RTA_ENCAP, kind: int = RTA_ENCAP_TYPE
) -> RouteEncapsulation | None:
    """Read what a route wraps packets in out of attributes by kind.

    Raises:
        ValueError: when the kind is not 16 bits.
    """
    name = found.get(kind)
    if name is None:
        return None
    if len(name) != U16.size:
        raise ValueError(f"{len(name)} bytes instead of {U16.size} for the kind of an encapsulation")
    return RouteEncapsulation(U16.unpack(name)[0], found.get(content, b""))


def leg(hop: NextHop, family: Family, indexes: Mapping[str, int]) -> bytes:
    """Encode one leg of a multipath route (struct rtnexthop); the field for weight holds one less.

    Raises:
        NoDevice: when its interface does not exist.
    """
    content = gateway(hop.via, family) + encapsulation(hop.encapsulation)
    index = 0 if hop.device is None else index_of(hop.device, indexes)
    flags = RTNH_F_ONLINK if hop.onlink else 0
    return RTNEXTHOP.pack(RTNEXTHOP.size + len(content), flags, hop.weight - 1, index) + content


def hops_of(payload: bytes, names: Mapping[int, str]) -> tuple[NextHop, ...]:
    """Decode the legs of a multipath route.

    Raises:
        ValueError: when an attribute is rubbish.
    """
    return tuple(
        hop_of(flags, weight, index, dict(attributes(content, 0)), names)
        for flags, weight, index, content in legs(payload)
    )


def legs(payload: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Walk the legs of a multipath route: (flags, weight, index, attributes); a broken length ends the walk."""
    start, end = 0, len(payload)
    while start + RTNEXTHOP.size <= end:
        length, flags, hops, index = RTNEXTHOP.unpack_from(payload, start)
        if length < RTNEXTHOP.size or start + length > end:
            return
        yield flags, hops + 1, index, payload[start + RTNEXTHOP.size : start + length]
        start += (length + 3) & ~3


def hop_of(flags: int, weight: int, index: int, found: Mapping[int, bytes], names: Mapping[int, str]) -> NextHop:
    """Make a next hop of what a message says about it, `found` being its attributes by kind.

    Raises:
        ValueError: when an attribute of it is rubbish.
    """
    device = name_of(index, names) if index else None
    return NextHop(gateway_of(found), device, bool(flags & RTNH_F_ONLINK), weight, encapsulation_of(found))


def calm_legs(payload: bytes) -> bytes:
    """Return the legs without the flags that the kernel sets by itself; what follows a broken length is kept."""
    parts, start = [], 0
    for flags, weight, index, content in legs(payload):
        start += (RTNEXTHOP.size + len(content) + 3) & ~3
        kept = without_descriptors(content)
        parts.append(RTNEXTHOP.pack(RTNEXTHOP.size + len(kept), flags & ~RTNH_VOLATILE, weight - 1, index) + kept)
        parts.append(b"\0" * (-len(kept) & 3))
    return b"".join(parts) + payload[start:]


def without_descriptors(content: bytes) -> bytes:
    """Return the attributes of a hop without descriptors of BPF programs, which the kernel takes but never tells."""
    found = dict(attributes(content, 0))
    if found.get(RTA_ENCAP_TYPE) != BPF_KIND or RTA_ENCAP not in found:
        return content
    programs = []
    for hook, program in attributes(found[RTA_ENCAP], 0):
        kept = (attribute(kind, value) for kind, value in attributes(program, 0) if kind != LWT_BPF_PROG_FD)
        programs.append(attribute(hook, b"".join(kept)))
    return content.replace(attribute(RTA_ENCAP, found[RTA_ENCAP]), attribute(RTA_ENCAP, b"".join(programs)))


def ip_encapsulation(
    destination: IPv4Address, *, source: IPv4Address | None = None, key: int = 0, ttl: int = 0, tos: int = 0
) -> RouteEncapsulation:
    """Return the outer IPv4 header that a tunnel device in `external` mode is to use for this route.

    Args:
        destination: the far end of the tunnel.
        source: the near end; None lets the kernel choose, which it dumps as 0.0.0.0.
        key: the tunnel's ID, 64 bits.
        ttl: 0 lets the kernel choose.
        tos: of the outer header.
    """
    near = bytes(4) if source is None else source.packed
    return RouteEncapsulation(
        LWTUNNEL_ENCAP_IP,
        attribute(LWTUNNEL_IP_ID, key.to_bytes(8, "big"))
        + attribute(LWTUNNEL_IP_DST, destination.packed)
        + attribute(LWTUNNEL_IP_SRC, near)
        + attribute(LWTUNNEL_IP_TOS, bytes([tos]))
        + attribute(LWTUNNEL_IP_TTL, bytes([ttl]))
        + attribute(LWTUNNEL_IP_FLAGS, bytes(2)),
    )


def bpf_encapsulation(descriptor: int, name: str) -> RouteEncapsulation:
    """Return a BPF program that sees, and may wrap, every packet that leaves by the route (`xmit` hook).

    The kernel dumps the name and not the descriptor: compare such routes after `route_codec.normalised`.

    Args:
        descriptor: of the loaded program (BPF_PROG_TYPE_LWT_XMIT), open while the route is written.
        name: by which the kernel shows the program.
    """
    program = attribute(LWT_BPF_PROG_FD, U32.pack(descriptor)) + attribute(LWT_BPF_PROG_NAME, name.encode() + b"\0")
    return RouteEncapsulation(LWTUNNEL_ENCAP_BPF, attribute(LWT_BPF_XMIT, program))
