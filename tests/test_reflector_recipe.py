"""What the nodes make of deploy/route-reflector/nodes.yaml: who holds a session with whom, and who is a client."""

from ipaddress import IPv4Address
from pathlib import Path

import yaml

from felix_py import resources
from felix_py.calc import sessions
from felix_py.model import NodeName
from felix_py.state import ClusterState, InSync, Present

RECIPE = Path(__file__).parents[1] / "deploy" / "route-reflector" / "nodes.yaml"
PLAIN = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: %s}
spec: {bgp: {ipv4Address: %s/24}}
"""
RR1, RR2, A1, A2 = map(IPv4Address, ("172.31.8.11", "172.31.8.12", "172.31.1.11", "172.31.1.12"))


def cluster() -> ClusterState:
    texts = [RECIPE.read_text(), PLAIN % ("a1", A1), PLAIN % ("a2", A2)]
    documents = [each for text in texts for each in yaml.safe_load_all(text)]
    return ClusterState().after_all([*(Present(*resources.parse(each, "nodes.yaml")) for each in documents), InSync()])


def peers(node: str) -> dict[IPv4Address, bool]:
    """Return with whom a node holds sessions, and whether they are its clients."""
    wanted = sessions.settings(cluster(), NodeName(node))
    assert wanted is not None
    return {IPv4Address(peer.address): peer.client for peer in wanted.peers}


def test_a_node_holds_sessions_with_both_reflectors_only() -> None:
    assert peers("a1") == {RR1: False, RR2: False}
    assert peers("a2") == {RR1: False, RR2: False}


def test_a_reflector_has_every_node_and_the_other_reflector_as_clients() -> None:
    assert peers("rr1") == {A1: True, A2: True, RR2: True}
    assert peers("rr2") == {A1: True, A2: True, RR1: True}
