"""The kernel's table of tracked connections: finds those of an address and makes the kernel forget them."""

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from felix_py.kernel import conntrack_codec as codec
from felix_py.kernel.messages import (
    ACK,
    DONE,
    DUMP,
    DUMP_INTERRUPTED,
    ERROR,
    HEADER,
    REQUEST,
    messages,
    refusal,
)
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress

NETLINK_NETFILTER = 12
"""The protocol of a socket to netfilter's tables, include/uapi/linux/netlink.h."""

SOL_NETLINK, CAP_ACK, EXT_ACK = 270, 10, 11
"""Socket options of include/uapi/linux/netlink.h: answers that are short, and that carry the kernel's sentence."""

DATAGRAM = 1 << 16
"""Bytes per receive: the kernel fills at most 32 KiB with one part of a dump, and never cuts a message in two."""

BATCH = 200
"""Deletions per send: were all of them refused, their answers of 832 bytes would fit into the usual buffer."""

WALK = 4000
"""Entries that can be copied out and searched in the time of one more walk past the whole table: 10 ms for the usual
262,144 buckets, and 2.2 microseconds an entry."""

SEQUENCES = 1 << 31
"""Questions after which their numbers start again; there is room for one more try below 32 bits."""

ANSWER_SECONDS = 10.0
"""The kernel answers at once; this is for one that does not answer at all."""


class Absent(Exception):  # noqa: N818 - named for what it means: there is nothing to forget
    """This kernel tracks no connections, or does not tell of them; the sentence says which."""


class Forgotten(NamedTuple):
    """What came of one try.

    Attributes:
        removed: entries that are gone.
        by_address: the same by address; an entry between two addresses counts for both.
        faults: the sentence of the kernel, by address, where an entry stayed.
    """

    removed: int
    by_address: Mapping[IPAddress, int]
    faults: Mapping[IPAddress, str]


class KernelTable:
    """The kernel's own table, of the network namespace of the thread that makes this; for use by one thread.

    Raises:
        Absent: when the kernel has no netfilter netlink.
        OSError: when no socket is to be had.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        except OSError as error:
            if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
                raise Absent("this kernel has no netfilter netlink") from error
            raise
        self._socket.settimeout(ANSWER_SECONDS)
        for option in (EXT_ACK, CAP_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._filters: bool | None = None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def forget(self, addresses: Iterable[IPAddress], *, kernel_chooses: bool = True) -> Forgotten:
        """Forget every connection with a source among `addresses`, in either direction; leave others alone.

        Args:
            addresses: of both families, as many as there are.
            kernel_chooses: let the kernel look for them where that is quicker and where it can be trusted with it.

        Raises:
            Absent: when the kernel does not tell of connections.
            OSError: when the table could not be read, or it is unknown what was forgotten.
        """
        if self._sequence > SEQUENCES:
            self._sequence = 0
        owners = {address.packed: address for address in addresses}
        entries = self._entries(owners, kernel_chooses=kernel_chooses)
        gone, stayed = self._delete(entries)
        of = [[owners[source] for source in entry.sources if source in owners] for entry in entries]
        return Forgotten(
            len(gone),
            Counter(address for position in gone for address in of[position]),
            {address: sentence for position, sentence in stayed.items() for address in of[position]},
        )

    def _entries(self, owners: Mapping[bytes, IPAddress], *, kernel_chooses: bool) -> list[codec.Entry]:
        count = self._count()
        if not count:
            return []
        found: dict[codec.Entry, None] = {}
        for family in Family:
            wanted = {packed: owner for packed, owner in owners.items() if len(packed) == codec.ADDRESS_SIZE[family]}
            # The IPv6 filter of Linux, 5.8 to 6.18 at least, is upside down: it brings all entries but those asked for.
            trusted = kernel_chooses and family is Family.IPV4 and count > WALK * len(wanted) and self._can_filter()
            questions = [codec.all_entries(family)] * bool(wanted)
            if trusted:
                questions = [codec.entries_from(owner, each) for owner in wanted.values() for each in codec.Direction]
            for question in questions:
                found.update(dict.fromkeys(codec.matching(self._dump(question), wanted)))
        return list(found)

    def _count(self) -> int:
        """Return how many connections are tracked; the kernel knows without looking."""
        try:
            answers = self._ask(codec.GET_COUNT, REQUEST, codec.how_many())
            return codec.decode_count(next(answers)) or 0
        except OSError as error:
            # nfnetlink's answer for a subsystem that it lacks, and for which it found no module to load either.
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                raise Absent("this kernel does not tell of tracked connections (no ctnetlink)") from error
            raise

    def _can_filter(self) -> bool:
        """Ask the trick question, once; only a refusal shows that the kernel looks at the filter as it should."""
        if self._filters is None:
            try:
                for _ in self._dump(codec.trick_question()):
                    pass
                self._filters = False
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._filters = True
        return self._filters

    def _delete(self, entries: list[codec.Entry]) -> tuple[list[int], dict[int, str]]:
        """Delete entries; return the positions of those that went and, with sentences, of those that stayed."""
        gone: list[int] = []
        stayed: dict[int, str] = {}
        for start in range(0, len(entries), BATCH):
            refused = self._delete_batch([codec.deletion(entry) for entry in entries[start : start + BATCH]])
            for position in range(start, min(start + BATCH, len(entries))):
                code, sentence = refused.get(position - start, (0, ""))
                if not code:
                    gone.append(position)
                elif code != errno.ENOENT:  # it ended by itself
                    stayed[position] = sentence
        return gone, stayed

    def _delete_batch(self, bodies: list[bytes]) -> dict[int, tuple[int, str]]:
        first = self._sequence + 1
        self._sequence += len(bodies)
        # Errors are answered anyhow; the acknowledgement of the last one says that all have been seen.
        last = len(bodies) - 1
        self._socket.send(
            b"".join(
                _message(codec.DELETE_ENTRY, REQUEST | ACK * (position == last), first + position, body)
                for position, body in enumerate(bodies)
            )
        )
        refused: dict[int, tuple[int, str]] = {}
        while True:
            for kind, flags, sequence, _, body in messages(self._socket.recv(DATAGRAM)):
                position = sequence - first
                if kind != ERROR or not 0 <= position <= last:
                    continue
                code, sentence = refusal(flags, body)
                if code:
                    refused[position] = code, sentence
                if position == last:
                    return refused

    def _dump(self, question: bytes) -> Iterator[bytes]:
        return self._ask(codec.GET_ENTRY, REQUEST | DUMP, question)

    def _ask(self, kind: int, flags: int, question: bytes) -> Iterator[bytes]:
        """Yield the bodies of the answer; whoever ends a dump early has to close the socket."""
        self._sequence += 1
        asked = self._sequence
        self._socket.send(_message(kind, flags, asked, question))
        while True:
            for answer, marks, sequence, _, body in messages(self._socket.recv(DATAGRAM)):
                if sequence != asked:
                    continue
                if marks & DUMP_INTERRUPTED:
                    raise OSError(errno.EINTR, "the table changed while it was read")
                if answer in (ERROR, DONE):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0  # noqa: PLR2004 - bytes of errno
                    if code:
                        raise OSError(code, refusal(marks, body)[1] if answer == ERROR else os.strerror(code))
                    return
                yield body


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) & 3)
