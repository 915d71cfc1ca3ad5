"""A machine in the middle of a BGP session: it passes whole messages on, and may slip in some of its own."""

import contextlib
import socket
import threading

from bgp.types import IPAddress

HEADER = 19
"""Octets of a BGP header: marker, length, type (RFC 4271 section 4.1)."""

UPDATE, ROUTE_REFRESH = 2, 5
"""Types of messages (RFC 4271 section 4.1, RFC 2918 section 3)."""


def message(kind: int, body: bytes) -> bytes:
    """Return a whole message."""
    return b"\xff" * 16 + (HEADER + len(body)).to_bytes(2, "big") + bytes([kind]) + body


class Relay:
    """Listens where we dial, and dials the daemon; made inside the namespace that it is to live in.

    Attributes:
        address: where it listens, and what it dials from.
        connections: how many there were.
        sent_to_daemon: types of the messages that came from the other side.
        sent_by_daemon: types of those that the daemon sent there.
        refreshes: subtypes of the daemon's ROUTE-REFRESH messages (RFC 7313 section 3.2).
    """

    def __init__(self, address: IPAddress, towards: IPAddress) -> None:
        self.address = address
        self.connections = 0
        self.sent_to_daemon: list[int] = []
        self.sent_by_daemon: list[int] = []
        self.refreshes: list[int] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server((str(address), 179), backlog=8)
        self._own, self._towards = str(address), str(towards)
        # A thread stays in the namespace in which it was started, and so does all that it connects.
        self._accepter = threading.Thread(target=self._accept, daemon=True)
        self._accepter.start()

    def slip_in(self, whole: bytes) -> None:
        """Send our own message to whoever dialled, between two of the daemon's."""
        with self._lock:
            self._pairs[-1][0].sendall(whole)

    def cut(self) -> None:
        """Close both connections, without a word."""
        with self._lock:
            for end in (end for pair in self._pairs for end in pair):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            self._pairs.clear()

    def close(self) -> None:
        """Be gone."""
        # A thread that waits in accept() keeps the socket; shutting it down wakes the thread up.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepter.join()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((self._towards, 179), source_address=(self._own, 0))
            except OSError:
                near.close()
                continue
            with self._lock:
                self.connections += 1
                self._pairs.append((near, far))
            threading.Thread(target=self._pass_on, args=(far, near, self.sent_by_daemon), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(near, far, self.sent_to_daemon), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, types: list[int]) -> None:
        with contextlib.suppress(OSError), source.makefile("rb") as stream:
            while header := stream.read(HEADER):
                body = stream.read(int.from_bytes(header[16:18], "big") - HEADER)
                types.append(header[18])
                if header[18] == ROUTE_REFRESH and types is self.sent_by_daemon:
                    self.refreshes.append(body[2])
                with self._lock:
                    target.sendall(header + body)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
