"""The real kernel's rules for its route tables: who is refused and why, what replaces what, what goes without a word.

Measured on Linux 6.18, and held to it by tests/netns/test_kernel_contract.py. Left out is what no agent asks for: the
local table, policy rules, routes by source address. An interface is an index here, whose name is `if<index>`.
"""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from typing import Protocol

from felix_py.kernel import route_codec
from felix_py.kernel.hop_codec import RTNEXTHOP
from felix_py.kernel.messages import ATTRIBUTE, RTMSG, U32, attribute, attributes, pieces
from felix_py.kernel.objects import MAIN_TABLE, Link, NextHop, NextHopObject, Route, RouteKey, RouteType
from felix_py.kernel.route_body import IPV4, IPV6, RTA_DST, RTA_MULTIPATH, RTA_OIF
from felix_py.kernel.wire import Event, Family, Mode, Refusal, RouteEvent, Verb
from felix_py.model import IPAddress

KERNEL = 2
"""RTPROT_KERNEL: the routes that come with an address."""

KERNEL_PORT = 0
"""Who is said to have done what the kernel does by itself."""

DEAD, LINKDOWN = 1, 16
"""RTNH_F_..., include/uapi/linux/rtnetlink.h."""

CACHEINFO_AND_PREF = attribute(12, bytes(32)) + attribute(20, b"\0")
"""With these the kernel ends every IPv6 route that it tells of."""

NEW = Mode.CREATE | Mode.EXCLUSIVE
"""What an event says of the first route of an identity, however it was asked for."""


def refused(code: int, text: str = "") -> Refusal:
    """Say no as the kernel does: errno, and its own words where it has any."""
    return Refusal(code, f"{os.strerror(code)}: {text}" if text else os.strerror(code))


NO_SUCH_OBJECT = refused(errno.EINVAL, "Nexthop id does not exist")
TAKEN = refused(errno.EEXIST)
NOT_THERE = refused(errno.ESRCH)


class Host(Protocol):
    """What the tables of routes have to know of the rest of the kernel."""

    @property
    def compatible(self) -> bool:
        """Whether routes through next-hop objects tell where these go (net.ipv4.nexthop_compat_mode)."""

    def link_at(self, index: int) -> Link | None:
        """Return the interface, without its addresses."""

    def is_local(self, address: IPAddress) -> bool:
        """Say whether some interface has this address."""

    def object_at(self, number: int) -> NextHopObject | None:
        """Return the next-hop object with this ID."""

    def members(self, number: int) -> tuple[NextHop, ...]:
        """Return where the next-hop object with this ID goes now."""

    def tell(self, event: Event, port: int) -> None:
        """Let everybody know but who did it."""


