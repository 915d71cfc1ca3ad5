"""A lab brought up and taken down: everything or nothing, as fast as the machine allows."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from felix_py.lab import health, interrupts, machines, network, pods, reflectors, state
from felix_py.lab.pods import Pod
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Topology

DEADLINE = 30.0
"""Seconds until a lab that does not become ready is given up; it needs two or three."""

POLL = 0.02
"""Seconds between two looks at what is missing."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds from the start until each stage was reached."""

    built: float
    agents: float
    attached: float
    converged: float


def refuse_second(lab: Lab) -> None:
    """Refuse to bring up what is up.

    Raises:
        Refused: when the lab is up, or was left half-way.
    """
    if lab.exists:
        raise Refused(f"a lab named {lab.name} is up already; `felix-lab down` takes it down", status=2)


def up(lab: Lab, source: Path, topology: Topology) -> Timings:
    """Bring a lab up; return when every session stands, every pod is attached and every route is everywhere.

    The caller holds the lab and is deferring what interrupts, which only the way up allows. Whatever goes wrong,
    nothing of it is left.

    Raises:
        Refused: when it is up already, or does not become ready; with the reason.
    """
    refuse_second(lab)
    try:
        with interrupts.allowed():
            return _up(lab, source, topology)
    except BaseException:  # Ctrl-C, too: a lab that is half up must not stay
        down(lab)
        raise


def _up(lab: Lab, source: Path, topology: Topology) -> Timings:
    start = time.monotonic()
    shutil.copyfile(source, lab.directory / "topology.yaml")
    state.claim_host()
    machines.write_files(lab, topology)
    reflectors.write_files(lab, topology, source)
    network.build(lab, topology)
    built = time.monotonic()
    machines.start_daemons(lab, topology)
    wait(lab, lambda: health.not_started(lab, topology))
    agents = time.monotonic()
    pods.attach(lab, [Pod(pod, node.name) for pod, node in topology.pods.items()])
    attached = time.monotonic()
    wait(lab, lambda: health.not_converged(lab, topology))
    return Timings(built - start, agents - start, attached - start, time.monotonic() - start)


def wait(lab: Lab, missing: Callable[[], list[str]], deadline: float = DEADLINE) -> None:
    """Look until nothing is missing.

    Raises:
        Refused: with what is missing after the deadline, and the last words of each daemon that is concerned.
    """
    end = time.monotonic() + deadline
    while sentences := missing():
        if time.monotonic() > end:
            names = dict.fromkeys(sentence.split(":")[0].split()[0] for sentence in sentences)
            words = "".join(f"\n  {name} says: {text}" for name in names if (text := last_words(lab, name)))
            raise Refused(f"not ready after {deadline:.0f} s: {'; '.join(sentences)}{words}")
        time.sleep(POLL)


def last_words(lab: Lab, name: str) -> str:
    """Return the last line that a daemon itself wrote to its log, empty where there is none."""
    directory = lab.supervised(name)
    if directory is None or not (directory / "log").exists():
        return ""
    lines = (directory / "log").read_text().splitlines()
    return next((line for line in reversed(lines) if not line.startswith("felix-lab: ")), "")


def down(lab: Lab) -> tuple[str, ...]:
    """Take a lab down, however far it came; return the namespaces that went. Safe to repeat."""
    gone = network.demolish(lab)
    state.remove(lab)
    state.release_host()
    return gone
