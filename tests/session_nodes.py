"""Nodes, peers and the sessions that follow from them, for tests of peering."""

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from bgp.filters import Filter
from bgp.peering import PeerSettings
from felix_py import selectors
from felix_py.calc import sessions
from felix_py.model import BGPConfiguration, BGPPeer, BlockAffinity, IPPool, Key, Node, NodeName, Resource, Secret
from felix_py.state import ClusterState

TOR = IPv4Address("172.31.1.1")
KINDS = {
    Node: "Node",
    BGPPeer: "BGPPeer",
    BGPConfiguration: "BGPConfiguration",
    Filter: "BGPFilter",
    Secret: "Secret",
    IPPool: "IPPool",
    BlockAffinity: "BlockAffinity",
}


def node(name: str, last: int, **others: Any) -> Node:
    return Node(NodeName(name), IPv4Interface(f"172.31.1.{last}/24"), **others)


A, B, C = node("a", 11), node("b", 12), node("c", 13)
MESH_OFF = BGPConfiguration(node_to_node_mesh=False)


def cluster(*resources: Resource) -> ClusterState:
    return ClusterState({Key(KINDS[type(each)], each.name): each for each in resources}, in_sync=True)


def held(me: str, *resources: Resource) -> dict[str, PeerSettings]:
    """Return the sessions of a node by the peer's address."""
    found = sessions.settings(cluster(*resources), NodeName(me))
    assert found is not None
    return {str(peer.address): peer for peer in found.peers}


def kinds(me: str, *resources: Resource) -> dict[str, str]:
    return {address: peer.kind for address, peer in held(me, *resources).items()}


def by_selector(name: str, near: str | None, far: str, **others: Any) -> BGPPeer:
    return BGPPeer(
        name,
        None,
        node_selector=selectors.parse(near) if near else None,
        peer_selector=selectors.parse(far),
        **others,
    )
