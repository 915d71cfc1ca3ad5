"""Which routes this node should hold, and for each of them why."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Network

from felix_py.calc import encap
from felix_py.kernel.objects import Link, Route, RouteKey, RouteType, Scope
from felix_py.model import BlockAffinity, IPPool, Node, WorkloadEndpoint
from ipip import tunnel

GATEWAY = IPv4Address("169.254.1.1")
"""The next hop of every pod, answered by proxy ARP; Calico's choice, so that no pod's subnet matters."""


class Kind(StrEnum):
    """What a route of ours is for."""

    BLACKHOLE = "blackhole"
    WORKLOAD = "workload"
    REMOTE = "remote"
    HOST = "host"


class Rank(IntEnum):
    """Who wins where several candidates want one prefix; the lowest."""

    WORKLOAD = 0
    HOST = 1
    REMOTE_DIRECT = 2
    REMOTE_TUNNEL = 3
    BLACKHOLE = 4
    KEPT = 5


@dataclass(frozen=True, slots=True)
class Learned:
    """A best path of BGP, as far as a route needs it.

    Attributes:
        peer: who told us, in words.
        stale: the session is gone and graceful restart keeps the path.
    """

    prefix: IPv4Network
    next_hop: IPv4Address
    peer: str
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A route that somebody wants, with its reason.

    Attributes:
        obstacle: why it cannot be installed now, as `cali1 is down`; such a candidate steps aside.
    """

    key: RouteKey
    route: Route
    kind: Kind
    rank: Rank
    origin: str
    rule: str
    encapsulation: encap.Choice | None = None
    stale: bool = False
    obstacle: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What this node knows of itself, of its interfaces, and of the routes that others gave it.

    Attributes:
        uplink: the interface that holds this node's address; None where no interface does.
        underlay: routes of the main table that are not ours, by which a next hop beyond a router is reached.
    """

    me: Node
    links: Mapping[str, Link]
    uplink: str | None
    underlay: Mapping[RouteKey, Route] = field(default_factory=dict)

    def obstacle(self, device: str) -> str | None:
        """Say why no route can go out of `device` now; None when nothing is in the way."""
        link = self.links.get(device)
        if link is None:
            return f"{device} does not exist"
        return None if link.up else f"{device} is down"


def blackholes(view: View, affinities: Iterable[BlockAffinity]) -> Iterator[Candidate]:
    """Drop what is sent to unused addresses of our blocks; otherwise it would leave by the default route."""
    for affinity in affinities:
        if affinity.node == view.me.name:
            yield Candidate(
                RouteKey(affinity.cidr),
                Route(RouteType.BLACKHOLE),
                Kind.BLACKHOLE,
                Rank.BLACKHOLE,
                origin=f"block {affinity.node}",
                rule=f"BlockAffinity {affinity.name} gives this block to this node",
            )


def workloads(view: View, endpoints: Iterable[WorkloadEndpoint]) -> Iterator[Candidate]:
    """Send each pod's address out of its veth."""
    for endpoint in endpoints:
        if endpoint.node != view.me.name:
            continue
        for network in endpoint.networks:
            yield Candidate(
                RouteKey(network),
                Route(device=endpoint.interface, scope=Scope.LINK),
                Kind.WORKLOAD,
                Rank.WORKLOAD,
                origin=endpoint.name,
                rule=f"workload endpoint {endpoint.name} is on this node",
                obstacle=view.obstacle(endpoint.interface),
            )


def remotes(view: View, learned: Iterable[Learned], pools: tuple[IPPool, ...]) -> Iterator[Candidate]:
    """Send other nodes' blocks to the next hop that BGP gave, straight or through the tunnel."""
    if view.me.address is None:
        return
    for path in learned:
        pool = encap.pool_of(path.prefix, pools)
        if pool is None:
            continue
        choice = encap.choose(pool, path.next_hop, view.me.address)
        route, obstacle = _way(view, path.next_hop, choice.encapsulation)
        yield Candidate(
            RouteKey(path.prefix),
            route,
            Kind.REMOTE,
            Rank.REMOTE_DIRECT if choice.encapsulation is encap.Encapsulation.NONE else Rank.REMOTE_TUNNEL,
            origin=f"bgp {path.peer}",
            rule=f"best path of BGP, from {path.peer}",
            encapsulation=choice,
            stale=path.stale,
            obstacle=obstacle,
        )


