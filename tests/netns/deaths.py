"""Kills in a lab under traffic: who sends, who watches, and when everybody has been told again what the victim has."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from labs import eventually

from felix_py.ctl import client
from felix_py.lab import faults, machines, watching
from felix_py.lab.state import Lab

VICTIM, VICTIMS_ADDRESS = "a1", "172.31.1.11"
NEIGHBOURS, ROUTER = ("a2", "b1", "b2"), "tor"
EVERYBODY = (VICTIM, *NEIGHBOURS, ROUTER)

STREAMS = {"a1-pod1": "b1-pod1", "client": "a1-pod2", "a2-pod1": "a1-pod3"}
"""Who pings whom: between the racks, from outside through the router, and inside the rack."""

PACE = 0.005
"""Seconds between two packets of a stream."""


@dataclass
class Witness:
    """What was seen, once it is over.

    Attributes:
        sent: packets by stream.
        lost: those that were not answered.
        moved: by machine, how its routes changed.
    """

    sent: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    moved: dict[str, tuple[str, ...]] = field(default_factory=dict)


@contextmanager
def witness(lab: Lab) -> Iterator[Witness]:
    """Have every stream flow, and every machine's routes be watched, while something happens."""
    seen = Witness()
    with ExitStack() as stack:
        monitors = {
            name: stack.enter_context(watching.running(watching.route_monitor(lab, name))) for name in EVERYBODY
        }
        for monitor in monitors.values():
            monitor.wait_for_netlink()
        addresses = lab.pod_addresses()
        pings = {
            f"{source} to {target}": stack.enter_context(
                watching.running([*machines.enter(lab, source), "ping", "-i", str(PACE), addresses[target]])
            )
            for source, target in STREAMS.items()
        }
        yield seen
        for name, ping in pings.items():
            summary = watching.ping_summary(ping.stop())
            seen.sent[name], seen.lost[name] = summary.transmitted, summary.transmitted - summary.received
        seen.moved |= {name: monitor.stop() for name, monitor in monitors.items()}


def session(lab: Lab, node: str) -> Mapping[str, Any]:
    """Return what a neighbour says of its session with the victim."""
    return client.get(lab.of_node(node) / "run" / "agent.sock", "bgp", "peers", VICTIMS_ADDRESS)


def losses(lab: Lab) -> dict[str, int]:
    """Return how often each neighbour has lost its session with the victim."""
    return {node: session(lab, node)["flaps"] for node in NEIGHBOURS}


def all_told(lab: Lab, before: Mapping[str, int]) -> bool:
    """Say whether everybody has a new session with the victim, and has heard its End-of-RIB.

    RFC 4724 section 4.2: who loses a session again before that must forget what it kept of the one before.
    """
    for node in NEIGHBOURS:
        now = session(lab, node)
        if now["flaps"] == before[node] or now["state"] != "Established" or not now["gracefulRestart"]["endOfRIB"]:
            return False
    words = [*machines.enter(lab, ROUTER), "birdc", "show", "protocols", "all", f"'node-{VICTIM}'"]
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return "Established" in shown and "restart active" not in shown


def kill(lab: Lab, victim: int | None, restart: Callable[[], None] = lambda: None) -> float:
    """Kill a process; return the seconds until a new one has told everybody everything."""
    before, start = losses(lab), time.monotonic()
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    restart()
    assert eventually(lambda: all_told(lab, before), 30), {node: session(lab, node) for node in NEIGHBOURS}
    return time.monotonic() - start


def kill_agent(lab: Lab) -> float:
    """Kill the victim's agent, to be started at once: the lab's supervisor would wait longer after each quick death."""
    directory = lab.of_node(VICTIM)

    def started() -> None:
        assert eventually(lambda: machines.daemon(directory) is None)
        machines.signal_supervisor(directory, run=True)

    return kill(lab, machines.daemon(directory), started)


def kill_exabgp(lab: Lab) -> float:
    """Kill the victim's ExaBGP; its agent starts the next one."""
    return kill(lab, faults.exabgp_or_none(lab, VICTIM))
