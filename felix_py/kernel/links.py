"""Links and addresses over rtnetlink, without a library in between: changes carried out, and a look at what is there.

pyroute2 would do the same in 4 to 12 ms a pod where this takes less than one, and its import alone costs a node 20 MB
of memory. Message formats are those of include/uapi/linux/{if_link,rtnetlink}.h.
"""

import errno
import socket
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from felix_py.kernel import link_codec, messages, netlink_socket, roundtrip, route_codec
from felix_py.kernel.jobs import Done, Job
from felix_py.kernel.link_changes import IFLA_IFALIAS, Change, named
from felix_py.kernel.link_codec import (
    IFADDRMSG,
    IFF_RUNNING,
    IFF_UP,
    IFINFOMSG,
    IFLA_IFNAME,
    IFLA_LINK,
    IFLA_MTU,
    RTM_GETADDR,
    RTM_GETLINK,
)
from felix_py.kernel.messages import U32, attribute
from felix_py.kernel.objects import MAIN_TABLE, KernelRefused
from felix_py.kernel.roundtrip import ANSWER_SECONDS

NO_COUNTERS = attribute(link_codec.IFLA_EXT_MASK, U32.pack(link_codec.RTEXT_FILTER_SKIP_STATS))
"""In a question: leave out what is most of the bytes of the answer."""

CUT_SHORT = "the kernel's answer is cut short"
LATE = f"the kernel did not answer within {ANSWER_SECONDS} s"


class LinkRefused(KernelRefused):
    """The kernel said no to a change of a link, an address or a neighbour; `code` is its errno."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class End:
    """One end of a veth as it is now.

    Attributes:
        running: it carries packets: the kernel has taken note of its carrier.
        body: all that the kernel says of it.
    """

    index: int
    running: bool
    body: bytes

    @property
    def peer(self) -> int:
        """The index of the other end, in the namespace where that is; 0 of what has none."""
        return link_codec.peer(self.body)


def open_socket() -> socket.socket:
    """Open a route socket in the network namespace of this thread."""
    sock = netlink_socket.open_socket()
    roundtrip.wait_at_most(sock, ANSWER_SECONDS)
    return sock


def carry_out(sock: socket.socket, changes: Sequence[Change]) -> None:
    """Do these changes in one send.

    Raises:
        LinkRefused: naming the first change that was refused; those after it may have been done.
    """
    requests = acknowledged(changes)
    require_done(requests, exchange(sock, requests))


def with_look(changes: Sequence[Change], interface: str | int) -> list[Change]:
    """Return changes, and behind them the question after an interface, by its name or its index; for `seen`."""
    index, name = (0, named(interface)) if isinstance(interface, str) else (interface, b"")
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + name + NO_COUNTERS
    return [*changes, Change("looking at {}", RTM_GETLINK, 0, body, (interface,))]


def seen(requests: Sequence[Change], answers: bytes) -> End:
    """Return the interface that was asked for.

    Raises:
        LinkRefused: where one of the changes was refused, or there is no such interface.
    """
    return _end(require_done(requests, answers))


def _end(body: bytes) -> End:
    if len(body) < IFINFOMSG.size:
        raise LinkRefused(CUT_SHORT, errno.EPROTO)
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    return End(index, bool(flags & IFF_RUNNING), body)


def joined(sock: socket.socket, parts: Sequence[Sequence[Change]], devices: Sequence[str] = ()) -> Job:
    """Return what has the requests of several parts done in one send; for `jobs.do`, and then one of the next two.

    Args:
        sock: of the namespace of all of them.
        parts: of which the last one ends with a request that is answered.
        devices: as `Job` has them.
    """
    requests = [each for part in parts for each in part]
    return Job(packed(requests), len(requests) - 1, sock, devices=devices)


def done_each(parts: Sequence[Sequence[Change]], done: Done) -> list[LinkRefused | None]:
    """Return why one of each part of such a job was refused; None where none was."""
    if done.is_well:
        return [None] * len(parts)
    found = [_required_of(part, answers) for part, answers in _each(parts, done)]
    return [each if isinstance(each, LinkRefused) else None for each in found]


def seen_each(parts: Sequence[Sequence[Change]], done: Done) -> list[End | LinkRefused]:
    """Return the interface that each part of such a job asked for (`with_look`), or why there is none."""
    bodies = [body for _, _, _, _, body in messages.messages(done.answers)]
    if done.is_well and len(bodies) == len(parts) and all(len(body) >= IFINFOMSG.size for body in bodies):
        return [*map(_end, bodies)]  # there is no other answer
    return [_seen_of(part, answers) for part, answers in _each(parts, done)]


Answers: TypeAlias = Iterable[messages.Message] | LinkRefused
"""What came, with the numbers of a part; or why nothing did."""


def _each(parts: Sequence[Sequence[Change]], done: Done) -> list[tuple[Sequence[Change], Answers]]:
    if done.broken is not None:
        return [(part, _unanswered(part, done.broken.error, late=done.is_in_vain)) for part in parts]
    starts = [0, *accumulate(map(len, parts))]
    by_part = [list[messages.Message]() for _ in parts]
    for kind, flags, number, port, body in messages.messages(done.answers):
        part = bisect_right(starts, number) - 1
        if part < len(parts):
            by_part[part].append((kind, flags, number - starts[part], port, body))
    return [*zip(parts, by_part, strict=True)]


def _required_of(requests: Sequence[Change], answers: Answers) -> bytes | LinkRefused:
    if isinstance(answers, LinkRefused):
        return answers
    try:
        return _required(requests, answers)
    except LinkRefused as refused:
        return refused


def _seen_of(requests: Sequence[Change], answers: Answers) -> End | LinkRefused:
    found = _required_of(requests, answers)
    try:
        return found if isinstance(found, LinkRefused) else _end(found)
    except LinkRefused as refused:
        return refused


def _unanswered(requests: Sequence[Change], error: OSError, *, late: bool) -> LinkRefused:
    """Say why there are no answers at all; those of which an answer stood before were waited for in vain, too."""
    if error.errno == errno.EAGAIN or late:
        return LinkRefused(LATE, errno.ETIMEDOUT)
    return LinkRefused(f"{requests[0].words} was refused: {error.strerror}", error.errno or errno.EIO)


def acknowledged(changes: Sequence[Change]) -> list[Change]:
    """Return changes of which the last one is answered, so that all of them are done then."""
    *before, last = changes
    return [*before, last._replace(flags=last.flags | messages.ACK)]


def packed(requests: Sequence[Change]) -> bytes:
    """Return messages, numbered from 0; the kernel answers a refusal even where nobody asked for an answer."""
    parts = []
    for number, each in enumerate(requests):
        head = messages.HEADER.pack(16 + len(each.body), each.kind, messages.REQUEST | each.flags, number, 0)
        parts += [head, each.body]
    return b"".join(parts)


def exchange(sock: socket.socket, requests: Sequence[Change]) -> bytes:
    """Send requests of which the last one is answered; return all answers."""
    try:
        return roundtrip.exchange(sock, packed(requests), len(requests) - 1)
    except BlockingIOError as late:
        raise LinkRefused(LATE, errno.ETIMEDOUT) from late


def require_done(requests: Sequence[Change], answers: bytes) -> bytes:
    """Return the answer to the last request.

    Raises:
        LinkRefused: naming the first one that was refused.
    """
    return _required(requests, messages.messages(answers))


def _required(requests: Sequence[Change], answers: Iterable[messages.Message]) -> bytes:
    refused, found = list[tuple[int, int, str]](), b""
    for kind, flags, number, _, found in answers:
        code, why = messages.refusal(flags, found) if kind == messages.ERROR else (0, "")
        if code:
            refused.append((number, code, why))
    if refused:
        number, code, why = min(refused)
        raise LinkRefused(f"{requests[number].words} was refused: {why}", code)
    return found


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 16)
    except BlockingIOError as late:
        raise LinkRefused(LATE, errno.ETIMEDOUT) from late


@dataclass(frozen=True, slots=True)
class Seen:
    """An interface as the kernel lists it, with the note on it.

    Attributes:
        mtu: in bytes.
        peer: the index of a veth's other end, in the namespace where that is; 0 of all other interfaces.
        running: it carries packets: the kernel has taken note of its carrier.
    """

    name: str
    index: int
    up: bool
    alias: str = ""
    mtu: int = 0
    peer: int = 0
    running: bool = False


def listing(sock: socket.socket) -> tuple[Seen, ...]:
    """Return every interface of the socket's namespace."""
    return tuple(map(_seen, dump(sock, RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0))))


