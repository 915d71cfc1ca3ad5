"""A cluster out of network namespaces: two racks, an API server, and agents with the rights of our manifest."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from api_server import ApiServer
from spaces import Space

SHIM = Path(sysconfig.get_path("scripts"), "felix-cni")
INSTALL = Path(__file__).parents[2] / "deploy/kubernetes/felix.yaml"
SECONDS = 60.0

AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": ["system:serviceaccount:felix-system:felix"]}, {"level": "None"}],
}


def eventually(asked: Callable[[], Any], what: str, within: float = SECONDS) -> Any:
    until = time.monotonic() + within
    while not (found := asked()):
        assert time.monotonic() < until, f"not within {within} s: {what}"
        time.sleep(0.05)
    return found


class Node:
    """A node: its namespace, its agent, and the pods that it has attached."""

    def __init__(self, folder: Path, name: str, rack: Space, gateway: str, number: int) -> None:
        self.name, self.folder = name, folder / name
        self.address = f"{gateway.rsplit('.', 1)[0]}.{10 + number}"
        self.space = Space()
        self.pods: dict[str, tuple[Space, str]] = {}
        self._agent: subprocess.Popen[bytes] | None = None
        bridge = f"br{gateway.split('.')[2]}"
        rack.ip(
            f"link add {name} type veth peer name eth0 netns {self.space.path}", f"link set {name} master {bridge} up"
        )
        self.space.ip(f"addr add {self.address}/24 dev eth0", "link set eth0 up", f"route add default via {gateway}")
        self.folder.mkdir(exist_ok=True)

    def start(self, kubeconfig: Path, **more: object) -> None:
        settings = {
            "nodeName": self.name, "datastore": "kubernetes", "kubeconfig": str(kubeconfig), "metricsAddress": "none",
            "runDirectory": str(self.folder / "run"), "stateDirectory": str(self.folder / "state"),
            "cniConflist": str(self.folder / "net.d/10-felix.conflist"), **more,
        }  # fmt: skip
        (self.folder / "felix.yaml").write_text(yaml.safe_dump(settings))
        words = [sys.executable, "-m", "felix_py", "run", "--config", str(self.folder / "felix.yaml")]
        with (self.folder / "log").open("ab") as log:
            self._agent = self.space.do(subprocess.Popen, words, stderr=log)

    @property
    def process(self) -> int:
        """The agent's process."""
        assert self._agent is not None
        return self._agent.pid

    def kill(self) -> None:
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            self._agent = None

    def close(self) -> None:
        if self._agent is not None:
            self._agent.terminate()
            self._agent.wait(SECONDS)
        for space, _ in self.pods.values():
            space.close()
        self.space.close()

    def ask(self, *words: str) -> Any:
        program = [sys.executable, "-m", "felix_py.ctl.main", "--socket", str(self.folder / "run/agent.sock")]
        done = subprocess.run(
            [*program, *words, "-o", "json"], capture_output=True, text=True, check=False, timeout=SECONDS
        )
        return json.loads(done.stdout) if done.stdout else {}

    def cni(self, verb: str, container: str, netns: str) -> tuple[int, dict[str, Any]]:
        environment = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin", "FELIX_CNI_SOCKET": str(self.folder / "run/cni.sock"),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}",
        }  # fmt: skip
        document = {"cniVersion": "1.0.0", "name": "felix", "type": "felix-cni"}
        done = subprocess.run(
            [SHIM],
            input=json.dumps(document),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def add(self, name: str) -> str:
        """Attach a pod, and return its address."""
        space = Space()
        status, answer = self.cni("ADD", name, space.path)
        assert status == 0, answer
        address = str(answer["ips"][0]["address"]).split("/")[0]
        self.pods[name] = space, address
        return address

    def remove(self, name: str) -> None:
        space, _ = self.pods.pop(name)
        assert self.cni("DEL", name, space.path)[0] == 0
        space.close()

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]


