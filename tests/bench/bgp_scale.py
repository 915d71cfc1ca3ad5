"""How far one node goes: peers x prefixes as a node of a full mesh, and clients x blocks as a route reflector.

BIRD plays all the others, and takes the measured place in turn. SIZE is the largest number of peers. The tables of
docs/scaling.md come from here: `make bench NAME=bgp_scale` writes them.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import bgp_parties as parties
from bgp_parties import Wire
from figures import tell, tell_ratio
from scale_parties import Cell, Role, addressed, measured

RUNS = int(os.environ.get("RUNS") or 1)
"""How often each figure is taken; once by default, since there are many of them."""

SIZE = int(os.environ.get("SIZE") or 200)
PEERS = sorted({*(count for count in (10, 50, 100) if count < SIZE), SIZE})
PREFIXES = (20, 100, 1000)
BLOCKS = 4
"""Of a node that is a route reflector's client: enough for 250 pods."""

MOST = 100_000
"""Prefixes altogether: more is a matter of tables (bgp_speed.py), and takes its time."""

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS") or 4)

FigureOf = Callable[[Cell], float]


def total_memory(cell: Cell) -> float:
    return sum(cell.memory)


def up(cell: Cell) -> float:
    return cell.up


def told(cell: Cell) -> float:
    return cell.told


REACHES: dict[Role, Sequence[tuple[str, str, FigureOf, float]]] = {
    "node": (
        ("start until all sessions are up", "s", up, 6),
        ("announced until all is in the kernel", "s", told, 6),
        ("memory of agent and ExaBGP (RSS)", "MiB", total_memory, 20),
    ),
    "reflector": (
        ("start until all sessions are up", "s", up, 6),
        ("announced until all clients have all", "s", told, 30),
        ("memory of agent and ExaBGP (RSS)", "MiB", total_memory, 20),
    ),
}
"""By role: what is told of each cell, in which unit, and how many times BIRD's value it may be."""


def cells(wire: Wire, role: Role, peers: int, prefixes: int) -> bool:
    """Measure both parties in turn and tell it."""
    idle_seconds = IDLE_SECONDS if role == "node" and prefixes == PREFIXES[0] else 0
    pairs = [
        (
            measured(wire, role, peers, prefixes, ours=True, idle_seconds=idle_seconds),
            measured(wire, role, peers, prefixes, ours=False),
        )
        for _ in range(RUNS)
    ]
    ours, birds = zip(*pairs, strict=True)
    where = f"scale: {role}, {peers} peers x {prefixes}"
    kept = [
        tell_ratio(f"{where}, {what}", list(map(of, ours)), unit, "BIRD", list(map(of, birds)), reach, better="lower")
        for what, unit, of, reach in REACHES[role]
    ]
    if idle_seconds:
        kept += [
            tell(f"{where}, idle CPU of {who}", [cell.idle[which] for cell in ours], "%", reach)
            for which, (who, reach) in enumerate((("agent", 1), ("ExaBGP", 3)))
        ]
    if role == "reflector":
        sent = peers * (peers - 1) * prefixes
        busy = [cell.busy[1] / sent * 1e6 for cell in ours]
        kept.append(tell(f"{where}, processor time of ExaBGP for each route and client", busy, "us", 120))
    return all(kept)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, parties.wire(Path(folder)) as wire:
        kept = []
        for peers in PEERS:
            with addressed(wire, peers):
                kept += [cells(wire, "node", peers, prefixes) for prefixes in PREFIXES if peers * prefixes <= MOST]
                kept.append(cells(wire, "reflector", peers, BLOCKS))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
