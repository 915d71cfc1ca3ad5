"""A namespace of its own for tests of bytes: `ip` to say things, and a bare socket to send, dump and hear them."""

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

HEADER = struct.Struct("=IHHII")
REQUEST, ACK, EXCLUSIVE, CREATE, DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
ERROR, DONE = 2, 3
NEW_NEIGHBOUR, GET_NEIGHBOUR = 28, 30
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEXT_HOP, DELETE_NEXT_HOP, GET_NEXT_HOP = 104, 105, 106
GROUPS = (7, 11, 32)  # IPv4 routes, IPv6 routes, next-hop objects
SOL_NETLINK, ADD_MEMBERSHIP, STRICT_CHECK = 270, 1, 12
CLONE_NEWNET = 0x40000000

INTERFACES = """
link set lo up
link add e0 type veth peer name f0
link add e1 type veth peer name f1
link set e0 addrgenmode none
link set e1 addrgenmode none
"""

SET_UP = """
link set e0 up
link set f0 up
link set e1 up
link set f1 up
addr add 172.31.1.11/24 dev e0
addr add 172.31.2.11/24 dev e1
addr add fd01::11/64 dev e0 nodad
addr add fd02::11/64 dev e1 nodad
"""

FOLLOWS = (
    "local ::1 dev lo",
    "local fd01::11 dev e0",
    "local fd02::11 dev e1",
    "multicast ff00::/8 dev e0",
    "multicast ff00::/8 dev e1",
)
"""Routes that the kernel adds of its own after that, in its own time: a worker sees that an interface has carrier."""

SETTLED = 10.0
"""Seconds that this may take."""


class Lab:
    """The kernel of one namespace; every method runs in the one thread that lives there."""

    def __init__(self) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._hearing = self._open(GROUPS)
        subprocess.run(["ip", "-batch", "-"], input=INTERFACES, text=True, check=True)
        for peer in ("f0", "f1"):  # they go up and down, and no IPv6 route should come and go with that
            self.parameter(f"net/ipv6/conf/{peer}/disable_ipv6", "1")
        subprocess.run(["ip", "-batch", "-"], input=SET_UP, text=True, check=True)
        self._settle()
        self.indexes = {name: index for index, name in socket.if_nameindex()}
        self.names = {index: name for name, index in self.indexes.items()}
        self._asking = self._open(())

    @staticmethod
    def _open(groups: tuple[int, ...]) -> socket.socket:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        sock.bind((0, 0))
        sock.setsockopt(SOL_NETLINK, STRICT_CHECK, 1)
        for group in groups:
            sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
        return sock

    def _settle(self) -> None:
        """Wait until the kernel has added what follows from the interfaces, so that all that is heard later is ours."""
        self._hearing.settimeout(SETTLED)
        while not all(route in self.ip("-6 route show table local") for route in FOLLOWS):
            self._hearing.recv(1 << 16)
        self._hearing.settimeout(None)
        self.heard()

    def close(self) -> None:
        self._asking.close()
        self._hearing.close()

    def ip(self, words: str) -> str:
        """Run `ip` and return what it says."""
        done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {words}: {done.stderr}"
        return done.stdout

    def parameter(self, path: str, value: str) -> None:
        (Path("/proc/sys") / path).write_text(value)

    def send(self, kind: int, flags: int, body: bytes) -> int:
        """Send one message and return the errno of the answer, 0 for success."""
        self._asking.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST | ACK | flags, 1, 0) + body)
        answer = self._asking.recv(1 << 16)
        return -int(struct.unpack_from("=i", answer, HEADER.size)[0])

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of everything that the kernel lists for this question."""
        self._asking.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST | DUMP, 1, 0) + body)
        found: list[bytes] = []
        while True:
            for answer, content in split(self._asking.recv(1 << 16)):
                if answer in (ERROR, DONE):
                    return found
                found.append(content)

    def routes(self, protocol: int = 80) -> list[bytes]:
        """Return the bodies of all routes of this protocol, of both families and all tables."""
        heads = (struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0) for family in (2, 10))
        return [body for head in heads for body in self.dump(GET_ROUTE, head) if body[5] == protocol]

    def next_hops(self) -> list[bytes]:
        return self.dump(GET_NEXT_HOP, bytes(8))

    def shown(self) -> str:
        """Return what `ip` shows of routes of protocol 80."""
        return "".join(self.ip(f"-d {family} route show table all proto 80") for family in ("-4", "-6"))

    def heard(self) -> list[tuple[int, bytes]]:
        """Return what was said since the last call, without waiting: the kernel has queued it before it answers."""
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                found += split(self._hearing.recv(1 << 16, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return found


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split what one receive brought into type and body; independent of the code under test."""
    while data:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[HEADER.size : length]
        data = data[(length + 3) & ~3 :]


@contextmanager
def laboratory() -> Iterator[Callable[[Callable[[Lab], _T]], _T]]:
    """Offer a namespace: call what comes with a function, which runs in it. It is gone when its thread has ended."""
    with ThreadPoolExecutor(1) as thread:
        lab = thread.submit(Lab).result()
        try:
            yield lambda work: thread.submit(work, lab).result()
        finally:
            thread.submit(lab.close).result()
