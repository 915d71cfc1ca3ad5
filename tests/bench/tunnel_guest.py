"""What the kernel driver carries beside a tunnel made by hand, under a kernel that has the ipip module: a guest's."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "vm"))
import guest  # noqa: E402 - found through the line above

SECONDS = 900.0
"""An emulated processor is twenty times slower than the machine's own."""


def measure() -> int:
    reason = guest.missing()
    if reason is not None:
        print(f"bench: {reason}", file=sys.stderr)  # noqa: T201
        return 2
    settings = [f"{name}={os.environ[name]}" for name in ("RUNS", "IPERF_SECONDS") if os.environ.get(name)]
    outcome = guest.run(["env", *settings, sys.executable, str(HERE / "tunnel_by_hand.py")], seconds=SECONDS)
    lines = outcome.output.splitlines()
    print(*(line for line in lines if line.startswith("{")), sep="\n", flush=True)  # noqa: T201
    if outcome.status not in (0, 1):
        print(f"bench: the guest says: {outcome.output}", file=sys.stderr)  # noqa: T201
    return outcome.status


if __name__ == "__main__":
    sys.exit(measure())
