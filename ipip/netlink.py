"""Requests to rtnetlink and their answers, for the few messages that a tunnel needs.

A netlink library would cost the agent 12 MB of memory. The formats are those of include/uapi/linux/{netlink,
rtnetlink}.h. Everything raises OSError with the kernel's errno.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct

MESSAGE = Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = Struct("=HH")  # length, type
U32 = Struct("=I")

ERROR, DONE = 2, 3
REQUEST, ACK, DUMP, REPLACE, EXCLUSIVE, CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
SOL_NETLINK, STRICT_CHECK = 270, 12


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded as the kernel wants it."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) & 3)


def text(kind: int, value: str) -> bytes:
    """Return an attribute that holds a string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(body: bytes, start: int = 0) -> dict[int, bytes]:
    """Return the attributes from `start` on, by type."""
    found = {}
    while start + 4 <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = body[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def word(payload: bytes) -> str:
    """Return the string in an attribute."""
    return payload.rstrip(b"\0").decode(errors="replace")


def do(kind: int, flags: int, body: bytes) -> None:
    """Have something done; the kernel has done it when this returns."""
    for _ in ask(kind, flags | ACK, body):
        pass


def do_each(kind: int, flags: int, bodies: Iterable[bytes]) -> None:
    """Have the same done to each of many things; those that the kernel refuses stay as they are."""
    with open_socket() as sock:
        for body in bodies:
            sock.send(MESSAGE.pack(MESSAGE.size + len(body), kind, REQUEST | ACK | flags, 1, 0) + body)
            sock.recv(1 << 16)  # done, or why not


def open_socket() -> socket.socket:
    """Open a route socket in the network namespace of this thread."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def packed(requests: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Return messages that have several things done in turn, numbered from 0; only the last one asks for an answer.

    Args:
        requests: type, flags and body of each.
    """
    last = len(requests) - 1
    parts = []
    for number, (kind, flags, body) in enumerate(requests):
        asked = REQUEST | flags | (ACK if number == last else 0)
        parts += [MESSAGE.pack(MESSAGE.size + len(body), kind, asked, number, 0), body]
    return b"".join(parts)


def require_done(answers: bytes) -> None:
    """Raise OSError for what was refused first: a refusal is answered even where nobody asked for an answer."""
    _, content = next(messages(answers))
    code = -int.from_bytes(content[:4], "little", signed=True)
    if code:
        raise OSError(code, os.strerror(code))


def ask(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """Send one request and yield type and body of every answer; raise OSError where the kernel refuses."""
    with open_socket() as sock:
        sock.setsockopt(SOL_NETLINK, STRICT_CHECK, 1)
        sock.send(MESSAGE.pack(MESSAGE.size + len(body), kind, REQUEST | flags, 1, 0) + body)
        many = bool(flags & (DUMP | ACK))
        while True:
            for answer, content in messages(sock.recv(1 << 17)):
                if answer in (ERROR, DONE):
                    code = -int.from_bytes(content[:4], "little", signed=True)
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield answer, content
                if not many:
                    return


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each message in what one receive brought."""
    offset = 0
    while offset + MESSAGE.size <= len(data):
        length, kind, *_ = MESSAGE.unpack_from(data, offset)
        yield kind, data[offset + MESSAGE.size : offset + length]
        offset += (length + 3) & ~3
