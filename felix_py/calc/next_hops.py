"""How packets get to a BGP next hop: the way to one, the ways to several equal ones, and next-hop objects for both.

A prefix learned by BGP names only the node, or nodes, that its packets should reach. Here that becomes interface and
gateway, once for each next hop and not for each prefix, so that all prefixes of a node share one `Route`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address
from typing import NamedTuple

from felix_py.calc import encap
from felix_py.calc.candidates import Candidate, Rank
from felix_py.calc.longest_match import LongestMatch
from felix_py.kernel.objects import Link, NextHop, NextHopObject, Route, RouteKey, RouteType
from felix_py.model import IPAddress, IPInterface, IPPool, Node
from ipip import tunnel
from vxlan.tunnel import DEVICES, gateway

OBJECT_AT = 16
"""Routes to one BGP next hop from which on they go through an object: below that, one message more to keep in step (and
one thing more that may vanish) costs more than the few routes that it would save to write."""


@dataclass(frozen=True, slots=True)
class View:
    """What this node knows of itself, of its interfaces, and of the routes that others gave it.

    Attributes:
        uplink, uplink6: the interfaces that hold this node's addresses; None where no interface does.
        underlay: routes of the main table that are not ours, by which a next hop beyond a router is reached.
        vxlan_macs: the hardware addresses of other nodes' VXLAN devices, by the node's address.
    """

    me: Node
    links: Mapping[str, Link]
    uplink: str | None
    underlay: Mapping[RouteKey, Route] = field(default_factory=dict)
    uplink6: str | None = None
    vxlan_macs: Mapping[IPAddress, str] = field(default_factory=dict)

    def own(self, version: int) -> IPInterface | None:
        """Return this node's address of a version of IP."""
        return self.me.address if version == 4 else self.me.address6  # noqa: PLR2004 - IP versions

    def uplink_of(self, version: int) -> str | None:
        """Return the interface that holds it."""
        return self.uplink if version == 4 else self.uplink6  # noqa: PLR2004 - IP versions

    def obstacle(self, device: str) -> str | None:
        """Say why no route can go out of `device` now; None when nothing is in the way."""
        link = self.links.get(device)
        if link is None:
            return f"{device} does not exist"
        return None if link.up else f"{device} is down"

    def carrier(self, device: str | None) -> bool | None:
        """Say whether `device` has carrier; None where it does not exist or is down, which `obstacle` says."""
        link = self.links.get(device or "")
        return link.running if link is not None and link.up else None


class Way(NamedTuple):
    """How packets get to one BGP next hop, or to several equal ones; the same for all prefixes that name them.

    Attributes:
        route: the plain route.
        obstacle: why it cannot be installed now.
        carrier: as in `Candidate`.
        next_hop: the BGP next hop, where it is one.
        notes: sentences on equal next hops, those that are used and those that are not.
    """

    route: Route
    rank: Rank
    choice: encap.Choice
    obstacle: str | None
    carrier: bool | None
    next_hop: IPAddress | None
    notes: tuple[str, ...] = ()


