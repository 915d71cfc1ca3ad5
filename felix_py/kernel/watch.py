"""Listens to what happens to routes, next hops, interfaces and addresses, and makes typed events of it."""

import errno
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from felix_py.kernel import link_codec
from felix_py.kernel.messages import BUFFER, HEADER, RTMSG, U32, attributes, messages
from felix_py.kernel.netlink_socket import attach_filter, broken, open_socket, subscribe
from felix_py.kernel.roundtrip import received
from felix_py.kernel.wire import (
    AddressEvent,
    Event,
    EventsLost,
    LinkEvent,
    Mode,
    NextHopEvent,
    ParameterEvent,
    ProgramEvent,
    RouteEvent,
    Verb,
)

GROUPS = (1, 4, 5, 7, 9, 11, 24, 25, 32)
"""Link; traffic control; address and route of IPv4 and of IPv6; parameters of both; next hop.

RTNLGRP_..., include/uapi/linux/rtnetlink.h.
"""

RTM_NEWNETCONF = 80
NETCONFA_IFINDEX = 1
NETCONFMSG_BYTES = 4
"""struct netconfmsg is one byte, then padding; include/uapi/linux/netconf.h."""

RTM_DELQDISC, RTM_NEWTFILTER, RTM_DELTFILTER = 37, 44, 45
TCMSG = struct.Struct("=B3xiIII")
"""struct tcmsg, include/uapi/linux/rtnetlink.h: family, interface, and what of it."""

NHMSG_BYTES = 8
"""struct nhmsg, include/uapi/linux/nexthop.h."""

LOCAL_TABLE = 255
"""RT_TABLE_LOCAL: the host's own addresses, which address events tell as well."""

LIMIT = 20_000
"""Messages that one call reads: some 40 ms of a storm, after which others have their turn."""

FEW, PIECE = 1000, 24
"""Up to so many messages, as pods bring them, are read so many at a time: a thread that makes pods gets the interpreter
in between, for which it would wait up to half a millisecond each time. Of a storm, the rest is read in one go."""

PAUSE = 0.00005
"""Seconds that it takes another thread to get the interpreter; without a pause it would lose the race for it."""

MODES = tuple(Mode(bits << 8) for bits in range(16))
"""By bits 8 to 11 of a message's flags: looked up, since an enumeration takes longer to find a member than all else."""

LOAD_WORD, LOAD_HALF, LOAD_BYTE, IF_EQUAL, RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
"""Instructions of classic BPF at absolute offsets, include/uapi/linux/bpf_common.h."""

Decoder: TypeAlias = Callable[[int, int, bytes], Event | None]
"""From flags, port and body of a message to the event that it tells of."""


def _route(verb: Verb) -> Decoder:
    def decode(flags: int, port: int, body: bytes) -> Event | None:
        return RouteEvent(verb, MODES[flags >> 8 & 0xF], port, body) if len(body) >= RTMSG.size else None

    return decode


def _next_hop(verb: Verb) -> Decoder:
    def decode(_flags: int, port: int, body: bytes) -> Event | None:
        return NextHopEvent(verb, port, body) if len(body) >= NHMSG_BYTES else None

    return decode


def _link(*, gone: bool) -> Decoder:
    def decode(_flags: int, _port: int, body: bytes) -> Event | None:
        link = link_codec.decode_link(body)
        return None if link is None else LinkEvent(link, gone)

    return decode


def _address(*, gone: bool) -> Decoder:
    def decode(_flags: int, _port: int, body: bytes) -> Event | None:
        found = link_codec.decode_address(body)
        return None if found is None else AddressEvent(*found, gone)

    return decode


def _parameter(_flags: int, _port: int, body: bytes) -> Event | None:
    index = dict(attributes(body, NETCONFMSG_BYTES)).get(NETCONFA_IFINDEX, b"")
    return ParameterEvent(int.from_bytes(index, sys.byteorder, signed=True)) if len(index) == U32.size else None


def _program(_flags: int, _port: int, body: bytes) -> Event | None:
    return ProgramEvent(TCMSG.unpack_from(body)[1]) if len(body) >= TCMSG.size else None


