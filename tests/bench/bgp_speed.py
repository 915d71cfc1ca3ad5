"""BGP beside BIRD and GoBGP: tables, one announcement, a node of 50 peers, a peer that dies, memory, idle CPU.

Every party hears the same BIRD at the other end of the same wire. The clock starts when that BIRD has been told to
announce and has the routes in its own table, from where it goes on to say the first of them. Nobody who is measured is
asked whether it is done while it works: on two cores the one who asks would be a fifth of what is measured.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bgp_parties as parties
from bgp_parties import SOURCE, Arrival, Bird, Felix, Gobgp, Rest, RouteEvents, Wire, until
from figures import RUNS, tell, tell_ratio

TABLE = int(os.environ.get("SIZE") or 100_000)
OWN = TABLE // 5
SAMPLES = 200
PEERS = 50
IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS") or 20)
HOLD_TIME = 3
FAR_END = Path(__file__).parents[1] / "interop" / "far_end.py"


def told(wire: Wire, routes: list[str], arrived: Callable[[], float | None], pause: float) -> float:
    """Return the seconds from when the source begins to tell until everything has arrived; `arrived` says when."""
    source = Bird(wire, "source", wire.source, parties.telling(routes))
    try:
        until(source.established, "the session is up")
        time.sleep(0.5)  # so that nobody is still busy with the session itself
        source.ask("enable table4")  # 100,000 routes take it 0.1 to 0.2 s, in which it says nothing yet
        start = time.monotonic()
        at: list[float] = []
        until(lambda: at.extend(filter(None, [arrived()])) or at, "everything has arrived", pause)
        return at[0] - start
    finally:
        source.end()


def now_if(condition: object) -> float | None:
    return time.monotonic() if condition else None


def into_our_loc_rib(wire: Wire, routes: list[str]) -> float:
    listener = wire.start(wire.target, sys.executable, Path(__file__).parent / "bgp_listener.py")
    assert listener.stdout is not None
    lines = listener.stdout
    try:
        return told(wire, routes, lambda: now_if(lines.readline() == f"paths {len(routes)}\n"), 0)
    finally:
        wire.stop(listener)


def into_our_kernel(wire: Wire, routes: list[str], look: Callable[[Felix], None] = lambda _: None) -> float:
    felix = Felix(wire, [SOURCE])
    try:
        until((wire.folder / "felix" / "run" / "agent.sock").exists, "the agent runs")
        with Arrival(wire, len(routes)) as arrival:
            seconds = told(wire, routes, lambda: now_if(arrival.complete()), 0.01)
        look(felix)
    finally:
        felix.end()
    subprocess.run(["ip", "-n", wire.target, "route", "flush", "proto", "80"], check=False)
    return seconds


def into_birds_kernel(wire: Wire, routes: list[str]) -> float:
    bird = Bird(wire, "target", wire.target, parties.bird_target())
    try:
        with Arrival(wire, len(routes)) as arrival:
            return told(wire, routes, lambda: now_if(arrival.complete()), 0.01)
    finally:
        bird.end()


def into_gobgps_rib(wire: Wire, routes: list[str]) -> float:
    gobgp = Gobgp(wire)
    try:
        time.sleep(1)
        rest = Rest(gobgp.program.pid)

        def arrived() -> float | None:
            since = rest.since()
            return since if since is not None and gobgp.prefixes() >= len(routes) else None

        return told(wire, routes, arrived, 0.01)
    finally:
        gobgp.end()


def tables(wire: Wire) -> bool:
    shared, own = parties.shared(TABLE), parties.own(OWN)
    memory: list[float] = []

    def weigh(felix: Felix) -> None:
        memory.append(sum(parties.status(process, "VmRSS") for process in felix.processes()))

    rounds = [
        (
            into_our_loc_rib(wire, shared),
            into_gobgps_rib(wire, shared),
            into_our_kernel(wire, shared, weigh),
            into_birds_kernel(wire, shared),
            into_our_kernel(wire, own),
            into_birds_kernel(wire, own),
        )
        for _ in range(RUNS)
    ]
    loc_rib, gobgp, kernel, bird, own_kernel, own_bird = zip(*rounds, strict=True)
    rates = [[len(shared) / each for each in some] for some in (loc_rib, gobgp, kernel, bird)]
    kept = [
        tell_ratio(
            f"bgp: {TABLE} prefixes into the Loc-RIB", rates[0], "prefixes/s", "GoBGP into its RIB", rates[1], 2.0
        ),
        tell_ratio(
            f"bgp: {TABLE} prefixes into the kernel", rates[2], "prefixes/s", "GoBGP into its RIB", rates[1], 2.0
        ),
        tell_ratio(
            f"bgp: {TABLE} prefixes into the kernel", rates[2], "prefixes/s", "BIRD into the kernel", rates[3], 0.33
        ),
        tell(f"bgp: {OWN} prefixes, four of each node, into the kernel", own_kernel, "s", 3.0),
        tell("bgp: the same by BIRD", own_bird, "s", 3.0),
        tell(f"bgp: memory of agent and ExaBGP with {TABLE} prefixes (RSS)", memory, "MiB", 250.0),
    ]
    return all(kept)


def latencies(wire: Wire, beside: int = 0) -> list[float]:
    """Return the milliseconds from the order to announce one prefix until it is in the target's kernel.

    Args:
        wire: with the target at its end.
        beside: prefixes that are there already.
    """
    base = wire.routes()
    source = Bird(wire, "source", wire.source, parties.telling_one_by_one(SAMPLES, beside))
    found = []
    try:
        until(source.established, "the session is up")
        until(lambda: wire.routes() >= base + beside, "the others are there")
        time.sleep(1)
        events = RouteEvents(wire.target)
        events.forget()
        for number in range(SAMPLES):
            start = time.monotonic()
            source.ask(f"enable one{number}")
            found.append((events.wait(5) - start) * 1000)
            events.forget()
    finally:
        source.end()
    return found


def percentile(values: list[float], per_cent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[per_cent - 1]


def one_announcement(wire: Wire) -> bool:
    ours = {others: into_our_kernel_one_by_one(wire, others) for others in (0, PEERS)}
    crowded = into_our_kernel_one_by_one(wire, 0, TABLE)
    bird = Bird(wire, "target", wire.target, parties.bird_target())
    birds = latencies(wire)
    bird.end()
    kept = [
        tell("bgp: one announcement of BIRD to our kernel, p50", [percentile(ours[0], 50)], "ms", 5.0),
        tell("bgp: one announcement of BIRD to our kernel, p99", [percentile(ours[0], 99)], "ms", 15.0),
        tell(f"bgp: the same with {PEERS} other peers, p99", [percentile(ours[PEERS], 99)], "ms", 25.0),
        tell(f"bgp: the same beside {TABLE} other routes, p50", [percentile(crowded, 50)], "ms", 25.0),
        tell(f"bgp: the same beside {TABLE} other routes, p99", [percentile(crowded, 99)], "ms", 50.0),
        tell("bgp: one announcement of BIRD to BIRD's kernel, p50", [percentile(birds, 50)], "ms", 5.0),
        tell("bgp: one announcement of BIRD to BIRD's kernel, p99", [percentile(birds, 99)], "ms", 15.0),
    ]
    return all(kept)


def into_our_kernel_one_by_one(wire: Wire, others: int, beside: int = 0) -> list[float]:
    addresses = other_ends(wire, others) if others else []
    felix = Felix(wire, [SOURCE, *addresses])
    try:
        until(lambda: felix.established(others), "the other sessions are up", 0.02)
        until((wire.folder / "felix" / "run" / "agent.sock").exists, "the agent runs")
        return latencies(wire, beside)
    finally:
        felix.end()
        subprocess.run(["ip", "-n", wire.target, "route", "flush", "proto", "80"], check=False)


def other_ends(wire: Wire, count: int) -> list[str]:
    """Have so many more peers at the source; return their addresses."""
    addresses = [f"172.18.0.{number}" for number in range(1, count + 1)]
    for address in addresses:
        parties.ip("-n", wire.source, "addr", "add", f"{address}/12", "dev", "eth0")
    far = wire.start(wire.source, sys.executable, FAR_END, "64512", *addresses)
    assert far.stdout is not None
    far.stdout.readline()
    return addresses


def fifty_peers(wire: Wire) -> bool:
    addresses = other_ends(wire, PEERS)
    starts, idle = [], []
    for _ in range(RUNS):
        start = time.monotonic()
        felix = Felix(wire, addresses)
        until(lambda felix=felix: felix.established(PEERS), "all sessions are up", 0.02)
        starts.append(time.monotonic() - start)
        if not idle:
            time.sleep(3)
            before = {process: parties.cpu_seconds(process) for process in felix.processes()}
            time.sleep(IDLE_SECONDS)
            idle.append(sum(parties.cpu_seconds(each) - began for each, began in before.items()) / IDLE_SECONDS * 100)
        felix.end()
    kept = [
        tell(f"bgp: start of a node until {PEERS} sessions are up", starts, "s", 3.0),
        tell(f"bgp: idle CPU of agent and ExaBGP with {PEERS} peers", idle, "%", 3.0),
    ]
    return all(kept)


def deaths(wire: Wire) -> bool:
    kills, silences = [], []
    for number, found in ((9, kills), (19, silences)):  # SIGKILL, SIGSTOP
        for _ in range(RUNS):
            felix = Felix(wire, [SOURCE], holdTime=HOLD_TIME)
            source = Bird(wire, "source", wire.source, parties.telling(parties.shared(1)))
            base = wire.routes
            until(source.established, "the session is up")
            before = base()
            source.ask("enable table4")
            until(lambda before=before: wire.routes() > before, "the route is there")
            start = time.monotonic()
            source.program.send_signal(number)
            until(lambda before=before: wire.routes() == before, "the route is gone")
            found.append(time.monotonic() - start)
            source.program.send_signal(9)
            wire.stop(source.program, 9)
            felix.end()
    kept = [
        tell("bgp: withdrawn after a peer is killed", kills, "s", 1.0),
        tell(f"bgp: withdrawn after a peer falls silent, hold time {HOLD_TIME} s", silences, "s", HOLD_TIME + 1.0),
    ]
    return all(kept)


PARTS = {"tables": tables, "latency": one_announcement, "peers": fifty_peers, "deaths": deaths}


def main(names: list[str]) -> int:
    kept = []
    for name in names or PARTS:
        with tempfile.TemporaryDirectory() as folder, parties.wire(Path(folder)) as wire:
            kept.append(PARTS[name](wire))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
