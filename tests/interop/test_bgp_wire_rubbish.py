"""The child alone: whatever a stranger says where a peer should speak, no other session takes notice."""

import asyncio
import contextlib
import random
import socket
import struct

import pytest
from bgp_lab import until
from child_parties import FAR, Dialled, neighbour, parties
from far_end import KEEPALIVE, NOTIFICATION, OPEN, ROUTE_REFRESH, UPDATE, message
from loops import in_a_loop

from bgp import exabgp_codec, exabgp_events
from bgp.types import PeerDown, PeerUp

pytestmark = pytest.mark.interop

WORDS = 150
"""How many strangers speak."""

PATIENCE = 0.15
"""Seconds that a stranger listens before it hangs up; most are answered, and closed, at once."""

CAPABILITIES = (*range(1, 10), *range(64, 77), 128, 129, 130, 131, 185, 0, 255)
"""Their codes: those that ExaBGP reads, and some that nobody knows."""

TEXTS = (b'a"b', b"\xff\xfe", b"\n{}", b"", b"\\u0000", b"\0\0\0", b"\xc3\x28", b"x" * 20)
"""What stands where a name belongs."""


class Stranger:
    """Says what looks like BGP, more or less."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same again for the same seed

    def octets(self, *lengths: int) -> bytes:
        return self.chance.randbytes(self.chance.choice(lengths))

    def capability(self) -> bytes:
        code = self.chance.choice(CAPABILITIES)
        text = self.chance.choice(TEXTS)
        named = bytes((len(text),)) + text
        shaped = {
            1: struct.pack("!HBB", self.chance.choice((1, 2, 25, 16388, 0)), 0, self.chance.choice((1, 2, 128))),
            64: self.octets(2) + self.octets(0, 3, 4, 8),
            65: struct.pack("!I", self.chance.choice((64512, 64512, 0, 4200000001))),
            69: struct.pack("!HBB", self.chance.choice((1, 2, 99)), 1, self.chance.randrange(256)),
            73: named + named,
            75: named,
        }
        data = shaped.get(code, b"") if self.chance.random() < 0.6 else self.octets(0, 1, 2, 4, 6, 12, 30)
        return bytes((code, len(data))) + data

    def open(self) -> bytes:
        parameters = b"".join(
            bytes((self.chance.choice((2, 2, 2, 1, 255)), len(each))) + each
            for each in (self.capability() for _ in range(self.chance.randrange(5)))
        )
        length = self.chance.choice((len(parameters),) * 9 + (self.chance.randrange(256),))
        version, asn = self.chance.choice((4,) * 19 + (3,)), self.chance.choice((64512,) * 6 + (64513,))
        head = struct.pack("!BHH", version, asn, self.chance.choice((90, 90, 0, 1, 3, 65535)))
        return message(OPEN, head + socket.inet_aton(FAR[0]) + bytes((length,)) + parameters)

    def words(self) -> bytes:
        """Return an OPEN, now and then a broken one, and what follows it."""
        said = bytearray(self.open())
        if self.chance.random() < 0.1:
            said[self.chance.randrange(len(said))] = self.chance.randrange(256)
        rest = (
            b"",
            message(KEEPALIVE),
            message(NOTIFICATION, self.octets(0, 1, 2, 10, 60)),
            message(KEEPALIVE) + message(NOTIFICATION, b"\6\2" + self.octets(1, 20, 40)),
            message(KEEPALIVE) + message(ROUTE_REFRESH, self.octets(0, 3, 4, 9)),
            message(KEEPALIVE) + message(UPDATE, self.octets(0, 4, 20, 40)),
            message(KEEPALIVE) + message(self.chance.randrange(256), b"xx"),
        )
        return bytes(said) + self.chance.choice(rest)


async def speak(namespace: str, words: bytes) -> None:
    """Dial, say it, listen for a moment, hang up."""
    try:
        stranger = await Dialled.to_us(namespace, words)
    except ConnectionError:
        return  # the last one is not closed yet
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(PATIENCE):
            await stranger.reader.read(-1)
    stranger.writer.transport.abort()


@in_a_loop
async def test_whatever_a_stranger_says_disturbs_no_other_session(namespace: str) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311 - which one is said where it fails
    stranger = Stranger(seed)
    passive = neighbour(FAR[0], 64512, 64512).replace("manual-eor true;", "manual-eor true; passive true;")
    neighbours = passive, neighbour(FAR[1], 64512, 64512)
    async with parties(namespace, ("64512", FAR[1]), neighbours) as (hand, _):
        await until(lambda: hand.of(PeerUp, FAR[1]), "the other session is up")
        for number in range(WORDS):
            await speak(namespace, words := stranger.words())
            assert hand.of(PeerDown, FAR[1]) == [], f"seed {seed}, after {number} others: {words.hex()}"
        hand.child.write(exabgp_codec.ping(77))
        await until(lambda: exabgp_events.Alive(77) in hand.heard, f"it still answers, with seed {seed}")
        assert len(hand.of(PeerUp, FAR[1])) == 1, f"seed {seed}"
        assert hand.of(PeerUp, FAR[0]), "some strangers come as far as a session"
