"""What each session of a node is like: its settings, its password, its version of IP."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface
from typing import Any

import pytest
from session_nodes import MESH_OFF, TOR, A, B, C, by_selector, cluster, held, kinds

from bgp.filters import Filter
from felix_py.calc import sessions
from felix_py.model import (
    BGPConfiguration,
    BGPPeer,
    BlockAffinity,
    IPPool,
    NodeName,
    Secret,
)

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
