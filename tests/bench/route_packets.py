"""Packets that travel while routes change: one process sends at a bounded rate, another one counts what arrives."""

import contextlib
import multiprocessing
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

PORT = 4789
EACH_SECOND = 10_000
"""Packets; what a receiver takes with ease on a machine that is shared."""

AT_A_TIME = 10
"""Packets between two looks at the clock."""

QUIET = 0.3
"""Seconds in which nothing arrives, after which nothing more will: packets stay on this machine."""

IP_PKTINFO = 8
SO_RCVBUFFORCE, BUFFER = 33, 64 << 20
PACKET_INFO = struct.Struct("=i4s4s")
"""struct in_pktinfo: the interface's index, and two addresses; ip(7)."""


class Travelled(NamedTuple):
    """What was sent, and what arrived by which interface, by its index."""

    sent: int
    arrived: dict[int, int]

    @property
    def lost(self) -> int:
        return self.sent - sum(self.arrived.values())


class Traffic:
    """The two processes; each of them is in the namespace in which it was made."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def receive(self) -> None:
        """Count from now on what arrives here."""
        self._start(_receive)

    def send(self, targets: Sequence[IPv4Address]) -> None:
        """Send to each of these, in turn, until `end`."""
        self._start(_send, targets)

    def _start(self, *work: object) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(target=work[0], args=(there, *work[1:]), daemon=True)  # type: ignore[arg-type]
        process.start()
        self._processes.append(process)
        self._pipes.append(here)
        here.recv()

    def end(self) -> Travelled:
        """Stop sending, wait for what is on its way, and say what became of it all."""
        receiver, sender = self._pipes
        sender.send(None)
        sent = sender.recv()
        receiver.send(None)
        return Travelled(sent, receiver.recv())

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


@contextmanager
def traffic() -> Iterator[Traffic]:
    both = Traffic()
    try:
        yield both
    finally:
        both.close()


def _receive(pipe: Connection) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("", PORT))
    sock.settimeout(QUIET)
    arrived: Counter[int] = Counter()
    pipe.send(None)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                _, ancillary, _, _ = sock.recvmsg(64, socket.CMSG_SPACE(PACKET_INFO.size))
            except TimeoutError:
                if pipe.poll():
                    pipe.send(dict(arrived))
                    return
                continue
            arrived[PACKET_INFO.unpack(ancillary[0][2])[0]] += 1


def _send(pipe: Connection, targets: Sequence[IPv4Address]) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    places = [(str(target), PORT) for target in targets]
    sent, start = 0, time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        while not pipe.poll():
            for _ in range(AT_A_TIME):
                with contextlib.suppress(OSError):  # no route: as good as lost
                    sock.sendto(b"felix", places[sent % len(places)])
                sent += 1
            if sent == AT_A_TIME * len(places):
                pipe.send(None)  # each of them has been reached once, so that neighbours are known
            time.sleep(max(0.0, start + sent / EACH_SECOND - time.monotonic()))
        pipe.send(sent)
