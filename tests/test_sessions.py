"""Which sessions a node holds: every way to ask for one, and why it is there; laws of both together."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_nodes import MESH_OFF, TOR, A, B, C, by_selector, held, kinds, node

from bgp.peering import PeerSettings
from felix_py import selectors
from felix_py.model import (
    BGPConfiguration,
    BGPPeer,
    Node,
    NodeName,
    Resource,
    Secret,
)

# --- who asks


def test_a_mesh_has_every_other_node() -> None:
    assert held("a", A, B, C) == {
        "172.31.1.12": PeerSettings(
            B.addresses[0], 64512, "b", "mesh", passive=True, why="node-to-node mesh, with node b"
        ),
        "172.31.1.13": PeerSettings(
            C.addresses[0], 64512, "c", "mesh", passive=True, why="node-to-node mesh, with node c"
        ),
    }


def test_without_a_mesh_there_is_nobody() -> None:
    assert held("a", A, B, MESH_OFF) == {}


def test_the_mesh_has_settings_of_its_own() -> None:
    settings = BGPConfiguration(
        listen_port=1790, mesh_hold_time=9, mesh_restart_time=300, mesh_password="mesh/pw"  # noqa: S106 - a name
    )  # fmt: skip
    [found] = held("b", A, B, settings, Secret("mesh/pw", "s3cret")).values()
    assert (found.port, found.hold_time, found.restart_time, found.password) == (1790, 9, 300, "s3cret")


def test_route_reflectors_take_no_part_in_the_mesh() -> None:
    reflector = replace(B, cluster_id=IPv4Address("244.0.0.1"))
    assert kinds("a", A, reflector, C) == {"172.31.1.13": "mesh"}
    assert kinds("b", A, reflector, C) == {}


def test_a_node_has_the_as_of_its_own_or_the_clusters() -> None:
    found = held("a", A, node("b", 12, as_number=64999), C, BGPConfiguration(as_number=64600))
    assert [peer.asn for peer in found.values()] == [64999, 64600]


@pytest.mark.parametrize(
    ("peer", "holders"),
    [
        pytest.param(BGPPeer("p", TOR, 64500), {"a": "global", "b": "global"}, id="global"),
        pytest.param(BGPPeer("p", TOR, 64500, NodeName("a")), {"a": "node"}, id="by name"),
        pytest.param(
            BGPPeer("p", TOR, 64500, node_selector=selectors.parse("rack == 'y'")), {"b": "node"}, id="by labels"
        ),
        pytest.param(BGPPeer("p", TOR, 64500, node_selector=selectors.parse("has(z)")), {}, id="labels of nobody"),
    ],
)
def test_who_holds_the_session(peer: BGPPeer, holders: dict[str, str]) -> None:
    nodes = replace(A, labels={"rack": "x"}), replace(B, labels={"rack": "y"})
    found = {me: kinds(me, *nodes, peer, MESH_OFF) for me in ("a", "b")}
    assert {me: sessions["172.31.1.1"] for me, sessions in found.items() if sessions} == holders


def test_a_selector_of_peers_makes_a_session_with_each_node_that_it_selects() -> None:
    far = replace(B, labels={"rr": ""}, as_number=64999), replace(C, labels={"rr": ""})
    asked = by_selector("p", "!has(rr)", "has(rr)")
    found = held("a", A, *far, asked, MESH_OFF)
    assert [(peer.name, peer.asn, peer.kind, peer.passive) for peer in found.values()] == [
        ("b", 64999, "node", True),
        ("c", 64512, "node", True),
    ]
    assert found["172.31.1.12"].why == "BGPPeer p of nodes with !has(rr), whose labels match has(rr)"


def test_who_is_named_as_a_peer_holds_the_session_too() -> None:
    asked = BGPPeer("p", B.addresses[0], 64512, NodeName("a"), hold_time=9, filters=("f",))
    [mirror] = held("b", A, B, asked, MESH_OFF).values()
    assert mirror == PeerSettings(
        A.addresses[0],
        64512,
        "a",
        "reverse",
        hold_time=9,
        filters=("f",),
        why="BGPPeer p of node a names this node, so node a dials or is dialled",
    )


def test_a_selector_of_peers_is_mirrored_too() -> None:
    near = replace(A, labels={"rack": "x"}), replace(C, labels={"rack": "x"})
    asked = by_selector("p", "rack == 'x'", "!has(rack)")
    assert kinds("b", *near, B, asked, MESH_OFF) == {"172.31.1.11": "reverse", "172.31.1.13": "reverse"}


def test_a_global_peer_that_is_a_node_holds_sessions_with_all() -> None:
    assert kinds("b", A, B, C, BGPPeer("p", B.addresses[0], 64512), MESH_OFF) == {
        "172.31.1.11": "reverse",
        "172.31.1.13": "reverse",
    }


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(BGPPeer("p", B.addresses[0], 64512, NodeName("a"), reverse=False), id="manual"),
        pytest.param(BGPPeer("p", B.addresses[0], 64999, NodeName("a")), id="another AS"),
        pytest.param(BGPPeer("p", B.addresses[0], 64512, NodeName("a"), port=1790), id="another port"),
        pytest.param(BGPPeer("p", B.addresses[0], 64512, NodeName("gone")), id="a node that is not there"),
    ],
)
def test_who_is_not_meant_holds_no_mirror(asked: BGPPeer) -> None:
    assert held("b", A, B, asked, MESH_OFF) == {}


def test_what_is_asked_for_goes_before_the_mirror_and_the_mesh() -> None:
    of_a = BGPPeer("p", B.addresses[0], 64512, NodeName("a"), hold_time=9)
    of_b = BGPPeer("q", A.addresses[0], 64512, NodeName("b"), hold_time=30)
    [found] = held("b", A, B, of_a, of_b).values()
    assert (found.kind, found.hold_time) == ("node", 30)
    [found] = held("b", A, B, of_a).values()
    assert (found.kind, found.hold_time) == ("reverse", 9)


def test_a_peer_of_all_nodes_goes_before_one_of_this_node() -> None:
    [found] = held(
        "a", A, BGPPeer("a-first", TOR, 64501, NodeName("a")), BGPPeer("z-last", TOR, 64500), MESH_OFF
    ).values()
    assert (found.asn, found.why) == (
        64500,
        "BGPPeer z-last of all nodes; gives way to it: BGPPeer a-first of node a",
    )


def test_nobody_holds_a_session_with_itself() -> None:
    assert held("a", A, BGPPeer("p", A.addresses[0], 64512), by_selector("q", None, "all()"), MESH_OFF) == {}


def test_a_node_with_our_own_address_is_no_other_node() -> None:
    assert held("a", A, replace(B, address=A.address)) == {}


# --- route reflection


REFLECTOR = replace(B, cluster_id=IPv4Address("244.0.0.1"), labels={"rr": ""})
TO_REFLECTORS = by_selector("rr", "!has(rr)", "has(rr)")


def test_a_reflector_has_clients_and_they_do_not_reflect() -> None:
    [ours] = held("b", A, REFLECTOR, TO_REFLECTORS).values()
    assert (ours.kind, ours.client) == ("rr-client", True)
    assert ours.why.endswith("; our client in cluster 244.0.0.1")
    [theirs] = held("a", A, REFLECTOR, TO_REFLECTORS).values()
    assert (theirs.kind, theirs.client) == ("node", False)


@pytest.mark.parametrize(
    ("other", "client"),
    [
        pytest.param(replace(C, labels={"rr": ""}, cluster_id=IPv4Address("244.0.0.1")), False, id="own cluster"),
        pytest.param(replace(C, labels={"rr": ""}, cluster_id=IPv4Address("244.0.0.2")), True, id="another cluster"),
        pytest.param(replace(C, labels={"rr": ""}, as_number=64999), False, id="eBGP"),
    ],
)
def test_whom_a_reflector_takes_as_its_client(other: Node, client: bool) -> None:  # noqa: FBT001 - a column
    between = by_selector("p", "has(rr)", "has(rr)")
    [found] = held("b", REFLECTOR, other, between).values()
    assert found.client is client


def test_a_router_that_is_no_node_is_a_client_of_the_reflector() -> None:
    [found] = held("b", REFLECTOR, BGPPeer("tor", TOR, 64512)).values()
    assert (found.kind, found.client) == ("rr-client", True)


def test_our_own_as_towards_the_peer_decides_what_is_ibgp() -> None:
    [found] = held("b", REFLECTOR, BGPPeer("tor", TOR, 64512, local_as_number=64999)).values()
    assert found.client is False


# --- laws

LABELS = st.dictionaries(st.sampled_from(["x", "y"]), st.just(""), max_size=2)
NODES = st.builds(
    lambda labels, six, asns, reflectors: [
        Node(
            NodeName(name),
            IPv4Interface(f"172.31.1.{11 + number}/24"),
            asns[number],
            IPv6Interface(f"fd00::{11 + number}/64") if six[number] else None,
            IPv4Address("244.0.0.1") if reflectors[number] else None,
            labels[number],
        )
        for number, name in enumerate("abcd")
    ],
    st.lists(LABELS, min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.sampled_from([None, 64999]), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
SELECTORS = st.sampled_from(["all()", "has(x)", "!has(y)", "has(x) && has(y)"]).map(selectors.parse)
PEERS = st.lists(
    st.builds(
        BGPPeer,
        name=st.sampled_from(["p", "q", "r"]),
        peer_ip=st.none(),
        node_selector=st.none() | SELECTORS,
        peer_selector=SELECTORS,
        local_as_number=st.sampled_from([None, 65001]),
    ),
    max_size=2,
    unique_by=lambda peer: peer.name,
)


@given(NODES, PEERS, st.booleans())
def test_of_two_nodes_both_hold_the_session_and_one_dials(nodes: list[Node], peers: list[BGPPeer], mesh: bool) -> None:  # noqa: FBT001 - Hypothesis gives it
    resources = (*nodes, *peers, BGPConfiguration(node_to_node_mesh=mesh))
    all_held = {each.name: held(each.name, *resources) for each in nodes}
    by_address = {str(address): each for each in nodes for address in each.addresses}
    for name, found in all_held.items():
        for address, ours in found.items():
            own = next(
                each for each in by_address if by_address[each].name == name and (":" in each) == (":" in address)
            )
            theirs = all_held[by_address[address].name][own]
            assert ours.passive is not theirs.passive
            assert ours.asn == (theirs.local_asn or by_address[address].as_number or 64512)
            assert ours.obstacle is theirs.obstacle is None


@given(NODES, PEERS, st.randoms(use_true_random=False))
def test_the_order_of_resources_leaves_no_trace(nodes: list[Node], peers: list[BGPPeer], random: Any) -> None:
    shuffled: list[Resource] = [*nodes, *peers]
    random.shuffle(shuffled)
    assert held("a", *nodes, *peers) == held("a", *shuffled)
