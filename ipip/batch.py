"""Packets on their way through the process: those from the device made into messages, those from the nodes into writes.

With `offload.so`, large packets of the kernel are cut up and small ones joined, so that the kernel's path is walked
once for up to 64 of them. Where it could not be compiled, packets are taken one at a time; what arrives is the same.
"""

import ctypes
import os

from ipip import header
from ipip.messages import ADDRESS_SIZE, MESSAGE_WORDS, VECTOR, WORD, Memory, Messages, Words

LIBRARY = os.path.join(os.path.dirname(__file__), "offload.so")  # noqa: PTH118, PTH120 - pathlib costs 2 MB here

BEFORE = 10
"""Bytes of struct virtio_net_hdr, linux/virtio_net.h: what a TUN device says of a packet that is not finished."""

SLOT = (1 << 16) + 64
"""Bytes: room for the largest IPv4 packet and what the device puts before it."""

BATCH = 64
"""Packets taken from one side before the other has its turn; `offload.c` has the same number."""

ROOM = 1024
"""Messages made at once: a packet of 64 kB is 45 of them on Ethernet."""

HEAD = 192
"""Bytes of room for the headers of a message; `offload.c` has the same number."""

GROUP = 8
"""Words of `struct group`: first vector, vectors, packets, bytes, and four that only C reads."""

ROUTE = header.SIZE + ADDRESS_SIZE
"""Bytes of `struct route`: the outer header, and where it goes as a socket address."""


class Library:
    """The functions of offload.c.

    Raises:
        OSError: when there is no such library.
    """

    def __init__(self, path: str) -> None:
        functions = ctypes.CDLL(path)
        self.encapsulate, self.join = functions.encapsulate, functions.join
        self.encapsulate.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        self.join.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, *[ctypes.c_void_p] * 3)
        self.encapsulate.restype = self.join.restype = ctypes.c_size_t


def library(path: str = LIBRARY) -> Library | None:
    """Return the compiled functions; None where there are none."""
    try:
        return Library(path)
    except OSError:
        return None


class Outgoing:
    """Packets from the device, and the messages that they become.

    Attributes:
        windows: where each packet is read to.
        bytes: what was read, packet after packet, `SLOT` bytes apart.
        jobs: three numbers a packet: its address, its size, its route's address.
        malformed: packets that were none, of those encapsulated last.
        octets: bytes of inner packets in the messages made last.
    """

    def __init__(self, functions: Library | None) -> None:
        room = ROOM if functions else BATCH
        self._functions = functions
        self._slots, self._heads = Memory(BATCH, SLOT), Memory(room, HEAD)
        self.bytes = self._slots.bytes
        self.windows = [[self._slots.view[at * SLOT : (at + 1) * SLOT]] for at in range(BATCH)]
        self._jobs = Words(3 * BATCH)
        self.jobs = self._jobs.numbers
        for at in range(BATCH):
            self.jobs[3 * at] = self._slots.slot(at)
        self.messages = Messages(room, 2).addressed()
        self._table = Words(7)
        at_vectors = self.messages.vectors.address
        self._table.set(0, self.messages.address, at_vectors, self._heads.address, room)
        self.malformed = self.octets = 0

    def encapsulate(self, first: int, last: int) -> tuple[int, int]:
        """Make messages of packets as far as there is room; return how many, and the packet that comes next."""
        if self._functions is None:
            return self._one_by_one(first, last), last
        done = self._functions.encapsulate(self._jobs.at(3 * first), last - first, self._table.address)
        used, self.octets, self.malformed = self._table.numbers[4:].tolist()
        return used, first + done

    def inner(self, message: int) -> bytes:
        """Return the inner packet of a message."""
        head, head_size, payload, size = self.messages.vectors.numbers[4 * message : 4 * message + 4].tolist()
        return ctypes.string_at(head + header.SIZE, head_size - header.SIZE) + ctypes.string_at(payload, size)

    def _one_by_one(self, first: int, last: int) -> int:
        jobs, heads, packets = self.jobs, self._heads.bytes, self.bytes
        vectors, names = self.messages.vectors.numbers, self.messages.numbers
        self.octets = 0
        for at in range(first, last):
            start, head, message = at * SLOT + BEFORE, (at - first) * HEAD, at - first
            address, size, route = jobs[3 * at : 3 * at + 3].tolist()
            heads[head : head + header.SIZE] = ctypes.string_at(route, header.SIZE)
            heads[head + 1] = packets[start + 1]
            heads[head + 6] = packets[start + 6] & 0x40
            vectors[4 * message] = self._heads.address + head
            vectors[4 * message + 1] = header.SIZE
            vectors[4 * message + 2] = address + BEFORE
            vectors[4 * message + 3] = size - BEFORE
            names[MESSAGE_WORDS * message] = route + header.SIZE
            self.octets += size - BEFORE
        return last - first


class Incoming:
    """Packets from the nodes, and the writes that they become.

    Attributes:
        bytes: what was received, packet after packet, `SLOT` bytes apart.
        view: the same.
    """

    def __init__(self, functions: Library | None) -> None:
        self._functions = functions
        self._slots, self._heads = Memory(BATCH, SLOT), Memory(BATCH, HEAD)
        self.bytes, self.view = self._slots.bytes, self._slots.view
        self.messages = Messages(BATCH, 1)
        for at in range(BATCH):
            self.messages.vectors.set(2 * at, self._slots.slot(at), SLOT)
        self._packets, self._groups, self._vectors = Words(2 * BATCH), Words(GROUP * BATCH), Words(4 * BATCH)
        self._taken = 0

    def take(self, slot: int, start: int, size: int) -> None:
        """Have a packet written that lies so many bytes behind the beginning of a slot."""
        self._packets.set(2 * self._taken, self._slots.slot(slot) + start, size)
        self._taken += 1

    def writes(self, *, datagrams: bool) -> list[tuple[int, int, int, int]]:
        """Return the writes that deliver the packets taken: address and number of vectors, packets, bytes.

        Args:
            datagrams: whether the device takes several UDP datagrams in one.
        """
        taken, self._taken = self._taken, 0
        if self._functions is None:
            return [self._alone(at) for at in range(taken)]
        used = self._functions.join(
            self._packets.address, taken, datagrams, self._groups.address, self._heads.address, self._vectors.address
        )
        found = self._groups.numbers[: used * GROUP].tolist()
        vectors = self._vectors.address
        return [
            (vectors + found[at] * VECTOR, found[at + 1], found[at + 2], found[at + 3])
            for at in range(0, used * GROUP, GROUP)
        ]

    def content(self, vectors: int, count: int) -> bytes:
        """Return what a write holds."""
        first = (vectors - self._vectors.address) // WORD
        numbers = self._vectors.numbers[first : first + 2 * count].tolist()
        return b"".join(ctypes.string_at(numbers[at], numbers[at + 1]) for at in range(0, 2 * count, 2))

    def _alone(self, at: int) -> tuple[int, int, int, int]:
        address, size = self._packets.numbers[2 * at : 2 * at + 2].tolist()
        self._vectors.set(4 * at, self._heads.address, BEFORE, address, size)  # those heads stay zero: finished
        return self._vectors.at(4 * at), 2, 1, size
