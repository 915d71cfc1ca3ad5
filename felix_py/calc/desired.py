"""The whole wish of one node: cluster, BGP's best paths and interfaces in, `KernelState` and its reasons out."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from itertools import chain

from felix_py.calc import candidates, encap, endpoints, mtu, netfilter, next_hops, routes, vxlans
from felix_py.calc.amending import Standing, Tables
from felix_py.calc.candidates import Candidate, Lost
from felix_py.calc.hearsay import Learned, News, by_value
from felix_py.calc.transition import NOTHING, Former
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.objects import (
    IPV6,
    Amended,
    KernelState,
    Link,
    NextHopObject,
    Route,
    RouteKey,
    RoutePolicy,
    Tunnel,
)
from felix_py.model import BlockAffinity, IPInterface, IPNetwork, IPPool, Node, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState
from ipip import tunnel
from vxlan.tunnel import Vxlan


@dataclass(frozen=True, slots=True)
class Basis:
    """Everything that a wish follows from but BGP's paths, worked out once for all that BGP says while it holds.

    Attributes:
        standing: who wants routes besides BGP, by prefix.
        tunnel: the one of IP in IP that this node needs, without the prefixes behind it; None where it needs none.
        vxlans: its devices of VXLAN.
        objects: routes to a next hop that many share go through a next-hop object.
    """

    remotes: routes.Remotes
    standing: Standing
    tunnel: tunnel.Tunnel | None
    vxlans: tuple[Vxlan, ...]
    objects: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """What the kernel should hold, and why each route is wanted.

    Attributes:
        chosen: the winning candidate of every wanted prefix, installed or not.
        lost: where several candidates wanted one prefix, those that were not chosen, closest first, each with the rule
            and the reason that decided against it.
        waiting: prefixes whose best candidate cannot be installed, with the obstacle.
        stale: how many of the routes BGP keeps only for a while.
        pod_mtu: bytes that a pod's packet may have, and why.
        basis, tables: what `amended` goes on from.
    """

    state: KernelState = field(default_factory=KernelState)
    chosen: Mapping[RouteKey, Candidate] = field(default_factory=dict)
    lost: Mapping[RouteKey, tuple[Lost, ...]] = field(default_factory=dict)
    waiting: Mapping[RouteKey, str] = field(default_factory=dict)
    uplink: str | None = None
    stale: int = 0
    pod_mtu: mtu.Mtu = mtu.UNKNOWN
    basis: Basis | None = field(default=None, compare=False, repr=False)
    tables: Tables = field(default_factory=Tables, compare=False, repr=False)


def desired(
    cluster: ClusterState,
    learned: Mapping[IPNetwork, Learned],
    me: NodeName,
    links: Mapping[str, Link],
    *,
    tunnel_address: IPv4Address | None = None,
    tunnel_address6: IPv6Address | None = None,
    former: Former = NOTHING,
    by_datastore: bool = False,
    default_route: bool = True,
    underlay: Mapping[RouteKey, Route] | None = None,
    kept: Mapping[RouteKey, Route] | None = None,
    kept_next_hops: Mapping[int, NextHopObject] | None = None,
    deferred: bool = False,
    objects: bool = False,
    filtered: bool = False,
    guarded: bool = False,
) -> Desired:
    """Return the wish; equal arguments give equal wishes, whatever happened before.

    Args:
        cluster: all resources.
        learned: BGP's best paths.
        me: this node.
        links: the interfaces of this host by name.
        tunnel_address: the tunnels' own address of IPv4, from this node's block.
        tunnel_address6: the same of IPv6.
        former: what is still as it was before pools changed.
        by_datastore: routes to other nodes come from the datastore, as they do where `programClusterRoutes` says so.
        default_route: whether this host has one, which is what makes proxy ARP answer for 169.254.1.1.
        underlay: routes of the main table that are not ours; they lead to next hops behind a router.
        kept: routes of ours as read back, while BGP has not converged since the start; nothing after that.
        kept_next_hops: next-hop objects of ours as read back, that kept routes go through.
        deferred: kept routes go before what BGP says, since peers that may say better have not spoken yet.
        objects: whether routes to a next hop that many share go through a next-hop object.
        filtered: whether the node has a packet filter of ours.
        guarded: whether our programs guard pods' interfaces in its place.
    """
    nodes, felix = cluster.of(Node), cluster.felix(me)
    bare_view = view_of(cluster.node(me) or Node(me), links, underlay or {})
    view = replace(bare_view, vxlan_macs=vxlans.macs(nodes, me))
    local = [endpoint for endpoint in cluster.of(WorkloadEndpoint) if endpoint.node == me]
    pools = tuple(pool for pool in cluster.of(IPPool) if not pool.disabled)
    ranges = encap.by_range(former.pools.get(pool.name, pool) for pool in pools)
    remotes, affinities = routes.Remotes(view, ranges, deferred=deferred), cluster.of(BlockAffinity)
    standing = candidates.by_key(
        chain(
            routes.blackholes(view, affinities),
            remotes.blocks(affinities, nodes) if by_datastore or felix.program_cluster_routes else (),
            routes.workloads(view, local, felix.device_route_source, felix.device_route_source6),
            routes.gateway(view, needed=not default_route and bool(local)),
            routes.kept(kept or {}, kept_next_hops or {}, ranges),
        )
    )
    host = mtu.of_host(view, remotes.ways, nodes, felix.mtu_pattern)
    of_pods = mtu.of_pods(pools, host, felix)
    devices = {device for device in map(encap.device, pools) if device is not None} | former.devices
    bare = None
    if tunnel.DEVICE in devices:
        bare = _tunnel(cluster, view, tunnel_address, mtu.of_tunnel(IPIP, host, felix).value)
    inner = {version: mtu.of_tunnel(encap.Encapsulation.VXLAN, host, felix, version).value for version in (4, 6)}
    wrapped = tuple(vxlans.wanted(view, felix, devices, {4: tunnel_address, 6: tunnel_address6}, inner))
    protocols = _protocols(cluster, me, devices | former.guarded)
    basis = Basis(remotes, standing, bare, wrapped, objects)
    state = KernelState(
        sysctls=dict(endpoints.sysctls(local, links, objects=objects, ipv6=_routes_ipv6(pools, local))),
        policy=RoutePolicy(felix.remove_external_routes is not False, felix.route_sync_disabled is not True),
        netfilter=_filter(cluster, me, local, protocols, of_pods=not guarded) if filtered else None,
        guard=netfilter.guard(local, links, protocols) if filtered and guarded else None,
        pod_links=dict(endpoints.pod_links(local, links, of_pods.value)),
    )
    tables = Tables()
    tables.put_all(standing)
    for each, prefixes in by_value(learned):
        for candidate, keys in basis.remotes.of(each, prefixes):
            tables.take(keys, candidate, standing)
    return concluded(Desired(state, uplink=view.uplink, pod_mtu=of_pods, basis=basis), tables)


def amended(before: Desired, news: Iterable[News]) -> Desired:
    """Return the wish after news of BGP, where nothing else that it depends on has changed.

    It is what `desired` would return for all that BGP knows now, at the price of what the news are about.
    """
    basis, tables = before.basis, before.tables.copy()
    assert basis is not None  # noqa: S101 - only a wish that knows nothing yet has none, and it is no basis for news
    touched: dict[RouteKey, Route | None] = {}
    for learned, prefixes in news:
        for candidate, keys in basis.remotes.of(learned, prefixes):
            routes = tables.take(keys, candidate, basis.standing)
            if touched:
                touched.update(routes)
            else:
                touched = routes
    return concluded(before, tables, touched)


def concluded(
    before: Desired,
    tables: Tables,
    touched: Mapping[RouteKey, Route | None] | None = None,
    moved: frozenset[str] = frozenset(),
) -> Desired:
    """Return the wish that these tables are, which differ from those before only where they were touched.

    Args:
        before: all that does not follow from tables.
        tables: what is wanted now.
        touched: the routes that may be others than in the wish before, None where all may.
        moved: interfaces by which only such routes leave, or left.
    """
    basis, state = before.basis, before.state
    assert basis is not None  # noqa: S101 - as above
    if basis.objects:
        wanted, through = next_hops.with_objects(tables.chosen)
        state = replace(state, routes=wanted, next_hops=through, amended=None)
    else:
        news = Amended(state.routes, touched, moved) if touched is not None else None
        state = replace(state, routes=tables.routes, amended=news)
    tunnels: dict[str, Tunnel] = {each.name: each for each in basis.vxlans}
    if basis.tunnel is not None:
        tunnels[basis.tunnel.name] = _filled(basis.tunnel, before, tables, touched)
    state = replace(state, tunnels=tunnels)
    return replace(
        before,
        state=state,
        chosen=tables.chosen,
        lost=tables.lost,
        waiting=tables.waiting,
        stale=tables.stale,
        tables=tables,
    )


def _routes_ipv6(pools: tuple[IPPool, ...], local: Iterable[WorkloadEndpoint]) -> bool:
    """Say whether this host is to be an IPv6 router; one that has nothing to do with IPv6 must not become one."""
    networks = chain((pool.cidr for pool in pools), *(endpoint.networks for endpoint in local))
    return any(network.version == IPV6 for network in networks)


def view_of(node: Node, links: Mapping[str, Link], underlay: Mapping[RouteKey, Route]) -> next_hops.View:
    """Return what a node knows of its host: its interfaces, those with its addresses, and the routes of others."""
    return next_hops.View(node, links, _uplink(node.address, links), underlay, _uplink(node.address6, links))


def _uplink(address: IPInterface | None, links: Mapping[str, Link]) -> str | None:
    """Return the interface that holds this address of the node."""
    if address is None:
        return None
    start = f"{address.ip}/"
    holders = [link for link in links.values() if any(address.startswith(start) for address in link.addresses)]
    # Two interfaces may hold one address; the order in which they were listed must not decide.
    return min(holders, key=lambda link: link.index).name if holders else None


def _tunnel(
    cluster: ClusterState, view: next_hops.View, address: IPv4Address | None, inner: int
) -> tunnel.Tunnel | None:
    """Want a tunnel as soon as a pool may need one, so that it is there before the first route."""
    if view.me.address is None or view.uplink is None:
        return None
    others = {node.address.ip for node in cluster.of(Node) if node.address and node.name != view.me.name}
    external = cluster.felix(view.me.name).external_nodes or ()
    others.update(address for network in external if isinstance(network, IPv4Network) for address in network)
    return tunnel.Tunnel(
        local=view.me.address.ip,
        mtu=inner,
        address=address,
        allowed=frozenset(others),
    )


def _protocols(cluster: ClusterState, me: NodeName, devices: Collection[str]) -> Mapping[str, netfilter.TunnelProtocol]:
    vxlan = netfilter.TunnelProtocol(netfilter.UDP, cluster.felix(me).vxlan_port)
    return {name: netfilter.IPIP if name == tunnel.DEVICE else vxlan for name in devices}


def _filter(
    cluster: ClusterState,
    me: NodeName,
    local: Iterable[WorkloadEndpoint],
    protocols: Mapping[str, netfilter.TunnelProtocol],
    *,
    of_pods: bool,
) -> FilterTable:
    external = cluster.felix(me).external_nodes or ()
    pools, nodes = cluster.of(IPPool), cluster.of(Node)
    return netfilter.table(me, nodes, external, pools, local, protocols, of_pods=of_pods)


def _filled(
    bare: tunnel.Tunnel, before: Desired, tables: Tables, touched: Collection[RouteKey] | None
) -> tunnel.Tunnel:
    """Return the tunnel with the prefixes behind it."""
    known = before.state.tunnels.get(bare.name)
    if not isinstance(known, tunnel.Tunnel) or touched is None:
        return replace(bare, routes=frozenset(_encapsulated(tables.chosen, tables.chosen)))
    gone, new = (set(_encapsulated(chosen, touched)) for chosen in (before.chosen, tables.chosen))
    return known if gone == new else replace(known, routes=(known.routes - gone) | new)


def _encapsulated(
    chosen: Mapping[RouteKey, Candidate], among: Iterable[RouteKey]
) -> Iterator[tuple[IPv4Network, IPv4Address]]:
    for key in among:
        winner = chosen.get(key)
        if winner is None or winner.encapsulation is None or winner.encapsulation.encapsulation is not IPIP:
            continue
        if isinstance(key.dst, IPv4Network) and isinstance(winner.route.via, IPv4Address):
            yield key.dst, winner.route.via


IPIP = encap.Encapsulation.IPIP