class Cluster:
    """Two racks with a router between them, an API server at the router, and nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rack = Space()
        for number in (1, 2):
            self.rack.ip(
                f"link add br{number} type bridge",
                f"addr add 172.30.{number}.1/24 dev br{number}",
                f"link set br{number} up",
            )
        self.rack.parameter("ipv4/ip_forward", "1")
        (folder / "kubernetes").mkdir(parents=True, exist_ok=True)
        (folder / "kubernetes/audit.yaml").write_text(yaml.safe_dump(AUDIT))
        audit = (
            f"--audit-policy-file={folder}/kubernetes/audit.yaml",
            f"--audit-log-path={folder}/kubernetes/audit.log",
        )
        self.server = ApiServer(folder / "kubernetes", *audit, address="172.30.1.1", within=self.rack.do)
        self.nodes: dict[str, Node] = {}

    def install(self) -> Path:
        """Apply our manifest as it is, and return who the agents are then."""
        documents = list(yaml.safe_load_all(INSTALL.read_text()))
        order = ("CustomResourceDefinition", "Namespace")
        documents.sort(key=lambda each: order.index(each["kind"]) if each["kind"] in order else len(order))
        for document in documents:
            self.server.apply(document)
        self.server.await_served(
            each["spec"]["names"]["plural"] for each in documents if each["kind"] == "CustomResourceDefinition"
        )
        account = "/api/v1/namespaces/felix-system/serviceaccounts/felix/token"
        question = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.server.request("POST", account, question)["status"]["token"]
        return self.server.write_kubeconfig("felix", {"token": token})

    def node(self, name: str, rack: int, number: int) -> Node:
        """Make a node."""
        made = self.nodes[name] = Node(self.folder, name, self.rack, f"172.30.{rack}.1", number)
        self.register(name)
        return made

    def register(self, name: str) -> None:
        """Register a node as kubelet does: with its address, and its network unavailable."""
        self.server.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        unavailable = {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}
        addresses = [{"type": "InternalIP", "address": self.nodes[name].address}]
        patch = {"status": {"addresses": addresses, "conditions": [unavailable]}}
        self.server.request("PATCH", f"/api/v1/nodes/{name}/status", patch, content="strategic-merge-patch+json")

    def noted(self, name: str) -> str | None:
        """Return the address that stands in a node's annotation."""
        found: dict[str, str] = self.server.request("GET", f"/api/v1/nodes/{name}")["metadata"].get("annotations", {})
        return found.get("projectcalico.org/IPv4Address")

    def network_available(self, name: str) -> bool:
        found = self.server.request("GET", f"/api/v1/nodes/{name}")["status"]["conditions"]
        return [each["status"] for each in found if each["type"] == "NetworkUnavailable"] == ["False"]

    def sessions(self, name: str) -> tuple[int, int]:
        """Return how many sessions a node says that it has, and has not."""
        found = self.server.request("GET", "/apis/projectcalico.org/v3/caliconodestatuses")["items"]
        (bgp,) = (each["status"]["bgp"] for each in found if each["metadata"]["name"] == name and "status" in each)
        return bgp["numberEstablished"], bgp["numberNotEstablished"]

    def events(self, name: str, reason: str) -> list[str]:
        """Return what the Events on a Node say."""
        found = self.server.request("GET", "/api/v1/namespaces/default/events")["items"]
        return [
            each["message"] for each in found if each["involvedObject"]["name"] == name and each["reason"] == reason
        ]

    def requests(self) -> set[str]:
        """Return what the agents have asked so far: an identity for each request, with its verb and URI."""
        lines = (self.folder / "kubernetes/audit.log").read_text().splitlines()
        found = map(json.loads, lines)
        return {f"{each['auditID']} {each['verb']} {each['requestURI']}" for each in found}

    def used_rights(self) -> set[tuple[str, str]]:
        """Return which rights the agents have used: verb and resource."""
        found = set()
        for line in (self.folder / "kubernetes/audit.log").read_text().splitlines():
            event = json.loads(line)
            reference = event.get("objectRef", {})
            inner = f"/{reference['subresource']}" if "subresource" in reference else ""
            found.add((event["verb"], f"{reference.get('resource')}{inner}"))
        return found

    def losses(self) -> list[tuple[str, str]]:
        """Return which pods do not reach which."""
        pods = [(name, *pod) for node in self.nodes.values() for name, pod in node.pods.items()]
        return [
            (name, other)
            for name, space, _ in pods
            for other, _, address in pods
            if name != other and not space.pings(address)
        ]

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()
        self.server.close()
        self.rack.close()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    assert os.geteuid() == 0
    made = Cluster(folder)
    try:
        yield made
    finally:
        made.close()
