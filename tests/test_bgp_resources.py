"""Node, BGPConfiguration and BGPPeer: documents in, values or every fault out."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

import pytest

from bgp.peering import PrefixLimit
from bgp.types import Family
from felix_py import resources, selectors
from felix_py.contradictions import find
from felix_py.model import BGPConfiguration, BGPPeer, Invalid, Node, NodeName, Resource

TOR = IPv4Address("172.31.1.1")


def document(kind: str, name: str = "x", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


def peer(name: str = "tor", **spec: Any) -> dict[str, Any]:
    return document("BGPPeer", name, **({"peerIP": "172.31.1.1", "asNumber": 64500} | spec))


def parsed(given: dict[str, Any]) -> Resource:
    return resources.parse(given, "f.yaml")[1]


def complaints(given: dict[str, Any]) -> list[str]:
    with pytest.raises(Invalid) as caught:
        resources.parse(given, "f.yaml")
    return [f"{fault.path}: {fault.message}" for fault in caught.value.faults]


def test_a_node_with_everything() -> None:
    given = document(
        "Node",
        "a1",
        bgp={
            "ipv4Address": "172.31.1.11/24",
            "ipv6Address": "fd00:1::11/64",
            "asNumber": 64513,
            "routeReflectorClusterID": "244.0.0.1",
        },
    )
    given["metadata"]["labels"] = {"rack": "a", "spare": ""}
    assert parsed(given) == Node(
        NodeName("a1"),
        IPv4Interface("172.31.1.11/24"),
        64513,
        IPv6Interface("fd00:1::11/64"),
        IPv4Address("244.0.0.1"),
        {"rack": "a", "spare": ""},
    )


def test_labels_are_texts() -> None:
    given = document("Node", "a1")
    given["metadata"]["labels"] = {"rack": 7, "zone": "z"}
    assert complaints(given) == ["metadata.labels.rack: is 7; give a text, in quotes"]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        pytest.param({}, BGPPeer("tor", TOR, 64500), id="the least"),
        pytest.param({"asNumber": "1.10"}, BGPPeer("tor", TOR, 65546), id="dotted AS"),
        pytest.param({"peerIP": "172.31.1.1:1790"}, BGPPeer("tor", TOR, 64500, port=1790), id="port"),
        pytest.param(
            {"peerIP": "[fd00::1]:1790"}, BGPPeer("tor", IPv6Address("fd00::1"), 64500, port=1790), id="IPv6 and port"
        ),
        pytest.param({"peerIP": "[fd00::1]"}, BGPPeer("tor", IPv6Address("fd00::1"), 64500), id="IPv6 in brackets"),
        pytest.param({"peerIP": "fd00::1"}, BGPPeer("tor", IPv6Address("fd00::1"), 64500), id="IPv6"),
        pytest.param({"node": "a1"}, BGPPeer("tor", TOR, 64500, NodeName("a1")), id="node"),
        pytest.param(
            {"nodeSelector": "has(rack)"},
            BGPPeer("tor", TOR, 64500, node_selector=selectors.parse("has(rack)")),
            id="node selector",
        ),
        pytest.param({"localASNumber": 64999}, BGPPeer("tor", TOR, 64500, local_as_number=64999), id="local AS"),
        pytest.param({"numAllowedLocalASNumbers": 2}, BGPPeer("tor", TOR, 64500, own_as_allowed=2), id="own AS"),
        pytest.param({"sourceAddress": "UseNodeIP"}, BGPPeer("tor", TOR, 64500), id="source is the node's"),
        pytest.param({"sourceAddress": "None"}, BGPPeer("tor", TOR, 64500, any_source=True), id="any source"),
        pytest.param({"nextHopMode": "Self"}, BGPPeer("tor", TOR, 64500, next_hop_mode="Self"), id="next hop self"),
        pytest.param(
            {"keepOriginalNextHop": True}, BGPPeer("tor", TOR, 64500, next_hop_mode="Keep"), id="keep, as it was called"
        ),
        pytest.param(
            {"keepOriginalNextHop": False, "nextHopMode": "Self"},
            BGPPeer("tor", TOR, 64500, next_hop_mode="Self"),
            id="the old name says nothing",
        ),
        pytest.param({"ttlSecurity": 1}, BGPPeer("tor", TOR, 64500, ttl_hops=1), id="TTL"),
        pytest.param({"keepaliveTime": "1m30s"}, BGPPeer("tor", TOR, 64500, keepalive=90), id="keepalive"),
        pytest.param({"maxRestartTime": "2000ms"}, BGPPeer("tor", TOR, 64500, restart_time=2), id="restart time"),
        pytest.param({"holdTime": 3}, BGPPeer("tor", TOR, 64500, hold_time=3), id="hold time as a number"),
        pytest.param({"holdTime": "9s"}, BGPPeer("tor", TOR, 64500, hold_time=9), id="hold time as a duration"),
        pytest.param(
            {"holdTime": 9, "keepaliveTime": "3s"}, BGPPeer("tor", TOR, 64500, hold_time=9, keepalive=3), id="both"
        ),
        pytest.param({"filters": ["b", "a"]}, BGPPeer("tor", TOR, 64500, filters=("b", "a")), id="filters in order"),
        pytest.param({"reversePeering": "Manual"}, BGPPeer("tor", TOR, 64500, reverse=False), id="no mirror"),
        pytest.param(
            {"password": {"secretKeyRef": {"name": "tor", "key": "pw"}}},
            BGPPeer("tor", TOR, 64500, password="tor/pw"),  # noqa: S106 - where it is, not what it is
            id="password in a Secret",
        ),
        pytest.param(
            {"passwordFile": "/etc/felix/tor"},
            BGPPeer("tor", TOR, 64500, password="/etc/felix/tor"),  # noqa: S106 - where it is, not what it is
            id="password in a file",
        ),
        pytest.param(
            {"maxPrefixes": {"maximum": 1000}}, BGPPeer("tor", TOR, 64500, prefix_limit=PrefixLimit(1000)), id="limit"
        ),
        pytest.param(
            {"maxPrefixes": {"maximum": 1000, "warning": 50, "restart": "5m"}},
            BGPPeer("tor", TOR, 64500, prefix_limit=PrefixLimit(1000, 50, 300)),
            id="limit with warning and restart",
        ),
        pytest.param(
            {"addressFamilies": ["IPv4", "IPv6"]},
            BGPPeer("tor", TOR, 64500, families=(Family.IPV4_UNICAST, Family.IPV6_UNICAST)),
            id="both families",
        ),
    ],
)
def test_a_peer(spec: dict[str, Any], value: BGPPeer) -> None:
    assert parsed(peer(**spec)) == value


def test_peers_by_selector_have_the_as_of_their_nodes() -> None:
    given = document("BGPPeer", "rr", nodeSelector="!has(rr)", peerSelector="has(rr)")
    assert parsed(given) == BGPPeer(
        "rr", None, node_selector=selectors.parse("!has(rr)"), peer_selector=selectors.parse("has(rr)")
    )


@pytest.mark.parametrize(
    ("spec", "sentences"),
    [
        pytest.param(
            {"node": "a1", "nodeSelector": "all()"},
            ["spec.nodeSelector: cannot be given together with spec.node; remove one of the two"],
            id="node and selector",
        ),
        pytest.param(
            {"peerSelector": "all()"},
            [
                "spec.peerSelector: cannot be given together with spec.peerIP; remove one of the two",
                "spec.asNumber: cannot be given together with spec.peerSelector; remove one of the two",
            ],
            id="address and selector",
        ),
        pytest.param(
            {"nextHopMode": "Self", "keepOriginalNextHop": True},
            ["spec.keepOriginalNextHop: cannot be given together with spec.nextHopMode; remove one of the two"],
            id="two next hop modes",
        ),
        pytest.param(
            {"peerIP": None, "asNumber": None},
            [
                (
                    "spec.peerIP: is missing; give an address, as 172.31.1.1, 172.31.1.1:179 or [fd00::1]:179; "
                    "or give spec.peerSelector to select nodes"
                ),
                "spec.asNumber: is missing; give an AS number from 1 to 4294967295",
            ],
            id="nobody",
        ),
        pytest.param(
            {"peerIP": "fe80::1%eth0"},
            [
                (
                    "spec.peerIP: is 'fe80::1%eth0': link-local peers are not supported; "
                    "give an address that is the same on every link"
                )
            ],
            id="link-local",
        ),
        pytest.param(
            {"peerIP": "0.0.0.0"},  # noqa: S104 - nothing is bound
            ["spec.peerIP: is '0.0.0.0': this is not the address of a host; give the peer's"],
            id="no host",
        ),
        pytest.param(
            {"nodeSelector": "rack = 'a'"},
            ["spec.nodeSelector: is \"rack = 'a'\": column 6: '=' means nothing here; write =="],
            id="bad selector",
        ),
        pytest.param(
            {"holdTime": 30, "keepaliveTime": "11s"},
            ["spec.keepaliveTime: is 11 s; give at most a third of spec.holdTime (30 s), which is 10 s"],
            id="too few keepalives",
        ),
        pytest.param(
            {"holdTime": 2}, ["spec.holdTime: is 2; give seconds from 3 to 65535, as 9 or 9s"], id="hold time"
        ),
        pytest.param(
            {"keepaliveTime": "1500ms"},
            ["spec.keepaliveTime: is '1500ms'; give a duration of whole seconds from 1s to 21845s"],
            id="half a second",
        ),
        pytest.param(
            {"maxRestartTime": "2h"},
            ["spec.maxRestartTime: is '2h'; give a duration of whole seconds from 1s to 4095s"],
            id="restart time",
        ),
        pytest.param({"ttlSecurity": 0}, ["spec.ttlSecurity: is 0; give hops from 1 (on the wire) to 255"], id="TTL"),
        pytest.param(
            {"password": "hunter2"},
            ["spec.password: must be a mapping with secretKeyRef; put the password into a file, not into the resource"],
            id="a password in the resource is not repeated",
        ),
        pytest.param(
            {"password": {"secretKeyRef": {"name": "../..", "key": "shadow"}}},
            ["spec.password.secretKeyRef.name: is '../..'; give the name of a Secret, of letters, digits and ._-"],
            id="a Secret is no way out of its directory",
        ),
        pytest.param(
            {"passwordFile": "tor", "password": None},
            ["spec.passwordFile: is 'tor'; give an absolute path, as /etc/felix/tor-1.password"],
            id="relative file",
        ),
        pytest.param(
            {"passwordFile": "/x", "password": {"secretKeyRef": {"name": "a", "key": "b"}}},
            ["spec.passwordFile: cannot be given together with spec.password; remove one of the two"],
            id="two passwords",
        ),
        pytest.param(
            {"maxPrefixes": {"warning": 0, "reset": 5}},
            [
                "spec.maxPrefixes.reset: is not supported; remove it (supported here: maximum, restart, warning)",
                "spec.maxPrefixes.maximum: is missing; give a number of prefixes from 1 to 10000000",
                "spec.maxPrefixes.warning: is 0; give per cent of the maximum, from 1 to 100",
            ],
            id="limit",
        ),
        pytest.param(
            {"addressFamilies": ["IPv4", "L2VPN"]},
            ["spec.addressFamilies[1]: is 'L2VPN'; give IPv4 or IPv6"],
            id="family",
        ),
        pytest.param(
            {"filters": "a"}, ["spec.filters: is 'a'; give a list, each item the name of a BGPFilter"], id="list"
        ),
    ],
)
def test_what_is_wrong_with_a_peer(spec: dict[str, Any], sentences: list[str]) -> None:
    assert complaints(peer(**spec)) == sentences


@pytest.mark.parametrize("field", ["localWorkloadSelector", "reachableBy", "failureDetectionMode", "bfd"])
def test_what_calico_has_and_we_lack_is_refused_by_name(field: str) -> None:
    [sentence] = complaints(peer(**{field: "x"}))
    assert sentence.startswith(
        f"spec.{field}: is not supported; remove it (supported here: addressFamilies, asNumber, "
    )


def test_a_configuration_with_everything() -> None:
    given = document(
        "BGPConfiguration",
        "default",
        asNumber=64513,
        nodeToNodeMeshEnabled=False,
        listenPort=1790,
        bindMode="NodeIP",
        logSeverityScreen="Debug",
        nodeMeshPassword={"secretKeyRef": {"name": "mesh", "key": "pw"}},
        nodeMeshMaxRestartTime="5m",
        holdTime="9s",
        communities=[{"name": "rack-a", "value": "64512:1"}, {"name": "large", "value": "64512:2:3"}],
        prefixAdvertisements=[
            {"cidr": "10.65.0.0/16", "communities": ["rack-a", "64512:9"]},
            {"cidr": "fd00:65::/48", "communities": ["large"]},
            {"cidr": "10.65.0.0/16", "communities": ["64512:9", "large"]},
        ],
    )
    assert parsed(given) == BGPConfiguration(
        "default",
        64513,
        node_to_node_mesh=False,
        listen_port=1790,
        log_severity="Debug",
        listen_everywhere=False,
        mesh_password="mesh/pw",  # noqa: S106 - where it is, not what it is
        mesh_restart_time=300,
        mesh_hold_time=9,
        communities={
            IPv4Network("10.65.0.0/16"): ((64512, 1), (64512, 9), (64512, 2, 3)),
            IPv6Network("fd00:65::/48"): ((64512, 2, 3),),
        },
    )


def test_an_empty_configuration_has_calicos_defaults() -> None:
    assert parsed(document("BGPConfiguration", "default")) == BGPConfiguration(
        "default", 64512, node_to_node_mesh=True, listen_port=179, listen_everywhere=True
    )


def test_what_is_wrong_with_a_configuration() -> None:
    given = document(
        "BGPConfiguration",
        "node.a1",
        serviceClusterIPs=[{"cidr": "10.96.0.0/12"}],
        bindMode="All",
        communities=[{"name": "a", "value": "70000:1"}],
        prefixAdvertisements=[{"cidr": "10.65.0.1/16", "communities": ["b"]}],
    )
    assert [sentence.split(";")[0].split(" (")[0] for sentence in complaints(given)] == [
        "spec.serviceClusterIPs: is not supported",
        "metadata.name: is 'node.a1'",
        "spec.bindMode: is 'All'",
        "spec.communities[0].value: is '70000:1'",
        "spec.prefixAdvertisements[0].cidr: is '10.65.0.1/16'",
        (
            "spec.prefixAdvertisements[0].communities[0]: is 'b': neither a community, as 64512:100, nor named in "
            "spec.communities"
        ),
    ]


def contradictions(*documents: dict[str, Any]) -> list[str]:
    placed = {key: ("f.yaml", value) for key, value in (resources.parse(each, "f.yaml") for each in documents)}
    return [str(fault) for _, fault in find(placed)]


def test_two_nodes_with_one_ipv6_address() -> None:
    bgp = {"ipv6Address": "fd00::11/64"}
    assert contradictions(document("Node", "a1", bgp=bgp), document("Node", "a2", bgp=bgp)) == [
        (
            "f.yaml: Node a2: spec.bgp.ipv6Address: is fd00::11, which Node a1 has already; "
            "give each node an address of its own"
        )
    ]


def test_two_peers_for_one_session() -> None:
    assert contradictions(peer("a", node="a1"), peer("b", node="a1", holdTime=9), peer("c", node="a2")) == [
        ("f.yaml: BGPPeer b: spec.peerIP: is 172.31.1.1, with whom BGPPeer a holds the same nodes' sessions; keep one")
    ]
