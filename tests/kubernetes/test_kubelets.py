"""Our manifest in a real cluster: four kubelets in two racks. Each test leaves the cluster as it has found it."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from cluster import INSTALL, eventually
from echoes import Source, Stream, unanswered
from kubelets import RACKS, RESOURCES, SERVER, Kubernetes, kubernetes, ready

pytestmark = [pytest.mark.kubernetes, pytest.mark.kubelets]

PODS = 40

READY = 20.0
"""Seconds from `kubectl apply` until all nodes are ready."""

OUTAGE = 60.0

RETURN = 2.0
"""Seconds after the API server's return until everything is as it should be."""


@dataclass
class Standing:
    """The cluster with its pods, and how long it took."""

    k: Kubernetes
    ready_after: float

    def sources(self) -> dict[str, Source]:
        pods = self.k.pods("web")
        return {address: source for address, source in self.k.sources().items() if address in pods}

    def losses(self) -> set[tuple[str, str]]:
        """Ping from every pod to every pod, every node and the API server; return what was not answered."""
        pods, sources = self.k.pods("web"), self.sources()
        assert sources.keys() == pods.keys()
        return unanswered(sources.values(), [*pods, *(each.address for each in self.k.machines.values()), SERVER])

    def all_pods_run(self) -> bool:
        """Say whether all pods run, at the server and on their nodes: the server hears last of one that broke."""
        pods = self.k.pods("web")
        return len(pods) == PODS and pods.keys() <= self.k.sources().keys()

    def all_well(self) -> None:
        """Wait until all pods run and reach everybody, and no agent complains."""
        eventually(self.all_pods_run, "all pods run", 120)
        eventually(self.k.well, "no agent complains", 120)
        eventually(lambda: not self.losses(), "everybody reaches everybody")

    def between_nodes(self) -> list[tuple[Source, str]]:
        """Return a pod of each node with one of each other."""
        sources, one = self.sources(), {node: address for address, node in self.k.pods("web").items()}
        return [(sources[one[here]], one[there]) for here in one for there in one if here != there]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with kubernetes(tmp_path_factory.mktemp("cluster")) as k:
        begin = time.monotonic()
        k.install()
        eventually(lambda: all(map(k.is_ready, k.machines)), "all nodes are ready", 120)
        made = Standing(k, time.monotonic() - begin)
        eventually(k.all_agents_ready, "all pods of the DaemonSet are ready", 120)
        k.configure()
        k.deploy("web", PODS)
        yield made


@pytest.fixture
def standing(made: Standing) -> Iterator[Standing]:
    made.all_well()
    yield made
    made.all_well()


def test_all_nodes_are_ready_soon_after_the_manifest_was_applied(standing: Standing) -> None:
    assert standing.ready_after < READY


def test_every_pod_reaches_every_pod_every_node_and_the_api_server(standing: Standing) -> None:
    assert standing.losses() == set()
    assert [name for name, source in standing.sources().items() if not source.connects("10.96.0.1", 443)] == []


def test_packets_go_directly_in_a_rack_and_through_a_tunnel_between(standing: Standing) -> None:
    k = standing.k
    for name, machine in k.machines.items():
        remote = [each for each in machine.felixctl("routes")["routes"] if each["kind"] == "remote"]
        near = {each.address for each in k.machines.values() if each.rack == machine.rack and each.name != name}
        assert {each["nextHop"] for each in remote if each["encapsulation"] == "none"} == near
        far = {each.address for each in k.machines.values() if each.rack != machine.rack}
        assert {each["nextHop"] for each in remote if each["encapsulation"] == "ipip"} == far
        assert {each["state"] for each in remote} == {"installed"}


def test_what_felixctl_says_is_had_through_kubectl_exec(standing: Standing) -> None:
    pod = standing.k.agents()["a1"]["metadata"]["name"]
    said = standing.k.kubectl(
        "-n", "felix-system", "exec", pod, "-c", "agent", "--", "felixctl", "status", "-o", "json"
    )
    assert json.loads(said)["node"] == "a1"


def test_kubectl_felix_asks_every_node_or_one(standing: Standing) -> None:
    k = standing.k
    told = [json.loads(line) for line in k.plugin("status", "-o", "json").splitlines()]
    assert {(each["node"], each["status"], each["answer"]["node"]) for each in told} == {
        (name, 0, name) for name in k.machines
    }
    assert k.plugin("--node", "b1", "routes").splitlines()[0].split()[:2] == ["PREFIX", "KIND"]


