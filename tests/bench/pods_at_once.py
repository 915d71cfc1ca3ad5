"""Pods on four kubelets: 200 at once until all run, beside Debian's bridge plugin in the same cluster."""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "netns"), str(TESTS / "kubernetes")]

from cluster import eventually  # noqa: E402 - found by the path above
from figures import RUNS, tell, tell_ratio  # noqa: E402 - same
from kubelets import Kubernetes, kubernetes  # noqa: E402 - same
from pods_in_turn import added, refused  # noqa: E402 - same

SIZE = int(os.environ.get("SIZE") or 200)
PATIENCE = 300.0

AS_FAST = 1.0
"""What is promised: as fast as the bridge plugin, which routes nothing to other nodes."""


def bridge(number: int) -> str:
    addresses = {"type": "host-local", "ranges": [[{"subnet": f"10.66.{number}.0/24"}]]}
    plugin = {"type": "bridge", "bridge": "lab0", "isGateway": True, "ipam": addresses}
    return json.dumps({"cniVersion": "0.4.0", "name": "lab", "plugins": [plugin]})


def put_bridge(k: Kubernetes) -> None:
    for number, machine in enumerate(k.machines.values()):
        (machine.root / "etc/cni/net.d/00-lab.conflist").write_text(bridge(number))


def take_bridge(k: Kubernetes) -> None:
    for machine in k.machines.values():
        (machine.root / "etc/cni/net.d/00-lab.conflist").unlink()


def at_once(k: Kubernetes, name: str, addresses: str) -> float:
    """Return the seconds from the order until all pods run."""
    begin = time.monotonic()
    k.deploy(name, SIZE)
    eventually(lambda: k.running(name) == SIZE, "all pods run", PATIENCE)
    taken = time.monotonic() - begin
    assert all(each.startswith(addresses) for each in k.pods(name))
    gone(k, name)
    return taken


def gone(k: Kubernetes, name: str) -> None:
    k.kubectl("delete", "deployment", name)
    eventually(lambda: k.made(name) == [], "all pods are gone", PATIENCE)


def main() -> int:
    """Measure; return 1 when a promise is not kept."""
    folder = Path(tempfile.mkdtemp(prefix="felix-pods-"))
    try:
        with kubernetes(folder) as k:
            k.install()
            eventually(k.all_agents_ready, "it is installed", PATIENCE)
            k.configure()
            ours, theirs = [], []
            for _ in range(RUNS):
                ours.append(at_once(k, "ours", "10.65."))
                waited = added(k, "ours")
                put_bridge(k)
                theirs.append(at_once(k, "theirs", "10.66."))
                take_bridge(k)
            refusals = refused(k)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rates, peers = [SIZE / each for each in ours], [SIZE / each for each in theirs]
    kept = [
        tell_ratio(f"kubelets: {SIZE} pods at once, per second", rates, "pods/s", "bridge+host-local", peers, AS_FAST),
        tell(f"kubelets: {SIZE} pods at once, ADDs refused", [refusals], "", 0),
        tell(f"kubelets: {SIZE} pods at once, our part, median", [statistics.median(waited) / 1000], "s", None),
        tell(f"kubelets: {SIZE} pods at once, our part, the slowest", [max(waited) / 1000], "s", None),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
