"""What deaths of the agent and of ExaBGP cost a network under traffic: packets, routes, time until all is told.

The second part kills ExaBGP when RFC 4724 does not protect us: while the one before has not told everybody everything.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))

import deaths
from figures import tell
from labs import eventually, felix_lab

from felix_py.lab import faults
from felix_py.lab.state import Lab

KILLS = int(os.environ.get("SIZE") or 20)
STEP = 0.05
"""Seconds by which each kill that comes too early comes later than the one before."""


def in_a_row(lab: Lab, what: str, kill: Callable[[Lab], float]) -> bool:
    with deaths.witness(lab) as seen:
        took = [kill(lab) for _ in range(KILLS)]
    kept = [
        tell(f"restarts: packets lost while {what} is killed {KILLS} times", [sum(seen.lost.values())], "packets", 0),
        tell(
            f"restarts: route events on five machines while {what} is killed {KILLS} times", [moves(seen)], "events", 0
        ),
        tell(f"restarts: {what} killed until everybody is told everything", took, "s", 5),
    ]
    return all(kept)


def moves(seen: deaths.Witness) -> int:
    return sum(map(len, seen.moved.values()))


def too_early(lab: Lab) -> bool:
    """Kill ExaBGP, and its successor before it has said End-of-RIB, at one moment of its start after the other."""
    silences = []
    for number in range(KILLS):
        with deaths.witness(lab) as seen:
            before, first = deaths.losses(lab), faults.exabgp(lab, deaths.VICTIM)
            os.kill(first, 9)
            assert eventually(lambda first=first: faults.exabgp_or_none(lab, deaths.VICTIM) not in (None, first))
            time.sleep(number * STEP)
            second = faults.exabgp(lab, deaths.VICTIM)
            os.kill(second, 9)
            assert eventually(lambda before=before: deaths.all_told(lab, before), 60)
        silences.append(max(seen.lost.values()) * deaths.PACE)
    costly = [silence for silence in silences if silence]
    kept = [
        tell(f"restarts: of {KILLS} deaths during a start, how many cost packets", [len(costly)], "deaths", KILLS),
        tell("restarts: the longest silence that one of them made", [max(silences)], "s", 15),
    ]
    return all(kept)


def main() -> int:
    name = f"rst{os.getpid()}"
    try:
        if felix_lab(name, "up").status:
            return 1
        lab = Lab(name)
        kept = [
            in_a_row(lab, "the agent", deaths.kill_agent),
            in_a_row(lab, "ExaBGP", deaths.kill_exabgp),
            too_early(lab),
        ]
    finally:
        felix_lab(name, "down")
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