def test_kubectl_shows_how_many_sessions_each_node_has(standing: Standing) -> None:
    def sessions() -> dict[str, tuple[int, int]]:
        rows = standing.k.get("bgpstatus")
        bgp = {each["metadata"]["name"]: each["status"]["bgp"] for each in rows}
        return {name: (each["numberEstablished"], each["numberNotEstablished"]) for name, each in bgp.items()}

    # Each other node, and the router.
    eventually(lambda: sessions() == dict.fromkeys(standing.k.machines, (4, 0)), "every session is told of")
    for condition in ("SessionsEstablished", "ResourcesAccepted"):
        standing.k.kubectl("wait", f"--for=condition={condition}", "bgpstatus", "--all", "--timeout=30s")


def test_a_router_of_the_rack_is_a_peer_by_a_resource(standing: Standing) -> None:
    k = standing.k
    for machine in k.machines.values():
        peers = machine.felixctl("bgp", "peers")["peers"]
        router = f"172.30.{RACKS[machine.rack]}.1"
        assert [(each["address"], each["state"]) for each in peers if each["type"] != "mesh"] == [
            (router, "Established")
        ]
    blocks = {each["spec"]["cidr"]: each["spec"]["affinity"] for each in k.get("ipamblocks")}
    routes = k.tor.routes("proto", "bird")
    for block, affinity in blocks.items():
        address = k.machines[affinity.removeprefix("host:")].address
        assert [line for line in routes if line.startswith(f"{block} via {address} ")], (block, routes)


def test_the_daemonset_is_rolled_and_no_packet_is_lost(standing: Standing) -> None:
    k = standing.k
    before = {each["metadata"]["uid"] for each in k.agents().values()}
    with Stream(standing.between_nodes()) as stream:
        k.kubectl("-n", "felix-system", "rollout", "restart", "daemonset/felix")
        k.kubectl("-n", "felix-system", "rollout", "status", "daemonset/felix", "--timeout=170s", within=180)
    assert before.isdisjoint(each["metadata"]["uid"] for each in k.agents().values())
    assert stream.sent > len(k.machines) * 100
    assert stream.lost == []


def test_a_pod_of_ours_that_is_stopped_tells_its_peers_before(standing: Standing) -> None:
    k = standing.k
    assert k.draining() == set()
    pod = k.agents()["b1"]["metadata"]["name"]
    k.kubectl("-n", "felix-system", "delete", "pod", pod, "--wait=false")
    eventually(lambda: k.draining() == {"b1"}, "the router is told by preStop")
    eventually(lambda: k.draining() == set(), "the next agent takes it back", 120)


def test_traffic_goes_on_while_agents_die(standing: Standing) -> None:
    k = standing.k

    def restarts() -> int:
        return int(k.agents()["a1"]["status"]["containerStatuses"][0]["restartCount"])

    before, doomed = restarts(), k.agents()["b1"]["metadata"]["name"]
    with Stream(standing.between_nodes()) as stream:
        k.machines["a1"].run("pkill", "-KILL", "-f", "felix-agent run")
        k.kubectl("-n", "felix-system", "delete", "pod", doomed, "--force", "--grace-period=0")
        eventually(lambda: restarts() > before, "kubelet starts the agent again")
        # Where the API server was away before, kubelet may hear of the new pod only a minute later.
        eventually(k.well, "all agents are back", 120)
        assert k.agents()["b1"]["metadata"]["name"] != doomed
    assert stream.lost == []


def test_a_node_whose_object_is_made_anew_is_available_when_its_routes_are_in(standing: Standing) -> None:
    k, machine = standing.k, standing.k.machines["b2"]
    others = [
        (source, target) for source, target in standing.between_nodes() if not _is_on(standing, "b2", source, target)
    ]
    with Stream(others) as stream:
        k.kubectl("delete", "node", "b2")
        machine.run("pkill", "-KILL", "-x", "kubelet")
        eventually(lambda: any(each["metadata"]["name"] == "b2" for each in k.get("nodes")), "kubelet registers", 60)
        eventually(lambda: k.conditions("b2").get("NetworkUnavailable") == "False", "the network is there")
        installed = {each["nextHop"] for each in machine.felixctl("routes")["routes"] if each["kind"] == "remote"}
        assert installed == {each.address for each in k.machines.values()} - {machine.address}
        standing.all_well()
    assert stream.lost == []


def _is_on(standing: Standing, node: str, source: Source, target: str) -> bool:
    pods = standing.k.pods("web")
    return node in (pods[source.name], pods[target])


