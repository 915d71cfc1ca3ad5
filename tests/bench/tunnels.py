"""TCP between pods through the tunnel, beside TCP between pods of one rack, which travels as it is."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from figures import RUNS, tell_ratio

from felix_py.lab import interrupts, lifecycle, main, state
from felix_py.lab.state import Lab

SECONDS = int(os.environ.get("IPERF_SECONDS") or 2)
REACH = 0.02
"""The userspace driver is for kernels without the module: it must be right, and fast enough for a lab."""


@contextmanager
def lab_up() -> Iterator[Lab]:
    lab, source = state.lab("benchtunnels"), main.default_topology()
    with interrupts.interruptible(), state.only_one(lab):
        try:
            lifecycle.up(lab, source, state.read_topology(source))
            yield lab
        finally:
            with interrupts.uninterrupted():
                lifecycle.down(lab)


def gigabits(lab: Lab, source: str, target: str) -> float:
    """Return what iperf3 receives, in Gbit/s."""
    inside = ["ip", "netns", "exec"]
    server = [*inside, lab.namespace(target), "iperf3", "--server", "--one-off", "--forceflush"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as serving:
        for line in serving.stdout or ():
            if "Server listening" in line:
                break
        address = lab.pod_addresses()[target]
        client = [*inside, lab.namespace(source), "iperf3", "--json", "--time", str(SECONDS), "--client", address]
        answer = json.loads(subprocess.run(client, capture_output=True, text=True, check=True).stdout)
        serving.communicate()
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def measure() -> int:
    if shutil.which("iperf3") is None:
        print("bench: iperf3 is missing; apt-get install iperf3", file=sys.stderr)  # noqa: T201
        return 2
    with lab_up() as lab:
        pairs = [(gigabits(lab, "a1-pod1", "b1-pod1"), gigabits(lab, "a1-pod1", "a2-pod1")) for _ in range(RUNS)]
    tunnelled, plain = zip(*pairs, strict=True)
    kept = tell_ratio("TCP between racks, userspace IPIP", tunnelled, "Gbit/s", "one rack, plain", plain, REACH)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(measure())
