"""What guarding pods costs: one TCP stream between pods of two nodes under each guard and none; one more pod in either.

The stream goes on while guards change, and the machine changes too: only slices beside each other are compared.
"""

import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, ip_address, ip_network
from pathlib import Path
from typing import Any

from figures import RUNS, tell, tell_ratio

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from spaces import Space

from felix_py.calc import netfilter
from felix_py.calc.netfilter import IPIP, TunnelProtocol
from felix_py.kernel.dump import Reader
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.guard import Guard
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.kernel.nftables import Nftables
from felix_py.kernel.objects import Link
from felix_py.model import IPPool, Node, NodeName, WorkloadEndpoint
from ipip import traffic

SLICE, SETTLE = 0.25, 0.15
"""Seconds of one stream that are measured under one guard, and after a change that are not: the kernel gives back what
the guard before had, and RCU takes its time."""

ROUNDS = 12
"""Slices of each guard for one of `RUNS`."""

TCP_REACH, TRACKED_REACH, NFTABLES_REACH = 0.97, 0.90, 0.87
TUNNEL: Mapping[str, Any] = {"tunnels": {"tunl0": IPIP}}
ADDRESSES = {"a": "10.65.0.2", "b": "10.65.1.2"}
MANY = 110
"""Pods of a node, as Kubernetes limits them by default."""

ADD_REACH = 3.0
"""Milliseconds for a table of MANY pods; a pod's attachment takes some fifty."""

NODES = {name: Node(NodeName(name), IPv4Interface(f"172.31.1.{number}/24")) for name, number in (("a", 11), ("b", 12))}


def table(
    node: str,
    *,
    pods: int = 1,
    nat: bool = False,
    tunnels: Mapping[str, TunnelProtocol] = {},
    of_pods: bool = True,
) -> FilterTable:
    """Return what a node with pods has; its first pod's interface is cali0."""
    subnet = {"a": 0, "b": 1}[node]
    local = [
        WorkloadEndpoint(
            f"p{number}", NodeName(node), f"cali{number}", (ip_network(f"10.65.{subnet}.{number + 2}/32"),)
        )
        for number in range(pods)
    ]
    pools = [IPPool("default", ip_network("10.65.0.0/16"), nat_outgoing=nat)]
    return netfilter.table(NodeName(node), NODES.values(), (), pools, local, tunnels, of_pods=of_pods)


class Pair:
    """Two nodes on one wire, each with a pod: plain veths and routes."""

    def __init__(self) -> None:
        self.nodes = {name: Space() for name in NODES}
        self.pods = {name: Space() for name in NODES}
        self.filters = {name: space.do(Nftables) for name, space in self.nodes.items()}
        self.programs = {name: GuardPrograms() for name in NODES}
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

    def guard(self, kind: str | None, *, nat: bool = False, tunnels: Mapping[str, TunnelProtocol] = {}) -> None:
        """Have pods guarded by the table, by our programs, or nothing of ours there at all."""
        for name, space in self.nodes.items():
            of_pods = kind == "nftables"
            want = table(name, nat=nat, tunnels=tunnels, of_pods=of_pods) if kind is not None else None
            space.do(self.filters[name].write, want, space.do(self.filters[name].read))
            links = space.do(_links)
            programs = self.programs[name]
            space.do(programs.read, links)
            own = Guard({"cali0": frozenset({ip_address(ADDRESSES[name])})}, ports=frozenset({4789}))
            # Held until the end: what is compared is to meet programs, not to load them.
            space.do(programs.write, own if kind == "ebpf" else Guard(), links)
            place = links["cali0"].index, traffic.INGRESS
            if kind != "ebpf" and space.do(traffic.find, *place) is not None:
                space.do(traffic.detach, *place)

    @contextmanager
    def stream(self, seconds: float) -> Iterator[None]:
        """Have one TCP stream from pod to pod, for so long at most."""
        words = ["iperf3", "--forceflush", "--time", str(math.ceil(seconds)), "--client", ADDRESSES["b"]]
        with self.pods["b"].do(_start, ["iperf3", "--server", "--one-off", "--forceflush"]) as server:
            try:
                _until(server, "Server listening")
                with self.pods["a"].do(_start, words) as client:
                    try:
                        _until(client, "connected to")
                        yield
                    finally:
                        client.kill()
            finally:
                server.kill()

    def under(self, kind: str | None, *, nat: bool = False, tunnels: Mapping[str, TunnelProtocol] = {}) -> float:
        """Return what arrives at the far pod in one slice of the stream, in Gbit/s; arguments as of `guard`."""
        self.guard(kind, nat=nat, tunnels=tunnels)
        time.sleep(SETTLE)
        started, before = time.perf_counter(), self._received()
        time.sleep(SLICE)
        return (self._received() - before) * 8 / 1e9 / (time.perf_counter() - started)

    def _received(self) -> int:
        """Return the bytes that the far pod's interface has received: /proc/net/dev is of the thread that reads it."""
        lines = self.pods["b"].do(Path("/proc/thread-self/net/dev").read_text).splitlines()
        return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("eth0:"))

    def close(self) -> None:
        for each in self.programs.values():
            each.close()
        for space in (*self.pods.values(), *self.nodes.values()):
            space.close()


