"""Pings from where others live: one socket in each namespace, asked for many targets at once."""

import ctypes
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

INTERVAL = 0.02
"""Seconds between two pings of a stream, of each pair."""

PATIENCE = 2.0
"""Seconds after which an answer does not come any more."""

HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number: RFC 792."""

REQUEST, REPLY = 8, 0


def inside(namespace: str | Path, work: Callable[[], Any]) -> Any:
    """Do something in a network namespace, by a thread that ends with it."""
    answers: list[Any] = []

    def enter() -> None:
        descriptor = os.open(namespace, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
                answers.append(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
            else:
                answers.append(work())
        except OSError as error:
            answers.append(error)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]


class Source:
    """Somebody who pings: a name and a network namespace."""

    def __init__(self, name: str, namespace: str | Path) -> None:
        self.name, self.namespace = name, namespace

    def connects(self, address: str, port: int) -> bool:
        """Say whether a TCP connection comes about."""
        try:
            inside(self.namespace, lambda: socket.create_connection((address, port), timeout=PATIENCE).close())
        except OSError:
            return False
        return True


class Voice:
    """A source's socket, as a context."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self.socket: socket.socket = inside(
            source.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        self.socket.setblocking(False)  # noqa: FBT003 - so its makers named it
        self._identifier = (os.getpid() + self.socket.fileno() * 257) & 0xFFFF

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def send(self, target: str, number: int) -> None:
        head = HEADER.pack(REQUEST, 0, 0, self._identifier, number)
        total = sum(struct.unpack("!4H", head))
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        self.socket.sendto(HEADER.pack(REQUEST, 0, checksum, self._identifier, number), (target, 0))

    def answers(self) -> Iterable[tuple[str, int]]:
        """Yield who has answered which number."""
        while True:
            try:
                packet, (sender, _) = self.socket.recvfrom(2048)
            except BlockingIOError:
                return
            kind, _, _, identifier, number = HEADER.unpack_from(packet, (packet[0] & 15) * 4)
            if kind == REPLY and identifier == self._identifier:
                yield sender, number


def unanswered(sources: Iterable[Source], targets: Iterable[str]) -> set[tuple[str, str]]:
    """Ping from everybody to everybody once, and return whom nobody answered."""
    with ExitStack() as stack:
        voices = [stack.enter_context(Voice(source)) for source in sources]
        targets = list(targets)
        missing = {(voice.name, target) for voice in voices for target in targets}
        for target in targets:
            for voice in voices:
                voice.send(target, 1)
            _collect(voices, missing, 0.0)
        until = time.monotonic() + PATIENCE
        while missing and time.monotonic() < until:
            _collect(voices, missing, 0.1)
        return missing


def _collect(voices: list[Voice], missing: set[tuple[str, str]], seconds: float) -> None:
    by_socket = {voice.socket: voice for voice in voices}
    for ready in select.select(list(by_socket), [], [], seconds)[0]:
        missing -= {(by_socket[ready].name, sender) for sender, _ in by_socket[ready].answers()}


class Sent(NamedTuple):
    """One ping of a stream."""

    source: str
    target: str
    number: int
    moment: float


class Stream:
    """Pings between pairs for as long as the context lasts.

    Attributes:
        sent: how many there were.
        lost: those that were not answered; known when the context has ended.
    """

    def __init__(self, pairs: Iterable[tuple[Source, str]]) -> None:
        self._sources = list(pairs)
        self._pairs: list[tuple[Voice, str]] = []
        self._voices: dict[str, Voice] = {}
        self._open: dict[tuple[str, str, int], Sent] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0
        self.lost: list[Sent] = []

    def __enter__(self) -> Self:
        by_name = {source.name: source for source, _ in self._sources}
        self._voices = {name: Voice(source) for name, source in by_name.items()}
        self._pairs = [(self._voices[source.name], target) for source, target in self._sources]
        self._thread.start()
        return self

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(INTERVAL):
            number = (number + 1) & 0xFFFF
            for voice, target in self._pairs:
                self._open[voice.name, target, number] = Sent(voice.name, target, number, time.monotonic())
                voice.send(target, number)
                self.sent += 1
            self._hear()
        until = time.monotonic() + PATIENCE
        while self._open and time.monotonic() < until:
            time.sleep(INTERVAL)
            self._hear()

    def _hear(self) -> None:
        for voice in self._voices.values():
            for sender, number in voice.answers():
                self._open.pop((voice.name, sender, number), None)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for voice in self._voices.values():
            voice.__exit__()
        self.lost = sorted(self._open.values(), key=lambda each: each.moment)
