"""What a lab's machines read, as goldens; the agent's own parsers and BIRD itself accept it."""

import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
import yaml

from felix_py import config
from felix_py.datastore import directory
from felix_py.lab import document, plan, reflectors, rendering, routing, screen
from felix_py.lab.plan import Address, Bridge, Cable, Route, Set
from felix_py.lab.state import Refused
from felix_py.lab.topology import Topology

DEFAULT = Path(__file__).parents[1] / "deploy" / "lab" / "two-racks.yaml"

TEXT = """
networks: {lan: 10.0.0.0/24, wan: 10.0.9.0/24}
routers: {gw: {asNumber: 64500, addresses: {lan: 10.0.0.1, wan: 10.0.9.1}}}
nodes:
  n1: {network: lan, address: 10.0.0.11, blocks: [10.65.0.0/26], pods: 1}
  n-2: {network: lan, address: 10.0.0.12, blocks: [10.65.1.0/26], asNumber: 64513, defaultRoute: false}
hosts: {pc: {network: wan, address: 10.0.9.20}}
cluster: {asNumber: 64512, ipPools: [{name: default, cidr: 10.65.0.0/16, ipipMode: CrossSubnet}]}
agent: {logLevel: debug}
"""


REFLECTORS = DEFAULT.with_name("route-reflectors.yaml")
RECIPE = DEFAULT.parents[1] / "route-reflector"


@pytest.fixture
def reflected() -> Topology:
    return document.parse(yaml.safe_load(REFLECTORS.read_text()), "route-reflectors.yaml")


@pytest.fixture
def topology() -> Topology:
    return document.parse(yaml.safe_load(TEXT), "lab.yaml")


@pytest.fixture
def two_racks() -> Topology:
    return document.parse(yaml.safe_load(DEFAULT.read_text()), "two-racks.yaml")


def test_felix_yaml_names_the_node_and_carries_the_labs_settings(topology: Topology) -> None:
    assert rendering.felix_yaml(topology, topology.nodes[0]) == "nodeName: n1\nlogLevel: debug\n"


def test_machines_know_each_other_by_name(topology: Topology) -> None:
    assert rendering.hosts(topology) == (
        "127.0.0.1 localhost\n10.0.0.1 gw\n10.0.0.11 n1\n10.0.0.12 n-2\n10.0.9.20 pc\n"
    )


def test_the_resources_are_those_of_calico(topology: Topology) -> None:
    files = rendering.resources(topology)
    assert sorted(files) == ["blocks.yaml", "cluster.yaml", "nodes.yaml", "peers.yaml"]
    assert files["nodes.yaml"] == (
        "apiVersion: projectcalico.org/v3\n"
        "kind: Node\n"
        "metadata:\n"
        "  name: n1\n"
        "spec:\n"
        "  bgp:\n"
        "    ipv4Address: 10.0.0.11/24\n"
        "---\n"
        "apiVersion: projectcalico.org/v3\n"
        "kind: Node\n"
        "metadata:\n"
        "  name: n-2\n"
        "spec:\n"
        "  bgp:\n"
        "    ipv4Address: 10.0.0.12/24\n"
        "    asNumber: 64513\n"
    )
    assert files["cluster.yaml"] == (
        "apiVersion: projectcalico.org/v3\n"
        "kind: BGPConfiguration\n"
        "metadata:\n"
        "  name: default\n"
        "spec:\n"
        "  asNumber: 64512\n"
        "  nodeToNodeMeshEnabled: true\n"
        "---\n"
        "apiVersion: projectcalico.org/v3\n"
        "kind: IPPool\n"
        "metadata:\n"
        "  name: default\n"
        "spec:\n"
        "  cidr: 10.65.0.0/16\n"
        "  ipipMode: CrossSubnet\n"
        "  blockSize: 26\n"
    )
    assert list(yaml.safe_load_all(files["peers.yaml"]))[1]["spec"] == {
        "node": "n-2",
        "peerIP": "10.0.0.1",
        "asNumber": 64500,
    }
    assert next(iter(yaml.safe_load_all(files["blocks.yaml"]))) == {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BlockAffinity",
        "metadata": {"name": "n1-10-65-0-0-26"},
        "spec": {"node": "n1", "cidr": "10.65.0.0/26", "state": "confirmed"},
    }


