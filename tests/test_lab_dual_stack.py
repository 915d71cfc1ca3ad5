"""Labs with both versions of IP: what their file means, its faults, and what machines, BIRD and agents are told."""

import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from felix_py.datastore import directory
from felix_py.lab import document, health, matrix, plan, rendering, watching
from felix_py.lab.plan import Address, Route, Set
from felix_py.lab.topology import Host, LabNode, Network, Topology
from felix_py.model import Invalid, IpipMode, IPPool, NodeName

DUAL = Path(__file__).parents[1] / "deploy" / "lab" / "dual-stack.yaml"

SMALL = """
networks: {lan: [10.0.0.0/24, "fd10::/64"], wan: [10.0.9.0/24, "fd10:9::/64"], old: 10.0.8.0/24}
routers:
  gw:
    asNumber: 64500
    addresses: {lan: [10.0.0.1, "fd10::1"], wan: [10.0.9.1, "fd10:9::1"], old: 10.0.8.1}
nodes:
  n1: {network: lan, address: [10.0.0.11, "fd10::11"], blocks: [10.65.0.0/26, "fd65::/122"], pods: 1}
  n2: {network: lan, address: [10.0.0.12, "fd10::12"], blocks: [10.65.1.0/26, "fd65::1:0/122"], defaultRoute: false}
  n3: {network: old, address: 10.0.8.11, blocks: [10.65.2.0/26], pods: 1}
hosts: {pc: {network: wan, address: [10.0.9.20, "fd10:9::20"]}}
cluster:
  asNumber: 64512
  ipPools: [{name: four, cidr: 10.65.0.0/16, ipipMode: CrossSubnet}, {name: six, cidr: "fd65::/48"}]
"""


def small(**changes: Any) -> Any:
    """Return the small topology with some sections replaced."""
    return {**yaml.safe_load(SMALL), **changes}


@pytest.fixture
def topology() -> Topology:
    return document.parse(small(), "lab.yaml")


def test_the_dual_stack_lab_is_two_racks_with_both_versions_of_ip() -> None:
    topology = document.parse(yaml.safe_load(DUAL.read_text()), "dual-stack.yaml")
    assert topology.networks[0] == Network("rack-a", IPv4Network("172.31.1.0/24"), IPv6Network("fd31:1::/64"))
    assert topology.nodes[0] == LabNode(
        NodeName("a1"),
        "rack-a",
        IPv4Interface("172.31.1.11/24"),
        (IPv4Network("10.65.0.0/26"), IPv6Network("fd65::/122")),
        pods=3,
        address6=IPv6Interface("fd31:1::11/64"),
    )
    assert topology.hosts == (
        Host("client", "outside", IPv4Interface("172.31.9.10/24"), IPv6Interface("fd31:9::10/64")),
    )
    assert (topology.gateway("rack-b"), topology.gateway6("rack-b")) == (
        IPv4Address("172.31.2.1"),
        IPv6Address("fd31:2::1"),
    )
    assert topology.pools[1] == IPPool("default-ipv6", IPv6Network("fd65::/48"), IpipMode.NEVER, 122)
    assert topology.versions == (4, 6)
    assert [health.sessions(topology, node) for node in topology.nodes] == [8] * 4


def test_sessions_are_counted_by_what_both_ends_speak(topology: Topology) -> None:
    # n1: gw twice, n2 twice, n3 once; n3: everybody once.
    assert [health.sessions(topology, node) for node in topology.nodes] == [5, 5, 3]


