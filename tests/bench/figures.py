"""How benchmarks report: one JSON object a line, with what was promised and whether the promise is kept."""

import json
import os
import statistics
import sys
from collections.abc import Sequence

RUNS = int(os.environ.get("RUNS") or 5)
"""How often each figure is taken; the median counts."""


def tell(name: str, values: Sequence[float], unit: str, reach: float | None, *, better: str = "lower") -> bool:
    """Print one figure without a peer; return whether the promise is kept, where there is one."""
    value = statistics.median(values)
    return _print(name, value, unit, (None, None, None), better, reach, value)


def tell_ratio(
    name: str,
    values: Sequence[float],
    unit: str,
    peer: str,
    peer_values: Sequence[float],
    reach: float,
    *,
    better: str = "higher",
) -> bool:
    """Print a figure beside a peer that ran in turn with it; the promise is about the median of the paired ratios."""
    ratio = statistics.median(ours / theirs for ours, theirs in zip(values, peer_values, strict=True))
    beside = (peer, round(statistics.median(peer_values), 3), round(ratio, 3))
    return _print(name, statistics.median(values), unit, beside, better, reach, ratio)


def _print(
    name: str,
    value: float,
    unit: str,
    beside: tuple[str | None, float | None, float | None],
    better: str,
    reach: float | None,
    promised: float,
) -> bool:
    """Print one figure; `promised` is what has to reach `reach`."""
    ok = reach is None or (promised <= reach if better == "lower" else promised >= reach)
    figure = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        **dict(zip(("peer", "peerValue", "ratio"), beside, strict=True)),
        "better": better,
        "reach": reach,
        "ok": ok,
    }
    sys.stdout.write(json.dumps(figure) + "\n")
    sys.stdout.flush()
    return ok