class Ways:
    """The ways from one node, each worked out when it is first asked for."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, dict[IPAddress | tuple[IPAddress, ...], Way]] = {}
        self._straights: dict[IPAddress, tuple[Route, str | None]] = {}

    @cached_property
    def _underlay(self) -> LongestMatch[Route]:
        usable = [
            (key.metric, key.dst, route)
            for key, route in self._view.underlay.items()
            if not key.tos and route.type is RouteType.UNICAST and route.devices
        ]
        # Of the routes to one network the kernel takes the one of the lowest metric.
        return LongestMatch((dst, route) for _, dst, route in sorted(usable, key=lambda each: each[0]))

    def to(self, pool: IPPool, next_hop: IPAddress, equal: tuple[IPAddress, ...] = ()) -> Way:
        """Return the way of a pool's packets to `next_hop`, which BGP likes best, and the `equal` ones beside it."""
        known = self._known.setdefault(pool.name, {})
        name = (next_hop, *equal) if equal else next_hop
        found = known.get(name)
        if found is None:
            found = known[name] = self._several(pool, next_hop, equal) if equal else self._one(pool, next_hop)
        return found

    def straight(self, next_hop: IPAddress) -> tuple[Route, str | None]:
        """Return the route of the underlay to a next hop, and what is in its way; packets in a tunnel take it, too."""
        found = self._straights.get(next_hop)
        if found is None:
            found = self._on_the_link(next_hop) if next_hop.is_link_local else self._straight(next_hop)
            self._straights[next_hop] = found
        return found

    def interfaces(self, address: IPAddress) -> tuple[str, ...]:
        """Return the interfaces by which the underlay leads to an address, whatever state they are in."""
        own, uplink = self._view.own(address.version), self._view.uplink_of(address.version)
        if own is not None and address in own.network:
            return (uplink,) if uplink else ()
        router = self._underlay.of(address)
        return router.devices if router is not None else ()

    def _on_the_link(self, next_hop: IPAddress) -> tuple[Route, str | None]:
        # Link-local addresses are on every link: those that peers name are on the one that leads to peers.
        view = self._view
        uplink = view.uplink_of(next_hop.version) or view.uplink
        return Route(via=next_hop, device=uplink), view.obstacle(uplink) if uplink else self._no_uplink(4)

    def _one(self, pool: IPPool, next_hop: IPAddress) -> Way:
        """Return the way to a next hop: tunnel, own subnet, or through a router."""
        view = self._view
        choice = encap.choose(pool, next_hop, view.own(next_hop.version))
        if choice.encapsulation is not encap.Encapsulation.NONE:
            # A tunnel that is missing or down is put by the same plan, before the route; but none without an uplink.
            # And its packets have to get to the other end all the same.
            inner, unknown = TUNNELS[choice.encapsulation](view, next_hop)
            obstacle = unknown or self._no_uplink(next_hop.version) or self.straight(next_hop)[1]
            return Way(inner, Rank.REMOTE_TUNNEL, choice, obstacle, view.carrier(inner.device), next_hop)
        route, obstacle = self.straight(next_hop)
        carrier = view.carrier(next(iter(route.devices), None))
        return Way(route, Rank.REMOTE_DIRECT, choice, obstacle, carrier, next_hop)

    def _straight(self, next_hop: IPAddress) -> tuple[Route, str | None]:
        """Return the route to a next hop without a tunnel, and what is in its way."""
        view, version = self._view, next_hop.version
        own, uplink = view.own(version), view.uplink_of(version)
        if own is not None and next_hop in own.network:
            obstacle = self._no_uplink(version) or view.obstacle(uplink or "")
            return Route(via=next_hop, device=uplink, onlink=True), obstacle
        router = self._underlay.of(next_hop)
        if router is None:
            return Route(via=next_hop, device=uplink), f"no route leads to next hop {next_hop}"
        # A host with several routers spreads over them what it sends to the next hop, and so does our route.
        ways = {NextHop(hop.via or next_hop, hop.device, hop.onlink) for hop in _hops(router) if hop.device}
        free = {hop for hop in ways if view.obstacle(hop.device or "") is None} or ways
        route = _spread({hop for hop in free if view.carrier(hop.device) is not False} or free)
        return route, view.obstacle(route.devices[0])

    def _no_uplink(self, version: int) -> str | None:
        if self._view.uplink_of(version):
            return None
        return f"no interface has this node's address {self._view.own(version)}"

    def _several(self, pool: IPPool, next_hop: IPAddress, equal: tuple[IPAddress, ...]) -> Way:
        """Return the way that spreads flows over all next hops that are as good as each other from here."""
        legs = {each: self._one(pool, each) for each in (next_hop, *sorted(equal, key=by_number))}
        used = {each: leg for each, leg in legs.items() if leg.obstacle is None}
        left_out = [f"equal next hop {each}: {leg.obstacle}" for each, leg in legs.items() if leg.obstacle is not None]
        if not used:
            return legs[next_hop]._replace(notes=tuple(left_out))
        for drop in (_without_carrier, _of_lower_rank, _besides_the_tunnel):
            dropped = dict(drop(used))
            used = {each: leg for each, leg in used.items() if each not in dropped}
            left_out += [f"equal next hop {each}: {why}" for each, why in dropped.items()]
        first = next(iter(used))
        if len(used) == 1:
            return used[first]._replace(notes=tuple(left_out))
        route = _spread(hop for leg in used.values() for hop in _hops(leg.route))
        listed = ", ".join(map(str, sorted(used, key=by_number)))
        together = f"BGP finds {len(used)} next hops equal, and flows are spread: {listed}"
        return used[first]._replace(route=route, next_hop=None, notes=(together, *left_out))


def _by_ipip(_view: View, next_hop: IPAddress) -> tuple[Route, str | None]:
    # The gateway is the outer destination.
    return Route(via=next_hop, device=tunnel.DEVICE, onlink=True), None


def _by_vxlan(view: View, next_hop: IPAddress) -> tuple[Route, str | None]:
    device, mac = DEVICES[next_hop.version], view.vxlan_macs.get(next_hop)
    if mac is None:
        return Route(
            via=next_hop, device=device
        ), f"next hop {next_hop} is no Node, or has the VXLAN address of another"
    via = gateway(next_hop, mac)
    return Route(via=via, device=device, onlink=not via.is_link_local), None


TUNNELS: Mapping[encap.Encapsulation, Callable[[View, IPAddress], tuple[Route, str | None]]] = {
    encap.Encapsulation.IPIP: _by_ipip,
    encap.Encapsulation.VXLAN: _by_vxlan,
}
"""By encapsulation: the route into the tunnel towards a next hop, and what is in its way."""


def _without_carrier(legs: Mapping[IPAddress, Way]) -> Iterator[tuple[IPAddress, str]]:
    # The kernel would go on to send this leg its share of the flows.
    if any(leg.carrier is not False for leg in legs.values()):
        for each, leg in legs.items():
            if leg.carrier is False:
                yield each, f"not used while {next(iter(leg.route.devices), 'its interface')} has no carrier"