class Indexes(Mapping[str, int]):
    """The index in the name of an interface, for the encoder."""

    def __getitem__(self, name: str) -> int:
        return index_of(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def index_of(device: str | None) -> int:
    """Return the index that an interface's name holds, 0 for none."""
    return int(device.removeprefix("if")) if device else 0


def name_of(index: int) -> str:
    """Return the name for an index."""
    return f"if{index}"


@dataclass(slots=True, eq=False)
class Entry:
    """One route as the kernel keeps it; in IPv6 each next hop of a multipath route is one.

    Attributes:
        body: as it was asked for.
        hops: its own next hops; none for a route that rejects, or that goes through an object.
        dead: interfaces by which it cannot leave although they were not removed: they are, or were, down.
    """

    key: RouteKey
    route: Route
    body: bytes
    hops: tuple[NextHop, ...]
    dead: set[int] = field(default_factory=set)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The interfaces by which it leaves."""
        return tuple(index_of(hop.device) for hop in self.hops)


class Tables(ABC):
    """All tables of one family: by table, then by identity, in the order in which routes of one identity count."""

    family: Family
    unreachable: Refusal

    def __init__(self, host: Host) -> None:
        self.host = host
        self.tables: dict[int, dict[bytes, list[Entry]]] = {}
        self.encode = route_codec.Encoder(Indexes())

    # --- what others ask for

    @abstractmethod
    def put(self, entry: Entry, mode: Mode, port: int) -> Refusal | None:
        """Put one route, or say why not."""

    @abstractmethod
    def delete(self, entry: Entry, port: int) -> Refusal | None:
        """Take away the first route that the request describes."""

    @abstractmethod
    def render(self, stack: list[Entry]) -> list[bytes]:
        """Return the bodies by which the kernel tells of the routes of one identity."""

    def dump(self, table: int) -> list[bytes]:
        """Return every body of a table."""
        stacks = sorted(self.tables.get(table, {}).values(), key=lambda stack: place(stack[0].key))
        return [body for stack in stacks for body in self.render(stack)]

    # --- helpers

    def stack(self, key: RouteKey) -> list[Entry]:
        """Return the routes of one identity, for reading."""
        return self.tables.get(key.table, {}).get(route_codec.identity_of(key), [])

    def set_stack(self, key: RouteKey, stack: list[Entry]) -> None:
        """Replace the routes of one identity."""
        table = self.tables.setdefault(key.table, {})
        if stack:
            table[route_codec.identity_of(key)] = stack
        else:
            table.pop(route_codec.identity_of(key), None)

    def stacks(self) -> Iterator[list[Entry]]:
        """Iterate over all identities, which may be changed meanwhile."""
        for table in tuple(self.tables.values()):
            yield from tuple(table.values())

    def tell(self, verb: Verb, mode: Mode, port: int, body: bytes) -> None:
        """Let everybody know of a route but who changed it."""
        self.host.tell(RouteEvent(verb, mode, port, body), port)

    def flags(self, entry: Entry, index: int) -> int:
        """Return what the kernel says of a next hop by itself."""
        link = self.host.link_at(index)
        up = link is not None and link.running
        return (DEAD if index in entry.dead else 0) | (0 if up and index not in entry.dead else LINKDOWN)

    def resolves(self, via: IPAddress, index: int) -> int | None:
        """Return the interface on whose link a gateway is, None when it is on none."""
        if via.version == 6 and via.is_link_local:
            return index or None
        for stack in self.tables.get(MAIN_TABLE, {}).values():
            for entry in stack:
                leads = entry.hops and entry.hops[0].via is None and (not index or index in entry.indexes)
                if leads and via in entry.key.dst:
                    return entry.indexes[0]
        return None

    def connect(self, index: int, address: str) -> None:
        """Make the route to the network of an address, unless it is there."""
        own = ip_interface(address)
        if own.network.prefixlen == own.max_prefixlen:
            return
        entry = self.entry(*self.connected(index, address))
        if not any(each.indexes == entry.indexes and each.route.protocol == KERNEL for each in self.stack(entry.key)):
            self.set_stack(entry.key, [entry, *self.stack(entry.key)])
            self.tell(Verb.NEW_ROUTE, NEW, KERNEL_PORT, self.render([entry])[0])

    @abstractmethod
    def connected(self, index: int, address: str) -> tuple[RouteKey, Route]:
        """Return the route to the network of an address."""

    def disconnect(self, index: int, address: str) -> None:
        """Remove the route to the network of an address that is gone."""
        key, route = self.connected(index, address)
        gone = [each for each in self.stack(key) if each.route.protocol == KERNEL and each.route == route]
        self._remove(gone, KERNEL_PORT)

    def entry(self, key: RouteKey, route: Route) -> Entry:
        """Return a route as it is kept."""
        return Entry(key, route, self.encode(key, route), hops_of(route))

    def _remove(self, gone: Iterable[Entry], port: int | None) -> None:
        """Remove entries, and tell it, one by one, in the name of `port`; None removes them without a word."""
        for entry in gone:
            stack = self.stack(entry.key)
            body = self.render([entry])[0]
            self.set_stack(entry.key, [each for each in stack if each is not entry])
            if port is not None:
                self.tell(Verb.DELETE_ROUTE, Mode.NONE, port, body)

    @abstractmethod
    def lose(self, index: int, *, gone: bool = False) -> None:
        """Take an interface that went down, or away: routes that leave by nothing else go with it."""

    def revive(self, index: int) -> None:
        """Take an interface that came up: what is left of multipath routes leaves by it again."""
        for stack in self.stacks():
            for entry in stack:
                entry.dead.discard(index)

    @abstractmethod
    def object_gone(self, number: int) -> None:
        """Drop every route through a next-hop object."""

    def object_changed(self, number: int, port: int) -> None:
        """Tell of the routes through a next-hop object that has changed, for those who know nothing of objects."""
        for entry in self.through(number) if self.host.compatible else ():
            self.tell(Verb.NEW_ROUTE, Mode.REPLACE, port, self.render([entry])[0])

    def explained(self, entry: Entry, body: bytes) -> bytes:
        """Add to a route through a next-hop object where this goes, for those who know nothing of objects."""
        if entry.route.through is None or not self.host.compatible:
            return body
        where = self.encode(entry.key, with_hops(Route(), self.host.members(entry.route.through)))
        flags = U32.unpack_from(body, 8)[0] | U32.unpack_from(where, 8)[0]
        kinds = {kind for kind, _ in attributes(body, RTMSG.size)}
        added = b"".join(part for kind, part in pieces(where, RTMSG.size) if kind not in kinds)
        return body[:8] + U32.pack(flags) + body[RTMSG.size :] + added

    def names_unknown_object(self, entry: Entry) -> bool:
        """Say whether a request names a next-hop object that does not exist; also one to delete is refused for that."""
        return entry.route.through is not None and self.host.object_at(entry.route.through) is None

    def through(self, number: int) -> list[Entry]:
        """Return every route through a next-hop object."""
        return [entry for stack in self.stacks() for entry in stack if entry.route.through == number]


def hops_of(route: Route) -> tuple[NextHop, ...]:
    """Return the next hops that a route itself names."""
    if route.hops or route.type is not RouteType.UNICAST or (route.via is None and route.device is None):
        return route.hops
    return (NextHop(route.via, route.device, route.onlink, encapsulation=route.encapsulation),)


def with_hops(route: Route, hops: tuple[NextHop, ...]) -> Route:
    """Return the route with other next hops of its own."""
    if len(hops) == 1:
        hop = hops[0]
        return replace(
            route, hops=(), via=hop.via, device=hop.device, onlink=hop.onlink, encapsulation=hop.encapsulation
        )
    return replace(route, hops=hops, via=None, device=None, onlink=False, encapsulation=None)


def place(key: RouteKey) -> tuple[int, int, int, int]:
    """Return what the kernel walks its tables by."""
    return int(key.dst.network_address), -key.dst.prefixlen, -key.tos, key.metric


def marked(body: bytes, flags: Callable[[int], int]) -> bytes:
    """Set the flags by which the kernel says of each next hop whether it can be used; `flags` tells them by index."""
    parts, single = [], 0
    for kind, part in pieces(body, RTMSG.size):
        parts.append(_marked_legs(part, flags) if kind == RTA_MULTIPATH else part)
        single |= flags(U32.unpack_from(part, ATTRIBUTE.size)[0]) if kind == RTA_OIF else 0
    return body[:8] + U32.pack(U32.unpack_from(body, 8)[0] | single) + b"".join(parts)


def _marked_legs(part: bytes, flags: Callable[[int], int]) -> bytes:
    legs, start = bytearray(part), ATTRIBUTE.size
    while start + RTNEXTHOP.size <= len(legs):
        length, own, hops, index = RTNEXTHOP.unpack_from(legs, start)
        RTNEXTHOP.pack_into(legs, start, length, own | flags(index), hops, index)
        start += (length + 3) & ~3
    return bytes(legs)


def is_ipv6(body: bytes) -> bool:
    """Say which of the two tables a body is for."""
    assert body[0] in (IPV4, IPV6), f"neither IPv4 nor IPv6: {body.hex()}"
    return body[0] == IPV6


def host_bits(key: RouteKey, body: bytes) -> bool:
    """Say whether the destination has bits behind its prefix, which IPv4 does not take."""
    found = dict(attributes(body, RTMSG.size)).get(RTA_DST)
    return found is not None and found != key.dst.network_address.packed


def is_dead(entry: Entry) -> bool:
    return set(entry.indexes) <= entry.dead


def hop_fits(asked: NextHop, have: NextHop) -> bool:
    return asked.device in (None, have.device) and asked.via in (None, have.via)