def test_the_agent_accepts_every_file(two_racks: Topology, tmp_path: Path) -> None:
    for name, text in rendering.resources(two_racks).items():
        (tmp_path / name).write_text(text)
    reading = directory.read(tmp_path)
    assert reading.faults == ()
    assert len(reading.good) == 1 + 1 + 4 + 4 + 4
    settings = config.load(
        yaml.safe_load(rendering.felix_yaml(two_racks, two_racks.nodes[0])), {}, where="felix.yaml", host_name="x"
    )
    assert settings.node_name == "a1"


def test_bird_conf(topology: Topology) -> None:
    assert rendering.bird_conf(topology, topology.routers[0]) == (
        "# Router gw, written by felix-lab.\n"
        "log stderr all;\n"
        "router id 10.0.0.1;\n"
        "graceful restart wait 30;          # seconds to keep the kernel's routes after a restart, "
        "until the peers spoke\n"
        "\n"
        "protocol device { }\n"
        "\n"
        "protocol kernel {\n"
        "  graceful restart on;\n"
        "  ipv4 { import none; export where source = RTS_BGP; };\n"
        "}\n"
        "\n"
        "template bgp felix_node {\n"
        "  graceful restart on;             # RFC 4724: a node's agent may restart without losing its routes here\n"
        "  connect delay time 1;\n"
        "  connect retry time 2;\n"
        "  error wait time 1, 5;\n"
        "  ipv4 { import where net ~ [ 10.65.0.0/16+ ]; next hop self; };\n"
        "}\n"
        "\n"
        "# What came from an AS is not told to that AS: it would refuse it as a loop (RFC 4271, 9.1.2).\n"
        "\n"
        "protocol bgp 'node-n1' from felix_node {\n"
        "  local 10.0.0.1 as 64500;\n"
        "  neighbor 10.0.0.11 as 64512;\n"
        "  ipv4 { export where (source = RTS_BGP && ! (bgp_path ~ [= * 64512 * =])); };\n"
        "}\n"
        "\n"
        "protocol bgp 'node-n-2' from felix_node {\n"
        "  local 10.0.0.1 as 64500;\n"
        "  neighbor 10.0.0.12 as 64513;\n"
        "  ipv4 { export where (source = RTS_BGP && ! (bgp_path ~ [= * 64513 * =])); };\n"
        "}\n"
    )


