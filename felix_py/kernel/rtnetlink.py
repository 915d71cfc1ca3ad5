"""Routes over rtnetlink, without a library in between: encode, decode, many in one send, one result each.

pyroute2 spends 220 microseconds on a route, nearly all of it on building Python objects; this is the one place
where a node with 100,000 routes feels that, so routes, and the events about them, are coded here. The message formats
are those of include/uapi/linux/{netlink,rtnetlink}.h and of rtnetlink(7).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from felix_py.kernel.objects import MAIN_TABLE, Route, RouteKey, RouteType, Scope
from felix_py.model import IPAddress, IPNetwork

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
RTMSG = struct.Struct("=BBBBBBBBI")  # family dst_len src_len tos table protocol scope type flags
ATTRIBUTE = struct.Struct("=HH")  # length, type
U32 = struct.Struct("=I")

ERROR, DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR = 16, 17, 20, 21
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
REQUEST, ACK, DUMP, DUMP_INTERRUPTED = 0x1, 0x4, 0x300, 0x10
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
CAPPED, ACK_TLVS = 0x100, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU = 2
RTNH_F_ONLINK = 4
SOL_NETLINK, EXT_ACK, CAP_ACK, STRICT_CHECK, ADD_MEMBERSHIP = 270, 11, 10, 12, 1
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV4_ROUTE = 1, 5, 7
GROUP_IPV6_ADDRESS, GROUP_IPV6_ROUTE = 9, 11
GROUP_IPV4_NETCONF, RTM_NEWNETCONF = 24, 80

BATCH = 1000
"""Messages per send: larger batches measured no faster, and 1000 answers of 832 bytes fit a 2 MiB buffer."""

BUFFER = 4 << 20
"""Bytes of socket buffer; an event burst of 20,000 routes fits."""


TYPES = frozenset(map(int, RouteType))
SCOPES = frozenset(map(int, Scope))


class DumpInterrupted(Exception):  # noqa: N818 - named for what the caller does: read again
    """The table changed while it was read (NLM_F_DUMP_INTR)."""


def open_socket(*, groups: Sequence[int] = ()) -> socket.socket:
    """Open a route socket with strict checking and extended acknowledgements, subscribed to `groups`."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    for option in (EXT_ACK, CAP_ACK, STRICT_CHECK):
        sock.setsockopt(SOL_NETLINK, option, 1)
    sock.bind((0, 0))
    for group in groups:
        sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
    return sock


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) & 3)


