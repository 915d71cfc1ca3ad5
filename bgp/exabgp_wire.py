"""How the child reads a connection: UPDATEs are handed to the agent as they came, all that are there at once.

ExaBGP would make objects of them, and JSON of the objects: 89 us each. Everything else is read by ExaBGP itself.
"""

import time
from collections.abc import Iterator
from typing import Any

from exabgp.bgp.fsm import FSM
from exabgp.bgp.message import Update
from exabgp.bgp.message.nop import _NOP
from exabgp.bgp.message.notification import Notification
from exabgp.bgp.message.refresh import RouteRefresh
from exabgp.reactor.network.connection import Connection
from exabgp.reactor.network.error import LostConnection, NotConnected
from exabgp.reactor.protocol import Protocol

CHUNK = 1 << 18
"""Bytes that are read from a connection at once: some 4,000 UPDATEs of one prefix each."""

RUN = 1 << 14
"""Bytes from which on no UPDATE is added to what is handed on at once: the agent acts on that while the next come."""

HEADER, LEAST = 19, 23
"""Octets of a message's header, and of the shortest UPDATE (RFC 4271 sections 4.1 and 4.3)."""

MARKER, UPDATE = b"\xff" * 16, 2
"""What a message begins with, and the type that is ours."""

HEARD = Update([], b"")
"""What ExaBGP is given in the place of messages that are not for it: an UPDATE that says only that its peer lives."""


def inbox(connection: Any) -> bytearray:
    """Return what has been read from a connection and not been understood yet."""
    box: bytearray | None = getattr(connection, "inbox", None)
    if box is None:
        box = connection.inbox = bytearray()
    return box


def fill(connection: Any) -> bool:
    """Read what there is; say whether there was anything."""
    if not connection.io:
        raise NotConnected("the TCP connection is closed")
    try:
        data = connection.io.recv(CHUNK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError as error:
        connection.close()
        raise LostConnection(f"issue reading on the socket: {error}") from None
    if not data:
        connection.close()
        raise LostConnection("the TCP connection was closed by the remote end")
    box = inbox(connection)
    box += data
    return True


def read(connection: Any, number: int) -> Iterator[bytes]:
    """Yield so many bytes, and nothing for as long as there are fewer; what ExaBGP reads messages with."""
    if not number:
        yield b""
        return
    box = inbox(connection)
    while len(box) < number:
        if not fill(connection):
            yield b""
    data = bytes(box[:number])
    del box[:number]
    yield data


def updates(box: bytearray, longest: int) -> tuple[int, int]:
    """Return how many whole UPDATEs stand at the front, and where they end; no more than are handed on at once."""
    at = count = 0
    while at < RUN and (length := _length(box, at, longest)) and at + length <= len(box):
        at += length
        count += 1
    return count, at


def _length(box: bytearray, at: int, longest: int) -> int:
    """Return the octets of the UPDATE that begins here; 0 where none does, or its header is not all there."""
    if len(box) - at < HEADER or box[at + 18] != UPDATE or not box.startswith(MARKER, at):
        return 0
    length = box[at + 16] << 8 | box[at + 17]
    return length if LEAST <= length <= longest else 0


def whole(connection: Any) -> bool:
    """Say whether something can be understood without reading more: a message, or that there is none."""
    box = inbox(connection)
    if len(box) < HEADER:
        return False
    length = box[16] << 8 | box[17]
    return length <= len(box) or not box.startswith(MARKER) or length > connection.msg_size


class Wire(Protocol):  # type: ignore[misc]
    """ExaBGP's end of a connection, which keeps UPDATEs away from it."""

    def read_message(self) -> Iterator[Any]:
        """Yield NOP until a message is there, then the message."""
        if self.peer.fsm != FSM.ESTABLISHED:
            yield from super().read_message()
            return
        box = inbox(self.connection)
        while True:
            self.peer.say_goodbye()
            heard = False
            while (found := updates(box, self.connection.msg_size))[0]:
                count, end = found
                self.peer.stats["receive-update"] += count
                self.peer.reactor.processes.updates(self.peer.title, bytes(box[:end]))
                del box[:end]
                heard = True
            if heard:
                yield HEARD
                return
            if whole(self.connection):
                yield from self._other()
                return
            if self.peer.reactor.processes.full:
                # What the peer says now is not read, so its silence means nothing: its hold timer stands still. That
                # the peer is gone is found out by the kernel, which gets no answer to our KEEPALIVEs.
                self.peer.recv_timer.last_read = int(time.monotonic())  # the clock of exabgp_timers
                yield _NOP
            elif not fill(self.connection):
                yield _NOP

    def new_notification(self, notification: Any) -> Iterator[Any]:
        """Send a NOTIFICATION, after which the connection is closed in one of the next turns."""
        self.peer.notified = True
        yield from super().new_notification(notification)

    def _other(self) -> Iterator[Any]:
        """Have ExaBGP read a message that is no UPDATE."""
        for message in super().read_message():
            if message.TYPE != RouteRefresh.TYPE:
                yield message
                continue
            told = {"peer": str(self.neighbor["peer-address"]), "family": f"{message.afi} {message.safi}"}
            self.peer.reactor.processes.tell(type="route-refresh", stage=str(message.reserved), **told)
            # Stock takes the beginning and the end of a refresh (RFC 7313) for requests, and says everything again.
            yield message if message.reserved == RouteRefresh.request else HEARD


def install() -> None:
    """Have every connection of ExaBGP read through its inbox."""
    Connection._reader = read  # noqa: SLF001 - made and named by ExaBGP
    # RFC 9003 section 2: a shutdown communication may have 255 octets; stock knows of 128.
    Notification.SHUTDOWN_COMM_MAX_LEGACY = Notification.SHUTDOWN_COMM_MAX_EXTENDED
