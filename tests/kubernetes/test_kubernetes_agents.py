"""Whole agents with our manifest's rights at a real API server: pods reach each other, whatever breaks."""

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from cluster import INSTALL, Cluster, cluster, eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.netns]

POOL = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "IPPool",
    "metadata": {"name": "default"},
    "spec": {"cidr": "10.65.0.0/16", "ipipMode": "CrossSubnet", "natOutgoing": True},
}


ASKED = {("create", "selfsubjectrulesreviews"), ("create", "selfsubjectaccessreviews")}
"""Whoever is known to the server may ask what he may."""


def ready(made: Cluster, *names: str) -> None:
    for name in names:
        eventually(lambda name=name: made.network_available(name), f"{name} has a network")  # type: ignore[misc]


def all_pods_reach_each_other(made: Cluster) -> None:
    eventually(lambda: not made.losses(), "every pod reaches every other one")


def rights() -> set[tuple[str, str]]:
    """Return what our manifest grants: verb and resource."""
    roles = [each for each in yaml.safe_load_all(INSTALL.read_text()) if each["kind"] in ("Role", "ClusterRole")]
    rules = [rule for role in roles for rule in role["rules"]]
    return {(verb, what) for rule in rules for verb in rule["verbs"] for what in rule["resources"]}


def test_a_cluster_from_our_manifest(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        who = made.install()
        made.server.apply(POOL)
        a1, a2, b1 = made.node("a1", 1, 1), made.node("a2", 1, 2), made.node("b1", 2, 1)
        for node in made.nodes.values():
            node.start(who)
        ready(made, "a1", "a2", "b1")

        # each said its address, with the mask of its interface
        noted = made.server.request("GET", "/api/v1/nodes/b1")["metadata"]["annotations"]
        assert noted["projectcalico.org/IPv4Address"] == "172.30.2.11/24"
        # the runtime is told when routes are in; the server, of which the node's network is said, may hear earlier
        written = b1.folder / "net.d/10-felix.conflist"
        eventually(written.exists, "the runtime is told of us")
        conflist = json.loads(written.read_text())
        assert conflist["plugins"] == [{"type": "felix-cni"}]

        for node in made.nodes.values():
            for number in (1, 2):
                node.add(f"{node.name}-{number}")
        all_pods_reach_each_other(made)
        routes = {each["prefix"]: each for each in a1.ask("routes")["routes"]}
        remote = {each["nextHop"]: each["encapsulation"] for each in routes.values() if each["kind"] == "remote"}
        assert remote == {a2.address: "none", b1.address: "ipip"}
        assert {line.get("pod") for line in a1.log if line["event"] == "route.put"} == {
            None,
            "default/a1-1",
            "default/a1-2",
        }
        blocks = made.server.request("GET", "/apis/projectcalico.org/v3/ipamblocks")["items"]
        assert sum(len(each["spec"]["allocations"]) for each in blocks) >= 6

        # the server goes away: the network goes on, and pods leave and come again when it is back
        made.server.stop()
        assert made.losses() == []
        said = eventually(
            lambda: [each for each in a1.ask("status")["problems"] if "stays in force" in each], "it says so"
        )
        assert "Connection refused" in said[0]
        assert a1.cni("ADD", "refused", "/proc/self/ns/net")[0] != 0
        made.server.start()
        eventually(lambda: a1.ask("status")["problems"] == [], "all is well again")
        a1.remove("a1-2")
        a1.add("a1-3")
        all_pods_reach_each_other(made)

        # an agent dies, which kubectl shows at its peers, and finds its pods again
        eventually(lambda: made.sessions("a1") == (2, 0), "a1 says that it has both sessions")
        b1.kill()
        assert made.losses() == []
        eventually(lambda: made.sessions("a1") == (1, 1), "a1 says that one is lost")
        eventually(lambda: any(b1.address in each for each in made.events("a1", "BGPSessionDown")), "an Event says so")
        b1.start(who)
        eventually(lambda: b1.ask("status").get("inSync"), "b1 is back")
        b1.add("b1-3")
        all_pods_reach_each_other(made)

        # a node's object is made anew: its address and its condition are there again, and so are its sessions
        made.server.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a2"}})
        made.register("a2")
        ready(made, "a2")
        noted = made.server.request("GET", "/api/v1/nodes/a2")["metadata"]["annotations"]
        assert noted["projectcalico.org/IPv4Address"] == "172.30.1.12/24"
        all_pods_reach_each_other(made)

        # nodes use the rights that they have, and need no others
        for node in made.nodes.values():
            for name in list(node.pods):
                node.remove(name)
        granted = rights()
        assert made.used_rights() <= granted | ASKED
        seldom = {("delete", "blockaffinities"), ("delete", "ipamblocks"), ("patch", "events")}
        assert granted - made.used_rights() <= seldom | {("create", "caliconodestatuses")}


def test_nodes_have_the_pod_cidrs_that_kubernetes_gave_them(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        who = made.install()
        for number, name in enumerate(("a1", "b1"), start=1):
            node = made.node(name, number, 1)
            spec = {"podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]}
            made.server.request("PATCH", f"/api/v1/nodes/{name}", {"spec": spec}, content="merge-patch+json")
            node.start(who)
        ready(made, "a1", "b1")
        assert made.nodes["a1"].add("a1-1").startswith("10.244.1.")
        assert made.nodes["b1"].add("b1-1").startswith("10.244.2.")
        all_pods_reach_each_other(made)


def test_a_node_with_two_addresses_and_no_word_which_names_both(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        who = made.install()
        made.server.apply(POOL)
        a1 = made.node("a1", 1, 1)
        a1.space.ip("link add eth1 type veth peer name far1", "addr add 192.168.7.4/24 dev eth1", "link set eth1 up")
        a1.start(who, nodeAddress="first-found")
        wrong = "several addresses fit: 172.30.1.11/24 on eth0, 192.168.7.4/24 on eth1"
        # Until it has read the datastore it says that, and nothing else.
        eventually(lambda: wrong in " ".join(a1.ask("status").get("problems", ())), "it says what is wrong")
        annotation = {"metadata": {"annotations": {"projectcalico.org/IPv4Address": "192.168.7.4/24"}}}
        made.server.request("PATCH", "/api/v1/nodes/a1", annotation, content="merge-patch+json")
        eventually(lambda: a1.ask("status").get("problems") == [], "what a person writes decides")


FOUND = {
    "cidr=192.168.7.0/24": "192.168.7.4/24",
    "interface=eth[1-9]": "192.168.7.4/24",
    "skip-interface=eth1": "172.30.1.11/24",
    "can-reach=192.168.7.9": "192.168.7.4/24",
    "can-reach=172.30.2.1": "172.30.1.11/24",
    "kubernetes-internal-ip": "172.30.1.11/24",
}
"""Ways to find the address of a node that has two, and what each finds."""


def test_each_way_of_finding_an_address(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        who = made.install()
        made.server.apply(POOL)
        a1 = made.node("a1", 1, 1)
        a1.space.ip("link add eth1 type veth peer name far1", "addr add 192.168.7.4/24 dev eth1")
        a1.space.ip("link set eth1 up", "link set far1 up")
        for way, address in FOUND.items():
            a1.start(who, nodeAddress=way)
            eventually(lambda address=address: made.noted("a1") == address, way)  # type: ignore[misc]
            eventually(lambda: a1.ask("status").get("problems") == [], f"all is well with {way}")
            a1.kill()


def test_a_nodes_annotation_says_its_as_number(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        who = made.install()
        made.server.apply(POOL)
        a1, b1 = made.node("a1", 1, 1), made.node("b1", 2, 1)
        annotation = {"metadata": {"annotations": {"projectcalico.org/ASNumber": "64777"}}}
        made.server.request("PATCH", "/api/v1/nodes/b1", annotation, content="merge-patch+json")
        for node in (a1, b1):
            node.start(who)
        ready(made, "a1", "b1")

        def peers() -> list[tuple[str, int, str]]:
            found = a1.ask("bgp", "peers").get("peers", ())
            return [(each["address"], each["asNumber"], each["state"]) for each in found]

        eventually(lambda: peers() == [(b1.address, 64777, "Established")], "the session is there, with that AS")
