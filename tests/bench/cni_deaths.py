"""A thousand pods come and go while agent, plugin and runtime are killed at random: what is left, and given twice."""

import os
import sys
import tempfile
import time
from pathlib import Path

import figures

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
import cni_dying
import cni_lab
from cni_agent import AgentHost, prepare

SIZE = int(os.environ.get("SIZE") or 1000)


def main() -> int:
    folder = tempfile.TemporaryDirectory(prefix="felix-cni-")
    with folder as name, cni_lab.host(Path(name), kind=AgentHost, before=prepare) as node:
        assert isinstance(node, AgentHost)
        began = time.monotonic()
        tally = cni_dying.run(node, SIZE, seed=1)
        took = time.monotonic() - began
        while (left := cni_dying.left(node)) and time.monotonic() - began < took + cni_lab.DEADLINE:
            time.sleep(0.1)
    sys.stderr.write(f"{tally}\n{left}\n")
    kept = [
        figures.tell(f"cni: left of {SIZE} pods after kills of everybody", [len(left)], "objects", 0),
        figures.tell("cni: addresses given twice meanwhile", [len(tally.twice)], "addresses", 0),
        figures.tell("cni: agents killed meanwhile", [tally.agents_killed], "kills", 1, better="higher"),
        figures.tell("cni: plugins killed meanwhile", [tally.fates["plugin killed"]], "kills", 1, better="higher"),
        figures.tell("cni: callers killed meanwhile", [tally.fates["caller killed"]], "kills", 1, better="higher"),
    ]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
