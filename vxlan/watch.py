"""Hears what happens to VXLAN devices of ours: to the interfaces themselves, to their neighbours and entries.

Hosts hear of neighbours all day long, of each pod and each router; the filter on the socket lets only ours pass.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable

LINK, NEIGHBOUR = 1, 3
"""RTNLGRP_..., include/uapi/linux/rtnetlink.h; the neighbour group tells of forwarding entries, too."""

SOL_NETLINK, ADD_MEMBERSHIP = 270, 1
SO_ATTACH_FILTER = 26
INDEX_AT = 20
"""Both kinds of message have the interface's index four bytes after the netlink header of sixteen."""

LOAD_WORD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
"""Instructions of classic BPF, include/uapi/linux/bpf_common.h."""

QUEUE = 1 << 20
"""Bytes that may wait; what is lost means that everything is read, as any other news does."""


class Watch:
    """A socket that is readable when somebody has changed one of these devices; for the thread that uses it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._indexes: frozenset[int] | None = None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE)
        self._socket.bind((0, 0))
        self.only(())
        for group in (LINK, NEIGHBOUR):
            self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is news."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def only(self, indexes: Iterable[int]) -> None:
        """Hear of these interfaces from now on, and of no others."""
        wanted = frozenset(indexes)
        if wanted == self._indexes:
            return
        # Numbers of a message are in the host's byte order, and a filter loads them in the network's.
        loaded = [int.from_bytes(struct.pack("=I", index), "big") for index in sorted(wanted)]
        lines = [(LOAD_WORD, 0, 0, INDEX_AT)]
        lines += [(IF_EQUAL, len(loaded) - place, 0, number) for place, number in enumerate(loaded)]
        lines += [(RETURN, 0, 0, 0), (RETURN, 0, 0, 0xFFFFFFFF)]
        code = b"".join(struct.pack("=HBBI", *each) for each in lines)
        held = ctypes.create_string_buffer(code)  # the kernel copies it while it handles the option
        program = struct.pack("HP", len(lines), ctypes.addressof(held))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        self._indexes = wanted

    def drain(self) -> bool:
        """Take what is queued; say whether there was anything."""
        heard = False
        while True:
            try:
                self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return heard
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            heard = True
