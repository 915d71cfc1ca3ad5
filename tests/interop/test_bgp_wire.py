"""The child alone, between a hand that writes its commands and speakers that say whatever they are told to."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from bgp_lab import PATIENCE, ip, until
from far_end import (
    KEEPALIVE,
    NOTIFICATION,
    ROUTE_REFRESH,
    UPDATE,
    attribute,
    blocks,
    message,
    opened,
    plain,
    prefix,
    update,
)

from bgp import exabgp_codec, exabgp_events
from bgp.child_process import Child
from bgp.exabgp_updates import TITLE, CloseSession, Pieces, Updates
from bgp.types import (
    EndOfRib,
    Family,
    NotificationSent,
    PeerDown,
    PeerUp,
    RefreshHeard,
    RefreshStage,
    UpdateFaulty,
    UpdateReceived,
)
from felix_py.lab import namespaces

pytestmark = pytest.mark.interop

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


@pytest.fixture
def namespace() -> Iterator[str]:
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


def resident_kibibytes(process: int) -> int:
    return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0])


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


class Dialled:
    """A connection that the first far end has opened, and that says only what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

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
                head = await self._reader.readexactly(19)
                body = await self._reader.readexactly(int.from_bytes(head[16:18], "big") - 19)
                if head[18] == kind:
                    return body

    async def ends(self) -> None:
        """Wait until the other side has closed it."""
        async with asyncio.timeout(PATIENCE):
            await self._reader.read()


class Hand:
    """Holds the child, and what it has heard of it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.heard: list[Any] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._pieces, self._updates = Pieces(), Updates()

    async def follow(self) -> None:
        async for data in self.child.output():
            for piece in self._pieces.cut(data):
                whose = self._updates.heard if piece.line.startswith(TITLE) else None
                self.heard += whose(piece) if whose else exabgp_events.heard(piece.line)
            await self.reading.wait()

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
    inside = ("ip", "netns", "exec", namespace)
    program = str(Path(__file__).parent / "far_end.py")
    pipe = asyncio.subprocess.PIPE
    options = ["--silent"] if silent else []
    far = await asyncio.create_subprocess_exec(
        *inside, sys.executable, program, *options, str(asn), *FAR[:count], stdin=pipe, stdout=pipe
    )
    assert far.stdout is not None
    await far.stdout.readline()
    child = await Child.start((*inside, sys.executable, "-P", "-m", "bgp.exabgp_start"), ENVIRONMENT)
    hand = Hand(child)
    following = asyncio.create_task(hand.follow())
    text = "process agent { run /bin/true; encoder json; }\n" + "".join(
        neighbour(each, asn, own_asn) for each in FAR[:count]
    )
    child.write(f"%%config {json.dumps(text)}")
    try:
        await until(lambda: len(hand.of(PeerUp)) == count, f"{count} sessions are up")
        yield hand, Far(far)
    finally:
        hand.reading.set()
        child.kill("the test is over")
        await child.end()
        await following
        far.kill()
        await far.wait()


def test_updates_come_as_they_were_said(namespace: str) -> None:
    async def scenario() -> None:
        async with talking(namespace) as (hand, far):
            await far.say(FAR[0], update(plain(FAR[0]), prefix("10.65.1.0/26")), update())
            await far.say(FAR[0], update(withdrawn=prefix("10.65.1.0/26")), update(attribute(0x80, 15, b"\0\2\1")))
            await until(lambda: len(hand.of(EndOfRib)) == 2, "both families have ended")
            one, end, gone, end6 = hand.heard[-4:]
            assert (one.announced, gone.withdrawn) == ((FIRST,), (FIRST,))
            assert [end.family, end6.family] == [Family.IPV4_UNICAST, Family.IPV6_UNICAST]

    asyncio.run(scenario())


def test_who_offers_nothing_is_told_and_tells_ipv4_with_as_numbers_of_two_octets(namespace: str) -> None:
    """RFC 4760 section 8, and RFC 6793 section 4.2.2: AS_TRANS stands in AS_PATH, and AS4_PATH has the whole number."""
    own, farther = 4200000002, 4200000003

    async def scenario() -> None:
        async with talking(namespace, asn=64500, own_asn=own, silent=True) as (hand, far):
            hand.child.write(f"announce attributes next-hop self as-path [ {own} {farther} 7 ] nlri 10.65.1.0/26")
            told = await far.until(FAR[0], lambda told: told["updates"], "our block is told")
            short = attribute(0x40, 2, b"\2\3" + bytes.fromhex("5ba05ba00007"))
            whole = attribute(0xC0, 17, b"\2\3" + struct.pack("!III", own, farther, 7))
            assert short.hex() in told["updates"][0]
            assert whole.hex() in told["updates"][0]
            path = attribute(0x40, 1, b"\0") + attribute(0x40, 2, b"\2\2" + bytes.fromhex("fbf45ba0"))
            path += attribute(0x40, 3, IPv4Address(FAR[0]).packed)
            path += attribute(0xC0, 17, b"\2\2" + struct.pack("!II", 64500, farther))
            await far.say(FAR[0], update(path, prefix("10.65.2.0/26")))
            await until(lambda: hand.of(UpdateReceived), "the far end's block is heard")
            (heard,) = hand.of(UpdateReceived)
            assert (heard.announced, heard.attributes.as_path) == ((SECOND,), (64500, farther))

    asyncio.run(scenario())


def test_of_two_connections_that_a_peer_opens_before_it_is_up_the_newer_wins(namespace: str) -> None:
    """Ours is the higher identifier (RFC 4271 section 6.8), which decides nothing between two of the peer's."""

    async def scenario() -> None:
        text = "process agent { run /bin/true; encoder json; }\n" + neighbour(FAR[0], 64512, 64512)
        child = await Child.start(
            ("ip", "netns", "exec", namespace, sys.executable, "-P", "-m", "bgp.exabgp_start"), ENVIRONMENT
        )
        hand, dialled = Hand(child), list[Dialled]()

        async def dial(first_words: bytes) -> Dialled:
            dialled.append(await Dialled.to_us(namespace, first_words))
            return dialled[-1]

        following = asyncio.create_task(hand.follow())
        try:
            child.write(f"%%config {json.dumps(text.replace('manual-eor true;', 'manual-eor true; passive true;'))}")
            await until(lambda: any(isinstance(each, exabgp_events.Configured) for each in hand.heard), "it listens")
            first = await dial(opened(64512, FAR[0]))
            await first.hears(KEEPALIVE)  # it waits for ours, which does not come
            second = await dial(opened(64512, FAR[0]))
            assert await first.hears(NOTIFICATION) == bytes((6, 7))
            await second.hears(KEEPALIVE)
            second.writer.write(message(KEEPALIVE))
            await until(lambda: hand.of(PeerUp), "the second one is a session")
            third = await dial(b"")  # what is sent and not read would make the kernel reset the connection
            await third.ends()
            second.writer.write(message(UPDATE, update(plain(FAR[0]), prefix("10.65.1.0/26"))))
            await until(lambda: FIRST in hand.prefixes, "the second one is still up")
            assert len(hand.of(PeerUp)) == 1
        finally:
            for each in dialled:
                each.writer.transport.abort()
            child.kill("the test is over")
            await child.end()
            await following

    asyncio.run(scenario())


