"""Writes routes and next-hop objects: many changes in one send, and of each what became of it."""

import errno
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

from felix_py.kernel.messages import (
    ACK,
    ACK_TLVS,
    ATTRIBUTE,
    BATCH,
    ERROR,
    HEADER,
    REQUEST,
    attributes,
    messages,
    refusal,
)
from felix_py.kernel.netlink_socket import MAXIMUM_SEQUENCE, broken, open_socket, port_of, receive
from felix_py.kernel.wire import Mode, Refusal, Verb, WireBroken

SEND_SPARE = 8192
"""Bytes of the send queue that no message may take; the kernel wants 32 of them, net/netlink/af_netlink.c."""

QUEUE = 16 << 20
"""Bytes of queue, which the kernel doubles: room for a whole batch, and for a refusal of each change in it."""

ANSWER_BYTES = 1280
"""Room that one refusal takes in the receive queue: 832 bytes measured, more with a long text."""

NLMSGERR_ATTR_OFFS = 2
"""Where in our message the attribute stands that the kernel did not like, include/uapi/linux/netlink.h."""

CAPPED_ERROR = 4 + HEADER.size
"""Bytes of an answer before its attributes: the errno, and the header of what it answers."""

GONE = {Verb.DELETE_ROUTE: errno.ESRCH, Verb.DELETE_NEXT_HOP: errno.ENOENT}
"""How the kernel says that what is to be deleted is gone; then that is done."""


class Answer:
    """What the kernel answered to one change; `code` is its errno, 0 when it was done."""

    def __init__(self, flags: int, content: bytes) -> None:
        self.code, self._text = refusal(flags, content)
        self._attributes = dict(attributes(content, CAPPED_ERROR)) if flags & ACK_TLVS else {}

    def refusal(self, body: bytes) -> Refusal:
        """Say it in words; `body` is that of the change, in which the kernel may name an attribute by its offset."""
        offset = int.from_bytes(self._attributes.get(NLMSGERR_ATTR_OFFS, b""), sys.byteorder) - HEADER.size
        if not 0 < offset <= len(body) - ATTRIBUTE.size:
            return Refusal(self.code, self._text)
        _, kind = ATTRIBUTE.unpack_from(body, offset)
        return Refusal(self.code, f"{self._text} (attribute {kind & 0x3FFF} at byte {offset} of the body)")


class Batch(NamedTuple):
    """Changes of one kind in one send.

    Attributes:
        first: number of the first one's message; the others follow.
        data: the messages.
    """

    verb: Verb
    first: int
    bodies: Sequence[bytes]
    data: bytes


class Writer:
    """Sends changes, and says of each what became of it.

    The kernel handles a whole send before it returns, and answers a refusal even where nobody asked for an answer. So
    only the last change of a batch asks: its answer is the barrier behind which nothing more comes.
    """

    def __init__(self, *, buffer: int = QUEUE) -> None:
        """Open a socket in the network namespace of this thread.

        Args:
            buffer: bytes of queue; a small one means smaller batches, so that all of a batch may be refused.

        Raises:
            OSError: when that fails.
        """
        self._socket = open_socket(buffer=buffer)
        self._sequence = 0
        room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // ANSWER_BYTES
        self._batch = max(1, min(BATCH, room))
        self._send_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - SEND_SPARE
        self.port = port_of(self._socket)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def write(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Mapping[int, Refusal]:
        """Send the same kind of change for each body, in order; return those refused by position: `wire.Wire.write`.

        Raises:
            WireBroken: when it is unknown what was done.
        """
        refused: dict[int, Refusal] = {}
        start = 0
        while start < len(bodies):
            batch = self._packed(verb, mode, self._fitting(bodies[start : start + self._batch]))
            self.send([batch])
            refused.update((start + position, answer) for position, answer in self.refusals([batch]).items())
            start += len(batch.bodies)
        return refused

    def packed(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> list[Batch]:
        """Make messages of changes, for `send`; what is packed first has to be sent first."""
        batches: list[Batch] = []
        start = 0
        while start < len(bodies):
            batches.append(self._packed(verb, mode, self._fitting(bodies[start : start + self._batch])))
            start += len(batches[-1].bodies)
        return batches

    def send(self, batches: Iterable[Batch]) -> None:
        """Have the kernel carry out changes; it has done so when this returns. Another thread may pack more meanwhile.

        Raises:
            WireBroken: when it is unknown what was done.
        """
        for batch in batches:
            try:
                self._socket.send(batch.data)
            except OSError as error:
                raise broken(f"writing {len(batch.bodies)} changes", error) from error

    def refusals(self, batches: Iterable[Batch]) -> dict[int, Refusal]:
        """Return by position what was refused of changes that were sent; to be asked in the order of sending.

        Raises:
            WireBroken: when it is unknown what was done.
        """
        refused: dict[int, Refusal] = {}
        start = 0
        for batch in batches:
            count = len(batch.bodies)
            try:
                answers = self._answers(batch.first, count)
            except OSError as error:
                raise broken(f"writing {count} changes", error) from error
            for position, answer in answers:
                if GONE.get(batch.verb) != answer.code:
                    refused[start + position] = answer.refusal(batch.bodies[position])
            start += count
        return refused

    def _fitting(self, batch: Sequence[bytes]) -> Sequence[bytes]:
        """Return the first of these bodies, as many as one send takes."""
        while len(batch) > 1 and sum(map(len, batch)) + len(batch) * HEADER.size > self._send_bytes:
            batch = batch[: len(batch) // 2]
        return batch

    def _packed(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Batch:
        count, flags = len(bodies), REQUEST | int(mode)
        first = self._take(count)
        sizes = [*map(HEADER.size.__add__, map(len, bodies))]
        # No line of Python runs once for each change: so 100,000 of them are written nearly as fast as C would.
        parts = [b""] * (2 * count)
        parts[::2] = map(HEADER.pack, sizes, repeat(verb), repeat(flags), range(first, first + count), repeat(0))
        parts[1::2] = map(_padded, bodies) if any(size & 3 for size in set(sizes)) else bodies
        parts[-2] = HEADER.pack(sizes[-1], verb, flags | ACK, first + count - 1, 0)
        return Batch(verb, first, bodies, b"".join(parts))

    def _take(self, count: int) -> int:
        """Take sequence numbers in a row, from 1 again where 32 bits would run over; return the first."""
        first = self._sequence + 1 if self._sequence + count <= MAXIMUM_SEQUENCE else 1
        self._sequence = first + count - 1
        return first

    def _answers(self, first: int, count: int) -> list[tuple[int, Answer]]:
        """Read up to the barrier; return position and answer of each refusal.

        What is older than `first` was left by a write that a signal cut short.
        """
        last = first + count - 1
        found: list[tuple[int, Answer]] = []
        while (data := receive(self._socket)) is not None:
            for kind, flags, sequence, _, content in messages(data):
                if kind != ERROR or not first <= sequence <= last:
                    continue
                answer = Answer(flags, content)
                if answer.code:
                    found.append((sequence - first, answer))
                if sequence == last:
                    return found
        raise WireBroken(
            f"the kernel did not answer the last of {count} changes, so it is unknown which were done; "
            "the routes have to be read again"
        )


def _padded(body: bytes) -> bytes:
    return body + bytes(-len(body) & 3)