def kept(installed: Mapping[RouteKey, Route], pools: tuple[IPPool, ...]) -> Iterator[Candidate]:
    """Keep routes to other nodes as they are until BGP has had time to say them again (RFC 4724 section 4.1).

    Args:
        installed: routes of ours as read back; those to other nodes are the ones inside a pool with a next hop.
        pools: the ranges that other nodes' blocks lie in.
    """
    for key, route in installed.items():
        inside = isinstance(key.dst, IPv4Network) and encap.pool_of(key.dst, pools) is not None
        if inside and route.type is RouteType.UNICAST and route.via is not None:
            tunnelled = route.device == tunnel.DEVICE
            yield Candidate(
                key,
                route,
                Kind.REMOTE,
                Rank.KEPT,
                origin="the agent before this one",
                rule="BGP has not converged since the start; until then routes stay as they were (graceful restart)",
                encapsulation=encap.Choice(
                    encap.Encapsulation.IPIP if tunnelled else encap.Encapsulation.NONE, "as it was before the restart"
                ),
                stale=True,
            )


def _way(view: View, next_hop: IPv4Address, encapsulation: encap.Encapsulation) -> tuple[Route, str | None]:
    """Return the route towards a next hop, and what is in its way: tunnel, own subnet, or through a router."""
    if encapsulation is encap.Encapsulation.IPIP:
        # A tunnel that is missing is put by the same plan, before the route.
        return Route(via=next_hop, device=tunnel.DEVICE, onlink=True), None
    if view.me.address is not None and next_hop in view.me.address.network:
        return Route(via=next_hop, device=view.uplink, onlink=True), _uplink_obstacle(view)
    router = underlay_route(next_hop, view.underlay)
    if router is None:
        return Route(via=next_hop, device=view.uplink), f"no route leads to next hop {next_hop}"
    return Route(via=router.via or next_hop, device=router.device), view.obstacle(router.device or "")


def underlay_route(address: IPv4Address, underlay: Mapping[RouteKey, Route]) -> Route | None:
    """Return the route that a packet to `address` takes: the longest match, of those the lowest metric."""
    matches = (
        (key.dst.prefixlen, -key.metric, route)
        for key, route in underlay.items()
        if route.type is RouteType.UNICAST and address in key.dst and route.device is not None
    )
    best = max(matches, key=lambda match: match[:2], default=None)
    return best[2] if best else None


def _uplink_obstacle(view: View) -> str | None:
    if view.uplink is None:
        return f"no interface has this node's address {view.me.address}"
    return view.obstacle(view.uplink)


def gateway(view: View, *, needed: bool) -> Iterator[Candidate]:
    """Make proxy ARP answer for 169.254.1.1 on hosts without a default route.

    The kernel answers for an address only if it has a route to it out of another interface.
    """
    if needed:
        yield Candidate(
            RouteKey(IPv4Network(GATEWAY)),
            Route(device="lo", scope=Scope.LINK),
            Kind.HOST,
            Rank.HOST,
            origin=f"node {view.me.name}",
            rule="this host has no default route, and proxy ARP answers only for addresses that have a route",
        )


def winners(candidates: Iterable[Candidate]) -> tuple[dict[RouteKey, Candidate], dict[RouteKey, tuple[Candidate, ...]]]:
    """Choose one candidate for each key; return the winners, and all candidates for those who ask why.

    Candidates that cannot be installed step aside for the next that can.
    """
    grouped: dict[RouteKey, list[Candidate]] = {}
    for candidate in candidates:
        grouped.setdefault(candidate.key, []).append(candidate)
    chosen = {key: min(group, key=_preference) for key, group in grouped.items()}
    return chosen, {key: tuple(sorted(group, key=_preference)) for key, group in grouped.items()}


def _preference(candidate: Candidate) -> tuple[bool, int, str]:
    return candidate.obstacle is not None, candidate.rank, candidate.origin
