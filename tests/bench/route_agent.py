"""Run as a program: the agent's own loop on the real kernel, told by stand-ins of what the datastore and BGP would say.

Everything between an event and the repair is what `felix-agent` runs, the log too; only who tells it is not there.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from route_space import NODE, POOL, NoTunnels, prefixes

from bgp.speaker_words import NextHops
from felix_py import log
from felix_py.agent import Agent
from felix_py.bell import Bell
from felix_py.config import Config
from felix_py.kernel import sysctl
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.model import IPPool, Key, Node, NodeName
from felix_py.state import Event, InSync, Present

NEIGHBOURS = [NODE + number for number in range(1, 9)]
"""BGP next hops, all of them on the link."""

ME = NodeName("node")
CLUSTER: tuple[Event, ...] = (
    Present(Key("Node", ME), Node(ME, IPv4Interface(f"{NODE}/24"))),
    Present(Key("IPPool", "default"), IPPool("default", POOL)),
    InSync(),
)
PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED, include/linux/posix-timers.h: the clock of all the time that a process had on a processor."""


class ToldSpeaker:
    """BGP that has learned a block from one of its neighbours each, and hears nothing more."""

    def __init__(self, count: int) -> None:
        self._paths = {
            network: _path(NEIGHBOURS[number % len(NEIGHBOURS)]) for number, network in enumerate(prefixes(count))
        }

    def configure(self, _settings: object) -> None:
        """Sessions are nobody's business here."""

    def best_paths(self) -> Mapping[IPv4Network, Any]:
        return self._paths

    def changes(self) -> None:
        """Say that everything may have changed."""

    def peer_name(self, best: Any) -> str:
        return str(best.path.peer)

    def converged(self) -> bool:
        return True

    def selecting(self) -> bool:
        return True

    def next_hops(self) -> frozenset[IPv4Address]:
        return frozenset(NEIGHBOURS)

    def tell(self, _event: NextHops) -> None:
        """Its paths stay as they are."""


def _path(next_hop: IPv4Address) -> Any:
    attributes = SimpleNamespace(next_hop=next_hop)
    return SimpleNamespace(path=SimpleNamespace(attributes=attributes, stale=False, peer=next_hop), equal=())


class SilentDatastore:
    """A datastore in which nothing happens."""

    faults: tuple[str, ...] = ()

    async def events(self) -> AsyncIterator[tuple[Event, ...]]:
        await asyncio.Event().wait()
        yield ()


async def run(count: int) -> None:
    """Hold this many routes for ever; print a line when they are held."""
    wire = Rtnetlink()
    kernel = Kernel(wire, NoTunnels(), OSError, sysctl, NoPurger())
    agent = Agent(Config(ME), kernel, SilentDatastore(), ToldSpeaker(count), lambda _block: None)
    bell = Bell(asyncio.get_running_loop(), lambda: wire.watch.fileno(), agent.stir)  # noqa: PLW0108 - reopened

    def turned() -> None:
        bell.arm()
        if agent.turns == 0:
            sys.stdout.write("turned\n")
            sys.stdout.flush()

    agent.rearm = turned
    bell.arm()
    agent.tell(*CLUSTER)
    await agent.run()


class AgentProcess:
    """The program, in this namespace."""

    def __init__(self, count: int, messages: Path) -> None:
        """Start it; return when it has written its routes.

        Args:
            count: how many it shall hold.
            messages: where its log goes.
        """
        with messages.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(count)], stdout=subprocess.PIPE, stderr=file
            )
        if self._process.stdout is None or not self._process.stdout.readline():
            raise AssertionError(f"the agent has ended: {messages.read_text()}")

    def cpu_seconds(self) -> float:
        """Return the time that it has had on a processor, to the nanosecond; as clock_getcpuclockid(3) does."""
        return time.clock_gettime(~self._process.pid << 3 | PROCESS_CLOCK)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def agent_holding(count: int, messages: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(count, messages)
    try:
        yield agent
    finally:
        agent.close()


if __name__ == "__main__":
    log.set_up(log_format="json", level="info")
    asyncio.run(run(int(sys.argv[1])))
