"""What can be said of a route's body without decoding it: whose it is, where it leaves, whether two are the same.

A node may hold 100,000 routes and compares them all, so the usual layouts are answered by slices, in the order in which
the kernel dumps attributes (TABLE and DST first); every other layout is walked and gets the same answer.
Formats and numbers are those of include/uapi/linux/rtnetlink.h.
"""

from collections.abc import Iterator
from ipaddress import ip_address

from felix_py.kernel.hop_codec import (
    RTA_ENCAP,
    RTA_ENCAP_TYPE,
    RTA_GATEWAY,
    RTA_VIA,
    RTNH_F_ONLINK,
    RTNH_VOLATILE,
    calm_legs,
    legs,
    without_descriptors,
)
from felix_py.kernel.messages import ATTRIBUTE, RTMSG, U32, attribute, attributes, pieces
from felix_py.kernel.objects import IPV6_METRIC, RouteKey, RouteType, Scope
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress

HEAD = RTMSG.size
"""Bytes before the first attribute; whatever is shorter is no route."""

IPV4, IPV6 = int(Family.IPV4), int(Family.IPV6)
RTA_DST, RTA_SRC, RTA_OIF, RTA_PRIORITY, RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE = 1, 2, 4, 6, 9, 12, 15
RTA_PREF, RTA_NH_ID = 20, 30
TYPES = frozenset(map(int, RouteType))
SCOPES = frozenset(map(int, Scope))

VOLATILE = RTNH_VOLATILE | 0x4000 | 0x8000 | 0x20000000
"""Flags that the kernel sets by itself: those of a hop, and RTM_F_OFFLOAD, RTM_F_TRAP, RTM_F_OFFLOAD_FAILED."""

TABLE_HEADER, OIF_HEADER, NH_ID_HEADER, PRIORITY_HEADER = (
    ATTRIBUTE.pack(8, kind) for kind in (RTA_TABLE, RTA_OIF, RTA_NH_ID, RTA_PRIORITY)
)
DST4_HEADER, DST6_HEADER = ATTRIBUTE.pack(8, RTA_DST), ATTRIBUTE.pack(20, RTA_DST)
ZERO = bytes(4)
CALM_FLAGS = (ZERO, U32.pack(RTNH_F_ONLINK))
IPV6_BYTE = bytes([IPV6])

CACHEINFO_HEADER, PREF_MEDIUM = ATTRIBUTE.pack(36, RTA_CACHEINFO), attribute(RTA_PREF, b"\0")
"""With both, 44 bytes, an IPv6 dump ends; RFC 4191: medium is the preference of every route that nobody advertised."""

HOST_LENGTH = {IPV4: 32, IPV6: 128}
"""Bits of a prefix that is one address."""

WHERE = frozenset({RTA_GATEWAY, RTA_VIA, RTA_OIF, RTA_MULTIPATH, RTA_ENCAP, RTA_ENCAP_TYPE})
"""What the kernel adds to a route through a next-hop object while net.ipv4.nexthop_compat_mode is 1."""


def family_of(body: bytes) -> int:
    """Return the address family; 0 where there is no body."""
    return body[0] if body else 0


def protocol_of(body: bytes) -> int:
    """Return who installed the route (rtm_protocol); 0 (unspecified) where the body is too short."""
    return body[5] if len(body) >= HEAD else 0


def table_of(body: bytes) -> int:
    """Return the number of the table; 0 (unspecified) where the body is too short."""
    if len(body) < HEAD:
        return 0
    if body[12:16] == TABLE_HEADER and len(body) >= HEAD + 8:
        return int(U32.unpack_from(body, 16)[0])
    return _number(dict(attributes(body, HEAD)).get(RTA_TABLE), body[4])


def through_of(body: bytes) -> int | None:
    """Return the ID of the next-hop object that the route goes through; None for a route of its own."""
    if NH_ID_HEADER not in body:
        return None
    return _number(dict(attributes(body, HEAD)).get(RTA_NH_ID), 0) or None


def is_beyond_us(body: bytes) -> bool:
    """Say whether it is a kind of route that `Route` has no words for: by source address, of unknown type or scope."""
    return (
        len(body) < HEAD
        or bool(body[2])
        or body[0] not in (IPV4, IPV6)
        or body[7] not in TYPES
        or body[6] not in SCOPES
    )


def is_host(body: bytes) -> bool:
    """Say whether the route is to a single address; answers the same for a body and for its identity."""
    return body[1] == HOST_LENGTH.get(body[0]) if len(body) > 1 else False


def address_in(name: bytes) -> IPAddress:
    """Return the address in the identity of a route to a single address."""
    start = 12  # after family, lengths and TOS, the table, and the header of the destination
    return ip_address(name[start : start + HOST_LENGTH[name[0]] // 8])


def is_link_affair(body: bytes) -> bool:
    """Say whether the destination is IPv6 link-local or multicast: the kernel's own affair on every interface."""
    if body[:1] != IPV6_BYTE or body[20:24] != DST6_HEADER or len(body) < HEAD + 28:
        return False
    return body[24] == 0xFF or (body[24] == 0xFE and body[25] & 0xC0 == 0x80)  # noqa: PLR2004 - ff00::/8 and fe80::/10


def is_multipath(body: bytes) -> bool:
    """Say whether the route has several next hops."""
    return any(kind == RTA_MULTIPATH for kind, _ in attributes(body, HEAD))


def device_attribute(index: int) -> bytes:
    """Return the eight bytes that a route with one next hop has where it leaves by this interface.

    To be looked for in bodies (`in`): the answer no is certain but for multipath routes, `leaves_by` is exact.
    """
    return OIF_HEADER + U32.pack(index)


def through_attribute(number: int) -> bytes:
    """Return the eight bytes that a route has where it goes through this next-hop object; `through_of` is exact."""
    return NH_ID_HEADER + U32.pack(number)


def devices_of(body: bytes) -> tuple[int, ...]:
    """Return the indexes of the interfaces that packets may leave by, legs in their order."""
    return tuple(_devices(body))


def _devices(body: bytes) -> Iterator[int]:
    for kind, payload in attributes(body, HEAD):
        if kind == RTA_OIF:
            yield _number(payload, 0)
        elif kind == RTA_MULTIPATH:
            yield from (index for _, _, index, _ in legs(payload))


def leaves_by(body: bytes, index: int) -> bool:
    """Say whether packets may leave by the interface with this index, be it by one leg of several."""
    return U32.pack(index) in body and index in _devices(body)


def identity(body: bytes) -> bytes:
    """Return what makes two bodies two routes to the kernel: family, prefix, TOS, table and metric.

    The bytes mean nothing elsewhere; a route by source address has that in it too.
    """
    if body[12:16] == TABLE_HEADER:
        if body[20:24] == DST4_HEADER:
            if body[28:32] == PRIORITY_HEADER and body[32:36] != ZERO:
                return body[:4] + body[16:36]
            if PRIORITY_HEADER not in body:
                return body[:4] + body[16:28]
        elif body[20:24] == DST6_HEADER and body[40:44] == PRIORITY_HEADER and body[44:48] != ZERO:
            return body[:4] + body[16:48]
    return _identity(body)


def _identity(body: bytes) -> bytes:
    if len(body) < HEAD:
        return body
    found = dict(attributes(body, HEAD))
    dst = attribute(RTA_DST, found.get(RTA_DST, b"")) if body[1] else b""
    src = attribute(RTA_SRC, found.get(RTA_SRC, b"")) if body[2] else b""
    metric = _number(found.get(RTA_PRIORITY), 0)
    return body[:4] + U32.pack(_number(found.get(RTA_TABLE), body[4])) + dst + src + _metric(body[0], metric)


def identity_of(key: RouteKey) -> bytes:
    """Return the identity that the body of any route with this key has."""
    address = key.dst.network_address.packed
    family = IPV4 if len(address) == 4 else IPV6  # noqa: PLR2004 - bytes of an IPv4 address
    length = key.dst.prefixlen
    dst = attribute(RTA_DST, address) if length else b""
    return bytes((family, length, 0, key.tos)) + U32.pack(key.table) + dst + _metric(family, key.metric)


def _metric(family: int, metric: int) -> bytes:
    metric = metric or (IPV6_METRIC if family == IPV6 else 0)
    return PRIORITY_HEADER + U32.pack(metric) if metric else b""


def _number(payload: bytes | None, otherwise: int) -> int:
    return int(U32.unpack(payload)[0]) if payload is not None and len(payload) == U32.size else otherwise


def normalised(body: bytes) -> bytes:
    """Return the body without what the kernel changes or adds by itself, so that equal routes are equal bytes.

    That is: volatile flags, of IPv6 the cache's figures and the medium preference, of a route through a next-hop object
    what the object says, and of BPF programs the descriptors, which only requests have.
    """
    if body[-8:] == PREF_MEDIUM and body[-44:-40] == CACHEINFO_HEADER and body[:1] == IPV6_BYTE:
        body = body[:-44]
    if body[-8:-4] == OIF_HEADER and body[8:12] in CALM_FLAGS and NH_ID_HEADER not in body:
        return body
    return _normalised(body)


def _normalised(body: bytes) -> bytes:
    if len(body) < HEAD or body[0] not in (IPV4, IPV6):
        return body
    parts = list(pieces(body, HEAD))
    flags = U32.unpack_from(body, 8)[0] & ~VOLATILE
    if any(kind == RTA_NH_ID for kind, _ in parts):
        parts = [(kind, part) for kind, part in parts if kind not in WHERE]
        flags &= ~RTNH_F_ONLINK
    kept = (_calm(kind, part) for kind, part in parts if not (body[0] == IPV6 and _is_figure(kind, part)))
    return body[:8] + U32.pack(flags) + without_descriptors(b"".join(kept))


def _is_figure(kind: int, part: bytes) -> bool:
    return kind == RTA_CACHEINFO or (kind == RTA_PREF and part == PREF_MEDIUM)


def _calm(kind: int, part: bytes) -> bytes:
    if kind != RTA_MULTIPATH:
        return part
    return attribute(RTA_MULTIPATH, calm_legs(part[ATTRIBUTE.size : ATTRIBUTE.unpack_from(part)[0]]))
