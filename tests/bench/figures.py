"""How benchmarks report: one JSON object a line, with what was promised and whether the promise is kept."""

import json
import os
import statistics
import sys
from collections.abc import Sequence

RUNS = int(os.environ.get("RUNS") or 5)
"""How often each figure is taken; the median counts."""


def tell(name: str, values: Sequence[float], unit: str, reach: float, *, better: str = "lower") -> bool:
    """Print one figure without a peer; return whether the promise is kept."""
    value = statistics.median(values)
    ok = value <= reach if better == "lower" else value >= reach
    figure = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "peer": None,
        "peerValue": None,
        "ratio": None,
        "better": better,
        "reach": reach,
        "ok": ok,
    }
    sys.stdout.write(json.dumps(figure) + "\n")
    sys.stdout.flush()
    return ok


def tell_ratio(
    name: str, values: Sequence[float], unit: str, peer: str, peer_values: Sequence[float], reach: float
) -> bool:
    """Print a figure beside a peer that ran in turn with it; the promise is about the median of the paired ratios."""
    ratio = statistics.median(ours / theirs for ours, theirs in zip(values, peer_values, strict=True))
    ok = ratio >= reach
    figure = {
        "name": name,
        "value": round(statistics.median(values), 3),
        "unit": unit,
        "peer": peer,
        "peerValue": round(statistics.median(peer_values), 3),
        "ratio": round(ratio, 3),
        "better": "higher",
        "reach": reach,
        "ok": ok,
    }
    sys.stdout.write(json.dumps(figure) + "\n")
    sys.stdout.flush()
    return ok