def test_a_message_in_small_pieces_is_a_message(namespace: str) -> None:
    async def scenario() -> None:
        async with talking(namespace) as (hand, far):
            data = message(UPDATE, update(plain(FAR[0]), prefix("10.65.1.0/26"))) + message(UPDATE, update())
            for start in range(0, len(data), 7):
                await far.ask(FAR[0], say=data[start : start + 7].hex())
            await until(lambda: hand.of(EndOfRib), "the second message is there")
            assert hand.prefixes == {FIRST}

    asyncio.run(scenario())


def test_a_malformed_update_closes_its_session_and_no_other(namespace: str) -> None:
    async def scenario() -> None:
        async with talking(namespace, count=2) as (hand, far):
            bad = update(plain(FAR[0]) + attribute(0x40, 201, b"abc"), prefix("10.65.2.0/26"))
            fine = update(plain(FAR[0]), prefix("10.65.1.0/26"))
            await far.say(FAR[0], fine, bad, fine)
            await until(lambda: hand.of(CloseSession), "the fault is found")
            (close,) = hand.of(CloseSession)
            hand.child.write(exabgp_codec.close(close.peer, close.code, close.subcode, close.data, close.session))
            answer = await far.until(FAR[0], lambda told: told["sessions"] == 2 and told["up"], "it is up again")
            assert answer["sessions"] == 2
            (sent,) = hand.of(NotificationSent)
            assert (str(sent.peer), sent.notification.code, sent.notification.subcode) == (FAR[0], 3, 2)
            assert hand.of(PeerDown, FAR[0])[0].notified
            assert hand.of(PeerDown, FAR[1]) == []
            assert len(hand.of(UpdateFaulty)) == 1
            # What is said about a session that is over harms not the next.
            hand.child.write(exabgp_codec.close(close.peer, close.code, close.subcode, close.data, close.session))
            await far.say(FAR[0], update(plain(FAR[0]), prefix("10.65.2.0/26")))
            await until(lambda: SECOND in hand.prefixes, "the new session is read")
            assert len(hand.of(PeerDown)) == 1

    asyncio.run(scenario())


