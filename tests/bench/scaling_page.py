"""The tables of docs/scaling.md, out of the figures of bgp_scale.py: what stands between two marks is written anew."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
BEGIN, END = "<!-- written by `make bench NAME=bgp_scale` -->", "<!-- until here -->"

NAME = re.compile(r"scale: (?P<role>node|reflector), (?P<peers>\d+) peers x (?P<prefixes>\d+), (?P<what>.+)")

Figure = dict[str, Any]
Table = dict[tuple[int, int], dict[str, Figure]]

COLUMNS = {
    "node": {
        "start until all sessions are up": "sessions up",
        "announced until all is in the kernel": "all in the kernel",
        "memory of agent and ExaBGP (RSS)": "memory",
        "idle CPU of agent": "idle CPU, agent",
        "idle CPU of ExaBGP": "idle CPU, ExaBGP",
    },
    "reflector": {
        "start until all sessions are up": "sessions up",
        "announced until all clients have all": "all clients have all",
        "processor time of ExaBGP for each route and client": "ExaBGP's part, for each route and client",
        "memory of agent and ExaBGP (RSS)": "memory",
    },
}
"""By role: which figures are shown, and their headings. BIRD's value stands behind ours, where there is one."""

HEADINGS = {"node": ("peers", "prefixes of each"), "reflector": ("clients", "blocks of each")}


def tables(figures: Sequence[Figure]) -> dict[str, Table]:
    """Sort figures by role, and by numbers of peers and prefixes."""
    found: dict[str, Table] = {role: {} for role in COLUMNS}
    for figure in figures:
        match = NAME.fullmatch(figure["name"])
        if match:
            key = int(match["peers"]), int(match["prefixes"])
            found[match["role"]].setdefault(key, {})[match["what"]] = figure
    return found


def table(role: str, rows: Table) -> list[str]:
    """Draw one table."""
    heads = [*HEADINGS[role], *COLUMNS[role].values()]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for (peers, prefixes), cells in sorted(rows.items()):
        values = [cell(cells.get(what)) for what in COLUMNS[role]]
        lines.append(f"| {peers} | {prefixes} | {' | '.join(values)} |")
    return lines


def cell(figure: Figure | None) -> str:
    """Write a value, and BIRD's in parentheses."""
    if figure is None:
        return "-"
    digits = 2 if figure["unit"] == "s" else 0 if figure["unit"] in ("MiB", "us") else 1
    unit = {"us": "µs"}.get(figure["unit"], figure["unit"])
    beside = f" ({figure['peerValue']:.{digits}f})" if figure["peer"] else ""
    return f"{figure['value']:.{digits}f} {unit}{beside}"


def per_session(rows: Table) -> str:
    """Say what a session costs in memory, by the smallest and the largest number of peers with as few prefixes."""
    what = "memory of agent and ExaBGP (RSS)"
    fewest = min(prefixes for _, prefixes in rows)
    memory = {peers: cells[what]["value"] for (peers, prefixes), cells in rows.items() if prefixes == fewest}
    few, many = min(memory), max(memory)
    if few == many:
        return ""
    each = (memory[many] - memory[few]) / (many - few) * 1024
    return f"A session more, with its {fewest} prefixes, takes {each:.0f} KiB: from {few} peers to {many}."


def section(figures: Sequence[Figure], machine: str) -> str:
    """Return what stands between the marks."""
    found = tables(figures)
    lines = [
        BEGIN,
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {machine}. In parentheses BIRD, in the same place in the same run.",
        "",
        "A node of a mesh:",
        "",
        *table("node", found["node"]),
        "",
        per_session(found["node"]),
        "",
        "A node that is a route reflector:",
        "",
        *table("reflector", found["reflector"]),
        "",
        END,
    ]
    return "\n".join(lines)


def rewritten(page: str, figures: Sequence[Figure], machine: str) -> str:
    """Return the page with the figures in it; the rest stays as it is."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + section(figures, machine) + tail
