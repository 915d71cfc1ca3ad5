"""Reads whole tables from the kernel: routes as bytes, next-hop objects, interfaces; asked again when they change."""

import errno
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from types import TracebackType
from typing import Self

from felix_py.kernel import link_codec
from felix_py.kernel.messages import (
    DONE,
    DUMP,
    DUMP_INTERRUPTED,
    ERROR,
    HEADER,
    REQUEST,
    RTA_TABLE,
    RTM_GETROUTE,
    RTMSG,
    U32,
    attribute,
)
from felix_py.kernel.netlink_socket import MAXIMUM_SEQUENCE, broken, open_socket, receive
from felix_py.kernel.objects import Link
from felix_py.kernel.wire import Family, Verb, WireBroken

RTM_GETNEXTHOP = 106
NHMSG = struct.Struct("=BBBBI")  # family scope protocol, reserved, flags; include/uapi/linux/nexthop.h

RT_TABLE_COMPAT = 252
"""What the one byte rtm_table says of a table above 255, whose number is in RTA_TABLE."""

ATTEMPTS = 5
"""Readings of a table that changes meanwhile, before it is somebody else's turn."""


class _Again(Exception):  # noqa: N818 - named for what the caller does
    """The table changed while it was read (NLM_F_DUMP_INTR), or a part of it found no memory (ENOBUFS)."""


class Answers:
    """Gathers the bodies of one dump, in its order.

    Attributes:
        bodies: what was read so far.
        complete: the kernel has said that this was all.
        code: the errno that it gave then, 0 when all went well.
    """

    def __init__(self, kind: int, sequence: int) -> None:
        self.bodies: list[bytes] = []
        self.complete = False
        self.code = 0
        self._kind = kind
        self._sequence = sequence
        self._lengths: dict[bytes, int] = {}

    def take(self, data: bytes) -> None:
        """Take what one receive brought.

        Raises:
            _Again: the table has changed since the dump began.
        """
        if self._take_uniform(data):
            return
        bodies, lengths = self.bodies, self._lengths
        offset, size = 0, HEADER.size
        while offset + size <= len(data):
            head = data[offset : offset + size]
            # Nearly all headers of a dump are the same few bytes; those that were found good once are known by them.
            length = lengths.get(head) or self._judge(head, data, offset)
            if length > 0:
                bodies.append(data[offset + size : offset + length])
            offset += (abs(length) + 3) & ~3

    def _take_uniform(self, data: bytes) -> bool:
        """Take messages that all have the header of the first, as most have in a table of one node; say whether so."""
        length = self._lengths.get(data[: HEADER.size])
        if not length or length & 3 or len(data) % length:
            return False
        count = len(data) // length
        # Column by column, what stands at each place of the header in all messages at once.
        if any(data[place::length].count(data[place]) != count for place in range(HEADER.size)):
            return False
        self.bodies += _slices(count, length).unpack(data)
        return True

    def _judge(self, head: bytes, data: bytes, offset: int) -> int:
        """Return the length of a message, negative unless it is part of the answer."""
        length, kind, flags, sequence, _ = HEADER.unpack(head)
        if length < HEADER.size or offset + length > len(data):
            raise WireBroken(f"the kernel sent a message of {length} bytes where {len(data) - offset} are left")
        if sequence != self._sequence:
            return -int(length)
        if flags & DUMP_INTERRUPTED:
            raise _Again
        if kind in (DONE, ERROR):
            self.complete = True
            said = data[offset + HEADER.size : offset + length][:4]
            self.code = -int.from_bytes(said, sys.byteorder, signed=True)
        if kind != self._kind:
            return -int(length)
        self._lengths[head] = length
        return int(length)


@lru_cache(maxsize=16)
def _slices(count: int, length: int) -> struct.Struct:
    return struct.Struct(f"{HEADER.size}x{length - HEADER.size}s" * count)


