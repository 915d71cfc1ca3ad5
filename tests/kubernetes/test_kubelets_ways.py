"""The other ways of installing, on real kubelets: overlays as they are, and the Helm chart; each on clean nodes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from api_server import binary
from cluster import INSTALL, eventually
from echoes import unanswered
from kubelets import Kubernetes, kubernetes
from machines import IMAGE

pytestmark = [pytest.mark.kubernetes, pytest.mark.kubelets]

FOLDER = INSTALL.parent
CLEANUP = FOLDER / "cleanup.yaml"
PODS = 8
REFLECTORS = ("a1", "b1")
POOL = {"cidr": "10.65.0.0/16", "vxlanMode": "CrossSubnet", "natOutgoing": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    with kubernetes(tmp_path_factory.mktemp("ways")) as k:
        yield k


@pytest.fixture
def k(made: Kubernetes) -> Iterator[Kubernetes]:
    yield made
    made.kubectl("delete", "deployment", "web", "--ignore-not-found")
    eventually(lambda: made.made("web") == [], "no pod runs", 120)
    made.kubectl("delete", "-f", str(INSTALL), "--ignore-not-found", "--timeout=120s", within=130)
    text = CLEANUP.read_text().replace("felix-py:dev", IMAGE)
    made.kubectl("apply", "-f", "-", text=text)
    status = ("rollout", "status", "daemonset/felix-cleanup", "--timeout=60s")
    made.kubectl("-n", "felix-cleanup", *status, within=70)
    made.kubectl("delete", "-f", "-", "--timeout=60s", text=text, within=70)


def apply(k: Kubernetes, overlay: str) -> None:
    """Do what docs/install.md says: the definitions have to be served before resources of theirs are taken."""
    k.kubectl("apply", "-k", str(FOLDER / "crds"))
    k.kubectl("wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=felix-py")
    text = k.kubectl("kustomize", str(FOLDER / "overlays" / overlay)).replace("felix-py:dev", IMAGE)
    k.kubectl("apply", "-f", "-", text=text)


def works(k: Kubernetes, encapsulation: str) -> None:
    """See that pods run and reach each other and every node, and by which tunnel between racks."""
    eventually(k.all_agents_ready, "all agents are ready", 120)
    eventually(lambda: all(map(k.is_ready, k.machines)), "all nodes are ready", 120)
    k.deploy("web", PODS)
    eventually(lambda: len(k.pods("web")) == PODS, "all pods run", 120)
    eventually(k.well, "no agent complains", 120)
    pods = k.pods("web")
    sources = [source for address, source in k.sources().items() if address in pods]
    assert len(sources) == PODS
    nodes = [each.address for each in k.machines.values()]
    eventually(lambda: not unanswered(sources, [*pods, *nodes]), "everybody reaches everybody")
    for machine in k.machines.values():
        remote = [each for each in machine.felixctl("routes")["routes"] if each["kind"] == "remote"]
        far = {each.address for each in k.machines.values() if each.rack != machine.rack}
        assert {each["nextHop"] for each in remote if each["encapsulation"] == encapsulation} == far
        assert {each["state"] for each in remote} == {"installed"}


def test_the_overlay_vxlan(k: Kubernetes) -> None:
    apply(k, "vxlan")
    works(k, "vxlan")


def test_the_overlay_route_reflectors(k: Kubernetes) -> None:
    for name in REFLECTORS:
        k.kubectl("label", "node", name, "route-reflector=true")
        k.kubectl("annotate", "node", name, "projectcalico.org/RouteReflectorClusterID=244.0.0.1")
    apply(k, "route-reflectors")
    works(k, "ipip")
    for machine in k.machines.values():
        peers = {each["address"] for each in machine.felixctl("bgp", "peers")["peers"]}
        with_everybody = machine.name in REFLECTORS
        assert peers == {
            each.address
            for each in k.machines.values()
            if each is not machine and (with_everybody or each.name in REFLECTORS)
        }
    for name in REFLECTORS:
        k.kubectl("label", "node", name, "route-reflector-")
        k.kubectl("annotate", "node", name, "projectcalico.org/RouteReflectorClusterID-")


def helm(k: Kubernetes, *words: str) -> str:
    program = binary("helm")
    if program is None:
        pytest.skip("needs helm: go build helm.sh/helm/v3/cmd/helm")
    environment = {**os.environ, "KUBECONFIG": str(k.server.kubeconfig), "HOME": str(k.folder)}
    command = [program, "--namespace", "felix-system", *words]
    done: subprocess.CompletedProcess[str] = k.tor.do(
        subprocess.run, command, capture_output=True, text=True, timeout=200, env=environment
    )
    assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
    return done.stdout


def test_the_chart_is_installed_changed_and_removed(k: Kubernetes) -> None:
    name = ("--set", f"image.name={IMAGE}")
    values = (*name, "--set-json", f"ipPool={json.dumps(POOL)}")
    helm(k, "install", "felix", str(FOLDER / "chart"), "--create-namespace", "--wait", "--timeout=120s", *values)
    works(k, "vxlan")

    before = {each["metadata"]["uid"] for each in k.agents().values()}
    helm(k, "upgrade", "felix", str(FOLDER / "chart"), *values, "--set", "settings.logLevel=debug")
    k.kubectl("-n", "felix-system", "rollout", "status", "daemonset/felix", "--timeout=170s", within=180)
    assert before.isdisjoint(each["metadata"]["uid"] for each in k.agents().values())
    works(k, "vxlan")

    helm(k, "uninstall", "felix", "--wait", "--timeout=120s")
    assert k.agents() == {}
