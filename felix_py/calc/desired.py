"""The whole wish of one node: cluster, BGP's best paths and interfaces in, `KernelState` and its reasons out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from felix_py.calc import candidates, encap, endpoints, netfilter, next_hops, routes
from felix_py.calc.candidates import Candidate, Lost
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.objects import IPV6, KernelState, Link, NextHopObject, Route, RouteKey, RoutePolicy
from felix_py.model import BlockAffinity, IPInterface, IpipMode, IPPool, Node, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState
from ipip import tunnel


@dataclass(frozen=True, slots=True)
class Desired:
    """What the kernel should hold, and why each route is wanted.

    Attributes:
        chosen: the winning candidate of every wanted prefix, installed or not.
        lost: where several candidates wanted one prefix, those that were not chosen, closest first, each with the rule
            and the reason that decided against it.
        waiting: prefixes whose best candidate cannot be installed, with the obstacle.
    """

    state: KernelState = field(default_factory=KernelState)
    chosen: Mapping[RouteKey, Candidate] = field(default_factory=dict)
    lost: Mapping[RouteKey, tuple[Lost, ...]] = field(default_factory=dict)
    waiting: Mapping[RouteKey, str] = field(default_factory=dict)
    uplink: str | None = None


def desired(
    cluster: ClusterState,
    learned: Iterable[routes.Learned],
    me: NodeName,
    links: Mapping[str, Link],
    *,
    tunnel_address: IPv4Address | None = None,
    default_route: bool = True,
    underlay: Mapping[RouteKey, Route] | None = None,
    kept: Mapping[RouteKey, Route] | None = None,
    kept_next_hops: Mapping[int, NextHopObject] | None = None,
    objects: bool = False,
    filtered: bool = False,
) -> Desired:
    """Return the wish; equal arguments give equal wishes, whatever happened before.

    Args:
        cluster: all resources.
        learned: BGP's best paths.
        me: this node.
        links: the interfaces of this host by name.
        tunnel_address: the tunnel's own address, from this node's block.
        default_route: whether this host has one, which is what makes proxy ARP answer for 169.254.1.1.
        underlay: routes of the main table that are not ours; they lead to next hops behind a router.
        kept: routes of ours as read back, while BGP has not converged since the start; nothing after that.
        kept_next_hops: next-hop objects of ours as read back, that kept routes go through.
        objects: whether routes to a next hop that many share go through a next-hop object.
        filtered: whether the node has a packet filter of ours.
    """
    node = cluster.node(me) or Node(me)
    uplink = _uplink(node.address, links)
    felix = cluster.felix(me)
    view = next_hops.View(node, links, uplink, underlay or {}, _uplink(node.address6, links))
    local = [endpoint for endpoint in cluster.of(WorkloadEndpoint) if endpoint.node == me]
    pools = tuple(pool for pool in cluster.of(IPPool) if not pool.disabled)
    ranges = encap.by_range(pools)
    chosen, lost = candidates.winners(
        chain(
            routes.blackholes(view, cluster.of(BlockAffinity)),
            routes.workloads(view, local, felix.device_route_source, felix.device_route_source6),
            routes.remotes(view, learned, ranges),
            routes.gateway(view, needed=not default_route and bool(local)),
            routes.kept(kept or {}, kept_next_hops or {}, ranges),
        )
    )
    waiting = {key: winner.obstacle for key, winner in chosen.items() if winner.obstacle is not None}
    wanted, through = next_hops.with_objects(chosen) if objects else (_plain(chosen), {})
    tunnels = _tunnels(cluster, view, chosen, pools, tunnel_address)
    state = KernelState(
        routes=wanted,
        next_hops=through,
        tunnels=tunnels,
        sysctls=dict(endpoints.sysctls(local, links, objects=objects, ipv6=_routes_ipv6(pools, local))),
        policy=RoutePolicy(felix.remove_external_routes is not False, felix.route_sync_disabled is not True),
        netfilter=_filter(cluster, me, local, tunnels) if filtered else None,
    )
    return Desired(state, chosen, lost, waiting, uplink)


def _plain(chosen: Mapping[RouteKey, Candidate]) -> dict[RouteKey, Route]:
    return {key: winner.route for key, winner in chosen.items() if winner.obstacle is None}


def _routes_ipv6(pools: tuple[IPPool, ...], local: Iterable[WorkloadEndpoint]) -> bool:
    """Say whether this host is to be an IPv6 router; one that has nothing to do with IPv6 must not become one."""
    networks = chain((pool.cidr for pool in pools), *(endpoint.networks for endpoint in local))
    return any(network.version == IPV6 for network in networks)


def _uplink(address: IPInterface | None, links: Mapping[str, Link]) -> str | None:
    """Return the interface that holds this address of the node."""
    if address is None:
        return None
    start = f"{address.ip}/"
    holders = [link for link in links.values() if any(address.startswith(start) for address in link.addresses)]
    # Two interfaces may hold one address; the order in which they were listed must not decide.
    return min(holders, key=lambda link: link.index).name if holders else None


def _tunnels(
    cluster: ClusterState,
    view: next_hops.View,
    chosen: Mapping[RouteKey, Candidate],
    pools: tuple[IPPool, ...],
    address: IPv4Address | None,
) -> dict[str, tunnel.Tunnel]:
    """Want a tunnel as soon as a pool may need one, so that it is there before the first route."""
    if view.me.address is None or view.uplink is None or all(pool.ipip_mode is IpipMode.NEVER for pool in pools):
        return {}
    others = {node.address.ip for node in cluster.of(Node) if node.address and node.name != view.me.name}
    external = cluster.felix(view.me.name).external_nodes or ()
    others.update(address for network in external if isinstance(network, IPv4Network) for address in network)
    wanted = tunnel.Tunnel(
        local=view.me.address.ip,
        mtu=tunnel.mtu(view.links[view.uplink].mtu),
        address=address,
        routes=frozenset(_encapsulated(chosen)),
        allowed=frozenset(others),
    )
    return {wanted.name: wanted}


def _filter(
    cluster: ClusterState, me: NodeName, local: Iterable[WorkloadEndpoint], tunnels: Iterable[str]
) -> FilterTable:
    protocols = dict.fromkeys(tunnels, netfilter.IPIP)
    external = cluster.felix(me).external_nodes or ()
    return netfilter.table(me, cluster.of(Node), external, cluster.of(IPPool), local, protocols)


def _encapsulated(chosen: Mapping[RouteKey, Candidate]) -> Iterable[tuple[IPv4Network, IPv4Address]]:
    for key, winner in chosen.items():
        tunnelled = winner.encapsulation and winner.encapsulation.encapsulation is encap.Encapsulation.IPIP
        if tunnelled and isinstance(key.dst, IPv4Network) and isinstance(winner.route.via, IPv4Address):
            yield key.dst, winner.route.via
