"""The benchmark of large clusters, with a small one: every figure is there, and is as promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kubernetes, pytest.mark.netns, pytest.mark.alone]

PROGRAM = Path(__file__).parents[1] / "bench/kubernetes_scale.py"


def test_the_bench_of_kubernetes_gives_every_figure() -> None:
    settings = {"RUNS": "1", "SIZE": "30", "IDLE_SECONDS": "5"}
    done = subprocess.run(
        [sys.executable, PROGRAM], capture_output=True, text=True, check=False, env={**os.environ, **settings}
    )
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["name"] for each in figures] == [
        "kubernetes: 30 nodes and 300 pods, start to in sync",
        "kubernetes: 30 nodes and 300 pods, memory of the agent (RSS)",
        "kubernetes: 30 nodes and 300 pods, CPU of the agent, heartbeats",
        "kubernetes: 30 nodes and 300 pods, CPU of the agent, API server away",
        "kubernetes: 30 nodes and 300 pods, requests a minute, idle, of the first node by name",
    ], done.stderr
    assert done.returncode == 0, figures
