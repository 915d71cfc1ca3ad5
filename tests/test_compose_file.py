"""docker-compose.yml is held to the topology that its containers are given, and that to the default lab's."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from felix_py.lab import document
from felix_py.lab.topology import Router, Topology

ROOT = Path(__file__).parents[1]
FILE = ROOT / "deploy" / "lab" / "two-racks-spine.yaml"


def read(path: Path) -> Topology:
    return document.parse(yaml.safe_load(path.read_text()), path.name)


TOPOLOGY = read(FILE)
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
MACHINES = (*TOPOLOGY.routers, *TOPOLOGY.machines)
PAGE = "page"
"""What is no machine of the lab, and shows it: a service and a network."""


def test_the_nodes_hosts_and_pools_are_those_of_the_default_lab() -> None:
    default = read(FILE.with_name("two-racks.yaml"))
    assert (TOPOLOGY.nodes, TOPOLOGY.hosts, TOPOLOGY.pools, TOPOLOGY.bgp, TOPOLOGY.agent) == (
        default.nodes,
        default.hosts,
        default.pools,
        default.bgp,
        default.agent,
    )


def test_make_demo_and_make_lab_bring_up_the_same_network() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"TOPOLOGY ?= {FILE.relative_to(ROOT)}\n" in makefile
    assert [makefile.count(f"felix-lab {word} --topology $(TOPOLOGY)\n") for word in ("demo", "up")] == [1, 1]


def test_a_container_stands_for_each_machine() -> None:
    assert set(SERVICES) == {PAGE, *(machine.name for machine in MACHINES)}
    assert all(SERVICES[machine.name]["hostname"] == machine.name for machine in MACHINES)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_container_has_the_addresses_of_its_machine(machine: Any) -> None:
    where = machine.addresses if isinstance(machine, Router) else {machine.network: machine.address}
    networks = SERVICES[machine.name]["networks"]
    assert {name: each["ipv4_address"] for name, each in networks.items()} == {
        name: str(address.ip) for name, address in where.items()
    }


def test_the_networks_are_the_same_and_the_engine_takes_no_address_of_a_machine() -> None:
    networks = {name: network for name, network in COMPOSE["networks"].items() if name != PAGE}
    configs = {name: network["ipam"]["config"] for name, network in networks.items()}
    assert {name: IPv4Network(config["subnet"]) for name, [config] in configs.items()} == {
        network.name: network.cidr for network in TOPOLOGY.networks
    }
    taken = {str(end) for machine in TOPOLOGY.machines for end in machine.ends}
    taken |= {str(each.ip) for router in TOPOLOGY.routers for each in router.addresses.values()}
    assert not taken & {config["gateway"] for [config] in configs.values()}


def test_every_container_reads_this_topology() -> None:
    mount = "./deploy/lab/two-racks-spine.yaml:/etc/felix-lab/topology.yaml:ro"
    assert [name for name, service in SERVICES.items() if mount not in service["volumes"]] == []


def test_nobody_is_privileged_and_every_right_is_named() -> None:
    for name, service in SERVICES.items():
        assert "privileged" not in service, name
        assert service["cap_drop"] == ["ALL"], name
        assert "ALL" not in service["cap_add"], name
        assert "network_mode" not in service, name
        assert "pid" not in service, name


def test_every_health_check_asks_the_daemon_itself() -> None:
    words = {"bird": "birdc", "frr": "vtysh"}
    expected = {node.name: "felixctl status" for node in TOPOLOGY.nodes}
    expected |= {router.name: words[router.daemon] for router in TOPOLOGY.routers}
    expected |= {host.name: "ping" for host in TOPOLOGY.hosts}
    expected[PAGE] = "http://127.0.0.1:9099/"
    assert set(expected) == set(SERVICES)
    for name, word in expected.items():
        assert word in " ".join(SERVICES[name]["healthcheck"]["test"]), name


def test_the_page_is_published_to_this_machine_only_and_hangs_on_no_network_of_the_lab() -> None:
    page = SERVICES[PAGE]
    assert page["ports"] == ["127.0.0.1:${FELIX_PAGE_PORT:-9099}:9099"]
    assert page["networks"] == [PAGE]
    assert page["cap_add"] == []
    assert all(volume.endswith(":ro") for volume in page["volumes"])
    assert [name for name, service in SERVICES.items() if "ports" in service] == [PAGE]
    assert not any(PAGE in SERVICES[machine.name]["networks"] for machine in MACHINES)


def test_routers_have_the_image_with_routers_in_it() -> None:
    routers = {router.name for router in TOPOLOGY.routers}
    images = {name: (service["image"], service["build"]["target"]) for name, service in SERVICES.items()}
    assert images == {
        name: ("felix-py-lab:dev", "lab") if name in routers else ("felix-py:dev", "agent") for name in SERVICES
    }
