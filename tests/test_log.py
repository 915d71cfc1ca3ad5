"""Log events: what the code says is what the list promises, and each line is one JSON object."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sources

from felix_py.log import EVENTS

LEVELS = {"debug", "info", "warning", "error", "exception"}
TELLING = "telling.py"
"""Where lines are made that are logged later: by functions that are called as the levels are, and by Saying itself."""


def logged() -> Iterator[tuple[str, str]]:
    """Yield the place and the event of every log call in the packages, and of every line made to be logged later."""
    for path, call in sources.calls():
        for constant in ast.walk(said) if (said := event_of(path.name, call)) is not None else ():
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str) and "." in constant.value:
                yield f"{path.name}:{call.lineno}", constant.value


def event_of(file: str, call: ast.Call) -> ast.expr | None:
    """Return what stands for the event in a call that logs, now or later; None for any other call."""
    match call:
        case ast.Call(func=ast.Attribute(attr=level), args=[event, *_]) if level in LEVELS:
            return event
        case ast.Call(func=ast.Name(id=level), args=[event, *_]) if file == TELLING and level in LEVELS:
            return event
        case ast.Call(func=ast.Name(id="Saying"), args=[_, event, *_]) if file == TELLING:
            return event
        case _:
            return None


@pytest.mark.slow
def test_every_event_is_on_the_list() -> None:
    assert [(where, event) for where, event in logged() if event not in EVENTS] == []


@pytest.mark.slow
def test_every_event_on_the_list_is_logged_somewhere() -> None:
    # route.put and route.repaired are chosen in one place by a condition, which the walk sees as constants too.
    assert EVENTS - {event for _, event in logged()} == frozenset()


def test_the_reference_names_every_event() -> None:
    text = (sources.ROOT / "docs" / "reference.md").read_text()
    assert {event for event in EVENTS if f"`{event}`" not in text} == set()


SCRIPT = """
import structlog
from felix_py import log
log.set_up(log_format="json", level="info")
structlog.get_logger().debug("route.put", dst="x")
structlog.get_logger().info("route.put", dst="10.65.1.0/26", cause=None)
"""


@pytest.mark.slow
def test_a_line_is_one_json_object_on_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert done.stdout == ""
    assert (entry["event"], entry["level"], entry["dst"]) == ("route.put", "info", "10.65.1.0/26")
    assert entry["timestamp"].endswith("Z")


OBSERVED = """
import json, sys
import structlog
from felix_py import log
seen = []
class Costly:
    def __repr__(self):
        sys.exit("it was rendered")
log.set_up(log_format="json", level="warning", observers=[lambda fields: seen.append(fields["event"])])
logger = structlog.get_logger()
logger.debug("conntrack.purged", address=Costly())
logger.info("route.put", dst=Costly())
logger.warning("route.conflict", dst="10.65.1.0/26")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("agent.failed")
log.set_up(log_format="json", level="error")
logger.warning("route.conflict", dst="10.65.1.0/26")
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_an_observer_sees_every_level_and_what_is_not_written_is_not_rendered() -> None:
    done = subprocess.run([sys.executable, "-c", OBSERVED], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["conntrack.purged", "route.put", "route.conflict", "agent.failed"]
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(entry["event"], entry["level"]) for entry in entries] == [
        ("route.conflict", "warning"),
        ("agent.failed", "error"),
    ]
    assert "ZeroDivisionError" in entries[1]["exception"]
