"""A third party at the kernel: a process that hears every change of routes in a namespace and notes the time."""

import contextlib
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from route_space import POOL

from felix_py.kernel.netlink_socket import DATAGRAM, attach_filter

GROUP_IPV4_ROUTE = 0x40
"""RTMGRP_IPV4_ROUTE, include/uapi/linux/rtnetlink.h."""

SO_RCVBUFFORCE = 33
BUFFER = 512 << 20
"""Bytes of queue; a loss would show, as ENOBUFS, and end the run."""

NEW_ROUTE = 24
MAIN_TABLE = 254
KIND_AT, TABLE_AT, DESTINATION_AT = 4, 20, 40
"""Where in an event its type, the table and the address of an IPv4 prefix stand: the kernel writes no two forms."""

LOAD_WORD, LOAD_BYTE, AND, IF_EQUAL, RETURN = 0x20, 0x30, 0x54, 0x15, 0x06
"""Instructions of classic BPF, include/uapi/linux/bpf_common.h."""

DEADLINE = 120.0
"""Seconds after which what is waited for will not come any more."""


class Seen(NamedTuple):
    """One change of a route.

    Attributes:
        at: on the clock of CLOCK_MONOTONIC, in seconds.
        destination: the address as it stands in the message.
    """

    at: float
    new: bool
    destination: bytes


class Watcher:
    """The process. It reads when it has been told what to expect, so that is said before anything is done.

    Args:
        mask: bits of an address that have to be 0 for it to be heard. Who hears 100,000 changes is a third busy process
            on a machine that may have two cores; who hears some hundred of them takes nothing from those measured.
    """

    def __init__(self, mask: int = 0) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe()
        self._process: BaseProcess = context.Process(target=_listen, args=(there, self._here, mask), daemon=True)
        self._process.start()
        there.close()
        self._here.recv()

    def expect(self, new: int) -> None:
        """Note the times from now on, until there have been this many new routes."""
        self._here.send(new)

    def seen(self) -> list[Seen]:
        """Return everything up to the last route that was expected."""
        if not self._here.poll(DEADLINE):
            raise AssertionError(f"the routes that were expected did not come within {DEADLINE:.0f} s")
        seen: list[Seen] = self._here.recv()
        return seen

    def close(self) -> None:
        self._process.kill()
        self._process.join()


@contextmanager
def watching(mask: int = 0) -> Iterator[Watcher]:
    """Hear what happens to the pool's routes in this namespace from now on."""
    watcher = Watcher(mask)
    try:
        yield watcher
    finally:
        watcher.close()


def _listen(there: Connection, here: Connection, mask: int) -> None:
    here.close()
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    attach_filter(sock, _filter(mask))
    sock.bind((0, GROUP_IPV4_ROUTE))
    there.send(None)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            there.send(_collect(sock, there.recv()))


def _filter(mask: int) -> list[tuple[int, int, int, int]]:
    """Let the kernel drop all but the main table's routes in the pool, those with a bit of the mask too."""
    return [
        (LOAD_BYTE, 0, 0, TABLE_AT),
        (IF_EQUAL, 0, 4, MAIN_TABLE),
        (LOAD_WORD, 0, 0, DESTINATION_AT),
        (AND, 0, 0, int(POOL.netmask) | mask),
        (IF_EQUAL, 0, 1, int(POOL.network_address)),
        (RETURN, 0, 0, 0xFFFFFFFF),
        (RETURN, 0, 0, 0),
    ]


def _collect(sock: socket.socket, new: int) -> list[Seen]:
    stamped: list[tuple[float, bytes]] = []
    while new:
        data = sock.recv(DATAGRAM)
        stamped.append((time.monotonic(), data))
        new -= data[KIND_AT] == NEW_ROUTE
    return [Seen(at, data[KIND_AT] == NEW_ROUTE, data[DESTINATION_AT : DESTINATION_AT + 4]) for at, data in stamped]
