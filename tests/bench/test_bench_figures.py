"""That benchmarks report in the form that was promised; those of the lab and of the routes run once, to prove it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import run
import scaling_page

HERE = Path(__file__).parent
KEYS = ["name", "value", "unit", "peer", "peerValue", "ratio", "better", "reach", "ok"]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def figures_of(name: str, **settings: str) -> list[dict[str, Any]]:
    """Run a benchmark; return its figures, once they have the form that was promised."""
    command = [sys.executable, HERE / "run.py", name]
    environment = {**os.environ, "RUNS": "1", "IDLE_SECONDS": "1", **settings}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    figures: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(list(figure) == KEYS for figure in figures)
    assert figures, done.stderr
    assert done.returncode == int(not all(figure["ok"] for figure in figures)), done.stderr
    return figures


@pytest.mark.alone
@pytest.mark.bench
@pytest.mark.netns
@needs_root
def test_the_bench_of_trace_gives_every_figure() -> None:
    assert [figure["name"] for figure in figures_of("trace")] == [
        "trace: pod to pod of another rack, five machines asked",
        "trace: by a node's own felixctl",
    ]


@pytest.mark.alone
@pytest.mark.bench
@pytest.mark.netns
@needs_root
def test_the_bench_of_the_lab_gives_every_figure() -> None:
    assert [figure["name"] for figure in figures_of("lab")] == [
        "lab: start to in sync, four nodes",
        "lab: pod ADD to first ping from the other rack",
        "lab: repair of a deleted route",
        "lab: resident memory of agent and ExaBGP (RSS)",
        "lab: their own share of memory (PSS)",
        "lab: idle CPU of agent and ExaBGP",
    ]


@pytest.mark.alone
@pytest.mark.bench
@pytest.mark.netns
@needs_root
def test_the_bench_of_the_routes_gives_every_figure() -> None:
    found = [(figure["name"], figure["peer"], figure["unit"]) for figure in figures_of("routes", SIZE="1000")]
    assert found == [
        ("routes: 1000 wished, through the whole engine", "ip -batch", "routes/s"),
        ("routes: 1000 wished, through the whole engine, beside Python", "pyroute2 IPRoute.route, 100", "routes/s"),
        ("routes: 1000 encoded, by the writer alone", "C, 1000 a send", "routes/s"),
        ("routes: resync of 655", "ip route show > /dev/null", "ms"),
        ("routes: memory that the engine takes for 655, at its peak", None, "MiB"),
        ("routes: the same with the wish, as Python objects", None, "MiB"),
        ("routes: one of 100 deleted by another program, back, p50 of 5", None, "ms"),
        ("routes: one of 100 deleted by another program, back, p99 of 5", None, "ms"),
        ("routes: 10 of 100 deleted at once, all back", None, "ms"),
        ("routes: CPU of the agent, idle with 100, 1 s", None, "%"),
        ("routes: 100 moved to another next hop, by its object", None, "ms"),
        ("routes: 100 moved to another next hop, both ways", "each rewritten", "ms"),
        ("routes: 100 moved to another next hop, packets lost of 10000/s", None, "packets"),
        ("routes: 1000 in the kernel, from first to last", "BIRD by BGP, from first to last", "ms"),
        ("routes: 1000 in the kernel, from wish to last", "BIRD by BGP, from first to last", "ms"),
    ]


def test_the_page_says_what_was_promised_of_a_value_and_of_a_ratio() -> None:
    alone = {"name": "one", "value": 1.5, "unit": "ms", "peer": None, "peerValue": None, "ratio": None}
    beside = {"name": "two", "value": 3.0, "unit": "routes/s", "peer": "ip", "peerValue": 1.0, "ratio": 3.0}
    page = run.report(
        [
            {**alone, "better": "lower", "reach": 1.0, "ok": False},
            {**beside, "better": "higher", "reach": 1.5, "ok": True},
        ]
    )
    assert run.machine() in page
    assert page.splitlines()[-2:] == [
        "| one | 1.5 ms | - | - | at most 1 ms | no |",
        "| two | 3 routes/s | ip: 1 | 3 | ratio at least 1.5 | yes |",
    ]


def test_a_page_that_is_written_anew_keeps_figures_of_another_day_apart_from_its_own() -> None:
    figure = {"name": "one", "value": 1.5, "unit": "ms", "peer": None, "peerValue": None, "ratio": None}
    new = [{**figure, "better": "lower", "reach": 2.0, "ok": True}]
    kept = "## Kubernetes\n\nOf another day.\n\n| figure |\n|---|\n| kubernetes: one |\n"
    page = run.report(new, f"# Performance\n\n| old |\n\n{kept}")
    assert page == f"{run.report(new)}\n{kept}"
    assert "| old |" not in page
    assert run.report(new, page) == page


@pytest.mark.alone
@pytest.mark.bench
@pytest.mark.netns
@pytest.mark.interop
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_bench_of_bgp_gives_every_figure_of_tables() -> None:
    environment = {**os.environ, "RUNS": "1", "SIZE": "1000"}
    command = [sys.executable, HERE / "bgp_speed.py", "tables"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figure["name"] for figure in figures] == [
        "bgp: 1000 prefixes into the Loc-RIB",
        "bgp: 1000 prefixes into the kernel",
        "bgp: 1000 prefixes into the kernel",
        "bgp: 200 prefixes, four of each node, into the kernel",
        "bgp: the same by BIRD",
        "bgp: memory of agent and ExaBGP with 1000 prefixes (RSS)",
    ], done.stderr
    assert all(list(figure) == KEYS for figure in figures)


@pytest.mark.alone
@pytest.mark.bench
@pytest.mark.netns
@pytest.mark.interop
@needs_root
def test_the_bench_of_scale_gives_every_figure_of_each_role() -> None:
    environment = {**os.environ, "RUNS": "1", "SIZE": "3", "IDLE_SECONDS": "1"}
    command = [sys.executable, HERE / "bgp_scale.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    node = ["start until all sessions are up", "announced until all is in the kernel"]
    memory = "memory of agent and ExaBGP (RSS)"
    idle = ["idle CPU of agent", "idle CPU of ExaBGP"]
    reflector = ["start until all sessions are up", "announced until all clients have all", memory]
    assert [figure["name"] for figure in figures] == [
        *(f"scale: node, 3 peers x 20, {what}" for what in (*node, memory, *idle)),
        *(f"scale: node, 3 peers x {count}, {what}" for count in (100, 1000) for what in (*node, memory)),
        *(f"scale: reflector, 3 peers x 4, {what}" for what in reflector),
        "scale: reflector, 3 peers x 4, processor time of ExaBGP for each route and client",
    ], done.stderr
    assert all(list(figure) == KEYS for figure in figures)
    assert all(figure["value"] > 0 for figure in figures if figure["unit"] in ("s", "MiB"))


def scale(name: str, value: float, unit: str, peer: float | None = None) -> dict[str, Any]:
    beside = "BIRD" if peer is not None else None
    return {"name": f"scale: {name}", "value": value, "unit": unit, "peer": beside, "peerValue": peer}


def test_the_page_of_scale_has_its_tables_between_the_marks_and_keeps_the_rest() -> None:
    figures = [
        scale("node, 10 peers x 20, start until all sessions are up", 1.234, "s", 1.0),
        scale("node, 10 peers x 20, memory of agent and ExaBGP (RSS)", 70.0, "MiB", 4.8),
        scale("node, 10 peers x 20, idle CPU of ExaBGP", 0.25, "%"),
        scale("node, 110 peers x 20, memory of agent and ExaBGP (RSS)", 80.0, "MiB", 6.4),
        scale("reflector, 10 peers x 4, processor time of ExaBGP for each route and client", 61.7, "us"),
    ]
    page = f"before\n{scaling_page.BEGIN}\nold\n{scaling_page.END}\nafter\n"
    written = scaling_page.rewritten(page, figures, "a machine")
    lines = written.splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert "| 10 | 20 | 1.23 s (1.00) | - | 70 MiB (5) | - | 0.2 % |" in lines
    assert "| 10 | 4 | - | - | 62 µs | - |" in lines
    assert "A session more, with its 20 prefixes, takes 102 KiB: from 10 peers to 110." in lines
    assert scaling_page.rewritten(written, figures, "a machine") == written


def test_an_unknown_benchmark_is_refused_with_what_there_is() -> None:
    done = subprocess.run([sys.executable, HERE / "run.py", "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: NAME is speed; there are ")


@pytest.mark.alone
@pytest.mark.bench
@pytest.mark.netns
@pytest.mark.browser
@needs_root
def test_the_bench_of_the_page_gives_every_figure() -> None:
    names = [figure["name"] for figure in figures_of("page", SIZE="5000")]
    assert names[-1] == "felixctl routes: 500 routes"
    assert [name.rpartition(": ")[2] for name in names[:-1]] == [
        "all of it until painted",
        "an update until painted",
        "the slowest update until painted",
    ]
