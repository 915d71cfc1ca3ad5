"""The lab in containers, of images that are there: `up` until all are healthy, then until all reach each other."""

import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "compose")]

from compose_lab import HEALTHY_DEADLINE, SERVICES, Compose, docker, eventually  # noqa: E402 - found by the path above
from figures import RUNS, tell  # noqa: E402 - same

HEALTHY_SECONDS, MATRIX_SECONDS, IMAGE_MEGABYTES = 15.0, 5.0, 200.0
"""What is promised."""


def once() -> tuple[float, float]:
    """Return the seconds until every container was healthy, and those from there until every ping was answered."""
    lab = Compose()
    try:
        start = time.monotonic()
        lab.run("up", "-d", "--no-build", seconds=HEALTHY_DEADLINE)
        if not eventually(lambda: list(lab.health().values()) == len(SERVICES) * ["healthy"], HEALTHY_DEADLINE):
            raise TimeoutError(lab.said())
        healthy = time.monotonic()
        if not eventually(lambda: lab.matrix("a1", "a2", "b1", "b2", "client"), HEALTHY_DEADLINE):
            raise TimeoutError(lab.said())
        return healthy - start, time.monotonic() - healthy
    finally:
        subprocess.run([*lab.words, "down", "--volumes", "--timeout", "2"], check=True, capture_output=True)


def main() -> int:
    """Measure; return 1 when a promise is not kept."""
    runs = [once() for _ in range(RUNS)]
    size = int(docker("image", "inspect", "--format", "{{.Size}}", "felix-py:dev")) / 1e6
    kept = [
        tell("containers: up until all are healthy", [each[0] for each in runs], "s", HEALTHY_SECONDS),
        tell("containers: then until everybody reaches everybody", [each[1] for each in runs], "s", MATRIX_SECONDS),
        tell("containers: image of a node", [size], "MB", IMAGE_MEGABYTES),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
