"""Writes and reads entries of a device by the hundred, over one socket to rtnetlink."""

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Sequence

from ipip.netlink import ACK, CREATE, DONE, DUMP, ERROR, MESSAGE, REQUEST, SOL_NETLINK, STRICT_CHECK, messages
from vxlan import entries
from vxlan.entries import DELNEIGH, GETNEIGH, NEWNEIGH, Entry

REPLACE = 0x100
"""NLM_F_REPLACE, include/uapi/linux/netlink.h."""

AT_ONCE = 100
"""Messages in one send; each is answered, and all answers fit into a queue of the usual size."""

SECONDS = 10.0
"""The kernel answers within milliseconds; this is for one that does not answer at all."""

GONE = (errno.ENOENT, errno.ESRCH)


def put(index: int, wanted: Sequence[Entry]) -> None:
    """Make entries, in this order; what stands under the same key is replaced in place.

    Raises:
        OSError: with the kernel's errno for the first that was refused.
    """
    _write(NEWNEIGH, CREATE | REPLACE, [entries.encode(each, index) for each in wanted], ())


def delete(index: int, unwanted: Sequence[Entry]) -> None:
    """Remove entries, in this order; one that is gone counts as done.

    Raises:
        OSError: with the kernel's errno for the first that was refused.
    """
    _write(DELNEIGH, 0, [entries.encode(each, index) for each in unwanted], GONE)


def read(index: int, families: Iterable[int]) -> Iterator[tuple[Entry, bool]]:
    """Yield every entry of a device, and whether it is permanent.

    Raises:
        OSError: when the kernel refuses to say.
    """
    with _socket() as sock:
        for family in families:
            body = entries.all_of(family, index)
            sock.send(MESSAGE.pack(MESSAGE.size + len(body), GETNEIGH, REQUEST | DUMP, 1, 0) + body)
            yield from filter(None, map(entries.decode, _dumped(sock)))


def _dumped(sock: socket.socket) -> Iterator[bytes]:
    while True:
        for kind, content in messages(sock.recv(1 << 17)):
            if kind in (ERROR, DONE):
                _raise_unless(content, ())
                return
            if kind == NEWNEIGH:
                yield content


def _write(kind: int, flags: int, bodies: Sequence[bytes], allowed: Sequence[int]) -> None:
    if not bodies:
        return
    with _socket() as sock:
        for start in range(0, len(bodies), AT_ONCE):
            batch = bodies[start : start + AT_ONCE]
            size, asked = MESSAGE.size, REQUEST | ACK | flags
            sock.send(b"".join(MESSAGE.pack(size + len(body), kind, asked, 1, 0) + body for body in batch))
            answered = 0
            while answered < len(batch):
                for answer, content in messages(sock.recv(1 << 17)):
                    if answer == ERROR:
                        answered += 1
                        _raise_unless(content, allowed)


def _raise_unless(content: bytes, allowed: Sequence[int]) -> None:
    code = -int.from_bytes(content[:4], "little", signed=True)
    if code and code not in allowed:
        raise OSError(code, os.strerror(code))


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.setsockopt(SOL_NETLINK, STRICT_CHECK, 1)
    sock.settimeout(SECONDS)
    return sock
