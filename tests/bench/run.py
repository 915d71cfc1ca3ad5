"""Runs benchmarks: those named, or all, whose figures go to docs/performance.md; those of scale to docs/scaling.md."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import scaling_page

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "docs" / "performance.md"
HELPERS = {
    "run",
    "bgp_listener",
    "bgp_parties",
    "busy_peers",
    "churned",
    "churner",
    "cni_parties",
    "figures",
    "kubernetes_fill",
    "page_tables",
    "route_agent",
    "route_memory",
    "route_moves",
    "route_packets",
    "route_peers",
    "route_rates",
    "route_repairs",
    "route_resync",
    "route_space",
    "route_watch",
    "scale_parties",
    "scaling_page",
    "tun_prototype",
    "tunnel_by_hand",
    "tunnel_pair",
}
"""Modules here that are no benchmarks."""

ONLY_BY_NAME = {"cni_before", "containers", "kubernetes_scale", "pods_at_once", "pods_in_turn"}
"""Benchmarks that need what not every machine has: another checkout, Docker and images of `make image`, Kubernetes."""

KEPT_ON_THE_PAGE = "## Kubernetes\n"
"""Where what stays begins when the page is written anew: its benchmark is not among all, and its day and machine are
others."""

SUBJECTS = {"bgp": (("bgp_speed",), ""), "memory": (("lab", "routes", "bgp_speed"), "memory")}
"""What people ask about: the benchmarks that tell it, and the word that figures about it have in their names."""


def main(names: list[str]) -> int:
    """Run each benchmark in a process of its own; return 1 when a figure is not as promised."""
    if len(names) == 1 and names[0] in SUBJECTS:
        files, word = SUBJECTS[names[0]]
        figures = [figure for name in files for figure in _figures(name, word)]
        return int(not figures or not all(figure["ok"] for figure in figures))
    known = sorted(
        path.stem for path in HERE.glob("*.py") if path.stem not in HELPERS and not path.stem.startswith("test_")
    )
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(sorted({*known, *SUBJECTS}))
        print(f"bench: NAME is {' '.join(unknown)}; there are {there}", file=sys.stderr)  # noqa: T201
        return 2
    status = 0
    figures: list[dict[str, Any]] = []
    for name in names or [each for each in known if each not in ONLY_BY_NAME]:
        before = len(figures)
        figures += _figures(name)
        told = figures[before:]
        status = max(status, not told or not all(figure["ok"] for figure in told))
    if any(scaling_page.NAME.fullmatch(figure["name"]) for figure in figures):
        scaling_page.PAGE.write_text(scaling_page.rewritten(scaling_page.PAGE.read_text(), figures, machine()))
    if not names:
        REPORT.write_text(report(figures, REPORT.read_text() if REPORT.exists() else ""))
    return int(status)


def _figures(name: str, word: str = "") -> Iterator[dict[str, Any]]:
    """Run a benchmark; print its figures, of those that have this word in their names, and yield them.

    Raises:
        subprocess.CalledProcessError: when it broke down, and not only some figure is not as promised.
    """
    command = [sys.executable, str(HERE / f"{name}.py")]
    kept = True
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            figure = json.loads(line)
            kept = kept and figure["ok"]
            if word in figure["name"]:
                print(line, end="", flush=True)  # noqa: T201 - a command line tool prints
                yield figure
    if process.returncode != (0 if kept else 1):
        raise subprocess.CalledProcessError(process.returncode, command)


def report(figures: list[dict[str, Any]], before: str = "") -> str:
    """Return the page: the machine, a line for each figure, and what is kept of the page before."""
    _, heading, kept = before.partition(KEPT_ON_THE_PAGE)
    rows = [
        f"| {each['name']} | {each['value']:g} {each['unit']} | {_peer(each)} | {_ratio(each)} | {_reach(each)} | "
        f"{'yes' if each['ok'] else 'no'} |"
        for each in figures
    ]
    return "\n".join(
        [
            "# Performance",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}. Medians of several runs.",
            "",
            "| figure | value | peer | ratio | promised | kept |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            *([heading + kept] if heading else []),
        ]
    )


def _peer(figure: dict[str, Any]) -> str:
    return f"{figure['peer']}: {figure['peerValue']:g}" if figure["peer"] else "-"


def _ratio(figure: dict[str, Any]) -> str:
    return f"{figure['ratio']:g}" if figure["peer"] else "-"


def _reach(figure: dict[str, Any]) -> str:
    """Say what was promised: of a figure with a peer the ratio, of others the value."""
    bound = "at least" if figure["better"] == "higher" else "at most"
    return f"ratio {bound} {figure['reach']:g}" if figure["peer"] else f"{bound} {figure['reach']:g} {figure['unit']}"


def machine() -> str:
    """Describe this machine in a few words."""
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    kernel = f"Linux {platform.release()}"
    return f"{os.cpu_count()} x {processor}, {memory:.0f} GiB, {kernel}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