def read(sock: socket.socket, name: str) -> Seen | None:
    """Return one interface of the socket's namespace; None where there is none of that name."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + named(name)
    sock.send(messages.HEADER.pack(16 + len(body), RTM_GETLINK, messages.REQUEST, 1, 0) + body)
    for kind, _, _, _, content in messages.messages(_receive(sock)):
        return None if kind == messages.ERROR else _seen(content)
    return None


def addresses(sock: socket.socket, index: int) -> frozenset[str]:
    """Return the addresses of an interface of the socket's namespace, as `10.65.0.5/32`, but link-local IPv6 ones."""
    bodies = dump(sock, RTM_GETADDR, IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    return frozenset(text for of_link, text in filter(None, map(link_codec.decode_address, bodies)) if of_link == index)


def has_default_route(sock: socket.socket, index: int, version: int = 4) -> bool:
    """Say whether the socket's namespace has a default route of this version of IP out of this interface."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP versions
    head = messages.RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    bodies = dump(sock, messages.RTM_GETROUTE, head + attribute(messages.RTA_TABLE, U32.pack(MAIN_TABLE)))
    entries = filter(None, (route_codec.decode(body, {index: "pod"}) for body in bodies))
    return any(key.dst.prefixlen == 0 and entry.device == "pod" for key, entry in entries)


def dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """Return the bodies of everything that the kernel lists for this question."""
    sock.send(messages.HEADER.pack(16 + len(body), kind, messages.REQUEST | messages.DUMP, 1, 0) + body)
    found: list[bytes] = []
    while True:
        for answer, _, _, _, content in messages.messages(_receive(sock)):
            if answer in (messages.DONE, messages.ERROR):
                return found
            found.append(content)


def _seen(body: bytes) -> Seen:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = dict(messages.attributes(body, IFINFOMSG.size))
    name = found[IFLA_IFNAME].rstrip(b"\0").decode()
    note = found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace")
    mtu, peer = (U32.unpack(found.get(kind, bytes(U32.size)))[0] for kind in (IFLA_MTU, IFLA_LINK))
    return Seen(name, index, bool(flags & IFF_UP), note, mtu, peer, bool(flags & IFF_RUNNING))
