"""Many packets in one system call, and the memory that describes them: sendmmsg, recvmmsg, writev.

Part of the userspace process. The tables are laid out once and a packet is described by writing numbers into them:
Python's own sockets take a system call and half a microsecond more for each packet.
"""

import ctypes
import os
from mmap import mmap

libc = ctypes.CDLL(None, use_errno=True)


class Header(ctypes.Structure):
    """Whom a packet goes to, and its pieces: struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """A packet and the bytes of it that went: struct mmsghdr."""

    _fields_ = (("header", Header), ("size", ctypes.c_uint))


MESSAGE = ctypes.sizeof(Message)
WORD = ctypes.sizeof(ctypes.c_size_t)
MESSAGE_WORDS = MESSAGE // WORD
VECTOR = 2 * WORD
"""Bytes of struct iovec: address and size of a piece of a packet."""

ADDRESS_SIZE = 16
"""Bytes of struct sockaddr_in."""


class Memory:
    """Slots of equal size in one piece of memory; pages that nothing has touched cost nothing."""

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self.bytes = mmap(-1, count * size)
        self.view = memoryview(self.bytes)
        self.address = ctypes.addressof((ctypes.c_char * len(self.bytes)).from_buffer(self.bytes))

    def slot(self, index: int) -> int:
        """Return the address of a slot."""
        return self.address + index * self.size


class Words:
    """Numbers of the size of an address, as C's tables have them.

    Attributes:
        numbers: to read and write them.
    """

    def __init__(self, count: int) -> None:
        self._array = (ctypes.c_size_t * count)()
        self.numbers = memoryview(self._array).cast("B").cast("P")
        self.address = ctypes.addressof(self._array)

    def at(self, index: int) -> int:
        """Return the address of a number."""
        return self.address + index * WORD

    def set(self, index: int, *values: int) -> None:
        """Write numbers from an index on."""
        for offset, value in enumerate(values):
            self.numbers[index + offset] = value


class Messages:
    """A table of messages, each of so many vectors.

    Attributes:
        vectors: address and size of each vector in turn.
        numbers: the table itself; the first of each `MESSAGE_WORDS` is where the address lies that it goes to.
    """

    def __init__(self, count: int, vectors: int) -> None:
        self._table = (Message * count)()
        self._count = count
        self.vectors = Words(2 * count * vectors)
        self.numbers = memoryview(self._table).cast("B").cast("P")
        self.address = ctypes.addressof(self._table)
        self._sizes = memoryview(self._table).cast("B").cast("I")[Message.size.offset // 4 :: MESSAGE // 4]
        for index, message in enumerate(self._table):
            message.header.vectors = self.vectors.at(2 * index * vectors)
            message.header.vector_count = vectors

    def addressed(self) -> "Messages":
        """Have every message carry an address."""
        for message in self._table:
            message.header.name_size = ADDRESS_SIZE
        return self

    def send(self, descriptor: int, first: int, last: int) -> int:
        """Send messages until one is refused, and return how many went.

        Raises:
            OSError: when the first one was refused.
        """
        return _checked(_sendmmsg(descriptor, self.address + first * MESSAGE, last - first, 0))

    def receive(self, descriptor: int) -> int:
        """Receive what is there and return how many messages that is.

        Raises:
            OSError: EAGAIN when there is none.
        """
        return _checked(_recvmmsg(descriptor, self.address, self._count, 0, None))

    def sizes(self, count: int) -> list[int]:
        """Return the bytes of each of the first messages, as received."""
        return self._sizes[:count].tolist()


def write(descriptor: int, vectors: int, count: int) -> int:
    """Write the vectors at an address as one packet.

    Raises:
        OSError: when it was refused.
    """
    return _checked(_writev(descriptor, vectors, count))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


_sendmmsg, _recvmmsg, _writev = libc.sendmmsg, libc.recvmmsg, libc.writev
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_writev.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_writev.restype = ctypes.c_ssize_t
