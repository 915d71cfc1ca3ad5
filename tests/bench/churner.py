"""A peer that never says the same twice: `python churner.py ADDRESS COUNT`, inside a namespace.

It takes sessions at the address. For each line on standard input it announces COUNT prefixes with another next hop and
other attributes than before, each in an UPDATE of its own; takes back what marked the round before; and marks this one.
"""

import asyncio
import os
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

from far_end import UPDATE, FarEnd, attribute, blocks, message, plain, update

ASN = 64512
MARKS = int(IPv4Address("10.255.0.0"))
CHUNK = 500
"""UPDATEs that are written at once."""


def mark(number: int) -> bytes:
    """Return the prefix that marks a round, as it stands in an UPDATE."""
    return b"\x20" + struct.pack("!I", MARKS + number)


def updates(address: str, count: int, number: int) -> Iterator[bytes]:
    """Yield the UPDATEs of a round."""
    next_hop = str(IPv4Address(address) + number % 2)
    for index, prefix in enumerate(blocks(count)):
        communities = attribute(0xC0, 8, struct.pack("!HHI", ASN, number & 0xFFFF, index))
        yield message(UPDATE, update(plain(next_hop, med=number * count + index) + communities, prefix))
    yield message(UPDATE, update(plain(next_hop), mark(number), mark(number - 1) if number else b""))


async def main(address: str, count: int) -> None:
    end = FarEnd(address, ASN)
    await end.listen()
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    os.write(1, b"ready\n")
    number = 0
    while await commands.readline():
        every = list(updates(address, count, number))
        for start in range(0, len(every), CHUNK):
            end.say(b"".join(every[start : start + CHUNK]))
            await end.sessions[-1].writer.drain()
        number += 1


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
