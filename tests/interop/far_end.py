"""A BGP speaker made by hand, for what no daemon would say: it says the bytes it is told to, and keeps what it hears.

Run as a program (`python far_end.py [--silent] AS ADDRESS ...`, inside a namespace) it holds one session on each
address that it is given; it is told what to do in lines of JSON, and answers each with one.
"""

import asyncio
import json
import struct
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

MARKER = b"\xff" * 16
OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE_REFRESH = 1, 2, 3, 4, 5
IPV4, IPV6 = b"\0\1\0\1", b"\0\2\0\1"
HOLD_TIME = 9


def message(kind: int, body: bytes = b"") -> bytes:
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def attribute(flags: int, code: int, value: bytes) -> bytes:
    head = struct.pack("!BBH", flags | 0x10, code, len(value)) if len(value) > 255 else bytes((flags, code, len(value)))
    return head + value


def update(attributes: bytes = b"", announced: bytes = b"", withdrawn: bytes = b"") -> bytes:
    return struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes)) + attributes + announced


def plain(next_hop: str, *, as_path: bytes = b"", med: int | None = None) -> bytes:
    """Return the least that a path has, for iBGP."""
    return (
        attribute(0x40, 1, b"\0")
        + attribute(0x40, 2, as_path)
        + attribute(0x40, 3, IPv4Address(next_hop).packed)
        + (b"" if med is None else attribute(0x80, 4, struct.pack("!I", med)))
        + attribute(0x40, 5, struct.pack("!I", 100))
    )


def prefix(text: str) -> bytes:
    address, _, length = text.partition("/")
    return bytes((int(length),)) + IPv4Address(address).packed[: (int(length) + 7) // 8]


def blocks(count: int, first: str = "10.128.0.0") -> list[bytes]:
    """Return so many /26 in a row, as they stand in a message."""
    start = int(IPv4Address(first))
    return [b"\x1a" + struct.pack("!I", start + 64 * number) for number in range(count)]


def opened(
    asn: int,
    router_id: str,
    *,
    four_octet: bool = True,
    families: bytes = IPV4 + IPV6,
    restart: int = 0,
    silent: bool = False,
) -> bytes:
    """Return an OPEN; a silent one carries no capability."""
    capabilities = b"".join(b"\1\4" + families[at : at + 4] for at in range(0, len(families), 4)) + b"\2\0" + b"\x46\0"
    if four_octet:
        capabilities += b"\x41\4" + struct.pack("!I", asn)
    if restart:
        flags = b"".join(
            families[at : at + 2] + families[at + 3 : at + 4] + b"\x80" for at in range(0, len(families), 4)
        )
        capabilities += bytes((64, 2 + len(flags))) + struct.pack("!H", restart) + flags
    parameters = b"" if silent else bytes((2, len(capabilities))) + capabilities
    number = asn if asn < 1 << 16 else 23456
    head = struct.pack("!BHH", 4, number, HOLD_TIME) + IPv4Address(router_id).packed
    return message(OPEN, head + bytes((len(parameters),)) + parameters)


@dataclass
class Session:
    """One session: what was heard on it, and who is listening."""

    writer: asyncio.StreamWriter
    heard: list[bytes] = field(default_factory=list)
    closed: bool = False

    @property
    def notification(self) -> bytes | None:
        """The body of the NOTIFICATION that ended it."""
        return next((each[3:] for each in self.heard if each[2] == NOTIFICATION), None)


class FarEnd:
    """Takes sessions on one address, or dials."""

    def __init__(self, address: str, asn: int = 64512, **offered: Any) -> None:
        self.address = address
        self._open = opened(asn, address, **offered)
        self.sessions: list[Session] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, port: int = 179) -> None:
        """Be dialled."""
        self._server = await asyncio.start_server(self._hold, self.address, port)

    @property
    def up(self) -> bool:
        """Whether the latest session is established."""
        return bool(self.sessions) and not self.sessions[-1].closed and self.kinds().count(KEEPALIVE) > 0

    def kinds(self) -> list[int]:
        """Return the types of what was heard on the latest session."""
        return [each[2] for each in self.sessions[-1].heard] if self.sessions else []

    def say(self, data: bytes) -> None:
        """Say bytes on the latest session."""
        self.sessions[-1].writer.write(data)

    def leave(self) -> None:
        """End the latest session without a word."""
        self.sessions[-1].writer.transport.abort()

    async def close(self) -> None:
        """End everything."""
        if self._server:
            self._server.close()
        for session in self.sessions:
            session.writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(writer)
        self.sessions.append(session)
        writer.write(self._open)
        task = asyncio.current_task()
        if task:
            self._tasks.add(task)
        try:
            while True:
                head = await reader.readexactly(19)
                body = await reader.readexactly(int.from_bytes(head[16:18], "big") - 19)
                session.heard.append(head[16:] + body)
                if head[18] == OPEN:
                    writer.write(message(KEEPALIVE))
                if head[18] == KEEPALIVE:
                    writer.write(message(KEEPALIVE))
        except (asyncio.IncompleteReadError, ConnectionError):
            session.closed = True


async def _obey(addresses: list[str], asn: int, *, silent: bool) -> None:
    ends = {address: FarEnd(address, asn, silent=silent) for address in addresses}
    for end in ends.values():
        await end.listen()
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    while line := await commands.readline():
        order = json.loads(line)
        end = ends[order["address"]]
        if "say" in order:
            end.say(bytes.fromhex(order["say"]))
        if order.get("leave"):
            end.leave()
        notifications = [each.notification.hex() for each in end.sessions if each.notification is not None]
        answer = {"up": end.up, "sessions": len(end.sessions), "notifications": notifications, "kinds": end.kinds()}
        answer["updates"] = (
            [each[3:].hex() for each in end.sessions[-1].heard if each[2] == UPDATE] if answer["sessions"] else []
        )
        answer["goodbyes"] = [sum(each[2] == NOTIFICATION for each in session.heard) for session in end.sessions]
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    words = [each for each in sys.argv[1:] if each != "--silent"]
    asyncio.run(_obey(words[1:], int(words[0]), silent="--silent" in sys.argv))
