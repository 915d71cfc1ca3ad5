"""Crowds for benchmarks of scale: one BIRD that plays many nodes, and BIRD or our agent in the measured role."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal, Protocol

import bgp_parties as parties
from bgp_parties import SOURCE, TARGET, Bird, Felix, Wire, until

Role = Literal["node", "reflector"]

CLUSTER = "172.16.0.2"
FIRST = IPv4Address("172.18.0.1")


def addresses(peers: int) -> list[str]:
    return [str(FIRST + number) for number in range(peers)]


HEAD = """
log stderr { error, fatal };
router id %s;
protocol device { scan time 60; }
"""

CROWD_MEMBER = """
ipv4 table t%(number)d;
protocol static s%(number)d { disabled; ipv4 { table t%(number)d; };
%(routes)s
}
protocol bgp p%(number)d {
  router id %(address)s; local %(address)s as 64512; neighbor %(target)s port %(port)d as 64512; passive on;
  ipv4 { table t%(number)d; import all; export where source = RTS_STATIC; next hop self; };
}
"""
"""A node: it tells its blocks once its static protocol is enabled, and keeps what it hears in a table of its own.

BIRD has one session only with each address and port. A port that nobody dials makes each of them another neighbour.
"""


def crowd(peers: int, prefixes: int) -> str:
    """Return a BIRD at the source that plays so many nodes, each with so many prefixes."""
    members = (
        CROWD_MEMBER
        % {
            "number": number,
            "address": address,
            "target": TARGET,
            "port": 1024 + number,
            "routes": "\n".join(
                f"route {parties.block(number * prefixes + which)} unreachable;" for which in range(prefixes)
            ),
        }
        for number, address in enumerate(addresses(peers))
    )
    return HEAD % SOURCE + "".join(members)


BIRD_SESSION = """
protocol bgp p%(number)d {
  local %(target)s as 64512; neighbor %(address)s as 64512;
  connect delay time 1; connect retry time 1; error wait time 1, 1; %(client)s
  ipv4 { import all; export %(export)s; };
}
"""

BIRD_KERNEL = "protocol kernel { scan time 600; ipv4 { export where source = RTS_BGP; }; }\n"


def bird(role: Role, peers: int) -> str:
    """Return the BIRD that is measured: a node that fills its kernel, or a route reflector that leaves it alone."""
    reflects = role == "reflector"
    sessions = (
        BIRD_SESSION
        % {
            "number": number,
            "address": address,
            "target": TARGET,
            "client": f"rr client; rr cluster id {CLUSTER};" if reflects else "",
            "export": "where source = RTS_BGP" if reflects else "none",
        }
        for number, address in enumerate(addresses(peers))
    )
    # Next hops are looked up among what the device says; only what BGP has told goes on.
    return HEAD % TARGET + "protocol direct { ipv4; }\n" + ("" if reflects else BIRD_KERNEL) + "".join(sessions)


class Party(Protocol):
    """Who is measured."""

    def processes(self) -> list[int]: ...

    def end(self) -> None: ...


class BirdParty:
    """BIRD at the target."""

    def __init__(self, wire: Wire, role: Role, peers: int) -> None:
        self._bird = Bird(wire, "target", wire.target, bird(role, peers))

    def processes(self) -> list[int]:
        return [self._bird.program.pid]

    def end(self) -> None:
        self._bird.end()


def felix(wire: Wire, role: Role, peers: int) -> Felix:
    return Felix(wire, addresses(peers), cluster_id=CLUSTER if role == "reflector" else None)


@dataclass(frozen=True, slots=True)
class Cell:
    """What was measured of one party with so many peers and prefixes.

    Attributes:
        up: seconds from its start until every session is established.
        told: seconds from the order to announce until everything is where it belongs.
        memory: MiB of each process then (RSS).
        busy: seconds of processor time that each process spent between the two.
        idle: per cent of a core of each process when nothing happens; empty where it was not looked at.
    """

    up: float
    told: float
    memory: tuple[float, ...]
    busy: tuple[float, ...]
    idle: tuple[float, ...] = ()


class Crowd:
    """The many at the source."""

    def __init__(self, wire: Wire, peers: int, prefixes: int) -> None:
        self.peers, self.prefixes = peers, prefixes
        self._lacking = list(range(peers))
        self._before = 0
        self._bird = Bird(wire, "source", wire.source, crowd(peers, prefixes))

    def established(self) -> bool:
        return self._bird.ask("show protocols").count("Established") == self.peers

    def announce(self) -> None:
        """Have all announce all that they have; what they have heard before, of a block of ours, does not count."""
        self._before = self._count(0)
        self._bird.ask('enable "s*"')

    def heard_all(self) -> bool:
        """Say whether every node has every prefix; nodes that have are not asked again, for BIRD counts by walking."""
        while self._lacking:
            if self._count(self._lacking[-1]) < self._before + self.peers * self.prefixes:
                return False
            self._lacking.pop()
        return True

    def _count(self, number: int) -> int:
        """Return how many routes a node has; BIRD answers `0014 5 of 5 routes for 5 networks in table t0`."""
        return int(self._bird.ask(f"show route table t{number} count")[5:].split()[0])

    def end(self) -> None:
        self._bird.end()


@contextlib.contextmanager
def addressed(wire: Wire, peers: int) -> Iterator[None]:
    """Have the addresses of so many nodes at the source."""
    for address in addresses(peers):
        parties.ip("-n", wire.source, "addr", "add", f"{address}/12", "dev", "eth0")
    yield
    parties.ip("-n", wire.source, "addr", "flush", "dev", "eth0", "to", f"{FIRST}/16")


def measured(wire: Wire, role: Role, peers: int, prefixes: int, *, ours: bool, idle_seconds: float = 0) -> Cell:
    """Measure one party in one role."""
    source = Crowd(wire, peers, prefixes)
    start = time.monotonic()
    party: Party = felix(wire, role, peers) if ours else BirdParty(wire, role, peers)
    try:
        until(source.established, "every session is established", 0.02)
        up = time.monotonic() - start
        time.sleep(1)  # so that nobody is still busy with the sessions themselves
        base, everything = wire.routes(), peers * prefixes
        before = _spent(party)
        start = time.monotonic()
        source.announce()
        if role == "node":
            until(lambda: wire.routes() >= base + everything, "everything is in the kernel", 0.01)
        else:
            until(source.heard_all, "every client has everything", 0.01)
        told = time.monotonic() - start
        busy = tuple(now - then for now, then in zip(_spent(party), before, strict=True))
        memory = tuple(parties.status(process, "VmRSS") for process in party.processes())
        return Cell(up, told, memory, busy, _idle(party, idle_seconds) if idle_seconds else ())
    finally:
        party.end()
        source.end()
        parties.ip("-n", wire.target, "route", "flush", "proto", "80")


def _spent(party: Party) -> tuple[float, ...]:
    return tuple(map(parties.cpu_seconds, party.processes()))


def _idle(party: Party, seconds: float) -> tuple[float, ...]:
    time.sleep(2)  # what the last announcement stirred up has settled
    before = _spent(party)
    time.sleep(seconds)
    return tuple((now - then) / seconds * 100 for now, then in zip(_spent(party), before, strict=True))
