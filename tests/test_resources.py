"""Documents in, values or every fault out."""

from ipaddress import IPv4Interface, IPv4Network, IPv6Network
from typing import Any

import pytest

from felix_py import resources
from felix_py.contradictions import find
from felix_py.model import BlockAffinity, Invalid, IpipMode, IPPool, Key, Node, NodeName, Resource


def document(kind: str, name: str = "x", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        pytest.param(
            document("Node", "a1", bgp={"ipv4Address": "172.31.1.11/24", "asNumber": 64512}),
            Node(NodeName("a1"), IPv4Interface("172.31.1.11/24"), 64512),
            id="node",
        ),
        pytest.param(
            document("IPPool", "default", cidr="10.65.0.0/16", ipipMode="CrossSubnet", blockSize=26),
            IPPool("default", IPv4Network("10.65.0.0/16"), IpipMode.CROSS_SUBNET, 26),
            id="pool",
        ),
        pytest.param(
            document("IPPool", "six", cidr="fd65::/48"),
            IPPool("six", IPv6Network("fd65::/48"), IpipMode.NEVER, 122),
            id="pool of IPv6",
        ),
        pytest.param(
            document("BlockAffinity", "a1-six", cidr="fd65::40/122", node="a1", state="confirmed"),
            BlockAffinity("a1-six", NodeName("a1"), IPv6Network("fd65::40/122")),
            id="block of IPv6",
        ),
    ],
)
def test_good_documents(given: dict[str, Any], value: Resource) -> None:
    assert resources.parse(given, "f.yaml") == (Key(given["kind"], given["metadata"]["name"]), value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        pytest.param(
            document("IPool"),
            "f.yaml: kind: is 'IPool', which is unknown; known are "
            "Node, IPPool, BlockAffinity, WorkloadEndpoint, BGPConfiguration, BGPPeer, BGPFilter, FelixConfiguration, "
            "IPReservation, IPAMConfiguration, Namespace",
            id="unknown kind",
        ),
        pytest.param(
            document("BlockAffinity", cidr="10.65.1.0/26", node="a1", host="a1"),
            "f.yaml: BlockAffinity x: spec.host: is not supported; remove it "
            "(supported here: cidr, deleted, node, state)",
            id="unsupported field",
        ),
        pytest.param(
            document("IPPool", cidr="10.65.0.1/16"),
            "f.yaml: IPPool x: spec.cidr: is '10.65.0.1/16'; "
            "give a network without host bits, as 10.65.0.0/16 or fd65::/48",
            id="host bits",
        ),
        pytest.param(
            document("IPPool", cidr="fd65::/48", ipipMode="CrossSubnet"),
            "f.yaml: IPPool x: spec.ipipMode: is CrossSubnet, and IP in IP does not carry IPv6 (fd65::/48); give Never",
            id="IPv6 in IPIP",
        ),
        pytest.param(
            document("IPPool", cidr="fd65::/48", blockSize=26),
            "f.yaml: IPPool x: spec.blockSize: is 26; give a prefix length from 116 to 128",
            id="an IPv4 block size of an IPv6 pool",
        ),
        pytest.param(
            document("IPPool", cidr="fe80:1::/64"),
            "f.yaml: IPPool x: spec.cidr: is fe80:1::/64, whose addresses are not routed; "
            "give a range of unicast addresses",
            id="link-local pool",
        ),
        pytest.param(
            document("IPPool", cidr="10.65.0.0/16", natOutgoing="yes"),
            "f.yaml: IPPool x: spec.natOutgoing: is 'yes'; give true or false",
            id="natOutgoing that is neither",
        ),
        pytest.param(
            document("WorkloadEndpoint", node="a1", interfaceName='cali"; flush', ipNetworks=["10.65.0.5/32"]),
            "f.yaml: WorkloadEndpoint x: spec.interfaceName: is 'cali\"; flush'; give an interface name, as "
            "cali0123456789a",
            id="an interface name that would end a string of nftables",
        ),
        pytest.param(
            document("Node", "") | {}, "f.yaml: Node: metadata.name: is ''; give the resource a name", id="no name"
        ),
        pytest.param("rubbish", "f.yaml: holds 'rubbish' where a resource (a mapping) should be", id="no mapping"),
    ],
)
def test_each_fault_is_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(Invalid) as caught:
        resources.parse(given, "f.yaml")
    assert str(caught.value) == sentence


def test_all_faults_of_a_document_come_in_one_message() -> None:
    with pytest.raises(Invalid) as caught:
        resources.parse(document("BGPPeer", peerIP="x", asNumber=0), "f.yaml")
    assert [fault.path for fault in caught.value.faults] == ["spec.peerIP", "spec.asNumber"]


def contradictions(*documents: dict[str, Any]) -> list[str]:
    placed = {key: ("f.yaml", value) for key, value in (resources.parse(each, "f.yaml") for each in documents)}
    return [str(fault) for _, fault in find(placed)]


def test_overlapping_pools() -> None:
    assert contradictions(
        document("IPPool", "a", cidr="10.65.0.0/16"), document("IPPool", "b", cidr="10.65.4.0/24")
    ) == [
        (
            "f.yaml: IPPool b: spec.cidr: is 10.65.4.0/24, which overlaps IPPool a (10.65.0.0/16); "
            "give it a range of its own"
        )
    ]


def test_pools_and_blocks_of_two_versions_of_ip_do_not_contradict_each_other() -> None:
    assert (
        contradictions(
            document("IPPool", "a", cidr="10.65.0.0/16"),
            document("IPPool", "b", cidr="fd65::/48"),
            document("BlockAffinity", "a", cidr="10.65.0.0/26", node="a1", state="confirmed"),
            document("BlockAffinity", "b", cidr="fd65::/122", node="a1", state="confirmed"),
        )
        == []
    )
    assert contradictions(
        document("IPPool", "a", cidr="10.65.0.0/16"),
        document("BlockAffinity", "b", cidr="fd65::/122", node="a1", state="confirmed"),
    ) == ["f.yaml: BlockAffinity b: spec.cidr: is fd65::/122, which lies in no IPPool; add the pool"]


def test_two_nodes_with_one_address() -> None:
    bgp = {"ipv4Address": "172.31.1.11/24"}
    assert contradictions(document("Node", "a1", bgp=bgp), document("Node", "a2", bgp=bgp)) == [
        (
            "f.yaml: Node a2: spec.bgp.ipv4Address: is 172.31.1.11, which Node a1 has already; "
            "give each node an address of its own"
        )
    ]


def test_block_outside_any_pool() -> None:
    assert contradictions(document("BlockAffinity", "a", cidr="10.9.0.0/26", node="a1", state="confirmed")) == [
        "f.yaml: BlockAffinity a: spec.cidr: is 10.9.0.0/26, which lies in no IPPool; add the pool"
    ]
