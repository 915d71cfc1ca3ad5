"""Packets with whatever headers a test likes, sent by raw sockets; and what came of them."""

import json
import socket
import struct
from ipaddress import ip_address

from spaces import SECONDS, Space

from felix_py.kernel.dump import Reader
from felix_py.kernel.guard_programs import GuardPrograms

IPV6_HDRINCL = 36
"""include/uapi/linux/in6.h."""

IPIP, UDP = 4, 17
PORT = 7777


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data if len(data) % 2 == 0 else data + b"\0"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """Make a packet of the version of IP that the addresses have."""
    src, dst = ip_address(source), ip_address(target)
    if src.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + src.packed + dst.packed + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + src.packed + dst.packed
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(source: str, target: str, payload: bytes, port: int = PORT, source_port: int = PORT) -> bytes:
    """Make a whole UDP packet with a right checksum, which IPv6 insists on (RFC 8200 section 8.1)."""
    src, dst = ip_address(source), ip_address(target)
    head = struct.pack(">HHHH", source_port, port, 8 + len(payload), 0)
    pseudo = src.packed + dst.packed + struct.pack(">IHBB", 8 + len(payload), 0, 0, UDP)
    if src.version == 4:
        pseudo = src.packed + dst.packed + struct.pack(">BBH", 0, UDP, 8 + len(payload))
    padded = pseudo + head + payload + b"\0" * (len(payload) % 2)
    return ip(source, target, UDP, head[:6] + struct.pack(">H", checksum(padded) or 0xFFFF) + payload)


def send(space: Space, packet: bytes) -> None:
    """Send a packet as it is; the destination of its header says where."""
    space.do(_send, packet)


def _send(packet: bytes) -> None:
    if packet[0] >> 4 == 4:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0))
        return
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
        raw.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))


class Listener:
    """A UDP socket in a namespace: what arrives, in order, with where it came from."""

    def __init__(self, space: Space, version: int = 4, port: int = PORT) -> None:
        self._socket = space.do(socket.socket, socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.settimeout(SECONDS)
        self._socket.bind(("" if version == 4 else "::", port))

    def next(self) -> tuple[bytes, str]:
        """Wait for the next packet; return what it carries and its source."""
        payload, sender = self._socket.recvfrom(1 << 16)
        return payload, sender[0]

    def close(self) -> None:
        self._socket.close()


def dropped(space: Space) -> dict[str, int]:
    """Return the counters of our table, and of our programs at pods' interfaces, that are not zero."""
    said = json.loads(space.run("nft", "--json", "list", "counters", "table", "inet", "felix"))["nftables"]
    counters = (each["counter"] for each in said if "counter" in each)
    found = {each["name"]: each["packets"] for each in counters} | space.do(_dropped_by_programs)
    return {name: packets for name, packets in found.items() if packets}


def _dropped_by_programs() -> dict[str, int]:
    """Find the programs as an agent without memory does."""
    with Reader() as reader, GuardPrograms() as programs:
        programs.read({link.name: link for link in reader.links()})
        return programs.counters()
