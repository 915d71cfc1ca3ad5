"""How the tests of felix-lab call it, and how they find what it might leave behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from felix_py.lab import machines, namespaces, state

PROGRAM = [sys.executable, "-m", "felix_py.lab.main"]

SMALL = """
networks: {lan: 10.0.0.0/24}
nodes:
  n1: {network: lan, address: 10.0.0.11, blocks: [10.65.0.0/26], pods: 1}
  n2: {network: lan, address: 10.0.0.12, blocks: [10.65.1.0/26], pods: 1}
cluster: {ipPools: [{name: default, cidr: 10.65.0.0/16}]}
"""
"""A topology of two nodes with one pod each, which is up in a moment."""


@dataclass(frozen=True, slots=True)
class Called:
    """What a call of felix-lab gave."""

    status: int
    out: str
    error: str


def felix_lab(name: str, *words: str, deadline: float = 60.0) -> Called:
    """Call felix-lab for the lab of this name."""
    done = subprocess.run(
        [*PROGRAM, "--name", name, *words], capture_output=True, text=True, check=False, timeout=deadline
    )
    return Called(done.returncode, done.stdout, done.stderr)


def on_machine(name: str, machine: str, *words: str) -> Called:
    """Run a command on a node, router, host or pod, as `felix-lab exec` does without a Python of its own around it."""
    command = [*machines.enter(state.Lab(name), machine), *words]
    environment = {**os.environ, "PATH": machines.path_variable()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    return Called(done.returncode, done.stdout, done.stderr)


@contextmanager
def standing(name: str, *words: str) -> Iterator[state.Lab]:
    """Have a lab up, brought there with these words to `felix-lab up`; nothing may be left of it at the end."""
    try:
        called = felix_lab(name, "up", *words)
        assert called.status == 0, called.error
        yield state.Lab(name)
    finally:
        felix_lab(name, "down")
        assert left_of(name) == []


def lab_name(purpose: str) -> str:
    """Return a name that no other lab on this machine has."""
    return f"{purpose}{os.getpid()}"


def left_of(name: str) -> list[str]:
    """Return what a lab left on this machine: namespaces, files, mounts, processes."""
    lab = state.Lab(name)
    found = [*namespaces.named(lab.prefix)]
    found += [str(lab.directory)] if lab.directory.exists() else []
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(lab.directory) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended while we looked
        if any(word.startswith((lab.prefix, str(lab.directory))) for word in words):
            found.append(f"process {process.name}: {' '.join(words)}")
    return found


def host_folders() -> set[str]:
    """Return which of the folders that labs need exist on this host now."""
    return {path for path in (*state.SHARED, str(state.HOME)) if Path(path).exists()}


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Look until the condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
