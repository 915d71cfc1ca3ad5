"""A question to the kernel and its answer, done without the interpreter.

With `exchange.so` a thread lets go of Python's lock once for all of it, and not for each system call, after which it
would wait for that lock while others compute. Where the library could not be compiled, Python does the same.
"""

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import NoReturn

from felix_py.kernel.messages import EXT_ACK, SOL_NETLINK, messages

LIBRARY = Path(__file__).with_name("exchange.so")

ROOM = 1 << 17
"""Bytes of answers that one exchange may bring; the library wants a quarter of it to be free with each receive."""

RECEIVE = 1 << 16
"""Bytes of a receive in Python."""

ANSWER_SECONDS = 10
"""The kernel answers within milliseconds; removing a link waits for RCU, some 20 ms."""

CLONE_NEWNET = 0x40000000
OWN_NAMESPACE = "/proc/thread-self/ns/net"

TIMEVAL = Struct("ll")  # struct timeval

_libc = ctypes.CDLL(None, use_errno=True)


class Step(IntEnum):
    """What `exchange_inside` does, in this order; exchange.c has the same numbers."""

    HERE = 0
    ENTER = 1
    THERE = 2
    OPEN = 3
    EXCHANGE = 4
    RETURN = 5


class Broken(Exception):  # noqa: N818 - named for what it is
    """An exchange in another namespace that came no further than a step; `error` is the kernel's word on it.

    Attributes:
        path: the file that it was about; empty where it was about none.
    """

    def __init__(self, step: Step, path: str, error: OSError) -> None:
        super().__init__(f"{step.name}: {error}")
        self.step = step
        self.path = path
        self.error = error


class _Outcome(ctypes.Structure):
    """struct outcome of exchange.c."""

    _fields_ = (("step", ctypes.c_int32), ("file", ctypes.c_int32), ("sock", ctypes.c_int32))
    step: int
    file: int
    sock: int


class Library:
    """The functions of exchange.c.

    Raises:
        OSError: when there is no such library.
    """

    def __init__(self, path: Path) -> None:
        functions = ctypes.CDLL(str(path))
        number, text, size = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
        answers = (ctypes.c_void_p, size)
        self.exchange, self.inside = functions.exchange, functions.exchange_inside
        self.exchange.argtypes = (number, text, size, ctypes.c_uint32, *answers)
        self.inside.argtypes = (
            *(number, number, text, text, text, size, ctypes.c_uint32, ctypes.c_long),
            *answers,
            ctypes.POINTER(_Outcome),
        )
        self.exchange.restype = self.inside.restype = ctypes.c_long


def library(path: Path = LIBRARY) -> Library | None:
    """Return the compiled functions; None where there are none."""
    try:
        return Library(path)
    except OSError:
        return None


FUNCTIONS = library()


class _Answers(threading.local):
    """Room for answers, of each thread its own."""

    def __init__(self) -> None:
        self.room = ctypes.create_string_buffer(ROOM)
        self.view = memoryview(self.room)
        self.address = ctypes.addressof(self.room)


class _Home:
    """The namespace of a thread, open for as long as the thread lives: each pod's is left for it again."""

    def __init__(self) -> None:
        self.descriptor = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.descriptor)


_answers = _Answers()
_of_thread = threading.local()


def _home() -> int:
    """Return a descriptor of the namespace in which this thread asked for the first time."""
    try:
        home: _Home = _of_thread.home
    except AttributeError:
        home = _of_thread.home = _Home()
    return home.descriptor


def exchange(sock: socket.socket, asked: bytes, last: int, functions: Library | None = FUNCTIONS) -> bytes:
    """Send messages and return whatever comes, up to an answer to the last of them.

    Args:
        sock: a netlink socket that waits no longer than its SO_RCVTIMEO.
        asked: messages, one behind the other.
        last: the number of that of which an answer is waited for.
        functions: those compiled; None does it in Python.

    Returns:
        messages, one behind the other.

    Raises:
        OSError: EAGAIN where nothing came in time.
    """
    if functions is None:
        return _exchanged(sock, asked, last)
    length = functions.exchange(sock.fileno(), asked, len(asked), last, _answers.address, ROOM)
    if length < 0:
        raise OSError(-length, os.strerror(-length))
    return bytes(_answers.view[:length])