@pytest.mark.parametrize(
    ("section", "changes", "fault"),
    [
        pytest.param(
            "networks",
            {"lan": ["10.0.0.0/24", "fd10::/64", "fd11::/64"]},
            "networks.lan: is ['10.0.0.0/24', 'fd10::/64', 'fd11::/64']; give a subnet without host bits, "
            "as 172.31.1.0/24, or a list of that and a subnet of IPv6, as fd31:1::/64",
            id="three subnets",
        ),
        pytest.param(
            "networks",
            {"lan": ["10.0.0.0/24", "10.0.1.0/24"]},
            "networks.lan[1]: is '10.0.1.0/24'; give a subnet of IPv6, as fd31:1::/64",
            id="two subnets of IPv4",
        ),
        pytest.param(
            "networks",
            {"old": ["10.0.8.0/24", "fd10:9::/48"]},
            "networks.old: is fd10:9::/48, which overlaps wan (fd10:9::/64); give it a range of its own",
            id="IPv6 subnets overlap",
        ),
        pytest.param(
            "nodes",
            {"n1": {"network": "lan", "address": ["10.0.0.11", "fd11::11"]}},
            "nodes.n1.address: is fd11::11, no host address of network lan; give one from fd10::/64",
            id="IPv6 address outside its network",
        ),
        pytest.param(
            "nodes",
            {"n3": {"network": "old", "address": ["10.0.8.11", "fd10:8::11"]}},
            "nodes.n3.address: is fd10:8::11, no host address of network old; "
            "give the network a subnet of IPv6, as [10.0.8.0/24, fd31:1::/64]",
            id="network without IPv6",
        ),
        pytest.param(
            "nodes",
            {"n3": {"network": "old", "address": "10.0.8.11", "blocks": ["fd65::2:0/122"]}},
            "nodes.n3.blocks[0]: is fd65::2:0/122, and the node has no IPv6 address; "
            "give it one, as [10.0.8.11, fd31:1::11]",
            id="IPv6 block of a node without IPv6",
        ),
        pytest.param(
            "nodes",
            {"n3": {"network": "old", "address": "10.0.8.11", "blocks": ["10.65.2.0/26"], "pods": 64}},
            "nodes.n3.pods: is 64, and its blocks have room for 63 (one address is the tunnel's); "
            "give the node another block, or fewer pods",
            id="too many pods",
        ),
        pytest.param(
            "hosts",
            {"pc": {"network": "wan", "address": ["10.0.9.20", "fd10:9::1"]}},
            "hosts.pc.address: is fd10:9::1, which routers.gw.addresses.wan has already; "
            "give each machine an address of its own",
            id="two machines with one IPv6 address",
        ),
    ],
)
def test_each_fault_is_one_sentence(section: str, changes: dict[str, Any], fault: str) -> None:
    changed = small()
    changed[section] |= changes
    with pytest.raises(Invalid) as caught:
        document.parse(changed, "lab.yaml")
    assert [str(each) for each in caught.value.faults] == [f"lab.yaml: {fault}"]


def test_a_pod_needs_an_address_of_each_version_that_its_node_has_blocks_of() -> None:
    changed = small(
        cluster={
            "ipPools": [
                {"name": "four", "cidr": "10.65.0.0/16"},
                {"name": "six", "cidr": "fd65::/48", "blockSize": 128},
            ]
        }
    )
    changed["nodes"] = {"n1": {**changed["nodes"]["n1"], "blocks": ["10.65.0.0/26", "fd65::1/128"], "pods": 2}}
    with pytest.raises(Invalid) as caught:
        document.parse(changed, "lab.yaml")
    assert "nodes.n1.pods: is 2, and its blocks have room for 1 " in str(caught.value)


def test_machines_have_addresses_and_routes_of_both(topology: Topology) -> None:
    scripts = plan.machines(topology)
    wan, wan6 = IPv4Network("10.0.9.0/24"), IPv6Network("fd10:9::/64")
    four, six = IPv4Address("10.0.0.1"), IPv6Address("fd10::1")
    assert scripts["n1"] == (
        Set("lo"),
        Address("eth0", IPv4Interface("10.0.0.11/24")),
        Address("eth0", IPv6Interface("fd10::11/64")),
        Set("eth0"),
        Route(IPv4Network("0.0.0.0/0"), four),
        Route(IPv6Network("::/0"), six),
    )
    assert scripts["n2"][4:] == (Route(wan, four), Route(wan6, six), Route(IPv4Network("10.0.8.0/24"), four))
    assert scripts["n3"][3:] == (Route(IPv4Network("0.0.0.0/0"), IPv4Address("10.0.8.1")),)
    assert ("net/ipv6/conf/all/forwarding", "1") in tuple(plan.router_parameters(topology.routers[0]))


def test_machines_know_each_others_addresses_by_name(topology: Topology) -> None:
    assert rendering.hosts(topology).splitlines()[1:] == [
        "10.0.0.1 gw", "fd10::1 gw", "10.0.0.11 n1", "fd10::11 n1", "10.0.0.12 n2", "fd10::12 n2",
        "10.0.8.11 n3", "10.0.9.20 pc", "fd10:9::20 pc",
    ]  # fmt: skip