@pytest.mark.skipif(shutil.which("bird") is None, reason="BIRD is not installed")
@pytest.mark.parametrize("change", [("", ""), ("asNumber: 64500,", "asNumber: 64500, announceDefault: true,")])
@pytest.mark.slow
def test_bird_accepts_its_configuration(change: tuple[str, str], tmp_path: Path) -> None:
    topology = document.parse(yaml.safe_load(TEXT.replace(*change)), "lab.yaml")
    path = tmp_path / "bird.conf"
    path.write_text(rendering.bird_conf(topology, topology.routers[0]))
    checked = subprocess.run(["bird", "-p", "-c", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


# --- route reflectors


def test_the_lab_gives_the_nodes_what_the_recipe_says(reflected: Topology) -> None:
    """The recipe's resources are those of the lab, so that whatever the lab proves is proved of the recipe."""
    files = rendering.resources(reflected)
    ours = {each["metadata"]["name"]: each for name in files for each in yaml.safe_load_all(files[name])}
    recipe = list(yaml.safe_load_all((RECIPE / "felix.yaml").read_text()))
    assert [each["metadata"]["name"] for each in recipe] == ["default", "rr1", "rr2"]
    bgp = next(each for each in yaml.safe_load_all(files["cluster.yaml"]) if each["kind"] == "BGPConfiguration")
    assert recipe == [bgp, ours["rr1"], ours["rr2"]]


def test_reflectors_read_the_files_of_the_recipe(reflected: Topology) -> None:
    paths = {each.name: (REFLECTORS.parent / each.config).resolve() for each in reflected.reflectors}
    assert paths == {"rr1": RECIPE / "bird.conf", "rr2": RECIPE / "frr.conf"}


def test_a_reflector_is_a_machine_with_a_default_route(reflected: Topology) -> None:
    assert plan.machines(reflected)["rr1"] == (
        Set("lo"),
        Address("eth0", IPv4Interface("172.31.8.11/24")),
        Set("eth0"),
        Route(IPv4Network("0.0.0.0/0"), IPv4Address("172.31.8.1")),
    )
    assert rendering.hosts(reflected).splitlines()[-2:] == ["172.31.8.11 rr1", "172.31.8.12 rr2"]


def test_a_missing_daemon_is_named_with_the_line_that_installs_it(reflected: Topology) -> None:
    with pytest.raises(Refused, match="bird, birdc not found; install with: apt-get install bird2"):
        routing.require(reflected, "/nowhere")


def test_a_missing_configuration_is_named_with_its_path(reflected: Topology, tmp_path: Path) -> None:
    where = tmp_path / "lab" / "lab.yaml"
    expected = (
        f"reflectors.rr1.config is ../route-reflector/bird.conf, and .*{tmp_path.name}/lab/.*bird.conf is no file"
    )
    with pytest.raises(Refused, match=expected):
        reflectors.require(reflected, where)


def test_the_picture_names_the_daemon_of_a_reflector(reflected: Topology) -> None:
    drawn = screen.picture(reflected)
    assert "├─ rr1  172.31.8.11  route reflector, BIRD" in drawn
    assert "└─ rr2  172.31.8.12  route reflector, FRR" in drawn


@pytest.mark.skipif(shutil.which("bird") is None, reason="BIRD is not installed: apt-get install bird2")
@pytest.mark.parametrize("change", [("", ""), ("# password", "  password")], ids=["as it is", "with its passwords"])
@pytest.mark.slow
def test_bird_accepts_the_recipe(change: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "bird.conf"
    path.write_text((RECIPE / "bird.conf").read_text().replace(*change))
    checked = subprocess.run(["bird", "-p", "-c", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_the_plan_builds_switches_cables_and_machines(topology: Topology) -> None:
    assert plan.namespaces("lab", topology) == (
        "felix-lab-lan",
        "felix-lab-wan",
        "felix-lab-gw",
        "felix-lab-n1",
        "felix-lab-n-2",
        "felix-lab-pc",
        "felix-lab-n1-pod1",
    )
    assert plan.switches(topology)["wan"] == (Bridge("switch"), Set("switch"), Set("lo"))
    assert plan.cables("lab", topology) == {
        "lan": (
            Cable("gw", "lan", "felix-lab-gw"),
            Cable("n1", "eth0", "felix-lab-n1"),
            Cable("n-2", "eth0", "felix-lab-n-2"),
        ),
        "wan": (Cable("gw", "wan", "felix-lab-gw"), Cable("pc", "eth0", "felix-lab-pc")),
    }
    anywhere, wan = IPv4Network("0.0.0.0/0"), IPv4Network("10.0.9.0/24")
    to_lan, to_wan = IPv4Address("10.0.0.1"), IPv4Address("10.0.9.1")
    assert plan.machines(topology) == {
        "gw": (
            Set("lo"),
            Address("lan", IPv4Interface("10.0.0.1/24")),
            Set("lan"),
            Address("wan", IPv4Interface("10.0.9.1/24")),
            Set("wan"),
        ),
        "n1": (Set("lo"), Address("eth0", IPv4Interface("10.0.0.11/24")), Set("eth0"), Route(anywhere, to_lan)),
        "n-2": (Set("lo"), Address("eth0", IPv4Interface("10.0.0.12/24")), Set("eth0"), Route(wan, to_lan)),
        "pc": (Set("lo"), Address("eth0", IPv4Interface("10.0.9.20/24")), Set("eth0"), Route(anywhere, to_wan)),
    }


def test_the_picture_shows_who_hangs_where(two_racks: Topology) -> None:
    assert screen.picture(two_racks) == (
        "                tor  router, BIRD, AS 64500\n"
        "┌────────────────────────────┬────────────────────────────┐\n"
        "│ rack-a  172.31.1.0/24      │ rack-b  172.31.2.0/24      │ outside  172.31.9.0/24\n"
        "├─ a1  172.31.1.11           ├─ b1  172.31.2.11           └─ client  172.31.9.10\n"
        "│    10.65.0.0/26  3 pods    │    10.65.2.0/26  3 pods\n"
        "└─ a2  172.31.1.12           └─ b2  172.31.2.12\n"
        "     10.65.1.0/26  3 pods         10.65.3.0/26  3 pods"
    )
