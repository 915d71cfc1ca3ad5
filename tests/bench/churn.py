"""A million prefix updates, none like any before: by how much agent and ExaBGP grow after the first fifth of them."""

import os
import sys
import tempfile
from pathlib import Path

import bgp_parties as parties
import churned
from figures import tell

ROUNDS = int(os.environ.get("SIZE") or 100)
PREFIXES = 10_000


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, parties.wire(Path(folder)) as wire:
        early, late = churned.churn(wire, PREFIXES, max(1, ROUNDS // 5), ROUNDS)
    what = f"churn: from {early.updates} to {late.updates} prefix updates"
    kept = [
        tell(f"{what}, the agent grows by (RSS)", [late.agent - early.agent], "MiB", 8),
        tell(f"{what}, ExaBGP grows by (RSS)", [late.exabgp - early.exabgp], "MiB", 2),
        tell(f"{what}, more files and sockets open", [late.descriptors - early.descriptors], "descriptors", 0),
        tell(f"{what}, the agent's memory (RSS)", [late.agent], "MiB", 250),
    ]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