def test_the_api_server_is_away_for_a_minute_while_pods_break(standing: Standing) -> None:
    k = standing.k
    pairs = standing.between_nodes()
    kept = {source.name for source, _ in pairs} | {target for _, target in pairs}
    with Stream(pairs) as stream:
        k.server.stop()
        try:
            until = time.monotonic() + OUTAGE
            for machine in k.machines.values():
                eventually(lambda m=machine: any(map(_says_that_it_is_away, m.problems())), "it says so")  # type: ignore[misc]
                _break_a_pod(standing, machine.name, kept)
            while time.monotonic() < until:
                assert {len(each.felixctl("routes")["routes"]) > 0 for each in k.machines.values()} == {True}
        finally:
            k.server.start()
        ready_at = time.time()
        eventually(lambda: not any(each.problems() for each in k.machines.values()), "all is right")
    assert stream.lost == []
    late = {name: machine.said_last("datastore.back") - ready_at for name, machine in k.machines.items()}
    assert max(late.values()) < RETURN, late


def _says_that_it_is_away(problem: str) -> bool:
    return "Connection refused" in problem and "what was known last stays in force" in problem


def _break_a_pod(standing: Standing, node: str, kept: set[str]) -> None:
    """Kill what holds the network of one of a node's pods: kubelet makes it anew, with what CNI gives it."""
    machine = standing.k.machines[node]
    for line in machine.run("ctr", "-n", "k8s.io", "containers", "ls").splitlines()[1:]:
        container = line.split()[0]
        document = json.loads(machine.run("ctr", "-n", "k8s.io", "containers", "info", container))
        labels = document["Labels"]
        if labels.get("app") != "web" or labels.get("io.cri-containerd.kind") != "sandbox":
            continue
        namespace = next(each["path"] for each in document["Spec"]["linux"]["namespaces"] if each["type"] == "network")
        address = machine.run("nsenter", f"--net={namespace}", "ip", "-j", "-4", "address", "show", "eth0", check=False)
        if address and json.loads(address)[0]["addr_info"][0]["local"] not in kept:
            machine.run("ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "KILL", container)
            return
    raise AssertionError(f"{node} has no pod to spare")


def test_our_definitions_vanish_from_etcd(standing: Standing) -> None:
    k = standing.k
    with Stream(standing.between_nodes()) as stream:
        k.server.wipe("/registry/apiextensions.k8s.io/customresourcedefinitions/", "/registry/projectcalico.org/")
        for machine in k.machines.values():
            eventually(lambda m=machine: [e for e in m.problems() if "stays in force" in e], "it says so")  # type: ignore[misc]
            assert {each["state"] for each in machine.felixctl("routes")["routes"]} == {"installed"}
        assert standing.losses() == set()
        k.install()
        eventually(lambda: "ippools" in k.kubectl("api-resources", check=False), "the kinds are served again")
        eventually(
            lambda: "created" in k.kubectl("apply", "-f", "-", text=RESOURCES, check=False), "resources are taken"
        )
        eventually(lambda: _written(k) >= k.pods("web").keys(), "nodes write down anew who has which address")
        eventually(k.well, "no agent complains", 120)
    assert stream.lost == []


def _written(k: Kubernetes) -> set[str]:
    return {name for block in k.get("ipamblocks") for name in block["spec"]["allocations"]}


def _role(changed: Callable[[dict[str, list[str]]], None]) -> str:
    documents = list(yaml.safe_load_all(INSTALL.read_text()))
    (role,) = (each for each in documents if each["kind"] == "ClusterRole")
    for rule in role["rules"]:
        changed(rule)
    return yaml.safe_dump(role)


def _without_bgppeers(rule: dict[str, list[str]]) -> None:
    rule["resources"] = [each for each in rule["resources"] if each != "bgppeers"]


def test_an_agent_without_a_right_names_it(standing: Standing) -> None:
    k, right = standing.k, 'cannot list resource "bgppeers" in API group "projectcalico.org"'
    k.kubectl("apply", "-f", "-", text=_role(_without_bgppeers))
    pod = k.agents()["a1"]["metadata"]["name"]
    try:
        k.kubectl("-n", "felix-system", "delete", "pod", pod)
        said = eventually(lambda: [each for each in k.machines["a1"].problems() if right in each], "it says which", 60)
        assert "system:serviceaccount:felix-system:felix" in said[0]
    finally:
        k.kubectl("apply", "-f", "-", text=_role(lambda _: None))
    eventually(lambda: ready(k.agents()["a1"]), "it is well when it may")
