"""Several processes that share one tunnel: each has a queue of the device and its part of what other nodes send.

The kernel spreads packets over the device's queues by connection. Every raw socket, though, is given every packet: a
filter keeps for each process the connections that are its own, so that none is carried by two and none out of order.
"""

import ctypes
import json
import os
import select
import signal
import socket
from struct import Struct

MOST = 8
"""Processes for one tunnel, each of up to 12 MB: every raw socket costs the kernel a copy of each packet's head."""

ANSWER_SECONDS = 0.5
"""A healthy process answers within a batch, a millisecond; the agent waits twice as long for all of them."""

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
INSTRUCTION = Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, operand."""

MULTIPLIER = 0x9E3779B1
"""2^32 divided by the golden ratio (Knuth, TAOCP 6.4): spreads ports that differ in one bit."""


def count() -> int:
    """Return how many processes are worth having: one for each processor that we may use."""
    return min(len(os.sched_getaffinity(0)), MOST)


def share(index: int, total: int) -> bytes:
    """Return the socket filter that keeps this process's part of the packets, by inner addresses and ports.

    Classic BPF over the packet from its outer header on: Documentation/networking/filter.rst.

    Args:
        index: of the process, from 0.
        total: how many there are.
    """
    code = (
        (0xB1, 0, 0, 0),  # X = length of the outer header
        (0x80, 0, 0, 0),  # A = length of the packet
        (0x1C, 0, 0, 0),  # A -= X
        (0x35, 0, 11, 24),  # shorter than addresses and ports: its length decides
        (0x40, 0, 0, 12),  # A = inner source
        (0x02, 0, 0, 0),
        (0x40, 0, 0, 16),  # A = inner destination
        (0x02, 0, 0, 1),
        (0x40, 0, 0, 20),  # A = ports
        (0x61, 0, 0, 0),
        (0xAC, 0, 0, 0),  # A ^= source
        (0x61, 0, 0, 1),
        (0xAC, 0, 0, 0),  # A ^= destination
        (0x24, 0, 0, MULTIPLIER),
        (0x74, 0, 0, 16),
        (0x94, 0, 0, total),  # A %= total
        (0x15, 0, 1, index),
        (0x06, 0, 0, 0xFFFFFFFF),  # take the whole packet
        (0x06, 0, 0, 0),  # take nothing
    )
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in code)


def attach(sock: socket.socket, program: bytes) -> None:
    """Have a socket receive only what a filter takes."""
    memory = ctypes.create_string_buffer(program, len(program))
    header = Struct("HP").pack(len(program) // INSTRUCTION.size, ctypes.addressof(memory))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before


class Helper:
    """One further process, as the first one sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(ANSWER_SECONDS)

    def ask(self, line: bytes) -> dict[str, dict[str, int]]:
        """Have a request answered.

        Raises:
            OSError: when the process is gone or stuck.
        """
        self.sock.sendall(line + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError("a queue's process has ended")
            answer += data
        found: dict[str, dict[str, int]] = json.loads(answer)
        return found


def watch(helpers: list[Helper], poll: select.epoll) -> None:
    """Have the end of a helper wake the one who polls."""
    for helper in helpers:
        poll.register(helper.sock.fileno(), select.EPOLLRDHUP)