def _of_lower_rank(legs: Mapping[IPAddress, Way]) -> Iterator[tuple[IPAddress, str]]:
    best = min(leg.rank for leg in legs.values())
    for each, leg in legs.items():
        if leg.rank > best:
            yield each, "not used, as another is reached without a tunnel"


def _besides_the_tunnel(legs: Mapping[IPAddress, Way]) -> Iterator[tuple[IPAddress, str]]:
    # The userspace tunnel looks for the node of a prefix in a map with one node for each: `Tunnel.routes`.
    first, *others = legs
    if legs[first].rank is Rank.REMOTE_TUNNEL:
        for each in others:
            yield each, f"not used, as the tunnel takes one next hop for each prefix, and that is {first}"


def _hops(route: Route) -> tuple[NextHop, ...]:
    return route.hops or (NextHop(route.via, route.device, route.onlink),)


def _spread(hops: Iterable[NextHop]) -> Route:
    """Return the route over these, in an order that depends on nothing else; a plain one where they are one."""
    several = sorted(set(hops), key=_order)
    if len(several) == 1:
        return Route(via=several[0].via, device=several[0].device, onlink=several[0].onlink)
    return Route(hops=tuple(several))


def _order(hop: NextHop) -> tuple[int, int, str, bool]:
    version, number = by_number(hop.via) if hop.via is not None else (0, 0)
    return version, number, hop.device or "", hop.onlink


def by_number(address: IPAddress) -> tuple[int, int]:
    """Return what addresses of both versions of IP are sorted by: IPv4 first, then as numbers."""
    return address.version, int(address)


def with_objects(
    chosen: Mapping[RouteKey, Candidate], at: int = OBJECT_AT
) -> tuple[dict[RouteKey, Route], dict[int, NextHopObject]]:
    """Return the routes of these winners, the many that share a way through an object, and the objects by ID.

    The ID is the BGP next hop's IPv4 address as a number, so that an agent that restarts finds its own. When the way to
    a next hop changes (another uplink, another router), the routes are equal to what they were and one object differs:
    one message in the place of thousands.

    What to know of objects in the kernel:

    * When an interface goes down or loses its carrier, the kernel removes its objects and all routes through them, and
      tells of neither route nor object; they do not come back by themselves. Plain routes survive a loss of carrier.
    * No object can be made on an interface without carrier, so routes are plain as long as there is none.
    * Deleting an object deletes its routes, and a route can be added only after its object.
    * IDs are shared by all programs of the namespace. Addresses are above 2^24, and routing daemons count from 1.

    Routes with several next hops stay plain, and so do those with an IPv6 next hop, which is no number of 32 bits.
    Where pools send to one next hop in two ways, the way of the more routes goes through the object.

    Args:
        chosen: winners by key; those with an obstacle are left out.
        at: the number of routes from which on an object is worth it.
    """
    # Winners that share a way share the very objects that describe it, so they are counted without comparing values.
    groups: dict[tuple[int, int], list[Candidate]] = {}
    for winner in chosen.values():
        here = winner.obstacle is None and winner.carrier is not False
        if here and isinstance(winner.next_hop, IPv4Address):
            groups.setdefault(_identity(winner), []).append(winner)
    ways = _busiest(groups.values(), at)
    through = {next_hop: Route(through=int(next_hop)) for next_hop in ways}
    instead = {
        identity: through[first.next_hop]
        for identity, (first, *_) in groups.items()
        if isinstance(first.next_hop, IPv4Address) and ways.get(first.next_hop) == first.route
    }
    routes = {
        key: instead.get(_identity(winner), winner.route) for key, winner in chosen.items() if winner.obstacle is None
    }
    objects = {
        int(next_hop): NextHopObject(NextHop(route.via, route.device, route.onlink)) for next_hop, route in ways.items()
    }
    return routes, objects


def _busiest(groups: Iterable[Sequence[Candidate]], at: int) -> dict[IPv4Address, Route]:
    """Return for each next hop the route that most candidates have, where those are `at` or more."""
    used: Counter[tuple[IPv4Address, Route]] = Counter()
    for group in groups:
        next_hop, route = group[0].next_hop, group[0].route
        if isinstance(next_hop, IPv4Address) and route == _plain(route):
            used[next_hop, route] += len(group)
    busiest: dict[IPv4Address, Route] = {}
    for (next_hop, route), count in sorted(used.items(), key=lambda item: (-item[1], str(item[0][1]))):
        if count >= at:
            busiest.setdefault(next_hop, route)
    return busiest


def _identity(candidate: Candidate) -> tuple[int, int]:
    return id(candidate.next_hop), id(candidate.route)


def _plain(route: Route) -> Route:
    """Return what a next-hop object can say of the route."""
    return Route(via=route.via, device=route.device, onlink=route.onlink)
