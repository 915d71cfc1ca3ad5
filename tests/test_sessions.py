"""Which sessions a node holds: every way to ask for one, what each is like, and why it is there."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.filters import Filter
from bgp.peering import PeerSettings
from felix_py import selectors
from felix_py.calc import sessions
from felix_py.model import (
    BGPConfiguration,
    BGPPeer,
    BlockAffinity,
    IPPool,
    Key,
    Node,
    NodeName,
    Resource,
    Secret,
)
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


# --- what a session is like


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"hold_time": 90, "keepalive": None, "port": 179, "passive": False}),
        ({"hold_time": 3}, {"hold_time": 3}),
        ({"keepalive": 5}, {"hold_time": 15, "keepalive": 5}),
        ({"keepalive": 5, "hold_time": 60}, {"hold_time": 60, "keepalive": 5}),
        ({"port": 1790}, {"port": 1790}),
        ({"local_as_number": 64999}, {"local_asn": 64999}),
        ({"own_as_allowed": 2}, {"own_as_allowed": 2}),
        ({"any_source": True}, {"any_source": True}),
        ({"next_hop_mode": "Keep"}, {"next_hop_mode": "Keep"}),
        ({"ttl_hops": 2}, {"ttl_hops": 2}),
        ({"restart_time": 300}, {"restart_time": 300}),
        ({"filters": ("f", "g")}, {"filters": ("f", "g")}),
    ],
)
def test_settings_reach_the_session(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = held("a", A, BGPPeer("tor", TOR, 64500, **changes), BGPConfiguration(listen_port=1799))["172.31.1.1"]
    assert {name: getattr(found, name) for name in expected} == expected


def test_the_mirror_expects_what_the_other_side_calls_itself() -> None:
    asked = BGPPeer("p", B.addresses[0], 64512, NodeName("a"), local_as_number=64999)
    [mirror] = held("b", A, B, asked, MESH_OFF).values()
    assert (mirror.asn, mirror.local_asn) == (64999, None)


@pytest.mark.parametrize(
    ("of_b", "expected"),
    [
        pytest.param(by_selector("p", "name == 'b'", "all()", local_as_number=64997), 64997, id="the same for both"),
        pytest.param(by_selector("q", "name == 'b'", "all()", local_as_number=64998), 64998, id="its own by labels"),
        pytest.param(BGPPeer("q", A.addresses[0], 64997, NodeName("b"), local_as_number=64998), 64998, id="by address"),
        pytest.param(BGPPeer("q", A.addresses[0], 64997, NodeName("b")), 64512, id="none"),
    ],
)
def test_what_the_other_node_calls_itself_is_expected_whoever_asks(of_b: BGPPeer, expected: int) -> None:
    near, far = replace(A, labels={"name": "a"}), replace(B, labels={"name": "b"})
    of_a = by_selector("o", "name == 'a'", "name == 'b'", local_as_number=64997)
    resources = (near, far, of_a, of_b, MESH_OFF)
    ours, theirs = held("a", *resources)["172.31.1.12"], held("b", *resources)["172.31.1.11"]
    assert ours.asn == expected == (theirs.local_asn or 64512)
    assert theirs.asn == 64997 == ours.local_asn


def test_of_two_peerings_the_local_as_of_the_one_that_holds_is_expected() -> None:
    of_all = by_selector("z", None, "all()", local_as_number=64999)
    of_b = BGPPeer("a", A.addresses[0], 64512, NodeName("b"), local_as_number=64998)
    [found] = held("a", A, B, of_all, of_b, MESH_OFF).values()
    assert (found.asn, found.local_asn) == (64999, 64999)


def test_a_mesh_expects_it_too_where_the_other_half_is_left_to_the_user() -> None:
    asked = BGPPeer("p", A.addresses[0], 64512, NodeName("b"), local_as_number=64999, reverse=False)
    [found] = held("a", A, B, asked).values()
    assert (found.kind, found.asn) == ("mesh", 64999)


def test_nodes_are_dialled_where_they_listen() -> None:
    port = BGPConfiguration(node_to_node_mesh=False, listen_port=1790)
    [found] = held("a", A, B, BGPPeer("p", B.addresses[0], 64512, NodeName("a")), port).values()
    assert (found.port, found.passive) == (1790, True)


def test_another_port_of_a_node_is_not_the_node() -> None:
    [found] = held("a", A, B, BGPPeer("p", B.addresses[0], 64512, NodeName("a"), port=2179), MESH_OFF).values()
    assert (found.name, found.port, found.passive) == ("p", 2179, False)


# --- passwords

WITH_PASSWORD = BGPPeer("tor", TOR, 64500, password="tor/pw")  # noqa: S106 - a name


def test_a_password_comes_from_its_secret_and_is_not_shown() -> None:
    found = held("a", A, WITH_PASSWORD, Secret("tor/pw", "s3cret"))["172.31.1.1"]
    assert found.password == "s3cret"  # noqa: S105 - a test
    assert "s3cret" not in repr(found)
    assert "s3cret" not in repr(cluster(A, WITH_PASSWORD, Secret("tor/pw", "s3cret")))


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ([], "BGPPeer tor has a password, tor/pw, that has not been read yet"),
        (
            [Secret("tor/pw", problem="/etc/felix/secrets/tor/pw does not exist; write it")],
            "BGPPeer tor has a password that cannot be used: /etc/felix/secrets/tor/pw does not exist; write it",
        ),
    ],
)
def test_without_its_password_a_session_is_not_held(secret: list[Secret], sentence: str) -> None:
    found = held("a", A, WITH_PASSWORD, *secret)["172.31.1.1"]
    assert (found.password, found.obstacle) == (None, sentence)


# --- two versions of IP

A6, B6 = (replace(each, address6=IPv6Interface(f"fd00::{each.name}/64")) for each in (A, B))


def test_nodes_with_both_addresses_hold_a_session_for_each() -> None:
    assert kinds("a", A6, B6, C) == {"172.31.1.12": "mesh", "172.31.1.13": "mesh", "fd00::b": "mesh"}
    assert kinds("c", A6, B6, C) == {"172.31.1.11": "mesh", "172.31.1.12": "mesh"}


def test_selected_peers_hold_a_session_for_each_address_that_both_have() -> None:
    asked = by_selector("p", "all()", "all()")
    assert kinds("a", A6, B6, C, asked, MESH_OFF) == {
        "172.31.1.12": "node",
        "172.31.1.13": "node",
        "fd00::b": "node",
    }


def test_a_peer_by_ipv6_is_mirrored_over_ipv6_only() -> None:
    asked = BGPPeer("p", IPv6Address("fd00::b"), 64512, NodeName("a"))
    assert kinds("b", A6, B6, asked, MESH_OFF) == {"fd00::a": "reverse"}


def test_without_an_ipv6_address_an_ipv6_peer_is_not_held() -> None:
    [found] = held("a", A, BGPPeer("six", IPv6Address("fd00::1"), 64500)).values()
    assert found.obstacle == (
        "BGPPeer six is IPv6, and this node has no such address; give Node a spec.bgp.ipv6Address"
    )


# --- the whole


def test_what_the_speaker_is_told_besides() -> None:
    community = {IPv4Network("10.65.0.0/16"): ((64512, 1),)}
    found = sessions.settings(
        cluster(
            replace(A6, cluster_id=IPv4Address("244.0.0.1")),
            BGPConfiguration(communities=community),
            Filter("f"),
            IPPool("default", IPv4Network("10.65.0.0/16")),
            BlockAffinity("x", NodeName("a"), IPv4Network("10.65.3.0/26")),
        ),
        NodeName("a"),
    )
    assert found is not None
    assert (found.local_address, found.local_address6) == (A.addresses[0], IPv6Address("fd00::a"))
    assert found.cluster_id == IPv4Address("244.0.0.1")
    assert found.communities == community
    assert found.filters == {"f": Filter("f")}
    assert found.announcements == {IPv4Network("10.65.3.0/26")}
    assert [str(each) for each in found.listen_on] == ["0.0.0.0", "::"]  # noqa: S104 - Calico's default


def test_bind_mode_node_ip_listens_at_our_own_addresses_only() -> None:
    found = sessions.settings(cluster(A, BGPConfiguration(listen_everywhere=False)), NodeName("a"))
    assert found is not None
    assert found.listen_on == ()


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
