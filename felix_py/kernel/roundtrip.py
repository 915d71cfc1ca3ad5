"""A question to the kernel and its answer, done without the interpreter.

With `exchange.so` a thread lets go of Python's lock once for all of it, and not for each system call, after which it
would wait for that lock while others compute. Where the library could not be compiled, Python does the same.
"""

import ctypes
import errno
import os
import socket
import threading
from pathlib import Path
from struct import Struct

from felix_py.compiled import loaded
from felix_py.kernel.messages import EXT_ACK, SOL_NETLINK, messages

LIBRARY = Path(__file__).with_name("exchange.so")

ROOM = 1 << 18
"""Bytes of answers that one call may bring; the library wants 32 KiB of it to be free with each receive."""

RECEIVE = 1 << 16
"""Bytes of a receive in Python."""

ANSWER_SECONDS = 10
"""The kernel answers within milliseconds; removing a link waits for RCU, some 20 ms."""

TIMEVAL = Struct("ll")  # struct timeval


class Library:
    """The functions of exchange.c.

    Raises:
        OSError: when there is no such library.
    """

    def __init__(self, path: Path) -> None:
        # Through the second one, Python's lock is kept: to get it again may take longer than what is asked.
        functions, held = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        number, text, size = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
        answers = (ctypes.c_void_p, size)
        self.all, self.exchange, self.ask = functions.exchange_all, functions.exchange, held.exchange
        self.all.argtypes = (number, number, ctypes.c_void_p, number, text, *answers)
        self.all.restype = number
        self.own_procfs = functions.own_procfs
        self.own_procfs.argtypes, self.own_procfs.restype = (), number
        self.exchange.argtypes = self.ask.argtypes = (number, text, size, ctypes.c_uint32, *answers)
        self.exchange.restype = self.ask.restype = ctypes.c_long
        self.receive_all = functions.receive_all
        self.receive_all.argtypes = (number, number, *answers, ctypes.POINTER(number))
        self.receive_all.restype = ctypes.c_long
        self.judge_namespace = held.judge_namespace
        self.judge_namespace.argtypes, self.judge_namespace.restype = (number,), number


FUNCTIONS = loaded(Library, LIBRARY)


class Answers(threading.local):
    """Room for answers, of each thread its own."""

    def __init__(self) -> None:
        self.room = ctypes.create_string_buffer(ROOM)
        self.view = memoryview(self.room)
        self.address = ctypes.addressof(self.room)


ANSWERS = Answers()


def exchange(
    sock: socket.socket, asked: bytes, last: int, functions: Library | None = FUNCTIONS, *, at_once: bool = False
) -> bytes:
    """Send messages and return whatever comes, up to an answer to the last of them.

    Args:
        sock: a netlink socket that waits no longer than its SO_RCVTIMEO.
        asked: messages, one behind the other.
        last: the number of that of which an answer is waited for.
        functions: those compiled; None does it in Python.
        at_once: the kernel answers without a lock, within microseconds.

    Returns:
        messages, one behind the other.

    Raises:
        OSError: EAGAIN where nothing came in time.
    """
    if functions is None:
        return exchanged(sock, asked, last)
    function = functions.ask if at_once else functions.exchange
    length = function(sock.fileno(), asked, len(asked), last, ANSWERS.address, ROOM)
    if length < 0:
        raise OSError(-length, os.strerror(-length))
    return bytes(ANSWERS.view[:length])


def exchanged(sock: socket.socket, asked: bytes, last: int) -> bytes:
    """Do what `exchange` does, in Python."""
    sock.send(asked)
    found = b""
    while True:
        came = sock.recv(RECEIVE)
        found += came + bytes(-len(came) & 3)
        if any(sequence == last for _, _, sequence, _, _ in messages(came)):
            return found


def received(sock: socket.socket, most: int, functions: Library | None = FUNCTIONS) -> tuple[bytes, int]:
    """Receive datagrams that are there, without waiting.

    Args:
        sock: a netlink socket.
        most: so many at most.
        functions: as `exchange` has it.

    Returns:
        messages, one behind the other, and why there are no more of them: 0 where there may be, EAGAIN where no more
        has come, ENOBUFS where the queue ran over after these, and else what the socket failed with.
    """
    if functions is None:
        return _received(sock, most)
    code = ctypes.c_int()
    length = functions.receive_all(sock.fileno(), most, ANSWERS.address, ROOM, code)
    return bytes(ANSWERS.view[:length]), code.value


def _received(sock: socket.socket, most: int) -> tuple[bytes, int]:
    found = list[bytes]()
    try:
        while len(found) < most:
            came = sock.recv(RECEIVE, socket.MSG_DONTWAIT)
            found += [came + bytes(-len(came) & 3)]
    except OSError as error:
        return b"".join(found), error.errno or errno.EIO
    return b"".join(found), 0


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
