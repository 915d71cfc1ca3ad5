"""Which BGP sessions this node holds and what it says there, from the cluster's resources."""

from ipaddress import IPv4Network

from bgp import peering
from bgp.speaker import SpeakerSettings
from felix_py.model import BGPPeer, BlockAffinity, IPAddress, IPPool, Node, NodeName
from felix_py.state import ClusterState


def own_blocks(cluster: ClusterState, me: NodeName) -> tuple[IPv4Network, ...]:
    """Return this node's blocks, lowest first."""
    return tuple(sorted(affinity.cidr for affinity in cluster.of(BlockAffinity) if affinity.node == me))


def settings(cluster: ClusterState, me: NodeName) -> SpeakerSettings | None:
    """Return what the speaker should do; None while this node has no address."""
    node, defaults = cluster.node(me), cluster.bgp()
    if node is None or node.address is None:
        return None
    own = _mesh_node(node, defaults.as_number)
    mesh = [_mesh_node(other, defaults.as_number) for other in cluster.of(Node) if other.address and other.name != me]
    names: dict[IPAddress, NodeName] = {other.address.ip: other.name for other in cluster.of(Node) if other.address}
    explicit = [
        peering.PeerSettings(
            address=peer.peer_ip,
            asn=peer.as_number,
            name=names.get(peer.peer_ip, NodeName(peer.name)),
            kind="global" if peer.node is None else "node",
            hold_time=peer.hold_time,
            port=peer.port,
            # A peer that is a node may name us too: then one side only dials.
            passive=peer.peer_ip in names and peering.waits(node.address.ip, peer.peer_ip),
        )
        for peer in cluster.of(BGPPeer)
        if peer.node in (None, me) and peer.peer_ip != node.address.ip
    ]
    return SpeakerSettings(
        local_address=node.address.ip,
        router_id=node.address.ip,
        asn=own.asn,
        listen_port=defaults.listen_port,
        peers=peering.sessions(own, mesh if defaults.node_to_node_mesh else (), explicit, port=defaults.listen_port),
        announcements=frozenset(own_blocks(cluster, me)),
        accept_within=tuple(pool.cidr for pool in cluster.of(IPPool) if not pool.disabled),
    )


def _mesh_node(node: Node, default_as: int) -> peering.MeshNode:
    assert node.address is not None  # noqa: S101 - callers filter; mypy cannot see it
    return peering.MeshNode(node.name, node.address.ip, node.as_number or default_as)
