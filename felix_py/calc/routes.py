"""Which routes this node should hold, and for each of them why: one function for each reason to want a route."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import TypeAlias

from felix_py.calc import encap
from felix_py.calc.candidates import Candidate, Kind, Rank
from felix_py.calc.hearsay import Learned
from felix_py.calc.longest_match import LongestMatch
from felix_py.calc.next_hops import View, Ways
from felix_py.kernel.objects import IPV6, NextHop, NextHopObject, Route, RouteKey, RouteType, Scope, plain_keys
from felix_py.model import BlockAffinity, IPNetwork, IPPool, Node, NodeName, WorkloadEndpoint
from ipip import tunnel
from vxlan.tunnel import DEVICES

GATEWAY = IPv4Address("169.254.1.1")
"""The next hop of every pod, answered by proxy ARP; Calico's choice, so that no pod's subnet matters."""

HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""Of the host side of every pod's veth, as Calico has it: pods can know it without asking."""

GATEWAY6 = IPv6Address("fe80::ecee:eeff:feee:eeee")
"""The IPv6 next hop of every pod: the link-local address that the kernel makes of that MAC (RFC 4291 appendix A)."""

BLACKHOLE = Route(RouteType.BLACKHOLE)


Wanted: TypeAlias = tuple[RouteKey, Candidate]
"""A route that somebody wants, and where."""


def blackholes(view: View, affinities: Iterable[BlockAffinity]) -> Iterator[Wanted]:
    """Drop what is sent to unused addresses of our blocks; otherwise it would leave by the default route."""
    for affinity in affinities:
        # A block of one address has no unused ones; one that is only claimed may become another node's.
        ours = affinity.node == view.me.name and affinity.confirmed
        if ours and affinity.cidr.prefixlen < affinity.cidr.max_prefixlen:
            yield (
                RouteKey(affinity.cidr),
                Candidate(
                    BLACKHOLE,
                    Kind.BLACKHOLE,
                    Rank.BLACKHOLE,
                    origin=f"block {affinity.node}",
                    rule=f"BlockAffinity {affinity.name} gives this block to this node",
                ),
            )


def workloads(
    view: View,
    endpoints: Iterable[WorkloadEndpoint],
    source: IPv4Address | None = None,
    source6: IPv6Address | None = None,
) -> Iterator[Wanted]:
    """Send each pod's address out of its veth, from `source` or `source6` where this host itself speaks to pods."""
    for endpoint in endpoints:
        if endpoint.node != view.me.name:
            continue
        link = view.links.get(endpoint.interface)
        for key in map(RouteKey, endpoint.networks):
            # IPv6 knows no scopes of routes: the kernel reports every one as universe (rtm_scope, rtnetlink(7)).
            six = key.dst.version == IPV6
            scope = Scope.UNIVERSE if six else Scope.LINK
            yield (
                key,
                Candidate(
                    Route(device=endpoint.interface, scope=scope, source=source6 if six else source),
                    Kind.WORKLOAD,
                    Rank.WORKLOAD,
                    origin=endpoint.name,
                    rule=f"workload endpoint {endpoint.name} is on this node",
                    obstacle=view.obstacle(endpoint.interface),
                    carrier=view.carrier(endpoint.interface),
                    interface=link.index if link else 0,
                ),
            )


