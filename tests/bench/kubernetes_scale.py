"""What a large cluster costs one agent: thousands of Nodes at a real API server, a block for each, and ten Pods on it.

Needs `make kubernetes-binaries`, root, and some minutes to fill the server: with FOLDER, what it holds is kept there.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
sys.path.insert(0, str(Path(__file__).parents[1] / "kubernetes"))
import kubernetes_fill
from cluster import Cluster, Node
from figures import RUNS, tell
from kubernetes_fill import PODS_OF_A_NODE
from lab import cpu_seconds, resident_mebibytes

from felix_py.datastore.kubernetes_store import TENDING

SIZES = [int(each) for each in (os.environ.get("SIZE") or "1000 5000").split()]
"""Nodes; ten times as many Pods."""

MOST_MEBIBYTES = 140.0
"""Promised for 1,000 nodes; kept with more."""

MOST_SECONDS = 10.0

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS") or 20)

HEARTBEAT = 300.0
"""Seconds between two of a kubelet's reports on its Node, where nothing has changed."""

FIRST = "a1"
"""A node that comes before all others by name: it looks after what the dead have left, and reads all blocks for it."""

SETTLED = 10.0
"""Seconds without a request after which a look is over, and a node idle."""

MOST_REQUESTS = 2.0

POOL = {"cidr": "10.0.0.0/8", "ipipMode": "CrossSubnet"}


def custom(kind: str, **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": "default"}, "spec": spec
    }  # fmt: skip


@contextmanager
def filled(folder: Path) -> Iterator[tuple[Cluster, Path, Node]]:
    """Run a server that has our manifest's objects, and this node."""
    made = Cluster(folder)
    try:
        who = made.install()
        made.server.apply(custom("IPPool", **POOL), custom("BGPConfiguration", nodeToNodeMeshEnabled=False))
        yield made, who, made.node("z1", 1, 1)
    finally:
        made.close()


def fill(made: Cluster, first: int, last: int) -> None:
    words = [sys.executable, kubernetes_fill.__file__, made.server.url, made.server.folder, str(first), str(last)]
    made.rack.do(subprocess.run, words, check=True)


def until(asked: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not asked():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)


def in_sync(node: Node) -> bool:
    return any(each["event"] == "agent.in_sync" for each in node.log)


def started(made: Cluster, who: Path, node: Node) -> float:
    """Start the agent, and return the seconds until it is in sync."""
    (node.folder / "log").unlink(missing_ok=True)
    began = time.perf_counter()
    node.start(who)
    until((node.folder / "log").exists, 30)
    until(lambda: in_sync(node), 120)
    seconds = time.perf_counter() - began
    until(lambda: made.network_available(node.name), 60)
    return seconds


def busy(process: int, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> float:
    """Return the per cent of a core that a process takes for so many seconds."""
    used, began = cpu_seconds(process), time.monotonic()
    while time.monotonic() - began < seconds:
        meanwhile()
        time.sleep(0.01)
    return 100 * (cpu_seconds(process) - used) / (time.monotonic() - began)


def heartbeats(made: Cluster, nodes: int) -> Callable[[], None]:
    """Return what has kubelets report on their Nodes as often as they do, when it is called often enough."""
    wire = made.rack.do(kubernetes_fill.connection, made.server.url, made.server.folder)
    sent, began = 0, time.monotonic()

    def beat() -> None:
        nonlocal sent
        while sent < (time.monotonic() - began) * nodes / HEARTBEAT:
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": moment, "reason": f"beat {sent}"}
            path = f"/api/v1/nodes/{kubernetes_fill.name_of(sent % nodes)}/status"
            made.rack.do(kubernetes_fill.send, wire, ("PATCH", path, {"status": {"conditions": [ready]}}))
            sent += 1

    return beat


def asked_of_a_look(made: Cluster, before: set[str]) -> int:
    """Return how many of the agents' requests since then were about what nodes write down: they name it by a label."""
    return sum("labelSelector" in each for each in made.requests() - before)


def idle_requests(made: Cluster, who: Path, first: Node) -> float:
    """Return the requests a minute of an idle node, of which the look at what is written down is a tenth."""
    before = made.requests()
    started(made, who, first)
    until(lambda: asked_of_a_look(made, before), 60)
    seen = -1
    while seen != (seen := asked_of_a_look(made, before)):
        time.sleep(SETTLED)
    before = made.requests()
    time.sleep(IDLE_SECONDS)
    rest = made.requests() - before
    first.kill()
    return len(rest) * 60 / IDLE_SECONDS + seen * 60 / TENDING


def measure(made: Cluster, who: Path, node: Node, nodes: int) -> Iterator[bool]:
    what = f"kubernetes: {nodes} nodes and {nodes * PODS_OF_A_NODE} pods"
    seconds = []
    for _ in range(RUNS):
        node.kill()
        seconds.append(started(made, who, node))
    yield tell(f"{what}, start to in sync", seconds, "s", MOST_SECONDS)
    process = node.process
    time.sleep(5)
    yield tell(f"{what}, memory of the agent (RSS)", [resident_mebibytes(process)], "MiB", MOST_MEBIBYTES)
    yield tell(
        f"{what}, CPU of the agent, heartbeats", [busy(process, IDLE_SECONDS, heartbeats(made, nodes))], "%", 5.0
    )
    made.server.stop()
    time.sleep(2)
    yield tell(f"{what}, CPU of the agent, API server away", [busy(process, IDLE_SECONDS)], "%", 2.0)
    made.server.start()
    node.kill()
    first = made.nodes.get(FIRST) or made.node(FIRST, 1, 2)
    figures = [idle_requests(made, who, first)]
    yield tell(f"{what}, requests a minute, idle, of the first node by name", figures, "", MOST_REQUESTS)


def main() -> int:
    kept: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="felix-kubernetes-") as temporary:
        folder = Path(os.environ.get("FOLDER") or temporary)
        record = folder / "filled.json"
        have = json.loads(record.read_text()) if record.exists() else 0
        with filled(folder) as (made, who, node):
            for nodes in sorted(SIZES):
                if have < nodes:
                    fill(made, have, nodes)
                    have = nodes
                    record.write_text(json.dumps(have))
                kept += measure(made, who, node, nodes)
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