class Reader:
    """Asks for tables, one after the other, on a socket of its own.

    The kernel keeps a dump that is half read open and refuses the next one (EBUSY). So a reading that ends early, by a
    signal or an error, takes its socket along, and what it left there cannot be taken for an answer to the next.
    """

    def __init__(self) -> None:
        self._socket = open_socket()
        self._sequence = 0
        self._idle = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def routes(self, family: Family, table: int) -> list[bytes]:
        """Return the bodies of all routes of a table, in the kernel's order.

        IPv4 dumps may miss routes, and say nothing of it, when others change the table meanwhile: their events tell.

        Raises:
            WireBroken: when the table could not be read.
        """
        number = table if table <= 0xFF else RT_TABLE_COMPAT  # noqa: PLR2004 - one byte
        head = RTMSG.pack(family, 0, 0, 0, number, 0, 0, 0, 0)
        question = head + attribute(RTA_TABLE, U32.pack(table))
        bodies = self._read(RTM_GETROUTE, question, Verb.NEW_ROUTE, f"routes of table {table}", errno.ENOENT)
        # A kernel without IPv6 answers for all families that it has.
        return bodies if not bodies or bodies[0][0] == family else []

    def next_hops(self) -> list[bytes]:
        """Return the bodies of all next-hop objects; none where the kernel, older than Linux 5.3, has no such thing.

        Raises:
            WireBroken: when they could not be read.
        """
        question = NHMSG.pack(0, 0, 0, 0, 0)
        return self._read(RTM_GETNEXTHOP, question, Verb.NEW_NEXT_HOP, "next-hop objects", errno.EOPNOTSUPP)

    def links(self) -> tuple[Link, ...]:
        """Return all interfaces with their addresses, link-local IPv6 ones left out.

        Raises:
            WireBroken: when they could not be read.
        """
        bodies = self._read(link_codec.RTM_GETLINK, link_codec.ALL_LINKS, link_codec.RTM_NEWLINK, "interfaces")
        of_index: dict[int, set[str]] = {}
        for index, address in chain.from_iterable(map(self._addresses, Family)):
            of_index.setdefault(index, set()).add(address)
        found = filter(None, map(link_codec.decode_link, bodies))
        return tuple(replace(link, addresses=frozenset(of_index.get(link.index, ()))) for link in found)

    def _addresses(self, family: Family) -> Iterable[tuple[int, str]]:
        question = link_codec.all_addresses(family)
        bodies = self._read(link_codec.RTM_GETADDR, question, link_codec.RTM_NEWADDR, "addresses")
        return filter(None, map(link_codec.decode_address, bodies))

    def _read(self, kind: int, question: bytes, answer: int, what: str, none: int = 0) -> list[bytes]:
        """Ask until the answer is whole; `none` is the errno by which the kernel says that there is nothing."""
        try:
            for _ in range(ATTEMPTS):
                try:
                    answers = self._read_once(kind, question, answer, what)
                except _Again:
                    continue
                if answers.code in (0, none):
                    return answers.bodies
                raise WireBroken(f"the kernel refused to tell the {what}: {os.strerror(answers.code)}")
        except OSError as error:
            raise broken(f"reading the {what}", error) from error
        raise WireBroken(f"the {what} changed during each of {ATTEMPTS} readings; they have to be read again later")

    def _read_once(self, kind: int, question: bytes, answer: int, what: str) -> Answers:
        if not self._idle:
            self._socket.close()
            self._socket = open_socket()
        self._idle = False
        self._sequence = self._sequence % MAXIMUM_SEQUENCE + 1
        self._socket.send(HEADER.pack(HEADER.size + len(question), kind, REQUEST | DUMP, self._sequence, 0) + question)
        answers = Answers(answer, self._sequence)
        while not answers.complete:
            data = self._receive()
            if data is None:  # the kernel queues the next part before it hands over this one
                raise WireBroken(f"the kernel stopped in the middle of the {what}; they have to be read again")
            answers.take(data)
        self._idle = True
        return answers

    def _receive(self) -> bytes | None:
        try:
            return receive(self._socket)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise _Again from error
            raise
