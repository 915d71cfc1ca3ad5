"""What is left on nodes when felix-py is taken out of a real cluster, and that it can come again."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from cluster import INSTALL, eventually
from kubelets import kubernetes
from machines import IMAGE, Machine

pytestmark = [pytest.mark.kubernetes, pytest.mark.kubelets]

CLEANUP = INSTALL.with_name("cleanup.yaml")


def leftovers(machine: Machine) -> list[str]:
    """Return what a node has of ours, or because of us."""
    links = {each["ifname"] for each in json.loads(machine.run("ip", "-j", "link", "show"))}
    files = [*(machine.root / "etc/cni/net.d").iterdir(), machine.root / "opt/cni/bin/felix-cni"]
    files += [*(machine.root / "var/lib/felix").iterdir(), *(machine.root / "run/felix").iterdir()]
    routes = machine.run("ip", "route", "show", "table", "all").splitlines()
    tables = machine.run("nft", "list", "tables").splitlines()
    rules = machine.run("ip", "rule", "show").splitlines()
    return [
        *sorted(links - {"lo", "eth0"}),
        *(str(each) for each in files if each.exists()),
        *(line for line in routes if "proto 80" in line or "10.65." in line),
        *(line for line in tables if "felix" in line),
        *(line for line in rules if "proto 80" in line),
        *machine.run("tc", "filter", "show", "dev", "eth0", "ingress").splitlines(),
    ]


def test_nothing_is_left_on_the_nodes_and_it_can_come_again(tmp_path: Path) -> None:
    with kubernetes(tmp_path) as k:
        k.install()
        eventually(k.all_agents_ready, "it is installed", 120)
        k.configure()
        k.deploy("web", 8)
        eventually(lambda: len(k.pods("web")) == 8, "pods run", 120)
        assert all(leftovers(machine) for machine in k.machines.values())

        k.kubectl("delete", "deployment", "web")
        eventually(lambda: k.get("pods") == [], "no pod runs", 120)
        k.kubectl("delete", "-f", str(INSTALL), "--timeout=120s", within=130)
        text = CLEANUP.read_text().replace("felix-py:dev", IMAGE)
        k.kubectl("apply", "-f", "-", text=text)
        status = ("rollout", "status", "daemonset/felix-cleanup", "--timeout=60s")
        k.kubectl("-n", "felix-cleanup", *status, within=70)
        k.kubectl("delete", "-f", "-", "--timeout=60s", text=text, within=70)
        assert {name: leftovers(machine) for name, machine in k.machines.items()} == {name: [] for name in k.machines}

        k.install()
        eventually(k.all_agents_ready, "it is installed again", 120)
        k.configure()
        k.deploy("web", 8)
        eventually(lambda: len(k.pods("web")) == 8, "pods run again", 120)
        eventually(k.well, "no agent complains")