def _start(words: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def _until(process: "subprocess.Popen[str]", words: str) -> None:
    for line in process.stdout or ():
        if words in line:
            return
    raise RuntimeError(f"{process.args} ended without {words!r}")


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


def one_more_guarded() -> Iterator[float]:
    """Yield the milliseconds that our programs take to see one more interface, and to know its pod."""
    space = Space()
    try:
        with space.do(GuardPrograms) as ours:
            space.ip(*(f"link add cali{number} type veth peer name peer{number}" for number in range(MANY)))
            known = {f"cali{number}": frozenset({IPv4Address("10.65.0.0") + number + 2}) for number in range(MANY + 1)}
            one = f"cali{MANY}"
            before = {name: addresses for name, addresses in known.items() if name != one}
            space.do(ours.write, Guard(before), space.do(_links))
            for _ in range(RUNS):
                space.ip(f"link add {one} type veth peer name {one}-peer")
                links = space.do(_links)
                start = time.perf_counter()
                space.do(ours.write, Guard(before, frozenset({one})), links)
                space.do(ours.write, Guard(known), links)
                yield (time.perf_counter() - start) * 1000
                space.ip(f"link del {one}")
                space.do(ours.write, Guard(before), space.do(_links))
    finally:
        space.close()


def _links() -> dict[str, Link]:
    with Reader() as reader:
        return {each.name: each for each in reader.links()}


def measure() -> int:
    if shutil.which("iperf3") is None:
        print("bench: iperf3 is missing; apt-get install iperf3", file=sys.stderr)  # noqa: T201
        return 2
    kept = []
    ways: list[tuple[str, float, dict[str, Any]]] = [
        ("TCP between pods of two nodes, guarded by programs", TCP_REACH, {"kind": "ebpf"}),
        ("the same with natOutgoing and a tunnel", TRACKED_REACH, {"kind": "ebpf", "nat": True, **TUNNEL}),
        ("the same guarded by nftables", NFTABLES_REACH, {"kind": "nftables"}),
    ]
    found: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    plain: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    with pair() as two, two.stream(RUNS * ROUNDS * 2 * len(ways) * (SLICE + SETTLE + 0.2) + 10):
        before = two.under(None)
        for number in range(RUNS * ROUNDS):
            for name, _, how in ways if number % 2 == 0 else reversed(ways):
                found[name].append(two.under(**how))
                after = two.under(None)
                plain[name].append((before + after) / 2)
                before = after
    peer = "veths and routes without our rules, right before and after"
    kept += [tell_ratio(name, found[name], "Gbit/s", peer, plain[name], reach) for name, reach, _ in ways]
    kept.append(tell(f"one more pod in the table, {MANY} there", [*one_more()], "ms", ADD_REACH))
    name = f"one more pod in the programs' maps, {MANY} there"
    kept.append(tell(name, [*one_more_guarded()], "ms", ADD_REACH))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(measure())
