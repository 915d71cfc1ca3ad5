"""That benchmarks report in the form that was promised; the lab's own runs once, on a lab of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KEYS = ["name", "value", "unit", "peer", "peerValue", "ratio", "better", "reach", "ok"]


@pytest.mark.bench
@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_bench_of_the_lab_gives_every_figure() -> None:
    environment = {**os.environ, "RUNS": "1", "IDLE_SECONDS": "1"}
    command = [sys.executable, HERE / "run.py", "lab"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figure["name"] for figure in figures] == [
        "lab: start to in sync, four nodes",
        "lab: pod ADD to first ping from the other rack",
        "lab: repair of a deleted route",
        "lab: resident memory of agent and ExaBGP (RSS)",
        "lab: their own share of memory (PSS)",
        "lab: idle CPU of agent and ExaBGP",
    ], done.stderr
    assert all(list(figure) == KEYS for figure in figures)
    assert done.returncode == int(not all(figure["ok"] for figure in figures))


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


def test_an_unknown_benchmark_is_refused_with_what_there_is() -> None:
    done = subprocess.run([sys.executable, HERE / "run.py", "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: NAME is speed; there are ")
