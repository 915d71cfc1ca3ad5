"""Pods through the plugin, as the runtime sees them: ADD and DEL from start to end of the plugin's process.

Beside it, in the same run and in turn, Debian's ptp and bridge plugins with host-local. They do less: nothing durable,
no routes to other nodes, nobody who watches over what they made.
"""

import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cni_parties
from cni_parties import Namespaces, Party
from figures import RUNS, tell, tell_ratio

SIZE = int(os.environ.get("SIZE") or 100)
"""Calls of a run."""

AT_ONCE = 8
STANDING = 500
"""Pods on a node that is no longer empty; kubelet's own limit is 110."""


def percentile(values: Sequence[float], hundredth: int) -> float:
    """Return the smallest value that so many hundredths of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * hundredth / 100) - 1)]


class Measured:
    """The figures of one party, one of each run."""

    def __init__(self) -> None:
        self.add_median: list[float] = []
        self.add_late: list[float] = []
        self.del_median: list[float] = []
        self.gone: list[float] = []
        self.rates: dict[int, list[float]] = {0: [], STANDING: []}


def one_at_a_time(party: Party, measured: Measured, pods: Sequence[tuple[str, str]]) -> None:
    cni_parties.rest()
    added = party.call("ADD", pods)
    measured.add_median.append(statistics.median(added.each))
    measured.add_late.append(percentile(added.each, 99))
    deleted = party.call("DEL", pods)
    measured.del_median.append(statistics.median(deleted.each))
    measured.gone.append(party.settle(0) * 1000)


def at_once(party: Party, measured: Measured, pods: Sequence[tuple[str, str]], standing: int) -> None:
    cni_parties.rest()
    added = party.call("ADD", pods, AT_ONCE)
    measured.rates[standing].append(len(pods) / added.seconds)
    party.call("DEL", pods, AT_ONCE)
    party.settle(standing)


def measure(parties: Sequence[Party], namespaces: Namespaces) -> dict[str, Measured]:
    found = {party.name: Measured() for party in parties}
    pods = [(f"c{number}", path) for number, path in enumerate(namespaces.paths)]
    for _ in range(RUNS):
        for party in parties:
            one_at_a_time(party, found[party.name], pods[:SIZE])
    for standing in (0, STANDING):
        for number, party in enumerate(parties):
            first = SIZE + number * STANDING
            party.call("ADD", pods[first : first + standing], AT_ONCE)
        for _ in range(RUNS):
            for party in parties:
                at_once(party, found[party.name], pods[:SIZE], standing)
    return found


def report(found: dict[str, Measured]) -> bool:
    ours, ptp = found.pop("felix-cni"), "ptp+host-local"
    kept = []
    for name, peer in found.items():
        first = name == ptp
        beside = [
            ("cni: ADD, median", ours.add_median, "ms", peer.add_median, 0.25 if first else 1.0, "lower"),
            ("cni: ADD, 99 of a hundred within", ours.add_late, "ms", peer.add_late, 0.4 if first else 1.0, "lower"),
            ("cni: DEL, median", ours.del_median, "ms", peer.del_median, 0.2 if first else 1.0, "lower"),
            *(
                (
                    f"cni: {AT_ONCE} ADDs at once, {standing} pods there",
                    rates,
                    "1/s",
                    peer.rates[standing],
                    reach,
                    "higher",
                )
                for standing, rates in ours.rates.items()
                for reach in [5.0 if first else 1.0]
            ),
        ]
        kept += [
            tell_ratio(f"{what}, beside {name}", values, unit, name, theirs, reach, better=better)
            for what, values, unit, theirs, reach, better in beside
        ]
    kept.append(tell("cni: the last interface is gone, after the last DEL", ours.gone, "ms", 200.0))
    return all(kept)


def main() -> int:
    if not (cni_parties.REFERENCE / "ptp").exists() or shutil.which("gcc") is None:
        sys.stderr.write("bench: apt-get install containernetworking-plugins gcc libc6-dev\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="felix-cni-") as name, ExitStack() as stack:
        folder = Path(name)
        caller = cni_parties.compiled(folder)
        parties = [
            stack.enter_context(cni_parties.felix(folder / "felix", caller)),
            *(stack.enter_context(cni_parties.reference(kind, folder / kind, caller)) for kind in ("ptp", "bridge")),
        ]
        namespaces = Namespaces(SIZE + STANDING * len(parties))
        stack.callback(namespaces.close)
        return int(not report(measure(parties, namespaces)))


if __name__ == "__main__":
    sys.exit(main())
