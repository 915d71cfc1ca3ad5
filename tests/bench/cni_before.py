"""ADD and DEL of this checkout, of another one, and of Debian's ptp, in turn in one call: what a change has brought.

BEFORE is the other checkout, after its `make setup`. Each party has a process of its own, which is this file again with
the party's name: so each runs the agent, and is called by the code, of its own checkout.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import cni_parties
from cni_parties import Namespaces
from figures import RUNS, tell_ratio

SIZE = int(os.environ.get("SIZE") or 100)
AT_ONCE = 8

HERE = Path(__file__).resolve()
NOW, BEFORE, PTP = "now", "before", "ptp"
FIGURES = (("median", "ms", "lower"), ("slowest of a hundred", "ms", "lower"), ("rate", "1/s", "higher"))
"""What is taken of ADDs, and of DELs the first."""


def serve(party: str) -> None:
    """Add and delete SIZE pods for each line of standard input, so many at once as it says; print the figures."""
    with tempfile.TemporaryDirectory(prefix="felix-cni-") as name, ExitStack() as stack:
        folder = Path(name)
        caller = cni_parties.compiled(folder)
        made = (
            cni_parties.reference(PTP, folder / PTP, caller)
            if party == PTP
            else cni_parties.felix(folder / "felix", caller)
        )
        plugin = stack.enter_context(made)
        namespaces = Namespaces(SIZE)
        stack.callback(namespaces.close)
        pods = [(f"c{number}", path) for number, path in enumerate(namespaces.paths)]
        print("ready", flush=True)  # noqa: T201 - to whoever started this
        for line in sys.stdin:
            added = plugin.call("ADD", pods, int(line))
            deleted = plugin.call("DEL", pods, int(line))
            plugin.settle(0)
            late = sorted(added.each)[-1 - len(pods) // 100]
            told = (statistics.median(added.each), late, len(pods) / added.seconds, statistics.median(deleted.each))
            print(json.dumps(told), flush=True)  # noqa: T201 - same


class Served:
    """One party's process."""

    def __init__(self, checkout: Path, party: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout / "tests" / "bench"), "SIZE": str(SIZE)}
        words = [checkout / ".venv" / "bin" / "python", "-P", HERE, party]  # -P: not the modules beside this file
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout, env=environment
        )
        self._heard("ready")

    def ask(self, at_once: int) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{at_once}\n")
        self._process.stdin.flush()
        return list(json.loads(self._heard()))

    def _heard(self, word: str = "") -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line or (word and line.strip() != word):
            raise RuntimeError(f"a party of the benchmark ended, or said {line.strip()!r}")
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> int:
    given = os.environ.get("BEFORE")
    other = Path(given or "").resolve()
    if not given or not (other / ".venv" / "bin" / "felix-agent").exists():
        sys.stderr.write("bench: BEFORE has to be another checkout, after its `make setup`\n")
        return 1
    ours = HERE.parents[2]
    with ExitStack() as stack:
        parties = {NOW: Served(ours, NOW), BEFORE: Served(other, BEFORE), PTP: Served(ours, PTP)}
        for each in parties.values():
            stack.callback(each.close)
        kept = []
        for at_once in (1, AT_ONCE):
            rounds = {name: [each.ask(at_once)] for name, each in parties.items()}  # the first does not count
            for _ in range(RUNS):
                for name, each in parties.items():
                    cni_parties.rest()
                    rounds[name].append(each.ask(at_once))
            columns = {name: list(zip(*several[1:], strict=True)) for name, several in rounds.items()}
            for peer in (BEFORE, PTP):
                for place, (what, unit, better) in enumerate((*FIGURES, ("DEL, median", "ms", "lower"))):
                    name = f"cni: {at_once} at once, {what}, beside {peer}"
                    mine, theirs = columns[NOW][place], columns[peer][place]
                    kept.append(tell_ratio(name, mine, unit, peer, theirs, 1.0, better=better))
    return int(not all(kept))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
        sys.exit()
    sys.exit(main())
