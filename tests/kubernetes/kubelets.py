"""A whole Kubernetes cluster: API server, controllers, scheduler, four machines with kubelets, a router."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from api_server import DIES_WITH_US, ApiServer, binary, sign
from cluster import INSTALL, eventually
from echoes import Source
from machines import BUSYBOX, IMAGE, Machine, save_images
from spaces import Space

PLUGINS = Path(__file__).parents[2] / "deploy" / "kubernetes"
"""Where kubectl-felix is."""

SERVER = "172.30.1.1"
WHOLE = (
    "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
    "--kubelet-preferred-address-types=InternalIP",
)  # fmt: skip

RACKS = {"a": 1, "b": 2}

MACHINES = tuple(f"{rack}{number}" for rack in RACKS for number in (1, 2))
"""Names of machines: the rack, and the number in it."""

RESOURCES = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default}
spec: {cidr: 10.65.0.0/16, ipipMode: CrossSubnet, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor-a}
spec: {nodeSelector: rack == 'a', peerIP: 172.30.1.1, asNumber: 64601}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor-b}
spec: {nodeSelector: rack == 'b', peerIP: 172.30.2.1, asNumber: 64601}
"""
"""Nodes peer with each other, and with the router of their rack."""

BIRD = """
router id 172.30.1.1;
log stderr all;
protocol device { }
protocol kernel { ipv4 { export where source = RTS_BGP; }; }
template bgp node {
  local as 64601;
  connect delay time 1; connect retry time 1; error wait time 1, 1;
  graceful restart;
  ipv4 { import all; export none; };
}
protocol bgp a1 from node { neighbor 172.30.1.11 as 64512; }
protocol bgp a2 from node { neighbor 172.30.1.12 as 64512; }
protocol bgp b1 from node { neighbor 172.30.2.11 as 64512; }
protocol bgp b2 from node { neighbor 172.30.2.12 as 64512; }
"""


