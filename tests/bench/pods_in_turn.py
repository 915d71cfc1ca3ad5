"""What the network costs a pod of a real kubelet: pods one by one and ten at once, with one kubelet and with four."""

import json
import os
import shutil
import statistics
import sys
import tempfile
import urllib.request
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "netns"), str(TESTS / "kubernetes")]

from cluster import eventually  # noqa: E402 - found by the path above
from figures import tell  # noqa: E402 - same
from kubelets import MACHINES, Kubernetes, kubernetes  # noqa: E402 - same

KUBELETS = tuple(int(each) for each in os.environ.get("SIZE", "1 4").split())
"""How many, one cluster after the other."""

STEPS = {"one by one": (1, 20), "ten at once": (10, 40)}
"""Pods that are asked for at a time, and in all."""

PATIENCE = 120.0

PART_MS = 30.0
"""What is promised of our part; of the runtime's figure, which has its own plugin's time in it, nothing is."""

TIMER = 'containerd_cri_network_plugin_operations_duration_seconds_seconds_{}{{operation_type="set_up_pod"}}'
"""As containerd counts the network of pods: all plugins, with starting each, the loopback's before ours."""


def added(k: Kubernetes, name: str) -> list[float]:
    """Return the milliseconds that agents say an application's ADDs took, from reading the call to the answer."""
    logs = (path for each in k.machines.values() for path in each.folder.glob("pods/felix-system_*/agent/*.log"))
    lines = (line.split(" ", 3)[3] for path in logs for line in path.read_text().splitlines() if "cni.added" in line)
    events = map(json.loads, lines)
    return [each["milliseconds"] for each in events if each["pod"].startswith(f"default/{name}-")]


def refused(k: Kubernetes) -> int:
    """Return how many calls agents have refused."""
    logs = (path for each in k.machines.values() for path in each.folder.glob("pods/felix-system_*/agent/*.log"))
    return sum(path.read_text().count('"cni.refused"') for path in logs)


def metrics() -> dict[str, float]:
    """Return the metrics of the containerd that is in this network namespace."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open("http://127.0.0.1:1338/v1/metrics", timeout=10) as answer:
        pairs = (line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}


def counted(k: Kubernetes) -> tuple[float, float]:
    """Return for how many pods runtimes have made networks, and in how many milliseconds."""
    found = [machine.space.do(metrics) for machine in k.machines.values()]
    many, seconds = (sum(each.get(TIMER.format(what), 0.0) for each in found) for what in ("count", "sum"))
    return many, seconds * 1000


def deployed(k: Kubernetes, name: str, step: int, total: int) -> float:
    """Make pods, some at a time, and remove them; return the runtime's mean, in milliseconds."""
    many, before = counted(k)
    for count in range(step, total + 1, step):
        k.deploy(name, count)
        eventually(lambda count=count: k.running(name) == count, "the pods run", PATIENCE)  # type: ignore[misc]
    now, after = counted(k)
    k.kubectl("delete", "deployment", name)
    eventually(lambda: k.made(name) == [], "all pods are gone", PATIENCE)
    return (after - before) / (now - many)


def measure(kubelets: int) -> bool:
    """Measure with so many kubelets; return whether what was promised is kept."""
    folder = Path(tempfile.mkdtemp(prefix="felix-pods-"))
    kept = True
    try:
        with kubernetes(folder, MACHINES[:kubelets]) as k:
            k.install()
            eventually(k.all_agents_ready, "it is installed", PATIENCE)
            k.configure()
            deployed(k, "warm", 4, 4)
            for what, (step, total) in STEPS.items():
                name = what.replace(" ", "-")
                runtime = deployed(k, name, step, total)
                where = f"kubelets: {kubelets}, pods {what}"
                ours = added(k, name)
                kept &= tell(f"{where}: our part, median", [statistics.median(ours)], "ms", PART_MS)
                tell(f"{where}: our part, the slowest", [max(ours)], "ms", None)
                tell(f"{where}: the runtime's plugins, mean", [runtime], "ms", None)
            tell(f"kubelets: {kubelets}, ADDs refused", [refused(k)], "", 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return kept


def main() -> int:
    """Measure; return 1 when a promise is not kept."""
    kept = [measure(each) for each in KUBELETS]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
