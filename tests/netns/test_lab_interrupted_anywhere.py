"""Wherever on its way up a lab is interrupted, the command ends, says so, and leaves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from labs import SMALL, felix_lab, lab_name, left_of

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

INTERRUPTED = {"status": 130, "said": "felix-lab: interrupted by SIGINT; nothing of the lab is left\n", "left": []}


@pytest.mark.parametrize(
    ("event", "step", "at_least"),
    [
        pytest.param("opcode", 3, 100, id="while locks are taken and given back"),
        pytest.param("line", 197, 10, id="until it is up"),
    ],
)
def test_an_interrupted_lab_leaves_nothing_wherever_it_was(
    event: str, step: int, at_least: int, tmp_path: Path
) -> None:
    topology, name = tmp_path / "small.yaml", lab_name("any")
    topology.write_text(SMALL)
    words = [sys.executable, str(Path(__file__).with_name("interrupting.py")), name, str(topology), event, str(step)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    finally:
        felix_lab(name, "down") if left_of(name) else None
    calls = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr
    assert len(calls) >= at_least
    assert [call for call in calls if {key: call[key] for key in INTERRUPTED} != INTERRUPTED] == []
    assert left_of(name) == []
