"""Which BGP sessions this node holds and what it says there, from the cluster's resources."""

from ipaddress import IPv4Address, IPv6Address

from bgp.rib import in_order
from bgp.speaker import SpeakerSettings
from felix_py.calc import encap, peering
from felix_py.model import (
    BGPFilter,
    BlockAffinity,
    IPAddress,
    IPNetwork,
    IPPool,
    Node,
    NodeName,
    Use,
    WorkloadEndpoint,
    lies_in,
)
from felix_py.state import ClusterState
from vxlan.tunnel import DEVICES


def own_blocks(cluster: ClusterState, me: NodeName) -> tuple[IPNetwork, ...]:
    """Return this node's blocks, IPv4 and the lowest first."""
    own = (each.cidr for each in cluster.of(BlockAffinity) if each.node == me and each.confirmed)
    return tuple(sorted(own, key=in_order))


def borrowed(cluster: ClusterState, me: NodeName) -> tuple[IPNetwork, ...]:
    """Return the addresses of pods here that lie in no block of this node: each is announced by itself."""
    own, pools = own_blocks(cluster, me), [pool.cidr for pool in cluster.of(IPPool)]
    return tuple(
        network
        for endpoint in cluster.of(WorkloadEndpoint)
        if endpoint.node == me
        for network in endpoint.networks
        if not any(lies_in(network, block) for block in own) and any(lies_in(network, pool) for pool in pools)
    )


def tunnel_blocks(cluster: ClusterState, me: NodeName) -> tuple[IPNetwork, ...]:
    """Return the blocks that the tunnels of this node have their addresses from: one of IPv4, and perhaps one of IPv6.

    A tunnel of IPv6 is there only where a pool may need one; that of IPv4 keeps its address while pools change.
    """
    closed = [pool.cidr for pool in cluster.of(IPPool) if Use.TUNNEL not in pool.uses]
    own = [block for block in own_blocks(cluster, me) if not any(lies_in(block, pool) for pool in closed)]
    six = any(encap.device(pool) == DEVICES[6] for pool in cluster.of(IPPool) if not pool.disabled)
    firsts = (next((block for block in own if block.version == version), None) for version in ((4, 6) if six else (4,)))
    return tuple(block for block in firsts if block is not None)


def settings(cluster: ClusterState, me: NodeName) -> SpeakerSettings | None:
    """Return what the speaker should do; None while this node has no address."""
    node, defaults = cluster.node(me), cluster.bgp()
    if node is None or node.address is None:
        return None
    return SpeakerSettings(
        local_address=node.address.ip,
        router_id=node.address.ip,
        asn=node.as_number or defaults.as_number,
        listen_port=defaults.listen_port,
        peers=peering.wanted(cluster, node),
        announcements=frozenset((*own_blocks(cluster, me), *borrowed(cluster, me))),
        accept_within=tuple(pool.cidr for pool in cluster.of(IPPool) if not pool.disabled),
        local_address6=node.address6.ip if node.address6 else None,
        listen_on=_everywhere(node) if defaults.listen_everywhere else (),
        cluster_id=node.cluster_id,
        communities=defaults.communities,
        lends=not cluster.ipam().strict_affinity,
        filters={each.name: each for each in cluster.of(BGPFilter)},
    )


def _everywhere(node: Node) -> tuple[IPAddress, ...]:
    """Return what stands for every address; for IPv6 only where the node uses it, since a host may lack it."""
    return IPv4Address(0), *((IPv6Address(0),) if node.address6 else ())
