"""The child alone in a namespace: the hand that writes its commands, and speakers that say what they are told to."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from bgp_lab import PATIENCE, ip, until
from far_end import UPDATE, message

from bgp import exabgp_events
from bgp.child_process import Child
from bgp.exabgp_updates import TITLE, Pieces, Updates
from bgp.types import PeerUp, UpdateReceived
from felix_py.lab import namespaces

US = "10.9.0.11"
FAR = [f"10.9.0.{number}" for number in (1, 2, 3)]
ENVIRONMENT = {
    "exabgp.daemon.drop": "true",
    "exabgp.log.level": "ERROR",
    "exabgp.log.destination": "stderr",
    "exabgp.tcp.bind": US,
    "exabgp.api.ack": "true",
    "exabgp.api.cli": "false",
}
FIRST, SECOND = IPv4Network("10.65.1.0/26"), IPv4Network("10.65.2.0/26")


@contextlib.contextmanager
def everybodys_namespace() -> Iterator[str]:
    """Make a namespace that has everybody's address."""
    name = f"fw{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        for address in (US, *FAR):
            ip("-n", name, "addr", "add", f"{address}/32", "dev", "lo")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def neighbour(address: str, asn: int, own_asn: int) -> str:
    return f"""neighbor {address} {{
  local-address {US}; router-id {US}; local-as {own_asn}; peer-as {asn}; hold-time 9; manual-eor true;
  adj-rib-in false; adj-rib-out true;
  family {{ ipv4 unicast; ipv6 unicast; }}
  capability {{ asn4 enable; route-refresh enable; graceful-restart 120; }}
  api {{ processes [ agent ]; neighbor-changes; receive {{ parsed; open; notification; }}
         send {{ parsed; open; notification; }} }}
}}
"""


def configuration(*neighbours: str) -> str:
    """Return the line that has the child hold these sessions."""
    return f"%%config {json.dumps(''.join(('process agent { run /bin/true; encoder json; }', *neighbours)))}"


class Dialled:
    """A connection that the first far end has opened, and that says only what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to_us(cls, namespace: str, first_words: bytes) -> "Dialled":
        """Dial, and say this."""
        with namespaces.inside(namespace):
            made = socket.create_connection((US, 179), source_address=(FAR[0], 0))
        found = cls(*await asyncio.open_connection(sock=made))
        found.writer.write(first_words)
        return found

    async def hears(self, kind: int) -> bytes:
        """Return the body of the first message of a kind, as soon as it comes."""
        async with asyncio.timeout(PATIENCE):
            while True:
                head = await self.reader.readexactly(19)
                body = await self.reader.readexactly(int.from_bytes(head[16:18], "big") - 19)
                if head[18] == kind:
                    return body

    async def ends(self) -> None:
        """Wait until the other side has closed it."""
        async with asyncio.timeout(PATIENCE):
            await self.reader.read()


class Hand:
    """Holds the child, and what it has heard of it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.heard: list[Any] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._news = asyncio.Event()
        self._pieces, self._updates = Pieces(), Updates()

    async def follow(self) -> None:
        async for data in self.child.output():
            for piece in self._pieces.cut(data):
                whose = self._updates.heard if piece.line.startswith(TITLE) else None
                self.heard += whose(piece) if whose else exabgp_events.heard(piece.line)
            self._news.set()
            await self.reading.wait()

    async def hears(self, enough: Callable[[], bool]) -> None:
        """Wait for what the child says, and not a moment longer."""
        async with asyncio.timeout(PATIENCE):
            while not enough():
                self._news.clear()
                await self._news.wait()

    def of(self, kind: type, peer: str | None = None) -> list[Any]:
        return [each for each in self.heard if isinstance(each, kind) and (not peer or str(each.peer) == peer)]

    @property
    def prefixes(self) -> set[IPv4Network]:
        return {prefix for each in self.of(UpdateReceived) for prefix in each.announced}


class Far:
    """The program that holds the other ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, address: str, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"address": address, **order}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return answer

    async def say(self, address: str, *bodies: bytes, kind: int = UPDATE) -> None:
        await self.ask(address, say=b"".join(message(kind, body) for body in bodies).hex())

    async def until(self, address: str, true: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        answer = await self.ask(address)
        for _ in range(int(PATIENCE / 0.02)):
            if true(answer):
                return answer
            await asyncio.sleep(0.02)
            answer = await self.ask(address)
        raise AssertionError(f"not within {PATIENCE} s: {what}; {answer}")


@contextlib.asynccontextmanager
async def talking(
    namespace: str, asn: int = 64512, count: int = 1, *, own_asn: int = 64512, silent: bool = False
) -> AsyncIterator[tuple[Hand, Far]]:
    """Have sessions with so many far ends, which offer no capability if they are silent."""
    options = ["--silent"] if silent else []
    neighbours = (neighbour(each, asn, own_asn) for each in FAR[:count])
    async with parties(namespace, (*options, str(asn), *FAR[:count]), neighbours) as (hand, far):
        await until(lambda: len(hand.of(PeerUp)) == count, f"{count} sessions are up")
        yield hand, far


@contextlib.asynccontextmanager
async def parties(namespace: str, words: Iterable[str], neighbours: Iterable[str]) -> AsyncIterator[tuple[Hand, Far]]:
    """Have far ends, with these words on their command line, and a child with these neighbours."""
    inside = ("ip", "netns", "exec", namespace)
    program = str(Path(__file__).parent / "far_end.py")
    pipe = asyncio.subprocess.PIPE
    far = await asyncio.create_subprocess_exec(*inside, sys.executable, program, *words, stdin=pipe, stdout=pipe)
    assert far.stdout is not None
    await far.stdout.readline()
    child = await Child.start((*inside, sys.executable, "-P", "-m", "bgp.exabgp_start"), ENVIRONMENT)
    hand = Hand(child)
    following = asyncio.create_task(hand.follow())
    child.write(configuration(*neighbours))
    try:
        yield hand, Far(far)
    finally:
        hand.reading.set()
        child.kill("the test is over")
        await child.end()
        await following
        far.kill()
        await far.wait()