class Remotes:
    """Sends other nodes' blocks to the next hops that BGP gave, straight or through the tunnel.

    All blocks of one pool of which BGP says the same have the very same candidate, worked out when it is first asked
    for.

    Attributes:
        view: what the node knows of its host.
        ways: to each next hop.
    """

    def __init__(self, view: View, pools: LongestMatch[IPPool], *, deferred: bool = False) -> None:
        """Look from one node.

        Args:
            view: what it knows of its host.
            pools: the ranges that other nodes' blocks lie in.
            deferred: not every peer has spoken, so what BGP says moves nothing that was kept (RFC 4724 section 4.1).
        """
        self.view = view
        self._deferred = deferred
        self._pools = pools
        self.ways = Ways(view)
        self._known: dict[tuple[Learned, str], Candidate] = {}

    def of(
        self, learned: Learned | None, prefixes: Sequence[IPNetwork]
    ) -> Iterator[tuple[Candidate | None, dict[RouteKey, None]]]:
        """Yield who wants these prefixes, if anybody does: none is wanted that lies outside every pool."""
        if learned is None or self.view.me.address is None:
            yield None, dict.fromkeys(plain_keys(prefixes))
            return
        for pool, inside in self._pools.of_all(prefixes):
            candidate = self._candidate(learned, pool) if pool is not None else None
            yield candidate, dict.fromkeys(plain_keys(inside))

    def blocks(self, affinities: Iterable[BlockAffinity], nodes: Iterable[Node]) -> Iterator[Wanted]:
        """Send other nodes' blocks to the nodes that the datastore gives them to, whatever BGP says."""
        by_name = {node.name: node for node in nodes}
        known: dict[tuple[NodeName, str], Candidate] = {}
        for affinity in affinities:
            pool = self._pools.of(affinity.cidr)
            if pool is None or affinity.node == self.view.me.name or self.view.own(affinity.cidr.version) is None:
                continue
            name = affinity.node, pool.name
            if name not in known:
                known[name] = self._of_block(affinity.node, by_name.get(affinity.node), pool)
            yield RouteKey(affinity.cidr), known[name]

    def _of_block(self, name: NodeName, node: Node | None, pool: IPPool) -> Candidate:
        """Return the way to the blocks of a node that lie in a pool."""
        origin, rule = f"block {name}", f"BlockAffinity gives this block to node {name}"
        version = pool.cidr.version
        addresses = {each.version: each for each in (node.address, node.address6) if each} if node else {}
        found = addresses.get(version)
        if found is None:
            obstacle = f"Node {name} is not known, or has no IPv{version} address"
            return Candidate(Route(), Kind.REMOTE, Rank.REMOTE_BLOCK, origin, rule, obstacle=obstacle)
        way, own = self.ways.to(pool, found.ip), self.view.own(version)
        straight = way.choice.encapsulation is encap.Encapsulation.NONE
        behind = straight and own is not None and found.ip not in own.network
        return Candidate(
            way.route,
            Kind.REMOTE,
            Rank.REMOTE_BLOCK,
            origin,
            rule,
            encapsulation=way.choice,
            obstacle=way.obstacle,
            carrier=way.carrier,
            next_hop=way.next_hop,
            notes=(f"node {name} is behind a router, which has to know this block by itself",) if behind else (),
        )

    def _candidate(self, learned: Learned, pool: IPPool) -> Candidate:
        known = self._known.get((learned, pool.name))
        if known is not None:
            return known
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        way = self.ways.to(pool, learned.next_hop, learned.equal)
        found = self._known[learned, pool.name] = Candidate(
            way.route,
            Kind.REMOTE,
            Rank.DEFERRED if self._deferred else way.rank,
            origin=f"bgp {learned.peer}",
            rule=f"best path of BGP, from {learned.peer}",
            encapsulation=way.choice,
            stale=learned.stale,
            obstacle=way.obstacle,
            carrier=way.carrier,
            next_hop=way.next_hop,
            notes=way.notes,
        )
        return found


MOST_REMEMBERED = 1 << 16
"""Candidates that are remembered; beyond that they are made anew, before a churn of next hops fills the memory."""


def kept(
    installed: Mapping[RouteKey, Route], objects: Mapping[int, NextHopObject], pools: LongestMatch[IPPool]
) -> Iterator[Wanted]:
    """Keep routes to other nodes as they are until BGP has had time to say them again (RFC 4724 section 4.1).

    Args:
        installed: routes of ours as read back; those to other nodes are the ones inside a pool with a next hop.
        objects: our next-hop objects as read back, that such routes may go through.
        pools: the ranges that other nodes' blocks lie in.
    """
    behind = {number: (_plain(each.hop), IPv4Address(number)) for number, each in objects.items() if each.hop}
    for key, found in installed.items():
        if pools.of(key.dst) is None:
            continue
        route, next_hop = (found, None) if found.through is None else behind.get(found.through, (found, None))
        if route.type is RouteType.UNICAST and _leads_on(route):
            yield (
                key,
                Candidate(
                    route,
                    Kind.REMOTE,
                    Rank.KEPT,
                    origin="the agent before this one",
                    rule=AS_BEFORE,
                    encapsulation=next(
                        (AS_BEFORE_BY[each] for each in route.devices if each in AS_BEFORE_BY), STRAIGHT
                    ),
                    stale=True,
                    next_hop=next_hop,
                ),
            )


AS_BEFORE = "BGP has not converged since the start; until then routes stay as they were (graceful restart)"

STRAIGHT = encap.Choice(encap.Encapsulation.NONE, "as it was before the restart")
AS_BEFORE_BY = {
    tunnel.DEVICE: replace(STRAIGHT, encapsulation=encap.Encapsulation.IPIP),
    **dict.fromkeys(DEVICES.values(), replace(STRAIGHT, encapsulation=encap.Encapsulation.VXLAN)),
}
"""What a route of before was wrapped in, by its device."""


def _plain(hop: NextHop) -> Route:
    """Return the plain route that says the same as one through the object of this next hop."""
    return Route(via=hop.via, device=hop.device, onlink=hop.onlink)


def _leads_on(route: Route) -> bool:
    """Say whether a route leads to another machine, and not to a pod of this one."""
    # Ours go through an object only there; one that cannot be read now must not cost its routes.
    return route.through is not None or route.via is not None or any(hop.via is not None for hop in route.hops)


def gateway(view: View, *, needed: bool) -> Iterator[Wanted]:
    """Make proxy ARP answer for 169.254.1.1 on hosts without a default route.

    The kernel answers for an address only if it has a route to it out of another interface.
    """
    if needed:
        yield (
            RouteKey(IPv4Network(GATEWAY)),
            Candidate(
                Route(device="lo", scope=Scope.LINK),
                Kind.HOST,
                Rank.HOST,
                origin=f"node {view.me.name}",
                rule="this host has no default route, and proxy ARP answers only for addresses that have a route",
            ),
        )