class Kubernetes:
    """The cluster."""

    def __init__(self, folder: Path, machines: Iterable[str] = MACHINES) -> None:
        self.folder = folder
        self.tor = Space()
        for rack in RACKS.values():
            self.tor.ip(
                f"link add br{rack} type bridge",
                f"addr add 172.30.{rack}.1/24 dev br{rack}",
                f"link set br{rack} up",
            )
        self.tor.parameter("ipv4/ip_forward", "1")
        save_images(folder / "images")
        secrets = folder / "kubernetes"
        whole = (
            *WHOLE,
            f"--kubelet-client-certificate={secrets}/admin.crt",
            f"--kubelet-client-key={secrets}/admin.key",
        )
        self.server = ApiServer(secrets, address=SERVER, within=self.tor.do, who_may=whole)
        self._processes: list[subprocess.Popen[bytes]] = []
        who = {
            "kube-controller-manager": (
                f"--service-account-private-key-file={secrets}/sa.key", f"--root-ca-file={secrets}/ca.crt",
                "--use-service-account-credentials", f"--cert-dir={secrets}/kcm",
            ),
            "kube-scheduler": (f"--cert-dir={secrets}/scheduler",),
        }  # fmt: skip
        for name, options in who.items():
            kubeconfig = self.server.write_kubeconfig(name, sign(secrets, name, f"/CN=system:{name}"))
            self._spawn(name, binary(name), f"--kubeconfig={kubeconfig}", "--leader-elect=false", *options)
        (folder / "bird.conf").write_text(BIRD)
        self._spawn("bird", "bird", "-f", "-c", folder / "bird.conf", "-s", folder / "bird.ctl")
        self.machines = {name: self._machine(name) for name in machines}

    def _spawn(self, name: str, *words: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = self.tor.do(subprocess.Popen, [*DIES_WITH_US, *map(str, words)], stdout=log, stderr=log)
        self._processes.append(process)

    def _machine(self, name: str) -> Machine:
        rack, number = name[0], int(name[1:])
        subnet = f"172.30.{RACKS[rack]}"
        folder = self.folder / name
        folder.mkdir()
        secrets = self.folder / "kubernetes"
        for who, subject in (
            ("kubelet", f"/O=system:nodes/CN=system:node:{name}"),
            ("kube-proxy", "/CN=system:kube-proxy"),
        ):
            written = self.server.write_kubeconfig(f"{name}-{who}", sign(secrets, f"{name}-{who}", subject))
            written.rename(folder / f"{who}.conf")
        made = Machine(folder, name, f"{subnet}.{10 + number}", rack)
        self.tor.ip(
            f"link add {name} type veth peer name eth0 netns {made.space.path}",
            f"link set {name} master br{RACKS[rack]} up",
        )
        made.space.ip(f"addr add {made.address}/24 dev eth0", "link set eth0 up", f"route add default via {subnet}.1")
        made.space.parameter("ipv4/ip_forward", "1")
        return made

    # --- kubectl, and what it says

    def kubectl(self, *words: str, text: str | None = None, check: bool = True, within: float = 60.0) -> str:
        command = [binary("kubectl") or "kubectl", f"--kubeconfig={self.server.kubeconfig}", *words]
        done: subprocess.CompletedProcess[str] = self.tor.do(
            subprocess.run, command, input=text, capture_output=True, text=True, timeout=within
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout + ("" if check else done.stderr)

    def plugin(self, *words: str) -> str:
        """Call `kubectl felix`, as it is called with the file in the path."""
        path = f"{PLUGINS}:{Path(binary('kubectl') or '/').parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "KUBECONFIG": str(self.server.kubeconfig)}
        done: subprocess.CompletedProcess[str] = self.tor.do(
            subprocess.run, ["kubectl", "felix", *words], capture_output=True, text=True, timeout=60, env=environment
        )
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout

    def get(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", *words, "-o", "json"))["items"]
        return found

    def conditions(self, name: str) -> dict[str, str]:
        node = self.server.request("GET", f"/api/v1/nodes/{name}")
        return {each["type"]: each["status"] for each in node["status"].get("conditions", ())}

    def is_ready(self, name: str) -> bool:
        found = self.conditions(name)
        return found.get("Ready") == "True" and found.get("NetworkUnavailable") == "False"

    def agents(self) -> dict[str, dict[str, Any]]:
        """Return the pods of our DaemonSet by node; those that are about to go are not among them."""
        pods = self.get("pods", "-n", "felix-system", "-l", "app.kubernetes.io/name=felix")
        return {each["spec"].get("nodeName", ""): each for each in pods if "deletionTimestamp" not in each["metadata"]}

    def all_agents_ready(self) -> bool:
        found = self.agents()
        return found.keys() == self.machines.keys() and all(map(ready, found.values()))

    def made(self, application: str) -> list[dict[str, Any]]:
        """Return an application's pods, whatever their state; without the work that a kubectl would be."""
        path = f"/api/v1/namespaces/default/pods?labelSelector=app%3D{application}"
        found: list[dict[str, Any]] = self.server.request("GET", path)["items"]
        return found

    def running(self, application: str) -> int:
        """Return how many pods of an application run; the server has counted them, so that asking costs it little."""
        found = self.server.request("GET", f"/apis/apps/v1/namespaces/default/deployments/{application}")
        return int(found.get("status", {}).get("readyReplicas", 0))

    def pods(self, application: str) -> dict[str, str]:
        """Return addresses of an application's running pods, each with its node."""
        return {
            each["status"]["podIP"]: each["spec"]["nodeName"]
            for each in self.made(application)
            if ready(each) and "deletionTimestamp" not in each["metadata"]
        }

    def well(self) -> bool:
        return self.all_agents_ready() and not any(each.problems() for each in self.machines.values())

    # --- what people do

    def install(self) -> None:
        """Apply our manifest, with the name of the image that is here."""
        self.kubectl("apply", "-f", "-", text=INSTALL.read_text().replace("felix-py:dev", IMAGE))

    def configure(self, text: str = RESOURCES) -> None:
        self.kubectl("apply", "-f", "-", text=text)

    def deploy(self, application: str, replicas: int) -> None:
        """Have pods made, spread over the nodes."""
        labels = {"app": application}
        spread = {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": labels},
        }  # fmt: skip
        container = {"name": "main", "image": BUSYBOX}
        pod = {"terminationGracePeriodSeconds": 0, "topologySpreadConstraints": [spread], "containers": [container]}
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": application}, "spec": spec}
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump(document))

    def draining(self) -> set[str]:
        """Return the machines of which the router has a route that is about to go (GRACEFUL_SHUTDOWN, RFC 8326)."""
        asked = ("birdc", "-s", str(self.folder / "bird.ctl"), "show route where (65535, 0) ~ bgp_community")
        shown = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout
        return {name for name in self.machines if f"[{name} " in shown}

    def sources(self) -> dict[str, Source]:
        return {address: source for each in self.machines.values() for address, source in each.sources().items()}

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()
        for process in self._processes:
            process.terminate()
            process.wait()
        self.server.close()
        self.tor.close()


def ready(pod: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))


@contextmanager
def kubernetes(folder: Path, machines: Iterable[str] = MACHINES) -> Iterator[Kubernetes]:
    """A cluster whose machines run, and have no network yet."""
    made = Kubernetes(folder, machines)
    try:
        for machine in made.machines.values():
            machine.start()
        eventually(lambda: len(made.get("nodes")) == len(made.machines), "all kubelets have registered", 120)
        yield made
    finally:
        made.close()