DECODERS: Mapping[int, Decoder] = {
    **{int(verb): _route(verb) for verb in (Verb.NEW_ROUTE, Verb.DELETE_ROUTE)},
    **{int(verb): _next_hop(verb) for verb in (Verb.NEW_NEXT_HOP, Verb.DELETE_NEXT_HOP)},
    link_codec.RTM_NEWLINK: _link(gone=False),
    link_codec.RTM_DELLINK: _link(gone=True),
    link_codec.RTM_NEWADDR: _address(gone=False),
    link_codec.RTM_DELADDR: _address(gone=True),
    RTM_NEWNETCONF: _parameter,
    **dict.fromkeys((RTM_DELQDISC, RTM_NEWTFILTER, RTM_DELTFILTER), _program),
}
"""What we understand, by message type; the rest is passed over, and so is what is too short to be it."""


def decode(kind: int, flags: int, port: int, body: bytes) -> Event | None:
    """Make an event of one message; None for what is none, or malformed."""
    decoder = DECODERS.get(kind)
    return None if decoder is None else decoder(flags, port, body)


def without(ours: int) -> list[tuple[int, int, int, int]]:
    """Return the filter that drops changes of routes and next hops by this port, and all routes of the local table.

    Numbers of a netlink header are in the host's byte order, but a filter loads them in the network's.
    """
    accept, drop = 9, 10
    kinds = [
        _loaded("=H", verb) for verb in (Verb.NEW_ROUTE, Verb.DELETE_ROUTE, Verb.NEW_NEXT_HOP, Verb.DELETE_NEXT_HOP)
    ]
    lines = [
        (LOAD_HALF, 4, 0, 0),  # nlmsg_type
        (IF_EQUAL, kinds[0], 5, 2),
        (IF_EQUAL, kinds[1], 5, 3),
        (IF_EQUAL, kinds[2], 7, 4),
        (IF_EQUAL, kinds[3], 7, accept),
        (LOAD_BYTE, HEADER.size + 4, 0, 0),  # rtm_table
        (IF_EQUAL, LOCAL_TABLE, drop, 7),
        (LOAD_WORD, 12, 0, 0),  # nlmsg_pid
        (IF_EQUAL, _loaded("=I", ours), drop, accept),
        (RETURN, 0xFFFFFFFF, 0, 0),
        (RETURN, 0, 0, 0),
    ]
    # Jumps are counted from the next line.
    return [
        (code, then - number - 1, otherwise - number - 1, operand) if code == IF_EQUAL else (code, 0, 0, operand)
        for number, (code, operand, then, otherwise) in enumerate(lines)
    ]


def _loaded(form: str, number: int) -> int:
    return int.from_bytes(struct.pack(form, number), "big")


class Watch:
    """The socket on which events arrive, and nothing of what we did ourselves.

    Which messages those are is decided in the kernel, by a filter on the socket: a burst of our own writes then costs
    neither time here nor room in the queue.
    """

    def __init__(self, ours: int, *, buffer: int = BUFFER) -> None:
        """Listen in the network namespace of this thread.

        Args:
            ours: netlink port of our writes.
            buffer: bytes of queue; the more, the longer a burst that is not lost.

        Raises:
            OSError: when the kernel refuses a socket, a group or the filter.
        """
        self._socket = open_socket(buffer=buffer)
        try:
            attach_filter(self._socket, without(ours))
            for group in GROUPS:
                subscribe(self._socket, group)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def drain(self) -> list[Event]:
        """Return what is queued, oldest first, at most `LIMIT` messages; what is left keeps `fileno` readable.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        try:
            return self._drain()
        except OSError as error:
            raise broken("reading events", error) from error

    def _drain(self) -> list[Event]:
        found: list[Event] = []
        count, lost = 0, False
        # After a loss the kernel queues nothing before the queue is empty, and does not tell that this is lost too.
        while lost or count < LIMIT:
            most = min(PIECE if count < FEW else LIMIT, LIMIT - count)
            data, code = received(self._socket, LIMIT if lost else most)
            for kind, flags, _, port, body in messages(data):
                count += 1
                if count <= LIMIT and (event := decode(kind, flags, port, body)) is not None:
                    found.append(event)
            if code == errno.ENOBUFS:
                found += [] if lost else [EventsLost()]
                lost = True
            elif code == errno.EAGAIN:
                if not data:  # else more may have come while these were decoded
                    break
            elif code:
                raise OSError(code, os.strerror(code))
            elif count < FEW:  # a whole piece, so that there may be more; a single event waits for nobody
                time.sleep(PAUSE)
        return found
