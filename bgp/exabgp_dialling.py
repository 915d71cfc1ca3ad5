"""How ExaBGP dials a peer: an attempt that ends, with the kernel's reason, and a short pause between two."""

import errno
import math
import os
import select
import socket
import time
from collections.abc import Iterator

from exabgp.reactor.delay import Delay
from exabgp.reactor.network.error import NotConnected
from exabgp.reactor.network.outgoing import Outgoing

RECONNECT_FIRST, RECONNECT_GROWTH, RECONNECT_LAST = 0.25, 1.3, 2.0
"""Seconds before a peer is dialled again: after the second failure, growing by the factor, at most. Stock: up to 60."""

SYN_RETRIES = 2
"""A peer that does not answer is given up after 1 + 2 + 4 s and dialled anew, which finds it sooner than SYNs do."""

SILENCE = 3.5
"""Seconds without an answer after which it is said; that nobody on the wire has the address takes the kernel 3.1."""


class ShortDelay(Delay):  # type: ignore[misc]
    """A pause between connections that stays short: a neighbour that restarts should not wait for us."""

    _time: float
    _next: float

    def increase(self) -> None:
        """Wait from now on; longer next time."""
        self._time = time.monotonic() + self._next
        self._next = min(self._next * RECONNECT_GROWTH or RECONNECT_FIRST, RECONNECT_LAST)

    def left(self) -> float:
        """Return the seconds until the pause is over."""
        return self._time - time.monotonic()


class Unconnected(NotConnected):  # type: ignore[misc]
    """A connection that the kernel did not make."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.name = errno.errorcode.get(number, "")


class Dialler(Outgoing):  # type: ignore[misc]
    """One attempt at a connection, which ends with a connection or with the kernel's reason (stock tries for ever)."""

    at_work: "set[Dialler]" = set()  # noqa: RUF012 - one for the process, on purpose
    local: str | None
    silent_at = 0.0

    def establish(self) -> Iterator[bool]:
        """Yield False while the kernel tries, True when it has connected."""
        issue = self._setup()
        if issue:
            raise NotConnected(str(issue))
        self._begin()
        self.at_work.add(self)
        try:
            while not _writable(self.io):
                yield False
            error = self.io.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise Unconnected(error)
            self.success()
            self.local = self.local or self.io.getsockname()[0]
            self.silent_at = math.inf
            # Still at work, for ExaBGP takes one more turn until it says OPEN: nothing else would wake it up for that.
            yield True
        finally:
            self.at_work.discard(self)

    def _begin(self) -> None:
        self.io.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, SYN_RETRIES)
        self.io.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = self.io.connect_ex((self.peer, self.port))
        if error and error != errno.EINPROGRESS:
            raise Unconnected(error)
        self.silent_at = time.monotonic() + SILENCE


def _writable(io: socket.socket) -> bool:
    poller = select.poll()
    poller.register(io, select.POLLOUT)
    return bool(poller.poll(0))
