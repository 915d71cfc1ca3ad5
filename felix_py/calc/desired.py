"""The whole wish of one node: cluster, BGP's best paths and interfaces in, `KernelState` and its reasons out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from felix_py.calc import encap, endpoints, routes
from felix_py.kernel.objects import KernelState, Link, Route, RouteKey
from felix_py.model import BlockAffinity, IpipMode, IPPool, Node, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState
from ipip import tunnel


@dataclass(frozen=True, slots=True)
class Desired:
    """What the kernel should hold, and why each route is wanted.

    Attributes:
        chosen: the winning candidate of every wanted prefix, installed or not.
        candidates: all of them, best first.
        waiting: prefixes whose best candidate cannot be installed, with the obstacle.
    """

    state: KernelState = field(default_factory=KernelState)
    chosen: Mapping[RouteKey, routes.Candidate] = field(default_factory=dict)
    candidates: Mapping[RouteKey, tuple[routes.Candidate, ...]] = field(default_factory=dict)
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
    """
    node = cluster.node(me) or Node(me)
    uplink = _uplink(node, links)
    view = routes.View(node, links, uplink, underlay or {})
    local = [endpoint for endpoint in cluster.of(WorkloadEndpoint) if endpoint.node == me]
    pools = tuple(pool for pool in cluster.of(IPPool) if not pool.disabled)
    chosen, candidates = routes.winners(
        (
            *routes.blackholes(view, cluster.of(BlockAffinity)),
            *routes.workloads(view, local),
            *routes.remotes(view, learned, pools),
            *routes.gateway(view, needed=not default_route and bool(local)),
            *routes.kept(kept or {}, pools),
        )
    )
    wanted = {key: winner.route for key, winner in chosen.items() if winner.obstacle is None}
    state = KernelState(
        routes=wanted,
        tunnels=_tunnels(cluster, view, chosen, pools, tunnel_address),
        sysctls=dict(endpoints.sysctls((endpoint.interface for endpoint in local), links)),
    )
    waiting = {key: winner.obstacle for key, winner in chosen.items() if winner.obstacle is not None}
    return Desired(state, chosen, candidates, waiting, uplink)


def _uplink(node: Node, links: Mapping[str, Link]) -> str | None:
    """Return the interface that holds this node's address."""
    if node.address is None:
        return None
    holders = (
        link.name for link in links.values() if any(a.split("/")[0] == str(node.address.ip) for a in link.addresses)
    )
    return next(holders, None)


def _tunnels(
    cluster: ClusterState,
    view: routes.View,
    chosen: Mapping[RouteKey, routes.Candidate],
    pools: tuple[IPPool, ...],
    address: IPv4Address | None,
) -> dict[str, tunnel.Tunnel]:
    """Want a tunnel as soon as a pool may need one, so that it is there before the first route."""
    if view.me.address is None or view.uplink is None or all(pool.ipip_mode is IpipMode.NEVER for pool in pools):
        return {}
    others = frozenset(node.address.ip for node in cluster.of(Node) if node.address and node.name != view.me.name)
    wanted = tunnel.Tunnel(
        local=view.me.address.ip,
        mtu=tunnel.mtu(view.links[view.uplink].mtu),
        address=address,
        routes=frozenset(_encapsulated(chosen)),
        allowed=others,
    )
    return {wanted.name: wanted}


def _encapsulated(chosen: Mapping[RouteKey, routes.Candidate]) -> Iterable[tuple[IPv4Network, IPv4Address]]:
    for key, winner in chosen.items():
        tunnelled = winner.encapsulation and winner.encapsulation.encapsulation is encap.Encapsulation.IPIP
        if tunnelled and isinstance(key.dst, IPv4Network) and isinstance(winner.route.via, IPv4Address):
            yield key.dst, winner.route.via
