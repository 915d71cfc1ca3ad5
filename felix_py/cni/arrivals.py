"""Who comes in at the door: let in, read and answered, all that are there in one go.

With `callers.so` a thread lets go of Python's lock once for all of them. Where the library could not be compiled,
Python does the same.
"""

import ctypes
import errno
import os
import select
import socket
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from felix_py.cni.coming import Coming
from felix_py.cni.results import success
from felix_py.compiled import loaded

LIBRARY = Path(__file__).with_name("callers.so")

DESCRIPTORS = 4
"""Descriptors accepted with a call, of which the first counts; more are dropped. callers.c has the same number."""

INTEGER = array("i").itemsize
CONTROL = socket.CMSG_LEN(DESCRIPTORS * INTEGER)

MAXIMUM_CALL = 2 << 20
"""Bytes of a call; the shim sends one of at most 1 MiB, and a node's configuration has some kilobytes."""

ROOM = 1 << 18
"""Bytes that are read of all who are let in together; whoever sends more is read by the loop."""

HASTE, OFTEN = 5, 3
"""Milliseconds that a call may lag behind its connection before the loop waits for it, and how often."""


class Rubbish(Exception):  # noqa: N818 - named for what it is
    """What came is no call; the sentence says why."""


@dataclass(slots=True, eq=False)
class Arrival:
    """A call that came in.

    Attributes:
        descriptor: of the connection.
        give_back: is called with 1 when there is room for another one.
        data: what was read of it.
        whole: that is all of it.
        descriptors: that came with it.
        answer: what its caller is to be sent at once.
        sent: bytes of the answer that its caller has been sent.
        told: that was all of it, and everything is closed.
        coming: the pod, where the call was begun as an ADD.
    """

    descriptor: int
    give_back: Callable[[int], object]
    data: bytearray = field(default_factory=bytearray)
    whole: bool = False
    descriptors: list[int] = field(default_factory=list)
    answer: bytes = b""
    sent: int = 0
    told: bool = False
    coming: Coming | None = None
    _socket: socket.socket | None = None

    @property
    def connection(self) -> socket.socket:
        """The connection, which does not block."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self.descriptor)
            self._socket.settimeout(0)
        return self._socket

    @property
    def netns(self) -> int | None:
        """The namespace that the caller has opened; None where it has none."""
        return self.descriptors[0] if self.descriptors else None

    def read(self) -> bool:
        """Read what there is, up to the end of the caller's half; say whether that was reached.

        Raises:
            OSError: when the caller went away.
            Rubbish: when it sends too much.
        """
        while not self.whole:
            try:
                # `socket.recv_fds` of Python 3.11 drops the flag, so that every child would inherit the descriptors.
                piece, control, _, _ = self.connection.recvmsg(1 << 16, CONTROL, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return False
            self._keep(control)
            self.data += piece
            self.whole = not piece
            if len(self.data) > MAXIMUM_CALL:
                raise Rubbish(f"a call had more than {MAXIMUM_CALL} bytes")
        return True

    def _keep(self, control: Sequence[tuple[int, int, bytes]]) -> None:
        """Keep descriptors that came, and close those that are too many."""
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                came = array("i", content[: len(content) // INTEGER * INTEGER])
                room = DESCRIPTORS - len(self.descriptors)
                self.descriptors += came[:room]
                for descriptor in came[room:]:
                    os.close(descriptor)

    def hold(self, document: Mapping[str, Any]) -> None:
        """Have a result ready, for `answer`."""
        self.answer = success(document)

    def say(self, document: Mapping[str, Any]) -> None:
        """Answer with a result, as far as that can be done without waiting; the loop sends the rest."""
        answer = success(document)
        with suppress(OSError):  # the caller went away: the loop meets the same, and says so
            self.sent = self.connection.send(answer)
            if self.sent == len(answer):
                self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of everything that came."""
        self.connection.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        self.give_back(1)


