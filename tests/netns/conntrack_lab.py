"""A network namespace whose kernel tracks connections: made by a forked child, filled by traffic or by the dozen."""

import ctypes
import multiprocessing
import os
import re
import socket
import struct
import subprocess
import traceback
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from felix_py.kernel.messages import HEADER, attribute, messages, refusal

CLONE_NEWNET = 0x40000000
NESTED = 0x8000

TRACKED = """
table inet tracking {
  chain seen { type filter hook prerouting priority 0
    ct state new accept
  }
}
"""
"""One rule that asks for a connection's state makes the kernel track all of them."""


class Connection(NamedTuple):
    """What a test says of one: its ends, who answers where that is not who was asked, its source port and zone."""

    source: str
    destination: str
    answering: str = ""
    port: int = 1000
    zone: int = 0


def in_a_namespace(case: Callable[[], None]) -> None:
    """Run the case in a forked child that has a network namespace of its own; fail as it fails."""
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_run, args=(case, answer))
    process.start()
    trouble = answer.get(timeout=60)
    process.join(timeout=20)
    assert not trouble, trouble


def _run(case: Callable[[], None], answer: "multiprocessing.Queue[str]") -> None:
    try:
        unshare_network()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        rule(TRACKED)
        case()
        answer.put("")
    except BaseException:  # noqa: BLE001 - carried to the parent, which fails with it
        answer.put(traceback.format_exc())


def unshare_network() -> None:
    """Give this thread an empty network namespace."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def rule(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def tracked(thread: int | None = None) -> set[Connection]:
    """Return the UDP connections that the kernel lists in /proc, which is not how the agent asks; port 53 asked.

    Args:
        thread: whose network namespace; the main thread's when None.
    """
    path = Path(f"/proc/self/task/{thread or os.getpid()}/net/nf_conntrack")
    return {_parsed(line) for line in path.read_text().splitlines() if " udp " in line}


def _parsed(line: str) -> Connection:
    addresses = [str(ip_address(each)) for each in re.findall(r"(?:src|dst)=(\S+)", line)]
    port = int(re.findall(r"sport=(\d+)", line)[0])
    zone = re.findall(r"zone=(\d+)", line)
    answering = addresses[2] if addresses[2] != addresses[1] else ""
    return Connection(addresses[0], addresses[1], answering, port, int(zone[0]) if zone else 0)


def inject(connections: Iterable[Connection]) -> None:
    """Have the kernel track these as if packets of each had passed both ways; 200 in one send."""
    pending = list(connections)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netfilter:
        netfilter.bind((0, 0))
        for start in range(0, len(pending), 200):
            batch = pending[start : start + 200]
            # NEW of subsystem 1; REQUEST, ACK, EXCLUSIVE, CREATE
            bodies = [_body(each) for each in batch]
            netfilter.send(b"".join(HEADER.pack(16 + len(body), 0x100, 0x605, 1, 0) + body for body in bodies))
            answered = 0
            while answered < len(batch):
                for _, flags, _, _, body in messages(netfilter.recv(1 << 16)):
                    code, sentence = refusal(flags, body)
                    assert not code, sentence
                    answered += 1


def _body(connection: Connection) -> bytes:
    source, destination = ip_address(connection.source), ip_address(connection.destination)
    answering = ip_address(connection.answering or connection.destination)
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    zone = attribute(18, struct.pack(">H", connection.zone)) if connection.zone else b""
    return (
        struct.pack("=BBH", family, 0, 0)
        + _tuple(1, source.packed, destination.packed, connection.port, 53)
        + _tuple(2, answering.packed, source.packed, 53, connection.port)
        + attribute(3, struct.pack(">I", 0xA))  # IPS_SEEN_REPLY, IPS_CONFIRMED
        + attribute(7, struct.pack(">I", 600))  # seconds to live
        + zone
    )


def _tuple(direction: int, source: bytes, destination: bytes, source_port: int, destination_port: int) -> bytes:
    first = 1 if len(source) == 4 else 3
    addresses = attribute(first, source) + attribute(first + 1, destination)
    ports = attribute(2, struct.pack(">H", source_port)) + attribute(3, struct.pack(">H", destination_port))
    protocol = attribute(1, bytes([socket.IPPROTO_UDP])) + ports
    return attribute(direction | NESTED, attribute(1 | NESTED, addresses) + attribute(2 | NESTED, protocol))
