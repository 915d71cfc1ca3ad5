"""Workers take turns: many together, or one alone, who is not kept waiting by those who come after."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from turns import Turns

PATIENCE = 20.0


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def door_is_held(folder: Path) -> bool:
    with (folder / "door").open("r+b") as door:
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_many_are_in_together_and_who_wants_to_be_alone_comes_before_those_after_him(tmp_path: Path) -> None:
    one, other, alone, late = (Turns(tmp_path) for _ in range(4))
    order = []
    one.take(alone=False)
    other.take(alone=False)  # would wait for ever if they were not in together

    def taking(turns: Turns, name: str, *, wants_alone: bool) -> None:
        turns.take(alone=wants_alone)
        order.append(name)
        turns.leave()

    first = in_background(lambda: taking(alone, "alone", wants_alone=True))
    deadline = time.monotonic() + PATIENCE
    while not door_is_held(tmp_path):
        assert time.monotonic() < deadline
        os.sched_yield()
    second = in_background(lambda: taking(late, "late", wants_alone=False))
    one.leave()
    assert order == [], "the other one is still in"
    other.leave()
    for thread in (first, second):
        thread.join(PATIENCE)
    assert order == ["alone", "late"]


CONFTEST = """
import sys
sys.path.insert(0, {tests!r})
import turns

def pytest_configure(config):
    turns.join(config, lambda: {{"fact": 7}})
"""

MODULE = """
import os
from pathlib import Path
import pytest

def note(text):
    with Path({record!r}).open("a") as record:
        record.write(text + "\\n")

@pytest.fixture(autouse=True)
def noted(request):
    note(f"begin {{request.node.nodeid}}")
    yield
    note(f"end {{request.node.nodeid}}")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    pass

@pytest.mark.parametrize("number", range(20))
def test_together(number, request):
    assert request.config.workerinput["fact"] == 7
"""


@pytest.mark.slow
def test_nothing_else_runs_while_one_is_alone(tmp_path: Path) -> None:
    record = tmp_path / "record"
    (tmp_path / "conftest.py").write_text(CONFTEST.format(tests=str(Path(__file__).parent)))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    for name in ("one", "two", "three"):
        (tmp_path / f"test_{name}.py").write_text(MODULE.format(record=str(record)))
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "69 passed" in done.stdout, done.stdout + done.stderr
    told = [line.split(maxsplit=1) for line in record.read_text().splitlines()]
    inside: set[str] = set()
    for verb, test in told:
        inside ^= {test}
        assert (test in inside) == (verb == "begin")
        assert len(inside) <= 1 or not any("test_alone" in each for each in inside)
    assert len(told) == 2 * 69
