"""Objects of the API server as resources: nodes by annotations, custom resources as in a folder, podCIDRs as pools."""

import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_address, ip_network
from typing import Any

import pytest

from felix_py import contradictions
from felix_py.kubernetes_resources import FOLLOWED, OwnNode, Understood, own_node, pod_cidr_resources, understand
from felix_py.model import BlockAffinity, Invalid, IpipMode, IPPool, Key, Namespace, Node, NodeName
from felix_py.resources import KINDS


def node_object(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "a1", "uid": "3f", "resourceVersion": "12", "labels": {"rack": "a"}, "annotations": annotations}
    return {"metadata": metadata, "spec": spec, "status": {"images": [{"names": ["x"]}]}}


def test_a_node_is_what_its_annotations_say() -> None:
    found = understand(
        "Node",
        node_object(
            {
                "projectcalico.org/IPv4Address": "172.31.1.11/24",
                "projectcalico.org/IPv6Address": "fd31:1::11/64",
                "projectcalico.org/ASNumber": "0.64513",
                "projectcalico.org/RouteReflectorClusterID": "244.0.0.1",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
            podCIDR="10.244.1.0/24",
            podCIDRs=["10.244.1.0/24", "fd24:0:0:1::/64"],
        ),
    )
    assert found == Understood(
        Node(
            NodeName("a1"), IPv4Interface("172.31.1.11/24"), 64513, IPv6Interface("fd31:1::11/64"),
            IPv4Address("244.0.0.1"), {"rack": "a"},
        ),
        (ip_network("10.244.1.0/24"), ip_network("fd24:0:0:1::/64")),
    )  # fmt: skip


def test_a_node_on_which_no_agent_has_been_has_no_address() -> None:
    assert understand("Node", node_object()) == Understood(Node(NodeName("a1"), labels={"rack": "a"}))


def test_every_faulty_annotation_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        understand(
            "Node", node_object({"projectcalico.org/IPv4Address": "172.31.1.11", "projectcalico.org/ASNumber": "x"})
        )
    where = "kubernetes: Node a1: metadata.annotations.projectcalico.org"
    assert [str(fault) for fault in refused.value.faults] == [
        f"{where}/IPv4Address: is '172.31.1.11'; give an address with its mask, as 10.0.0.1/24",
        f"{where}/ASNumber: is 'x'; give an AS number from 1 to 4294967295",
    ]


def test_items_of_a_list_have_neither_version_nor_kind() -> None:
    metadata = {"name": "default", "uid": "3f", "finalizers": ["x"], "annotations": {"a": "b"}, "ownerReferences": []}
    spec = {"cidr": "10.65.0.0/16", "ipipMode": "CrossSubnet", "nodeSelector": None}
    found = understand("IPPool", {"metadata": metadata, "spec": spec, "status": {"conditions": []}})
    assert found.value == IPPool("default", IPv4Network("10.65.0.0/16"), IpipMode.CROSS_SUBNET)


def test_an_object_without_spec_has_the_defaults() -> None:
    assert understand("BGPConfiguration", {"metadata": {"name": "default"}}).value.name == "default"


def test_a_namespace_is_its_labels() -> None:
    found = understand(
        "Namespace", {"metadata": {"name": "web", "labels": {"team": "a"}}, "spec": {"finalizers": ["kubernetes"]}}
    )
    assert found.value == Namespace("web", {"team": "a"})


def test_every_kind_is_followed_but_pods() -> None:
    assert {each.kind for each in FOLLOWED} == set(KINDS) - {"WorkloadEndpoint"}


def cidrs(**nodes: str) -> dict[NodeName, tuple[Any, ...]]:
    return {NodeName(name): tuple(map(ip_network, text.split())) for name, text in nodes.items()}


def test_pod_cidrs_are_pools_without_room_for_others_and_a_block_for_each_node() -> None:
    found = pod_cidr_resources(cidrs(a1="10.244.0.0/24", a2="10.244.1.0/24 fd24::/64", b1="10.244.4.0/24"))
    pools = [value for _, value in found.values() if isinstance(value, IPPool)]
    assert [(str(pool.cidr), str(pool.ipip_mode), pool.nat_outgoing) for pool in pools] == [
        ("10.244.0.0/23", "CrossSubnet", True),
        ("10.244.4.0/24", "CrossSubnet", True),
        ("fd24::/64", "Never", True),
    ]
    blocks = [(value.node, str(value.cidr)) for _, value in found.values() if isinstance(value, BlockAffinity)]
    assert blocks == [("a1", "10.244.0.0/24"), ("a2", "10.244.1.0/24"), ("a2", "fd24::/64"), ("b1", "10.244.4.0/24")]
    assert not list(contradictions.find(found))


def test_names_of_pod_cidrs_are_those_that_kubernetes_takes() -> None:
    assert set(pod_cidr_resources(cidrs(a1="fd24::/64"))) == {
        Key("IPPool", "pod-cidrs-fd24---64"),
        Key("BlockAffinity", "pod-cidrs-fd24---64-a1"),
    }


def test_an_own_node_is_its_addresses_and_what_is_noted_of_it() -> None:
    document = node_object(
        {"projectcalico.org/IPv4Address": "10.0.0.1/24", "felix-py/detected-ipv4": "10.0.0.1/24", "x": "y"}
    )
    listed = [
        {"type": "Hostname", "address": "a1"},
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "InternalIP"},
    ]
    document["status"]["addresses"] = listed
    noted = {"projectcalico.org/IPv4Address": "10.0.0.1/24", "felix-py/detected-ipv4": "10.0.0.1/24"}
    document["metadata"]["uid"] = "7f3e"
    assert own_node(document) == OwnNode(noted, (ip_address("10.0.0.1"),), uid="7f3e")


@pytest.mark.slow
def test_who_keeps_resources_in_a_folder_does_not_pay_for_the_client() -> None:
    question = "import sys, felix_py.__main__, felix_py.ctl.main; print(*{'kubernetes', 'urllib3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
