"""A socket to the kernel's routing tables: room for bursts, errors with sentences, questions taken at their word."""

import ctypes
import errno
import os
import socket
import struct

from felix_py.kernel.messages import BUFFER
from felix_py.kernel.wire import WireBroken

SOL_NETLINK = 270
ADD_MEMBERSHIP, CAP_ACK, EXT_ACK, STRICT_CHECK = 1, 10, 11, 12
"""Socket options of include/uapi/linux/netlink.h: groups, short answers, answers with text, filters that bind."""

SO_ATTACH_FILTER, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 26, 32, 33
"""Socket options of include/uapi/asm-generic/socket.h that Python does not name."""

DATAGRAM = 1 << 16
"""Bytes per receive: the kernel fills at most 32 KiB with one part of a dump, and never cuts a message in two."""

MAXIMUM_SEQUENCE = 0xFFFFFFFF
"""The number of a message has 32 bits; the next one is 1, since events of the kernel itself have 0."""


def open_socket(*, buffer: int = BUFFER) -> socket.socket:
    """Open a route socket in the network namespace of this thread, bound to a port that the kernel chooses.

    Args:
        buffer: bytes of queue in each direction; the kernel's own limit holds for those who may not exceed it.

    Raises:
        OSError: when there are no descriptors left, or the kernel is older than Linux 4.20.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        _widen(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF, buffer)
        _widen(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF, buffer)
        for option in (EXT_ACK, CAP_ACK, STRICT_CHECK):
            sock.setsockopt(SOL_NETLINK, option, 1)
        sock.bind((0, 0))
    except OSError as error:
        sock.close()
        if error.errno == errno.ENOPROTOOPT:
            raise OSError(error.errno, "the kernel cannot filter dumps; Linux 4.20 or later is needed") from error
        raise
    return sock


def _widen(sock: socket.socket, forced: int, asked: int, buffer: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, buffer)
    except PermissionError:  # in a user namespace, root may set routes but not exceed net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, asked, buffer)


def port_of(sock: socket.socket) -> int:
    """Return the netlink port by which the kernel names this socket in events."""
    port: int = sock.getsockname()[0]
    return port


def subscribe(sock: socket.socket, group: int) -> None:
    """Join a group of events; one that this kernel does not know brings nothing.

    Raises:
        OSError: when the kernel refuses a group that it knows.
    """
    try:
        sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def attach_filter(sock: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    """Let the kernel drop what this classic BPF program drops; it replaces an earlier one.

    Args:
        sock: the socket whose messages are filtered.
        program: code, jump if true, jump if false, operand; struct sock_filter, include/uapi/linux/filter.h.

    Raises:
        OSError: when the kernel does not accept the program.
    """
    instructions = b"".join(struct.pack("=HBBI", *each) for each in program)
    # The kernel copies the program while it handles the option: the array has to live until then, and no longer.
    held = ctypes.create_string_buffer(instructions)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(held)))


def receive(sock: socket.socket) -> bytes | None:
    """Return what one receive brings, without waiting; None when the queue is empty.

    Raises:
        OSError: ENOBUFS once after the queue ran over; others when the socket is of no use any more.
    """
    try:
        return sock.recv(DATAGRAM, socket.MSG_DONTWAIT)  # Python repeats a call that a signal interrupted (PEP 475)
    except BlockingIOError:
        return None


def broken(doing: str, error: OSError) -> WireBroken:
    """Name what the socket failed at, for the caller to raise."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return WireBroken(f"{doing} failed: {why}; the sockets have to be opened anew")