def test_the_agent_accepts_every_file_and_holds_a_session_for_each_version(topology: Topology, tmp_path: Path) -> None:
    for name, text in rendering.resources(topology).items():
        (tmp_path / name).write_text(text)
    reading = directory.read(tmp_path)
    assert reading.faults == ()
    peers = {key.name: str(value.peer_ip) for key, (_, value) in reading.good.items() if key.kind == "BGPPeer"}  # type: ignore[union-attr]
    assert peers == {
        "gw-n1": "10.0.0.1",
        "gw-n1-ipv6": "fd10::1",
        "gw-n2": "10.0.0.1",
        "gw-n2-ipv6": "fd10::1",
        "gw-n3": "10.0.8.1",
    }
    nodes = list(yaml.safe_load_all(rendering.resources(topology)["nodes.yaml"]))
    assert nodes[0]["spec"]["bgp"] == {"ipv4Address": "10.0.0.11/24", "ipv6Address": "fd10::11/64"}
    assert nodes[2]["spec"]["bgp"] == {"ipv4Address": "10.0.8.11/24"}


def test_no_two_blocks_have_one_name() -> None:
    changed = small()
    changed["nodes"]["n1"]["blocks"] = ["fd65::1:2:0/122", "fd65:1::2:0/122", "10.65.0.0/26"]
    changed["cluster"]["ipPools"][1]["cidr"] = "fd65::/16"
    files = rendering.resources(document.parse(changed, "lab.yaml"))
    names = [each["metadata"]["name"] for each in yaml.safe_load_all(files["blocks.yaml"])]
    assert names[:3] == ["n1-fd65--1-2-0-122", "n1-fd65-1--2-0-122", "n1-10-65-0-0-26"]


def test_bird_speaks_both_and_takes_only_what_lies_in_the_pools(topology: Topology) -> None:
    written = rendering.bird_conf(topology, topology.routers[0])
    assert "ipv4 { import where net ~ [ 10.65.0.0/16+ ]; next hop self; };" in written
    assert "ipv6 { import where net ~ [ fd65::/48+ ]; next hop self; };" in written
    assert (
        "protocol bgp 'node-n1-ipv6' from felix_node6 {\n"
        "  local fd10::1 as 64500;\n"
        "  neighbor fd10::11 as 64512;\n"
        "  ipv6 { export where (source = RTS_BGP && ! (bgp_path ~ [= * 64512 * =])); };\n"
        "}\n"
    ) in written
    assert "node-n3-ipv6" not in written


@pytest.mark.skipif(shutil.which("bird") is None, reason="BIRD is not installed")
@pytest.mark.parametrize("default", ["", "announceDefault: true"])
@pytest.mark.slow
def test_bird_accepts_its_configuration(default: str, tmp_path: Path) -> None:
    text = SMALL.replace("    asNumber: 64500\n", f"    asNumber: 64500\n    {default}\n")
    topology = document.parse(yaml.safe_load(text), "lab.yaml")
    path = tmp_path / "bird.conf"
    path.write_text(rendering.bird_conf(topology, topology.routers[0]))
    assert ("route ::/0 unreachable" in path.read_text()) is bool(default)
    checked = subprocess.run(["bird", "-p", "-c", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_icmpv6_echoes_are_told_from_all_else() -> None:
    request = matrix.echo_request6(identifier=77, sequence=5)
    answer = bytes([129]) + request[1:]
    assert matrix.reply6(answer, identifier=77) == 5
    assert matrix.reply6(answer, identifier=78) is None
    assert matrix.reply6(request, identifier=77) is None
    assert matrix.reply6(bytes([135, 0, 0, 0]), identifier=77) is None, "a neighbour solicitation that is cut short"


def test_a_monitor_tells_of_ipv6_host_routes() -> None:
    events = watching.route_events(
        ["[2026-11-26T10:00:00.000000] Deleted fd65::5 dev cali1 proto 80 metric 1024 pref medium"]
    )
    assert [event.is_about(prefix) for event in events for prefix in ("fd65::5/128", "fd65::/122")] == [True, False]
