"""How soon the agent puts back what others take away, and what it costs while nobody does anything."""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from figures import RUNS, tell
from route_agent import AgentProcess, agent_holding
from route_space import ONE_LINK, await_all, inside, ip_batch, prefixes, require, scaled
from route_watch import Seen, Watcher, watching

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS") or 60)
HELD = scaled(10_000, 100)
SAMPLES = scaled(200, 5)
AT_ONCE = scaled(1000, 10)
PAUSE = 0.05
"""Seconds between two disturbances: the agent has rested from the last one by then, as it has from most in life."""


def by_the_agent() -> bool:
    """Disturb an agent that holds HELD routes; then let it be."""
    networks = prefixes(HELD)
    with (
        inside(ONE_LINK),
        tempfile.TemporaryDirectory() as folder,
        agent_holding(HELD, Path(folder) / "log") as agent,
    ):
        await_all("agent", HELD)
        with watching() as watcher:
            single = [_one_deleted(watcher, network) for network in _spread(networks, SAMPLES)]
            many = [_many_deleted(watcher, networks, run) for run in range(RUNS)]
        idle = _idle(agent)
        await_all("agent", HELD)
    percentiles = statistics.quantiles(single, n=100, method="inclusive")
    name = f"routes: one of {HELD} deleted by another program, back,"
    kept = [
        tell(f"{name} p50 of {SAMPLES}", [percentiles[49]], "ms", 10.0),
        tell(f"{name} p99 of {SAMPLES}", [percentiles[98]], "ms", 50.0),
        tell(f"routes: {AT_ONCE} of {HELD} deleted at once, all back", many, "ms", 250.0),
        tell(f"routes: CPU of the agent, idle with {HELD}, {IDLE_SECONDS:g} s", [idle], "%", 0.5),
    ]
    return all(kept)


def _spread(networks: Sequence[IPv4Network], count: int) -> list[IPv4Network]:
    """Return this many, each another one: who deletes the same again and again is held back as one who quarrels."""
    return [networks[number * len(networks) // count] for number in range(count)]


def _one_deleted(watcher: Watcher, network: IPv4Network) -> float:
    """Return the milliseconds between the two events as a third party saw them."""
    time.sleep(PAUSE)
    watcher.expect(1)
    subprocess.run(["ip", "route", "del", str(network)], check=True)
    gone, back = watcher.seen()
    if (gone.new, back.new) != (False, True) or {gone.destination, back.destination} != {
        network.network_address.packed
    }:
        raise AssertionError(f"{network}: {gone} {back}")
    return (back.at - gone.at) * 1000


def _many_deleted(watcher: Watcher, networks: Sequence[IPv4Network], run: int) -> float:
    """Return the milliseconds from the first event of a route that is gone to that of the last one that is back."""
    time.sleep(PAUSE)
    start = run * AT_ONCE % (len(networks) - AT_ONCE + 1)
    chosen = networks[start : start + AT_ONCE]
    watcher.expect(AT_ONCE)
    ip_batch("".join(f"route del {network}\n" for network in chosen))
    seen = watcher.seen()
    require(AT_ONCE, len(_back(seen)), "back")
    return (seen[-1].at - seen[0].at) * 1000


def _back(seen: Sequence[Seen]) -> set[bytes]:
    return {each.destination for each in seen if each.new} & {each.destination for each in seen if not each.new}


def _idle(agent: AgentProcess) -> float:
    """Return the share of one core that the agent takes, in percent; one resync falls into a minute."""
    before, start = agent.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return 100 * (agent.cpu_seconds() - before) / (time.monotonic() - start)