def test_a_notification_shows_the_attribute_that_is_wrong(namespace: str) -> None:
    async def scenario() -> None:
        async with talking(namespace) as (hand, far):
            hand.child.write(exabgp_codec.close(IPv4Address(FAR[0]), 3, 2, b"\x50\xc9\0\3abc"))
            await until(lambda: hand.of(PeerDown), "the session is closed")
            sent = (await far.ask(FAR[0]))["notifications"]
            assert sent[0] == bytes((3, 2)).hex() + "50c90003616263"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="no text"),
        pytest.param("moving the rack", "moving the rack", id="a text"),
        pytest.param("é" * 200, "é" * 127, id="a text that is too long"),
    ],
)
def test_a_cease_carries_words_for_people(namespace: str, text: str, expected: str) -> None:
    async def scenario() -> None:
        async with talking(namespace) as (hand, far):
            data = exabgp_codec.communication(text) if text else b""
            hand.child.write(exabgp_codec.close(IPv4Address(FAR[0]), 6, 2, data))
            await until(lambda: hand.of(PeerDown), "the session is closed")
            (sent,) = hand.of(NotificationSent)
            assert sent.notification.text == expected
            octets = expected.encode()
            carried = bytes((len(octets),)) + octets if text else b""
            assert (await far.ask(FAR[0]))["notifications"][0] == (bytes((6, 2)) + carried).hex()
            await until(lambda: len(hand.of(PeerUp)) == 2, "it is dialled again")

    asyncio.run(scenario())


def test_a_session_that_is_closed_and_taken_out_at_once_is_told_the_reason(namespace: str) -> None:
    async def scenario() -> None:
        async with talking(namespace) as (hand, far):
            close = exabgp_codec.close(IPv4Address(FAR[0]), 6, 2, exabgp_codec.communication("disabled"))
            nobody = json.dumps("process agent { run /bin/true; encoder json; }\n")
            hand.child.write(close, f"%%config {nobody}")
            told = await far.until(FAR[0], lambda told: told["notifications"], "it is told")
            assert told["notifications"] == [(b"\6\2\x08disabled").hex()]
            assert len(hand.of(PeerUp)) == 1

    asyncio.run(scenario())


def test_route_refresh_in_both_directions(namespace: str) -> None:
    async def scenario() -> None:
        async with talking(namespace) as (hand, far):
            hand.child.write("announce attributes next-hop self nlri 10.65.1.0/26")
            await far.until(FAR[0], lambda told: told["kinds"].count(UPDATE) == 1, "our block is told")
            hand.child.write(f"neighbor {FAR[0]} announce route-refresh ipv4 unicast")
            await far.until(FAR[0], lambda told: ROUTE_REFRESH in told["kinds"], "we ask")
            for subtype in (1, 2, 0):
                await far.say(FAR[0], bytes((0, 1, subtype, 1)), kind=ROUTE_REFRESH)
            await until(lambda: len(hand.of(RefreshHeard)) == 3, "all three are told")
            stages = [each.stage for each in hand.of(RefreshHeard)]
            assert stages == [RefreshStage.BEGIN, RefreshStage.END, RefreshStage.REQUEST]
            told = await far.until(FAR[0], lambda told: told["kinds"].count(UPDATE) == 2, "we say it again, once")
            # One that we sent, and the beginning and the end of what was asked for (RFC 7313).
            assert told["kinds"].count(ROUTE_REFRESH) == 3

    asyncio.run(scenario())


def test_an_agent_that_stands_still_loses_no_update_and_no_session(namespace: str) -> None:
    seconds = float(os.environ.get("STALL_SECONDS") or 11)  # longer than the hold time of 9 s

    async def scenario() -> None:
        async with talking(namespace, count=3) as (hand, far):
            hand.reading.clear()
            for number, address in enumerate(FAR):
                count = 20_000 if number == 0 else 100
                some = blocks(count, f"10.{128 + 32 * number}.0.0")
                await far.say(address, *(update(plain(address, med=index), nlri) for index, nlri in enumerate(some)))
            await asyncio.sleep(seconds)  # the time itself is what is tested
            assert [(await far.ask(address))["up"] for address in FAR] == [True] * 3
            hand.reading.set()
            await until(lambda: len(hand.prefixes) == 20_200, "every update is there")
            assert [hand.of(kind) for kind in (PeerDown, UpdateFaulty)] == [[], []]
            assert [(await far.ask(address))["sessions"] for address in FAR] == [1] * 3

    asyncio.run(scenario())


def test_what_an_agent_does_not_read_waits_at_the_peers(namespace: str) -> None:
    """More than the child would keep: 400,000 UPDATEs are 27 MB, and it keeps 8."""

    async def scenario() -> None:
        async with talking(namespace, count=2) as (hand, far):
            hand.reading.clear()
            some = [update(plain(FAR[0], med=number % 7), nlri) for number, nlri in enumerate(blocks(100_000))]
            for _ in range(4):
                await far.say(FAR[0], *some)
            await asyncio.sleep(11)  # longer than the hold time
            assert resident_kibibytes(hand.child.pid) < 64 << 10
            hand.reading.set()
            await until(lambda: len(hand.of(UpdateReceived)) == 400_000, "every update is there", within=60)
            assert hand.of(PeerDown) == []
            assert len(hand.prefixes) == 100_000

    asyncio.run(scenario())
