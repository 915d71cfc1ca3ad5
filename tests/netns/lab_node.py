"""Node a1 of a lab of the two racks: what is done on it, and what its agent says; `conftest` brings the lab up."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labs import lab_name, on_machine

from felix_py.lab import watching
from felix_py.lab.state import Lab

NAME = lab_name("flt")
REMOTE = "10.65.2.0/26"


def on_a1(*words: str) -> str:
    """Run a command on node a1 and return what it says."""
    called = on_machine(NAME, "a1", *words)
    assert called.status == 0, called.error + called.out
    return called.out


def routes(*words: str) -> dict[str, dict[str, Any]]:
    """Return a1's routes by prefix, as felixctl tells them."""
    called = on_machine(NAME, "a1", "felixctl", "routes", "-o", "json", *words)
    return {row["prefix"]: row for row in json.loads(called.out)["routes"]}


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(on_machine(NAME, "a1", "felixctl", "status", "-o", "json").out)
    return found


def problems() -> list[str]:
    found: list[str] = status()["problems"]
    return found


def settled() -> bool:
    """Say whether every route of a1 is in place and carries packets to the other rack."""
    return {row["state"] for row in routes().values()} == {"installed"} and crosses()


def crosses() -> bool:
    return on_machine(NAME, "a1-pod1", "ping", "-c1", "-W1", "10.65.2.1").status == 0


def pod() -> dict[str, Any]:
    """Return the route of a1-pod1, whatever address it has by now."""
    return next(row for row in routes().values() if row["from"] == "default/a1-pod1")


@contextmanager
def route_events(lab: Lab, machine: str) -> Iterator[watching.Watcher]:
    """Watch the route table of one machine."""
    with watching.running(watching.route_monitor(lab, machine)) as watcher:
        watcher.wait_for_netlink()
        yield watcher


def on_pod(*words: str) -> str:
    """Run a command in pod a1-pod1 and return what it says."""
    called = on_machine(NAME, "a1-pod1", *words)
    assert called.status == 0, called.error + called.out
    return called.out
