"""A packet followed across two racks of a lab, each machine asked: as a user types it, and by a node's own felixctl."""

import subprocess
import sys
import time

from figures import RUNS, tell
from lab import lab_up

from felix_py.lab import machines
from felix_py.lab.state import Lab


def seconds(words: list[str], expected: str) -> float:
    """Return how long a command takes that has to print something."""
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=machines.environment())
    took = time.monotonic() - start
    assert expected in done.stdout
    return took


def bench() -> bool:
    with lab_up() as (lab, topology, _):
        near, far = topology.nodes[0], topology.nodes[-1]
        pod, target = near.pod_names[0], far.pod_names[-1]
        whole = ["felix-lab", "--name", lab.name, "trace", pod, target]
        own = [*machines.enter(Lab(lab.name), str(near.name)), "felixctl", "trace", pod, lab.pod_addresses()[target]]
        both = [(1000 * seconds(whole, "delivered:"), 1000 * seconds(own, "not asked:")) for _ in range(RUNS)]
    kept = [
        tell("trace: pod to pod of another rack, five machines asked", [each for each, _ in both], "ms", 500.0),
        tell("trace: by a node's own felixctl", [each for _, each in both], "ms", 500.0),
    ]
    return all(kept)


if __name__ == "__main__":
    sys.exit(0 if bench() else 1)
