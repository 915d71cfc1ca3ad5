"""Namespaces, bridges and cables made and removed, by `ip -batch`; nothing ever stands in the host's own namespace."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from felix_py.lab import namespaces, plan
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Topology

DEADLINE = 5.0
"""Seconds that killed processes may take to be gone."""

Script = tuple[str | None, Sequence[str]]
"""A network namespace, None for the host's own, and lines for `ip -batch` there."""


def build(lab: Lab, topology: Topology) -> None:
    """Make all namespaces, switches and cables, and give every machine its addresses."""
    _batch([(None, [f"netns add {name}" for name in plan.namespaces(lab.name, topology)])])
    for router in topology.routers:
        with namespaces.inside(lab.namespace(router.name)):
            for parameter, value in plan.ROUTER_PARAMETERS.items():
                Path("/proc/sys", parameter).write_text(value)
    for scripts in (
        plan.switches(topology),
        plan.cables(lab.name, topology),
        plan.machines(topology),
        dict.fromkeys(topology.pods, ("link set lo up",)),
    ):
        _batch([(lab.namespace(name), lines) for name, lines in scripts.items()])


def run(lab: Lab, name: str, *lines: str) -> None:
    """Run lines of `ip -batch` in the namespace of a machine or network."""
    _batch([(lab.namespace(name), lines)])


def _batch(scripts: Sequence[Script]) -> None:
    """Run each script in its namespace, all at the same time; none outlives the call."""
    started: list[tuple[Script, subprocess.Popen[str]]] = []
    try:
        for script in scripts:
            where = ["-n", script[0]] if script[0] else []
            command = ["ip", *where, "-batch", "-"]
            started.append((script, subprocess.Popen(command, stdin=-1, stderr=-1, text=True)))
        for (namespace, lines), process in started:
            _, complaint = process.communicate("\n".join(lines) + "\n")
            if process.returncode != 0:
                where_ = f" in {namespace}" if namespace else ""
                raise Refused(f"ip refused{where_}: {' '.join(complaint.split())}")
    finally:
        for _, process in started:
            if process.returncode is None:
                process.kill()
                process.wait()


def demolish(lab: Lab) -> tuple[str, ...]:
    """Kill every process of the lab and remove its namespaces; safe to repeat; return the names that went."""
    gone: set[str] = set()
    for supervisor in _supervisors(lab):  # first: they start daemons anew
        kill(supervisor)
    while names := namespaces.named(lab.prefix):
        kill_all(names)
        _batch([(None, [f"netns delete {name}" for name in names])])
        gone.update(names)
    return tuple(sorted(gone))


def _supervisors(lab: Lab) -> Iterator[int]:
    """Find the lab's supervisors by their command line: one that was just started is in no namespace of ours yet."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "felix_py.lab.supervisor" in words and any(word.startswith(lab.prefix) for word in words):
                yield int(process.name)


def kill_all(names: tuple[str, ...], spared: Collection[int] = ()) -> None:
    """Kill what lives in these namespaces until nothing does."""
    deadline = time.monotonic() + DEADLINE
    while living := namespaces.processes(names).keys() - {*spared, os.getpid()}:
        for process in living:
            kill(process)
        if time.monotonic() > deadline:
            raise Refused(f"processes {sorted(living)} do not die; look at them with ps, then repeat")
        time.sleep(0.01)


def kill(process: int) -> None:
    """Kill one process; that it is gone already is what we want."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