class _Arrival(ctypes.Structure):
    """struct arrival of callers.c."""

    _fields_ = (
        ("connection", ctypes.c_int32),
        ("whole", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("descriptors", ctypes.c_int32 * DESCRIPTORS),
        ("unused", ctypes.c_int32),
        ("at", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
    )


class _Departure(ctypes.Structure):
    """struct departure of callers.c."""

    _fields_ = (
        ("connection", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("descriptors", ctypes.c_int32 * DESCRIPTORS),
        ("answer", ctypes.c_char_p),
        ("length", ctypes.c_uint64),
        ("sent", ctypes.c_uint64),
    )


class Library:
    """The functions of callers.c.

    Raises:
        OSError: when there is no such library.
    """

    def __init__(self, path: Path) -> None:
        functions = ctypes.CDLL(str(path))
        number = ctypes.c_int
        self.let_in, self.answer_all = functions.let_in, functions.answer_all
        room = ctypes.c_void_p, ctypes.c_size_t
        self.let_in.argtypes = (number, number, number, ctypes.c_void_p, number, *room, number, number)
        self.let_in.restype = number
        self.answer_all.argtypes = (ctypes.c_void_p, number)
        self.answer_all.restype = None


FUNCTIONS = loaded(Library, LIBRARY)


class _Room(threading.local):
    """Room for what is read, of each thread its own."""

    def __init__(self) -> None:
        self.bytes = ctypes.create_string_buffer(ROOM)
        self.view = memoryview(self.bytes)
        self.address = ctypes.addressof(self.bytes)


_room = _Room()


class Entrance(NamedTuple):
    """Where callers come in.

    Attributes:
        listener: does not block.
        bell: descriptor of an event; while it rings nobody is let in.
        give_back: of each `Arrival`.
    """

    listener: socket.socket
    bell: int
    give_back: Callable[[int], object]


def let_in(at: Entrance, most: int, patience: int, functions: Library | None = FUNCTIONS) -> list[Arrival]:
    """Wait for callers, accept whoever has come, and read their calls, which have nearly always come by now.

    Args:
        at: where.
        most: so many at most.
        patience: milliseconds for which the first one is waited for; -1 for ever.
        functions: those compiled; None does it in Python.

    Returns:
        nobody, where nobody came for so long, or the bell rang, or a signal came.

    Raises:
        OSError: of the first, where it cannot be accepted.
    """
    if functions is None:
        return [*_let_in(at, most, patience)]
    places = (_Arrival * most)()
    count = functions.let_in(
        at.listener.fileno(), at.bell, patience, ctypes.byref(places), most, _room.address, ROOM, HASTE, OFTEN
    )
    if count < 0:
        raise OSError(-count, os.strerror(-count))
    return [
        Arrival(
            place.connection,
            at.give_back,
            bytearray(_room.view[place.at : place.at + place.length]),
            bool(place.whole),
            place.descriptors[: place.count],
        )
        for place in places[:count]
    ]


def answer(arrivals: Sequence[Arrival], functions: Library | None = FUNCTIONS) -> None:
    """Send answers to those that have one, without waiting, and let go of who has got all of it."""
    ready = [each for each in arrivals if each.answer]
    if functions is None:
        for each in ready:
            _answer(each)
        return
    places = (_Departure * len(ready))(*map(_departure, ready))
    functions.answer_all(ctypes.byref(places), len(ready))
    for arrival, place in zip(ready, places, strict=True):
        arrival.sent = place.sent
        arrival.told = arrival.sent == len(arrival.answer)


def _departure(each: Arrival) -> _Departure:
    descriptors = (ctypes.c_int32 * DESCRIPTORS)(*each.descriptors)
    return _Departure(each.descriptor, len(each.descriptors), descriptors, each.answer, len(each.answer))


# --- the same in Python


def _let_in(at: Entrance, most: int, patience: int) -> Iterator[Arrival]:
    news = select.poll()
    news.register(at.listener, select.POLLIN)
    news.register(at.bell, select.POLLIN)
    came = news.poll(None if patience < 0 else patience)
    if not came or at.bell in dict(came):
        return
    for number in range(most):
        try:
            connection, _ = at.listener.accept()
        except ConnectionAbortedError:
            continue
        except OSError as error:
            if number or error.errno == errno.EAGAIN:
                return
            raise
        connection.settimeout(0)
        arrival = Arrival(connection.detach(), at.give_back)
        with suppress(OSError, Rubbish):  # whoever has it next meets the same, and says so
            _read(arrival)
        yield arrival


def _read(arrival: Arrival) -> None:
    for _ in range(OFTEN):
        if arrival.read():
            return
        lagging = select.poll()
        lagging.register(arrival.descriptor, select.POLLIN)
        lagging.poll(HASTE)
    arrival.read()


def _answer(arrival: Arrival) -> None:
    with suppress(OSError):
        arrival.sent = arrival.connection.send(arrival.answer)
    if arrival.sent == len(arrival.answer):
        arrival.told = True
        arrival.connection.close()
        for descriptor in arrival.descriptors:
            os.close(descriptor)
