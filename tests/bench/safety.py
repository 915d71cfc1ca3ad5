"""What the packet filter costs: TCP between pods of two nodes with our table and without; one more pod in a table."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Interface, ip_network
from pathlib import Path

from figures import RUNS, tell, tell_ratio

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from spaces import Space

from felix_py.calc import netfilter
from felix_py.calc.netfilter import IPIP, TunnelProtocol
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.nftables import Nftables
from felix_py.model import IPPool, Node, NodeName, WorkloadEndpoint

SECONDS = int(os.environ.get("IPERF_SECONDS") or 2)
TCP_REACH = 0.97
MANY = 110
"""Pods of a node, as Kubernetes limits them by default."""

ADD_REACH = 3.0
"""Milliseconds for a table of MANY pods; a pod's attachment takes some fifty."""

NODES = {name: Node(NodeName(name), IPv4Interface(f"172.31.1.{number}/24")) for name, number in (("a", 11), ("b", 12))}


def table(node: str, *, pods: int = 1, nat: bool = False, tunnels: Mapping[str, TunnelProtocol] = {}) -> FilterTable:
    """Return what a node with pods has; its first pod's interface is cali0."""
    subnet = {"a": 0, "b": 1}[node]
    local = [
        WorkloadEndpoint(
            f"p{number}", NodeName(node), f"cali{number}", (ip_network(f"10.65.{subnet}.{number + 2}/32"),)
        )
        for number in range(pods)
    ]
    pools = [IPPool("default", ip_network("10.65.0.0/16"), nat_outgoing=nat)]
    return netfilter.table(NodeName(node), NODES.values(), (), pools, local, tunnels)


class Pair:
    """Two nodes on one wire, each with a pod: plain veths and routes."""

    def __init__(self) -> None:
        self.nodes = {name: Space() for name in NODES}
        self.pods = {name: Space() for name in NODES}
        self.filters = {name: space.do(Nftables) for name, space in self.nodes.items()}
        self.nodes["a"].ip(f"link add eth0 type veth peer name eth0 netns {self.nodes['b'].path}")
        for name, other, mine, theirs in (("a", "b", 0, 1), ("b", "a", 1, 0)):
            node, pod = self.nodes[name], self.pods[name]
            node.ip(
                f"link add cali0 address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {pod.path}",
                f"addr add {NODES[name].address} dev eth0",
                "link set eth0 up",
                "link set cali0 up",
                f"route add 10.65.{mine}.2 dev cali0",
            )
            node.ip(f"route add 10.65.{theirs}.0/24 via {NODES[other].addresses[0]}")
            node.parameter("ipv4/ip_forward", "1")
            pod.ip(
                "link set eth0 up",
                f"addr add 10.65.{mine}.2/32 dev eth0",
                "route add 169.254.1.1 dev eth0 scope link",
                "route add default via 169.254.1.1 dev eth0",
                "neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0",
            )

    def guard(self, *, on: bool, nat: bool = False, tunnels: Mapping[str, TunnelProtocol] = {}) -> None:
        """Put the tables there, or take them away."""
        for name, space in self.nodes.items():
            want = table(name, nat=nat, tunnels=tunnels) if on else None
            space.do(self.filters[name].write, want, space.do(self.filters[name].read))

    def gigabits(self) -> float:
        """Return what iperf3 receives, in Gbit/s."""
        server = self.pods["b"].do(_serve)
        try:
            for line in server.stdout or ():
                if "Server listening" in line:
                    break
            answer = json.loads(self.pods["a"].do(_ask))
            server.communicate()
        finally:
            server.kill()
        return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9

    def close(self) -> None:
        for space in (*self.pods.values(), *self.nodes.values()):
            space.close()


def _serve() -> "subprocess.Popen[str]":
    return subprocess.Popen(["iperf3", "--server", "--one-off", "--forceflush"], stdout=subprocess.PIPE, text=True)


def _ask() -> str:
    words = ["iperf3", "--json", "--time", str(SECONDS), "--client", "10.65.1.2"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@contextmanager
def pair() -> Iterator[Pair]:
    made = Pair()
    try:
        yield made
    finally:
        made.close()


def one_more() -> Iterator[float]:
    """Yield the milliseconds that one more pod takes in a table of many."""
    space = Space()
    try:
        ours = space.do(Nftables)
        space.do(ours.read)
        before, after = table("a", pods=MANY), table("a", pods=MANY + 1)
        space.do(ours.write, before, None)
        for _ in range(RUNS):
            start = time.perf_counter()
            space.do(ours.write, after, before)
            yield (time.perf_counter() - start) * 1000
            space.do(ours.write, before, after)
    finally:
        space.close()


def measure() -> int:
    if shutil.which("iperf3") is None:
        print("bench: iperf3 is missing; apt-get install iperf3", file=sys.stderr)  # noqa: T201
        return 2
    kept = []
    plain: list[float] = []
    guarded: list[float] = []
    tracked: list[float] = []
    with pair() as two:
        for _ in range(RUNS):
            two.guard(on=False)
            plain.append(two.gigabits())
            two.guard(on=True)
            guarded.append(two.gigabits())
            two.guard(on=True, nat=True, tunnels={"tunl0": IPIP})
            tracked.append(two.gigabits())
    peer = "veths and routes without our rules"
    kept.append(tell_ratio("TCP between pods of two nodes", guarded, "Gbit/s", peer, plain, TCP_REACH))
    kept.append(tell_ratio("the same with natOutgoing and a tunnel", tracked, "Gbit/s", peer, plain, TCP_REACH - 0.07))
    kept.append(tell(f"one more pod in the table, {MANY} there", [*one_more()], "ms", ADD_REACH))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(measure())