def _exchanged(sock: socket.socket, asked: bytes, last: int) -> bytes:
    sock.send(asked)
    found = b""
    while True:
        came = sock.recv(RECEIVE)
        found += came + bytes(-len(came) & 3)
        if any(sequence == last for _, _, sequence, _, _ in messages(came)):
            return found


def exchange_inside(
    namespace: int,
    here: Mapping[str, str],
    there: Mapping[str, str],
    asked: bytes,
    last: int,
    functions: Library | None = FUNCTIONS,
) -> tuple[bytes, socket.socket]:
    """Write files, and exchange messages in another network namespace, on a socket that stays open.

    Args:
        namespace: its descriptor.
        here: path and content of files that are written in this thread's own namespace, before; those that are not
            there are passed over.
        there: and in the other one.
        asked: as `exchange` has it.
        last: as `exchange` has it.
        functions: as `exchange` has it.

    Returns:
        what came, and the socket.

    Raises:
        Broken: with the step that failed; this thread is where it was before.
    """
    if functions is None:
        return _exchanged_inside(namespace, here, there, asked, last)
    outcome = _Outcome()
    length = functions.inside(
        _home(), namespace, _strings(here), _strings(there), asked, len(asked), last, ANSWER_SECONDS,
        _answers.address, ROOM, outcome,
    )  # fmt: skip
    if length < 0:
        step = Step(outcome.step)
        if step is Step.RETURN:
            _lost()
        files = {Step.HERE: here, Step.THERE: there}.get(step, {})
        raise Broken(step, _path(files, outcome.file), OSError(-length, os.strerror(-length)))
    found = bytes(_answers.view[:length])
    return found, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE, outcome.sock)


def _strings(files: Mapping[str, str]) -> bytes:
    return "".join(f"{path}\0{content}\0" for path, content in files.items()).encode()


def _path(files: Mapping[str, str], number: int) -> str:
    return [*files][number] if files else ""


def _exchanged_inside(
    namespace: int, here: Mapping[str, str], there: Mapping[str, str], asked: bytes, last: int
) -> tuple[bytes, socket.socket]:
    _write(Step.HERE, here)
    with entered(namespace):
        _write(Step.THERE, there)
        try:
            sock = open_socket()
        except OSError as error:
            raise Broken(Step.OPEN, "", error) from error
    try:
        return _exchanged(sock, asked, last), sock
    except OSError as error:
        sock.close()
        raise Broken(Step.EXCHANGE, "", error) from error


@contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Have this thread in a namespace for a moment: a thread of its own for each pod would take as long as a veth.

    Raises:
        Broken: where it cannot be entered.
    """
    home = _home()
    try:
        set_namespace(namespace)
    except OSError as error:
        raise Broken(Step.ENTER, "", error) from error
    try:
        yield
    finally:
        try:
            set_namespace(home)
        except OSError:
            _lost()


def _write(step: Step, files: Mapping[str, str]) -> None:
    for path, content in files.items():
        try:
            write(path, content)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Broken(step, path, error) from error


def write(path: str, content: str) -> None:
    """Write a file that is there, not by a file object, which asks the kernel twice more.

    Raises:
        OSError: when it is not there, or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content.encode())
    finally:
        os.close(descriptor)


def open_socket() -> socket.socket:
    """Open a route socket in the network namespace of this thread, for `exchange`.

    Raises:
        OSError: when there are no descriptors left.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        sock.setsockopt(SOL_NETLINK, EXT_ACK, 1)
        wait_at_most(sock, ANSWER_SECONDS)
    except OSError:
        sock.close()
        raise
    return sock


def wait_at_most(sock: socket.socket, seconds: int) -> None:
    """Have the kernel end a receive after that time; with Python's own limit, each call would ask first."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(seconds, 0))


def set_namespace(namespace: int) -> None:
    """Move this thread; `os.setns` came with Python 3.12.

    Raises:
        OSError: it stays where it was.
    """
    if _libc.setns(namespace, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _lost() -> NoReturn:
    # Only without memory. What this thread did next, it would do to the pod: better no agent, and then a new one,
    # which finds everything as after any other kill.
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit
