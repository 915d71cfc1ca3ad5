"""Routes as bytes: the body of a route message, the same whether we send it, a dump brings it or an event tells it.

The kernel is asked in the words in which it answers: attributes in the order of its dumps, and what it would add or
change is there already. Where it adds figures that change by themselves, `normalised` takes them away.
Formats and numbers are those of include/uapi/linux/rtnetlink.h and rtnetlink(7).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from itertools import compress, repeat
from operator import add, itemgetter
from typing import NamedTuple, TypeAlias, TypeVar

from bgp.ipv4_prefix import taken_apart
from bgp.spans import comparable
from felix_py.kernel import hop_codec
from felix_py.kernel.hop_codec import RTNH_F_ONLINK, NoDevice, bpf_encapsulation, ip_encapsulation
from felix_py.kernel.messages import RTMSG, U32, attribute, attributes
from felix_py.kernel.objects import NextHop, Route, RouteKey, RouteType, Scope
from felix_py.kernel.route_body import (
    DST4_HEADER,
    DST6_HEADER,
    HEAD,
    IPV4,
    IPV6,
    PRIORITY_HEADER,
    RTA_DST,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    TABLE_HEADER,
    address_in,
    device_attribute,
    devices_of,
    family_of,
    identity,
    identity_of,
    is_beyond_us,
    is_host,
    is_link_affair,
    is_multipath,
    leaves_by,
    normalised,
    protocol_of,
    table_of,
    through_attribute,
    through_of,
)
from felix_py.kernel.wire import Family

_K = TypeVar("_K")
_V = TypeVar("_V")

__all__ = [
    "HEAD",
    "IPV4",
    "IPV6",
    "Encoder",
    "NoDevice",
    "address_in",
    "bpf_encapsulation",
    "decode",
    "device_attribute",
    "devices_of",
    "family_of",
    "identity",
    "identity_of",
    "ip_encapsulation",
    "is_beyond_us",
    "is_host",
    "is_link_affair",
    "is_multipath",
    "leaves_by",
    "normalised",
    "protocol_of",
    "table_of",
    "through_attribute",
    "through_of",
]

RTA_PREFSRC, RTA_METRICS, RTAX_MTU = 7, 8, 2

RT_TABLE_COMPAT = 252
"""Stands in the head where the number of the table does not fit its byte."""

LOOPBACK = 1
"""Index of `lo` in every namespace (LOOPBACK_IFINDEX, include/net/flow.h)."""

MAXIMUM_MTU = 65535 - 15
"""What the kernel makes of a larger one: net/ipv4/metrics.c."""

REJECTING = frozenset({RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT, RouteType.THROW})
"""Types that send nothing anywhere; IPv6 hangs them on `lo`, IPv4 on nothing."""

IPV4_BYTES, IPV6_BYTES = 4, 16
"""Lengths of an address."""

LIMIT = 1 << 17
"""Entries per cache of an encoder; beyond that it starts anew."""


class _Shape(NamedTuple):
    """What a route contributes to its body, whatever its key; it holds the route, whose id() stays its own so."""

    route: Route
    head: bytes
    before_metric: bytes
    after_metric: bytes


class _Frame(NamedTuple):
    """What a key contributes to its body beside the destination."""

    head: bytes
    before_destination: bytes
    metric: bytes


class _Space(NamedTuple):
    """What an encoder has made for one family; at most `LIMIT` entries each."""

    family: Family
    by_object: dict[int, _Shape]
    by_value: dict[Route, _Shape]
    frames: dict[tuple[int, ...], _Frame]


_Place: TypeAlias = tuple[int, int, int, int, int]
"""Bytes of an address, length of the prefix, table, TOS and metric."""


class _Around(NamedTuple):
    """What stands before and behind the address of a destination, in a body and in its identity."""

    front: bytes
    end: bytes
    name: bytes
    name_end: bytes


class Encoder:
    """Encodes bodies of route messages, as long as interfaces keep their indexes; make a new one after a change.

    What a route contributes is made once per value; where keys share the object itself, not even its hash is asked for.
    """

    def __init__(self, indexes: Mapping[str, int]) -> None:
        self._indexes = indexes
        self._ipv4 = _Space(Family.IPV4, {}, {}, {})
        self._ipv6 = _Space(Family.IPV6, {}, {}, {})

    def __call__(self, key: RouteKey, route: Route) -> bytes:
        """Encode a route under its key.

        A gateway without a device is completed by the kernel, and then the bytes differ: name the device.

        Raises:
            NoDevice: when an interface that the route names does not exist.
        """
        dst = key.dst
        address = dst.network_address.packed
        family, by_object, by_value, frames = space = self._ipv4 if len(address) == IPV4_BYTES else self._ipv6
        shape = by_object.get(id(route)) or by_value.get(route) or self._shape(space, route)
        place = dst.prefixlen, key.table, key.tos, key.metric
        frame = frames.get(place) or _remember(frames, place, _frame(family, *place))
        return b"".join((
            frame.head, shape.head, frame.before_destination, address if place[0] else b"",
            shape.before_metric, frame.metric, shape.after_metric,
        ))  # fmt: skip

    def named(self, route: Route, keys: Collection[RouteKey]) -> dict[bytes, bytes]:
        """Encode one route under many keys; return the bodies by identity.

        Raises:
            NoDevice: when an interface that the route names does not exist.
        """
        found: dict[bytes, bytes] = {}
        # Whatever lies around the address is the same for all keys of one length; few tables have more than three.
        for place, addresses in _by_place(keys):
            front, end, name, name_end = self._around(route, *place)
            names, bodies = map(name.__add__, addresses), map(front.__add__, addresses)
            if name_end:
                names = map(add, names, repeat(name_end))
            found.update(zip(names, map(add, bodies, repeat(end)), strict=True))
        return found

    def _around(self, route: Route, size: int, *place: int) -> _Around:
        space = self._ipv4 if size == IPV4_BYTES else self._ipv6
        shape = space.by_value.get(route) or self._shape(space, route)
        frame = space.frames.get(place) or _remember(space.frames, place, _frame(space.family, *place))
        return _Around(
            frame.head + shape.head + frame.before_destination,
            shape.before_metric + frame.metric + shape.after_metric,
            frame.head[:4] + frame.before_destination[4:],  # without the table's byte in the head, and its header
            frame.metric,
        )

    def _shape(self, space: _Space, route: Route) -> _Shape:
        shape = _remember(space.by_value, route, _shape(space.family, route, self._indexes))
        return _remember(space.by_object, id(route), shape)


def _by_place(keys: Collection[RouteKey]) -> Iterable[tuple[_Place, list[bytes]]]:
    """Return the addresses of keys that differ in nothing else."""
    if not keys:
        return ()
    prefixes = [*map(itemgetter(0), keys)]
    if comparable(prefixes):
        others = [set(map(itemgetter(place), keys)) for place in (1, 2, 3)]
        if all(len(each) == 1 for each in others):
            addresses, lengths = taken_apart(prefixes)
            return _by_length(addresses, lengths, *map(set.pop, others))
    groups: dict[_Place, list[bytes]] = {}
    for dst, table, tos, metric in keys:
        address = dst.network_address.packed
        place = len(address), dst.prefixlen, table, tos, metric
        groups.setdefault(place, []).append(address if dst.prefixlen else b"")
    return groups.items()


def _by_length(
    addresses: Iterable[bytes], lengths: bytes, table: int, tos: int, metric: int
) -> Iterator[tuple[_Place, list[bytes]]]:
    """Yield the addresses of IPv4 prefixes of each length."""
    several, addresses = set(lengths), list(addresses)
    for length in several:
        alike = addresses if len(several) == 1 else [*compress(addresses, map(length.__eq__, lengths))]
        yield (IPV4_BYTES, length, table, tos, metric), alike if length else [b""] * len(alike)


def _remember(cache: dict[_K, _V], name: _K, made: _V) -> _V:
    if len(cache) >= LIMIT:
        cache.clear()
    cache[name] = made
    return made


def _frame(family: Family, length: int, table: int, tos: int, metric: int) -> _Frame:
    short = table if table <= 0xFF else RT_TABLE_COMPAT  # noqa: PLR2004 - the field is a byte
    dst = b"" if not length else DST4_HEADER if family is Family.IPV4 else DST6_HEADER
    return _Frame(
        bytes((family, length, 0, tos, short)),
        TABLE_HEADER + U32.pack(table) + dst,
        PRIORITY_HEADER + U32.pack(metric) if metric else b"",
    )


def _shape(family: Family, route: Route, indexes: Mapping[str, int]) -> _Shape:
    # IPv6 knows no scope: it ignores what the request says and dumps 0.
    scope = Scope.UNIVERSE if family is Family.IPV6 else route.scope
    hop, where = _where(family, route, indexes)
    flags = U32.pack(RTNH_F_ONLINK if hop.onlink else 0)
    head = bytes((route.protocol, scope, route.type)) + flags
    mtu = attribute(RTAX_MTU, U32.pack(min(route.mtu, MAXIMUM_MTU))) if route.mtu else b""
    metrics = attribute(RTA_METRICS, mtu) if mtu else b""
    source = b"" if route.source is None else attribute(RTA_PREFSRC, route.source.packed)
    if family is Family.IPV6:
        return _Shape(route, head, source + metrics, where)
    return _Shape(route, head, b"", metrics + source + where)


def _where(family: Family, route: Route, indexes: Mapping[str, int]) -> tuple[NextHop, bytes]:
    """Return the one next hop, empty where there is none or several, and what says in attributes where packets go."""
    if route.through is not None:
        return NextHop(), attribute(RTA_NH_ID, U32.pack(route.through))
    if len(route.hops) > 1:
        legs = b"".join(hop_codec.leg(hop, family, indexes) for hop in route.hops)
        return NextHop(), attribute(RTA_MULTIPATH, legs)
    # The kernel takes a list of one leg and dumps a plain route.
    hop = route.hops[0] if route.hops else NextHop(route.via, route.device, route.onlink, 1, route.encapsulation)
    index = None if hop.device is None else hop_codec.index_of(hop.device, indexes)
    if family is Family.IPV6 and route.type in REJECTING:
        index = LOOPBACK
    oif = b"" if index is None else attribute(RTA_OIF, U32.pack(index))
    return hop, hop_codec.gateway(hop.via, family) + oif + hop_codec.encapsulation(hop.encapsulation)


def decode(body: bytes, names: Mapping[int, str]) -> tuple[RouteKey, Route] | None:
    """Decode the body of a route message; None for what we cannot hold (see `is_beyond_us`) and for rubbish.

    Args:
        body: the message after its netlink header.
        names: interface names by index; an unknown index is named `if<number>`.
    """
    if is_beyond_us(body):
        return None
    found = dict(attributes(body, HEAD))
    try:
        return _key(body, found), _route(body, found, names)
    except ValueError:
        return None


def _key(body: bytes, found: Mapping[int, bytes]) -> RouteKey:
    family, length, _, tos, table = body[:5]
    network, size = (IPv4Network, IPV4_BYTES) if family == IPV4 else (IPv6Network, IPV6_BYTES)
    dst = found.get(RTA_DST, b"") if length else bytes(size)
    if len(dst) != size:
        raise ValueError(f"{len(dst)} bytes instead of {size} for a destination")
    metric = hop_codec.number(found.get(RTA_PRIORITY)) or 0
    number = hop_codec.number(found.get(RTA_TABLE))
    return RouteKey(network((dst, length), strict=False), table if number is None else number, tos, metric)


def _route(body: bytes, found: Mapping[int, bytes], names: Mapping[int, str]) -> Route:
    _, _, _, _, _, protocol, scope, kind, flags = RTMSG.unpack_from(body)
    through = hop_codec.number(found.get(RTA_NH_ID))
    hops: tuple[NextHop, ...] = ()
    hop = NextHop()
    if through is None and RTA_MULTIPATH in found:
        hops = hop_codec.hops_of(found[RTA_MULTIPATH], names)
    elif through is None:
        index = hop_codec.number(found.get(RTA_OIF)) or 0
        if index == LOOPBACK and kind in REJECTING:
            index = 0
        hop = hop_codec.hop_of(flags, 1, index, found, names)
    return Route(
        type=RouteType(kind),
        via=hop.via,
        device=hop.device,
        scope=Scope(scope),
        onlink=hop.onlink,
        source=hop_codec.address(found.get(RTA_PREFSRC)),
        mtu=hop_codec.number(dict(attributes(found.get(RTA_METRICS, b""), 0)).get(RTAX_MTU)),
        protocol=protocol,
        hops=hops,
        through=through,
        encapsulation=hop.encapsulation,
    )
