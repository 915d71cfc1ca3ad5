"""felixctl get, apply and delete on a lab's node: what is applied is in the kernel of every node."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import eventually, felix_lab, lab_name, left_of, on_machine

from felix_py.lab import state

pytestmark = [pytest.mark.netns, pytest.mark.bird]

LAB = """
networks: {left: 10.0.1.0/24, right: 10.0.2.0/24}
routers: {tor: {asNumber: 64500, addresses: {left: 10.0.1.1, right: 10.0.2.1}}}
nodes:
  n1: {network: left, address: 10.0.1.11, blocks: [10.65.0.0/26], pods: 1}
  n2: {network: right, address: 10.0.2.11, blocks: [10.65.1.0/26], pods: 1}
cluster: {ipPools: [{name: default, cidr: 10.65.0.0/16, ipipMode: CrossSubnet}]}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("lab") / "lab.yaml"
    path.write_text(LAB)
    name = lab_name("apply")
    try:
        called = felix_lab(name, "up", "--topology", str(path))
        assert called.status == 0, called.error
        yield name
    finally:
        felix_lab(name, "down")
        assert left_of(name) == []


def felixctl(lab: str, *words: str) -> str:
    called = on_machine(lab, "n1", "felixctl", *words)
    assert called.status == 0, called.error
    return called.out


def route(lab: str, node: str, prefix: str) -> str:
    return on_machine(lab, node, "ip", "route", "show", prefix).out


def test_a_pool_that_is_applied_on_one_node_moves_the_routes_of_all(lab: str, tmp_path: Path) -> None:
    assert "dev tunl0" in route(lab, "n1", "10.65.1.0/26")
    shown = felixctl(lab, "get", "ippool", "default", "-o", "yaml")
    file = tmp_path / "pool.yaml"
    file.write_text(shown.replace("CrossSubnet", "Never"))
    folder = state.Lab(lab).directory / "resources"
    assert felixctl(lab, "apply", "-f", str(file)) == "IPPool default changed, /etc/felix/resources/cluster.yaml\n"
    for node, prefix in (("n1", "10.65.1.0/26"), ("n2", "10.65.0.0/26")):
        assert eventually(lambda node=node, prefix=prefix: "dev eth0" in route(lab, node, prefix)), node
    file.write_text(shown)
    words = ("--node", "n2", "apply", "-f", str(file), "--folder", str(folder))
    assert on_machine(lab, "n1", "felixctl", *words).status == 0
    assert eventually(lambda: "dev tunl0" in route(lab, "n1", "10.65.1.0/26"))


def test_a_peer_that_is_deleted_ends_its_session(lab: str, tmp_path: Path) -> None:
    name = felixctl(lab, "get", "bgppeer").splitlines()[1].split()[1]
    shown = felixctl(lab, "get", "bgppeer", name, "-o", "yaml")
    before = felixctl(lab, "bgp", "peers")
    assert f" {name} " in before
    felixctl(lab, "delete", "bgppeer", name)
    assert eventually(lambda: f" {name} " not in on_machine(lab, "n1", "felixctl", "bgp", "peers").out)
    file = tmp_path / "peer.yaml"
    file.write_text(shown)
    felixctl(lab, "apply", "-f", str(file))
    assert eventually(lambda: "Established" in _line(on_machine(lab, "n1", "felixctl", "bgp", "peers").out, name))


def _line(table: str, name: str) -> str:
    return next((line for line in table.splitlines() if f" {name} " in line), "")
