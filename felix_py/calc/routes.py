"""Which routes this node should hold, and for each of them why: one function for each reason to want a route."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import NamedTuple

from bgp.decision import BestPath
from bgp.types import IPAddress, IPNetwork
from felix_py.calc import encap
from felix_py.calc.candidates import Candidate, Kind, Rank
from felix_py.calc.longest_match import LongestMatch
from felix_py.calc.next_hops import View, Ways, by_number
from felix_py.kernel.objects import IPV6, NextHop, NextHopObject, Route, RouteKey, RouteType, Scope
from felix_py.model import BlockAffinity, IPPool, WorkloadEndpoint
from ipip import tunnel

GATEWAY = IPv4Address("169.254.1.1")
"""The next hop of every pod, answered by proxy ARP; Calico's choice, so that no pod's subnet matters."""

HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""Of the host side of every pod's veth, as Calico has it: pods can know it without asking."""

GATEWAY6 = IPv6Address("fe80::ecee:eeff:feee:eeee")
"""The IPv6 next hop of every pod: the link-local address that the kernel makes of that MAC (RFC 4291 appendix A)."""

BLACKHOLE = Route(RouteType.BLACKHOLE)


class Learned(NamedTuple):
    """A best path of BGP, as far as a route needs it.

    Attributes:
        next_hop: of the best path.
        peer: who told us, in words.
        stale: the session is gone and graceful restart keeps the path.
        equal: the next hops of the other paths that are as good; the flows are spread over all.
    """

    prefix: IPNetwork
    next_hop: IPAddress
    peer: str
    stale: bool = False
    equal: tuple[IPAddress, ...] = ()


def learned_of(best_paths: Mapping[IPNetwork, BestPath], peer_name: Callable[[BestPath], str]) -> tuple[Learned, ...]:
    """Return what BGP knows, as far as routes need it; paths that lead nowhere are left out.

    Args:
        best_paths: the Loc-RIB.
        peer_name: names who told us a path; asked once for each peer.
    """
    names: dict[IPAddress, str] = {}
    found = []
    for prefix, best in best_paths.items():
        path = best.path
        next_hop = path.attributes.next_hop
        if next_hop is None:
            continue
        name = names.get(path.peer)
        if name is None:
            name = names[path.peer] = peer_name(best)
        found.append(Learned(prefix, next_hop, name, path.stale, _next_hops(best) if best.equal else ()))
    return tuple(found)


def _next_hops(best: BestPath) -> tuple[IPAddress, ...]:
    """Return the next hops of the paths that are as good as the best one, lowest first, so that order means nothing."""
    hops = (path.attributes.next_hop for path in best.equal)
    return tuple(sorted((hop for hop in hops if hop is not None), key=by_number))


def blackholes(view: View, affinities: Iterable[BlockAffinity]) -> Iterator[Candidate]:
    """Drop what is sent to unused addresses of our blocks; otherwise it would leave by the default route."""
    for affinity in affinities:
        # A block of one address has no unused ones.
        if affinity.node == view.me.name and affinity.cidr.prefixlen < affinity.cidr.max_prefixlen:
            yield Candidate(
                RouteKey(affinity.cidr),
                BLACKHOLE,
                Kind.BLACKHOLE,
                Rank.BLACKHOLE,
                origin=f"block {affinity.node}",
                rule=f"BlockAffinity {affinity.name} gives this block to this node",
            )


def workloads(
    view: View,
    endpoints: Iterable[WorkloadEndpoint],
    source: IPv4Address | None = None,
    source6: IPv6Address | None = None,
) -> Iterator[Candidate]:
    """Send each pod's address out of its veth, from `source` or `source6` where this host itself speaks to pods."""
    for endpoint in endpoints:
        if endpoint.node != view.me.name:
            continue
        link = view.links.get(endpoint.interface)
        for key in map(RouteKey, endpoint.networks):
            # IPv6 knows no scopes of routes: the kernel reports every one as universe (rtm_scope, rtnetlink(7)).
            six = key.dst.version == IPV6
            scope = Scope.UNIVERSE if six else Scope.LINK
            yield Candidate(
                key,
                Route(device=endpoint.interface, scope=scope, source=source6 if six else source),
                Kind.WORKLOAD,
                Rank.WORKLOAD,
                origin=endpoint.name,
                rule=f"workload endpoint {endpoint.name} is on this node",
                obstacle=view.obstacle(endpoint.interface),
                carrier=view.carrier(endpoint.interface),
                interface=link.index if link else 0,
            )


def remotes(view: View, learned: Iterable[Learned], pools: LongestMatch[IPPool]) -> Iterator[Candidate]:
    """Send other nodes' blocks to the next hops that BGP gave, straight or through the tunnel."""
    if view.me.address is None:
        return
    # The loop over everything that BGP knows: whatever prefixes share is made once and not for each.
    ways, sentences = Ways(view), dict[str, tuple[str, str]]()
    for path in learned:
        pool = pools.of(path.prefix)
        if pool is None:
            continue
        way = ways.to(pool, path.next_hop, path.equal)
        said = sentences.get(path.peer)
        if said is None:
            said = sentences[path.peer] = f"bgp {path.peer}", f"best path of BGP, from {path.peer}"
        yield Candidate(
            RouteKey(path.prefix),
            way.route,
            Kind.REMOTE,
            way.rank,
            said[0],
            said[1],
            way.choice,
            path.stale,
            way.obstacle,
            way.carrier,
            0,
            way.next_hop,
            way.notes,
        )


def kept(
    installed: Mapping[RouteKey, Route], objects: Mapping[int, NextHopObject], pools: LongestMatch[IPPool]
) -> Iterator[Candidate]:
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
            yield Candidate(
                key,
                route,
                Kind.REMOTE,
                Rank.KEPT,
                origin="the agent before this one",
                rule="BGP has not converged since the start; until then routes stay as they were (graceful restart)",
                encapsulation=AS_TUNNELLED if tunnel.DEVICE in route.devices else AS_STRAIGHT,
                stale=True,
                next_hop=next_hop,
            )


AS_TUNNELLED = encap.Choice(encap.Encapsulation.IPIP, "as it was before the restart")
AS_STRAIGHT = encap.Choice(encap.Encapsulation.NONE, "as it was before the restart")


def _plain(hop: NextHop) -> Route:
    """Return the plain route that says the same as one through the object of this next hop."""
    return Route(via=hop.via, device=hop.device, onlink=hop.onlink)


def _leads_on(route: Route) -> bool:
    """Say whether a route leads to another machine, and not to a pod of this one."""
    # Ours go through an object only there; one that cannot be read now must not cost its routes.
    return route.through is not None or route.via is not None or any(hop.via is not None for hop in route.hops)


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