def attributes(body: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Walk the attributes of a message from offset `start`; a broken length ends the walk."""
    end = len(body)
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size or start + length > end:
            return
        yield kind & 0x3FFF, body[start + 4 : start + length]
        start += (length + 3) & ~3


def encode(key: RouteKey, route: Route, index: int | None) -> bytes:
    """Encode the body of a route message, attributes in the order in which the kernel dumps them.

    Args:
        key: the identity of the route.
        route: what the kernel is to hold.
        index: interface index of `route.device`, None when it names none.
    """
    family = socket.AF_INET if key.dst.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP versions
    flags = RTNH_F_ONLINK if route.onlink else 0
    table = key.table if key.table < 256 else 252  # noqa: PLR2004 - RT_TABLE_COMPAT: the attribute holds the number
    head = RTMSG.pack(family, key.dst.prefixlen, 0, key.tos, table, route.protocol, route.scope, route.type, flags)
    parts = [head, attribute(RTA_TABLE, U32.pack(key.table))]
    if key.dst.prefixlen:
        parts.append(attribute(RTA_DST, key.dst.network_address.packed))
    if key.metric:
        parts.append(attribute(RTA_PRIORITY, U32.pack(key.metric)))
    if route.mtu is not None:
        parts.append(attribute(RTA_METRICS, attribute(RTAX_MTU, U32.pack(route.mtu))))
    if route.source is not None:
        parts.append(attribute(RTA_PREFSRC, route.source.packed))
    if route.via is not None:
        parts.append(attribute(RTA_GATEWAY, route.via.packed))
    if index is not None:
        parts.append(attribute(RTA_OIF, U32.pack(index)))
    return b"".join(parts)


def decode(body: bytes, names: Mapping[int, str]) -> tuple[RouteKey, Route] | None:
    """Decode the body of a route message; None for what we cannot hold (multipath, unknown types).

    Args:
        body: the message after its netlink header.
        names: interface names by index; an unknown index is named `if<number>`.
    """
    if len(body) < RTMSG.size:
        return None
    family, prefix_length, _, tos, table, protocol, scope, kind, flags = RTMSG.unpack_from(body)
    found = dict(attributes(body, RTMSG.size))
    if family not in (socket.AF_INET, socket.AF_INET6) or kind not in TYPES or scope not in SCOPES:
        return None
    number = {name: U32.unpack_from(found[name])[0] for name in (RTA_TABLE, RTA_PRIORITY, RTA_OIF) if name in found}
    key = RouteKey(
        _prefix(family, found.get(RTA_DST), prefix_length),
        number.get(RTA_TABLE, table),
        tos,
        number.get(RTA_PRIORITY, 0),
    )
    route = Route(
        type=RouteType(kind),
        via=_address(found.get(RTA_GATEWAY)),
        device=names.get(number[RTA_OIF], f"if{number[RTA_OIF]}") if RTA_OIF in number else None,
        scope=Scope(scope),
        onlink=bool(flags & RTNH_F_ONLINK),
        source=_address(found.get(RTA_PREFSRC)),
        mtu=_mtu(found.get(RTA_METRICS)),
        protocol=protocol,
    )
    return key, route


def _prefix(family: int, packed: bytes | None, length: int) -> IPNetwork:
    size = 4 if family == socket.AF_INET else 16
    return ip_network((packed if packed and len(packed) == size else b"\0" * size, length), strict=False)


def _address(packed: bytes | None) -> IPAddress | None:
    return ip_address(packed) if packed and len(packed) in (4, 16) else None


def _mtu(metrics: bytes | None) -> int | None:
    found = dict(attributes(metrics or b"", 0)).get(RTAX_MTU)
    return U32.unpack(found)[0] if found else None


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Split what one receive brought into (type, flags, sequence, port, body)."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield kind, flags, sequence, port, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def refusal(flags: int, body: bytes) -> tuple[int, str]:
    """Decode an acknowledgement: the errno (0 is success) and the kernel's own sentence, where it gave one."""
    code = -struct.unpack_from("=i", body)[0]
    if not flags & ACK_TLVS:
        return code, os.strerror(code)
    skip = 4 + HEADER.size
    if not flags & CAPPED:
        skip = 4 + ((U32.unpack_from(body, 4)[0] + 3) & ~3)
    text = dict(attributes(body, skip)).get(1)
    return (
        code,
        f"{os.strerror(code)}: {text.rstrip(bytes(1)).decode(errors='replace')}" if text else os.strerror(code),
    )


class RouteSocket:
    """Writes and reads the kernel's routes; not for use by two threads at once."""

    def __init__(self) -> None:
        self._socket = open_socket()
        self._sequence = 1
        self.port: int = self._socket.getsockname()[0]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def put(self, routes: Sequence[tuple[RouteKey, Route, int | None]]) -> dict[int, tuple[int, str]]:
        """Add or replace routes; return errno and sentence by position for each that was refused."""
        bodies = [encode(*entry) for entry in routes]
        return self._write(RTM_NEWROUTE, CREATE | REPLACE, bodies)

    def delete(self, routes: Sequence[tuple[RouteKey, Route, int | None]]) -> dict[int, tuple[int, str]]:
        """Delete exactly these routes; one that is gone already counts as done."""
        refused = self._write(RTM_DELROUTE, 0, [encode(*entry) for entry in routes])
        return {position: why for position, why in refused.items() if why[0] not in (errno.ESRCH, errno.ENODEV)}

    def dump(self, table: int = MAIN_TABLE, protocol: int = 0, family: int = socket.AF_INET) -> Iterator[bytes]:
        """Yield the body of every route of `table`, filtered by the kernel when `protocol` is given."""
        body = RTMSG.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0) + attribute(RTA_TABLE, U32.pack(table))
        self._sequence += 1
        self._socket.send(HEADER.pack(16 + len(body), RTM_GETROUTE, REQUEST | DUMP, self._sequence, 0) + body)
        while True:
            for kind, flags, _, _, content in messages(self._socket.recv(1 << 16)):
                if flags & DUMP_INTERRUPTED:
                    self._drain()
                    raise DumpInterrupted
                if kind == RTM_NEWROUTE:
                    yield content
                elif kind in (DONE, ERROR):
                    code = -struct.unpack_from("=i", content)[0]
                    if code not in (0, errno.ENOENT):  # ENOENT: the table does not exist, so it is empty
                        raise OSError(code, os.strerror(code))
                    return

    def _drain(self) -> None:
        """Throw away the rest of an interrupted dump, up to its end mark."""
        while not any(kind in (DONE, ERROR) for kind, *_ in messages(self._socket.recv(1 << 16))):
            pass

    def _write(self, kind: int, flags: int, bodies: Sequence[bytes]) -> dict[int, tuple[int, str]]:
        refused: dict[int, tuple[int, str]] = {}
        for start in range(0, len(bodies), BATCH):
            chunk = bodies[start : start + BATCH]
            for position, why in self._write_batch(kind, flags, chunk).items():
                refused[start + position] = why
        return refused

    def _write_batch(self, kind: int, flags: int, bodies: Sequence[bytes]) -> dict[int, tuple[int, str]]:
        """Send one batch; only the last message asks for an answer, refusals are answered all the same."""
        first, last = self._sequence + 1, self._sequence + len(bodies)
        self._sequence = last
        parts: list[bytes] = []
        for sequence, body in enumerate(bodies, first):
            wants_answer = ACK if sequence == last else 0
            parts += [HEADER.pack(16 + len(body), kind, REQUEST | flags | wants_answer, sequence, 0), body]
        self._socket.send(b"".join(parts))
        refused: dict[int, tuple[int, str]] = {}
        while True:
            for answer, answer_flags, sequence, _, content in messages(self._socket.recv(1 << 16)):
                if answer != ERROR or not first <= sequence <= last:
                    continue
                code, why = refusal(answer_flags, content)
                if code:
                    refused[sequence - first] = (code, why)
                if sequence == last:
                    return refused
