"""The topology file: what the default one means, and every fault by its path, value and remedy."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from felix_py.lab import document
from felix_py.lab.topology import Host, LabNode, Network
from felix_py.model import BGPConfiguration, Invalid, IpipMode, IPPool, NodeName

DEFAULT = Path(__file__).parents[1] / "deploy" / "lab" / "two-racks.yaml"

NODE_FIELDS = "address, asNumber, blocks, defaultRoute, network, pods"

SMALL = """
networks: {lan: 10.0.0.0/24}
routers: {gw: {asNumber: 64500, addresses: {lan: 10.0.0.1}}}
nodes:
  n1: {network: lan, address: 10.0.0.11, blocks: [10.65.0.0/26], pods: 1}
  n2: {network: lan, address: 10.0.0.12, blocks: [10.65.1.0/26], pods: 1}
hosts: {pc: {network: lan, address: 10.0.0.20}}
cluster: {asNumber: 64512, ipPools: [{name: default, cidr: 10.65.0.0/16}]}
"""


def small(**changes: Any) -> Any:
    """Return the small topology with some sections replaced."""
    return {**yaml.safe_load(SMALL), **changes}


def faults_of(changed: Any) -> list[str]:
    with pytest.raises(Invalid) as caught:
        document.parse(changed, "lab.yaml")
    return [str(fault) for fault in caught.value.faults]


def test_the_default_topology_is_two_racks_and_a_client() -> None:
    topology = document.parse(yaml.safe_load(DEFAULT.read_text()), "two-racks.yaml")
    assert topology.networks == (
        Network("rack-a", IPv4Network("172.31.1.0/24")),
        Network("rack-b", IPv4Network("172.31.2.0/24")),
        Network("outside", IPv4Network("172.31.9.0/24")),
    )
    assert topology.nodes[0] == LabNode(
        NodeName("a1"), "rack-a", IPv4Interface("172.31.1.11/24"), (IPv4Network("10.65.0.0/26"),), pods=3
    )
    assert [node.name for node in topology.nodes] == ["a1", "a2", "b1", "b2"]
    assert topology.hosts == (Host("client", "outside", IPv4Interface("172.31.9.10/24")),)
    assert topology.routers[0].as_number == 64500
    assert topology.gateway("rack-b") == IPv4Address("172.31.2.1")
    assert topology.pools == (IPPool("default", IPv4Network("10.65.0.0/16"), IpipMode.CROSS_SUBNET, 26),)
    assert topology.bgp == BGPConfiguration(as_number=64512, node_to_node_mesh=True)
    assert list(topology.pods)[:4] == ["a1-pod1", "a1-pod2", "a1-pod3", "a2-pod1"]


def test_what_is_left_out_has_its_default() -> None:
    topology = document.parse(
        {"networks": {"lan": "10.0.0.0/24"}, "nodes": {"n1": {"network": "lan", "address": "10.0.0.11"}}}, "lab.yaml"
    )
    assert topology.nodes == (LabNode(NodeName("n1"), "lan", IPv4Interface("10.0.0.11/24")),)
    assert topology.routers == topology.hosts == topology.pools == ()
    assert topology.bgp.as_number == 64512


def test_all_faults_come_at_once() -> None:
    nodes = {
        "n1": {"network": "lan", "address": "10.0.1.11", "colour": "red"},
        "n2": {"network": "wan", "address": "10.0.0.12", "pods": -1},
    }
    assert faults_of(small(nodes=nodes)) == [
        f"lab.yaml: nodes.n1.colour: is not supported; remove it (supported here: {NODE_FIELDS})",
        "lab.yaml: nodes.n1.address: is 10.0.1.11, no host address of network lan; give one from 10.0.0.0/24",
        "lab.yaml: nodes.n2.network: is 'wan', which is no network of this file; known are lan",
        "lab.yaml: nodes.n2.pods: is -1; give a number from 0 to 250",
    ]


def one_node(**fields: Any) -> Any:
    return {"n1": {"network": "lan", "address": "10.0.0.11", **fields}}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param(
            {"bridges": {}},
            "topology.bridges: is not supported; remove it "
            "(supported here: agent, cluster, hosts, networks, nodes, reflectors, routers)",
            id="unknown section",
        ),
        pytest.param(
            {"networks": {"lan": "10.0.0.1/24"}},
            "networks.lan: is '10.0.0.1/24'; give a subnet without host bits, as 172.31.1.0/24",
            id="network with host bits",
        ),
        pytest.param(
            {"networks": {"lan": "10.0.0.0/24", "Big_LAN": "10.9.0.0/24"}},
            "networks.Big_LAN: has the name 'Big_LAN'; give 1 to 15 of a-z, 0-9 and -, a letter first",
            id="bad name",
        ),
        pytest.param(
            {"networks": {"lan": "10.0.0.0/24", "wan": "10.0.0.0/25"}},
            "networks.wan: is 10.0.0.0/25, which overlaps lan (10.0.0.0/24); give it a range of its own",
            id="networks overlap",
        ),
        pytest.param(
            {"routers": {"gw": {"asNumber": 0, "addresses": {"lan": "10.0.0.1"}}}},
            "routers.gw.asNumber: is 0; give an AS number, as 64500",
            id="AS number 0",
        ),
        pytest.param(
            {"routers": {"gw": {"asNumber": 64500, "addresses": {"lan": "10.0.0.1"}, "announceDefault": "yes"}}},
            "routers.gw.announceDefault: is 'yes'; give true or false",
            id="word for a truth value",
        ),
        pytest.param(
            {"routers": {"gw": {"asNumber": 64500, "addresses": {"lan": "10.0.0.255"}}}},
            "routers.gw.addresses.lan: is 10.0.0.255, no host address of network lan; give one from 10.0.0.0/24",
            id="broadcast address",
        ),
        pytest.param(
            {"hosts": {"pc": {"network": "lan"}}},
            "hosts.pc.address: is missing; give an IPv4 address, as 172.31.1.11",
            id="no address",
        ),
        pytest.param(
            {"hosts": {"n1": {"network": "lan", "address": "10.0.0.20"}}},
            "hosts.n1: has the name n1, which nodes.n1 has already; give each thing a name of its own",
            id="two things with one name",
        ),
        pytest.param(
            {"hosts": {"n1-pod1": {"network": "lan", "address": "10.0.0.20"}}},
            "nodes.n1.pods (n1-pod1): has the name n1-pod1, which hosts.n1-pod1 has already; "
            "give each thing a name of its own",
            id="a host named like a pod",
        ),
        pytest.param(
            {"hosts": {"pc": {"network": "lan", "address": "10.0.0.11"}}},
            "hosts.pc.address: is 10.0.0.11, which nodes.n1.address has already; "
            "give each machine an address of its own",
            id="two machines with one address",
        ),
        pytest.param(
            {"reflectors": {"rr": {"network": "lan", "address": "10.0.0.5", "daemon": "quagga", "config": "a.conf"}}},
            "reflectors.rr.daemon: is 'quagga'; give bird or frr",
            id="route reflector of an unknown daemon",
        ),
        pytest.param(
            {"reflectors": {"rr": {"network": "lan", "address": "10.0.0.5", "daemon": "bird"}}},
            "reflectors.rr.config: is missing; give the path of its configuration, seen from here",
            id="route reflector without a configuration",
        ),
        pytest.param(
            {"reflectors": {"rr": {"network": "lan", "address": "10.0.0.1", "daemon": "bird", "config": "a.conf"}}},
            "reflectors.rr.address: is 10.0.0.1, which routers.gw.addresses.lan has already; "
            "give each machine an address of its own",
            id="route reflector with the address of a router",
        ),
        pytest.param(
            {"nodes": one_node(blocks=["10.66.0.0/26"])},
            "nodes.n1.blocks[0]: is 10.66.0.0/26, which lies in no pool; add one to cluster.ipPools",
            id="block outside every pool",
        ),
        pytest.param(
            {"nodes": one_node(blocks=["10.65.0.0/24"])},
            "nodes.n1.blocks[0]: is 10.65.0.0/24, but blocks of pool default are /26; give one of that size",
            id="block of another size",
        ),
        pytest.param(
            {"nodes": one_node(blocks=["10.65.0.0/26", "10.65.0.0/26"])},
            "nodes.n1.blocks[1]: is 10.65.0.0/26, which overlaps nodes.n1.blocks[0] (10.65.0.0/26); "
            "a block has one node",
            id="block given twice",
        ),
        pytest.param(
            {"nodes": one_node(blocks="10.65.0.0/26")},
            "nodes.n1.blocks: is '10.65.0.0/26'; give a list of blocks, as [10.65.0.0/26]",
            id="blocks no list",
        ),
        pytest.param(
            {"nodes": one_node(pods=64, blocks=["10.65.0.0/26"])},
            "nodes.n1.pods: is 64, and its blocks have room for 63 (one address is the tunnel's); "
            "give the node another block, or fewer pods",
            id="more pods than addresses",
        ),
        pytest.param(
            {"nodes": one_node(pods=1), "cluster": {"ipPools": []}},
            "nodes.n1.pods: is 1, and its blocks have room for 0 (one address is the tunnel's); "
            "give the node another block, or fewer pods",
            id="pods without a block, nor a pool to claim one from",
        ),
        pytest.param(
            {"networks": {"lan": "10.0.0.0/24", "far": "10.0.7.0/24"},
             "nodes": {"n1": {"network": "far", "address": "10.0.7.11"}}},
            "nodes.n1.network: is far, which has no router; give a router an address there",
            id="node behind no router",
        ),
        pytest.param(
            {"cluster": {"asNumber": "many"}},
            "cluster.asNumber: is 'many'; give an AS number from 1 to 4294967295",
            id="cluster's AS",
        ),
        pytest.param(
            {"cluster": {"ipPools": [{"name": "default", "cidr": "10.65.0.0/16", "ipipMode": "Sometimes"}]}},
            "cluster.ipPools[0].ipipMode: is 'Sometimes'; give Always, CrossSubnet or Never",
            id="unknown ipipMode",
        ),
        pytest.param(
            {"cluster": {"ipPools": {"default": "10.65.0.0/16"}}},
            "cluster.ipPools: is {'default': '10.65.0.0/16'}; give a list of pools, each with name and cidr",
            id="pools no list",
        ),
        pytest.param(
            {"agent": {"runDirectory": "/srv/felix"}},
            "agent.runDirectory: is '/srv/felix'; remove it, the lab gives every node its own",
            id="a setting that is the lab's",
        ),
        pytest.param(
            {"agent": {"logLevel": "loud"}},
            "agent.logLevel: is 'loud'; give debug, info, warning or error",
            id="bad setting of the agent",
        ),
    ],
)  # fmt: skip
def test_a_fault_names_path_value_and_remedy(changes: Any, fault: str) -> None:
    assert faults_of(small(**changes)) == [f"lab.yaml: {fault}"]


@pytest.mark.parametrize("nothing", [None, [], "two racks", 7])
def test_what_is_no_mapping_is_refused(nothing: Any) -> None:
    assert faults_of(nothing) == [f"lab.yaml: holds {nothing!r}; describe a lab as deploy/lab/two-racks.yaml does"]
