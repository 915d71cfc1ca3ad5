"""Sessions with a hold time of 3 s on a machine that is busy beyond its cores: none may be lost by a false alarm."""

import os
import sys
import tempfile
from pathlib import Path

import bgp_parties as parties
import busy_peers
from figures import tell

SECONDS = float(os.environ.get("SECONDS") or 60)
FLOOD = int(os.environ.get("SIZE") or 100_000)
PEERS, TABLE = 50, 20_000


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, parties.wire(Path(folder)) as wire:
        seen = busy_peers.watched(wire, PEERS, TABLE, FLOOD, SECONDS)
    what = f"busy: {PEERS} sessions of hold time 3 s, two busy programs a core, {SECONDS:.0f} s"
    kept = [
        tell(f"{what}: sessions lost", [seen.flaps], "sessions", 0),
        tell(f"{what}: ExaBGP taken for stuck", [seen.respawns], "times", 0),
        tell(f"{what}: a table of {TABLE} came or went", [seen.turns], "times", SECONDS / 4, better="higher"),
    ]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
