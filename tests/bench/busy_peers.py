"""Many BIRDs with the shortest hold time and a node of ours, on a machine that has more to do than it can."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import bgp_parties as parties
from bgp_parties import SOURCE, TARGET, Bird, Felix, Wire, until

from felix_py.ctl import client

HOLD_TIME = 3
BUSY_PER_CORE = 2
TURN = 2.0
"""Seconds between two changes of the whole first table."""

BIRD = """
log stderr {{ error, fatal }};
router id {address};
protocol device {{ scan time 600; }}
protocol bgp far {{
  local {address} as 64512; neighbor {target} as 64512;
  hold time {hold_time}; passive on; error wait time 1, 1; strict bind yes;
  ipv4 {{ import none; export all; next hop keep; }};
}}
{routes}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the sessions.

    Attributes:
        flaps: sessions that were lost, as we count them.
        respawns: how often ExaBGP was taken for stuck.
        reasons: what was wrong last, of each session that had anything.
        turns: how often the first table came or went meanwhile.
    """

    flaps: int
    respawns: int
    reasons: set[str]
    turns: int


def addresses(count: int) -> list[str]:
    return [str(IPv4Address("172.18.0.1") + number) for number in range(count)]


@contextlib.contextmanager
def birds(wire: Wire, count: int, *tables: list[str]) -> Iterator[list[Bird]]:
    """Have so many run; the first ones have a table each, to be enabled."""
    made: list[Bird] = []
    try:
        _start(wire, count, tables, made)
        yield made
    finally:
        for each in made:
            each.end()


def _start(wire: Wire, count: int, tables: Sequence[list[str]], made: list[Bird]) -> None:
    for number, address in enumerate(addresses(count)):
        parties.ip("-n", wire.source, "addr", "add", f"{address}/12", "dev", "eth0")
        lines = "\n".join(tables[number]) if number < len(tables) else ""
        routes = f"protocol static table4 {{ disabled; ipv4; {lines} }}" if lines else ""
        text = BIRD.format(address=address, target=TARGET, hold_time=HOLD_TIME, routes=routes)
        made.append(Bird(wire, f"bird{number}", wire.source, text))


def routes(first: int, count: int) -> list[str]:
    return [f"route {parties.block(number)} via {SOURCE};" for number in range(first, first + count)]


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Have programs at work that would take every core twice."""
    with contextlib.ExitStack() as stack:
        for _ in range(BUSY_PER_CORE * (os.cpu_count() or 1)):
            program = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(program.kill)
        yield


@contextlib.contextmanager
def felix(wire: Wire, peers: int) -> Iterator[Felix]:
    """Have our agent run, with all sessions up."""
    ours = Felix(wire, addresses(peers), holdTime=HOLD_TIME)
    try:
        until(lambda: ours.established(peers), "all sessions are up", 0.05)
        yield ours
    finally:
        ours.end()


def sessions(felix: Felix, count: int) -> list[dict[str, Any]]:
    socket = felix.folder / "run" / "agent.sock"
    return [client.get(socket, "bgp", "peers", address) for address in addresses(count)]


def watched(wire: Wire, peers: int, table: int, flood: int, seconds: float) -> Outcome:
    """Hold sessions while every core is busy, one table comes and goes, and a large one comes.

    Args:
        peers: sessions.
        table: prefixes that come and go.
        flood: prefixes that one peer tells at the beginning.
        seconds: how long.
    """
    with birds(wire, peers, routes(0, table), routes(table, flood)) as made, felix(wire, peers) as ours:
        made[0].ask("enable table4")
        until(lambda: wire.routes() > table, "the first table is in the kernel", 0.05)
        turns, end = 0, time.monotonic() + seconds
        with busy():
            made[1].ask("enable table4")
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, TURN))  # the time itself is what is tested
                made[0].ask("disable table4" if turns % 2 == 0 else "enable table4")
                turns += 1
        found = sessions(ours, peers)
        respawns = client.get(ours.folder / "run" / "agent.sock", "status")["bgp"]["respawns"]
        reasons = {each["lastError"] for each in found if each["lastError"] is not None}
        return Outcome(sum(each["flaps"] for each in found), respawns, reasons, turns)
