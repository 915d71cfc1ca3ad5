"""Carries packets between a TUN device and a raw protocol 4 socket: the data path where the kernel has no ipip module.

Part of the userspace process, which is kept small: the standard library's lightest modules, no dataclasses, addresses
as numbers.
"""

import errno
import os
import socket
from struct import Struct

from ipip import header

BATCH = 64
"""Packets taken from one side before the other has its turn."""

LONGEST = 1 << 16
"""Bytes: room for the largest IPv4 packet."""

SOCKET_BUFFER = 4 << 20
"""Bytes: a burst of 2500 full packets may wait while Python is busy with the other side."""

CACHE_LIMIT = 1 << 16
"""Destinations remembered at once; the cache starts anew beyond, a scan of a pool must not eat memory."""

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_MTU = 10, 0, 14  # linux/in.h
SOL_RAW, ICMP_FILTER, NO_ICMP = 255, 1, b"\xff\xff\xff\xff"  # linux/icmp.h

INNER = Struct("!BB4xB9xI").unpack_from
"""Version and header length, type of service, flags, destination."""

OUTER = Struct("!BB10xI").unpack_from
"""Version and header length, type of service, source."""

DEVICE_GONE = errno.EBADFD
"""What reading a TUN descriptor says once its device was deleted (drivers/net/tun.c)."""

Addressed = tuple[bytearray, tuple[str, int]]
COUNTERS = (
    "sent_packets",
    "sent_bytes",
    "received_packets",
    "received_bytes",
    "dropped_no_route",
    "dropped_source_not_allowed",
    "dropped_malformed",
    "dropped_too_big",
    "dropped_congestion",
    "dropped_send_failed",
)


class Carrier:
    """Moves packets both ways, following the settings given last; a bad packet is counted and forgotten."""

    def __init__(self, tun: int) -> None:
        self.tun = tun
        self.local = 0
        self.allowed: frozenset[int] = frozenset()
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.raw: socket.socket | None = None
        self._prefixes: tuple[tuple[int, dict[int, int]], ...] = ()
        self._nodes: frozenset[int] = frozenset()
        self._cache: dict[int, Addressed | None] = {}
        self._buffer = bytearray(LONGEST + header.SIZE)
        self._view = memoryview(self._buffer)
        self._window = [self._view[header.SIZE :]]

    def configure(self, local: int, routes: list[tuple[int, int, int]], allowed: frozenset[int]) -> None:
        """Follow these settings from the next packet on.

        Args:
            local: this node's address, source of the outer header.
            routes: network, prefix length and node.
            allowed: outer sources that are decapsulated.
        """
        if self.raw is None or local != self.local:
            fresh = _raw_socket(local)
            if self.raw is not None:
                self.raw.close()
            self.raw, self.local = fresh, local
        self.allowed = allowed
        self.follow(routes)

    def follow(self, routes: list[tuple[int, int, int]]) -> None:
        """Take network, prefix length and node of every route; the cache of destinations starts anew."""
        tables: dict[int, dict[int, int]] = {}
        for network, length, node in routes:
            tables.setdefault(32 - length, {})[network >> (32 - length)] = node
        self._prefixes = tuple(sorted(tables.items()))
        self._nodes = frozenset(node for _, _, node in routes)
        self._cache = {}

    def node(self, destination: int) -> int | None:
        """Return the node behind the longest prefix that holds `destination`.

        A node's own address is never reached through the tunnel: its outer packets would come back to us and be
        encapsulated again, without end (RFC 2003 section 3.1).
        """
        if destination in self._nodes:
            return None
        return next((table[destination >> s] for s, table in self._prefixes if destination >> s in table), None)

    def send(self) -> None:
        """Carry a batch from the device to the nodes.

        Raises:
            OSError: DEVICE_GONE when the device was deleted.
        """
        buffer, view, cache, window, tun = self._buffer, self._view, self._cache, self._window, self.tun
        transmit = self.raw.sendto if self.raw else None
        packets = octets = 0
        try:
            for _ in range(BATCH):
                size = os.readv(tun, window)
                version, service, flags, destination = INNER(buffer, header.SIZE)
                if version >> 4 != 4 or size < header.SIZE:  # noqa: PLR2004 - IPv4
                    self.counters["dropped_malformed"] += 1
                    continue
                try:
                    entry = cache[destination]
                except KeyError:
                    entry = self._remember(destination)
                if entry is None or transmit is None:
                    self.counters["dropped_no_route"] += 1
                    continue
                head, address = entry
                head[1], head[6] = service, flags & 0x40
                buffer[: header.SIZE] = head
                try:
                    transmit(view[: header.SIZE + size], address)
                except OSError as error:
                    self._refused(error, size, address)
                    continue
                packets += 1
                octets += size
        except BlockingIOError:
            pass
        self.counters["sent_packets"] += packets
        self.counters["sent_bytes"] += octets

    def receive(self) -> None:
        """Carry a batch from the nodes to the device."""
        if self.raw is None:
            return
        buffer, view, allowed, tun, take = self._buffer, self._view, self.allowed, self.tun, self.raw.recv_into
        packets = octets = 0
        for _ in range(BATCH):
            try:
                size = take(buffer)
            except OSError:  # nothing left, or an error that a router reported: the kernel has noted the path's MTU
                break
            first, service, source = OUTER(buffer)
            start = (first & 15) * 4
            if source not in allowed:
                self.counters["dropped_source_not_allowed"] += 1
                continue
            if size < start + header.SIZE or buffer[start] >> 4 != 4:  # noqa: PLR2004 - IPv4
                self.counters["dropped_malformed"] += 1
                continue
            packet: memoryview | bytes | None = view[start:size]
            if service & 3:
                packet = self._with_congestion(service, view[start:size])
            if packet is None:
                continue
            try:
                os.write(tun, packet)
            except OSError as error:
                self._not_delivered(error)
                continue
            packets += 1
            octets += size - start
        self.counters["received_packets"] += packets
        self.counters["received_bytes"] += octets

    def _remember(self, destination: int) -> Addressed | None:
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        node = self.node(destination)
        entry = None
        if node is not None:
            source, target = self.local.to_bytes(4, "big"), node.to_bytes(4, "big")
            head = bytearray(header.encode(header.Outer(source, target)))
            head[2:4] = head[4:6] = head[10:12] = (
                b"\0\0"  # raw(7): the kernel fills in length, identification, checksum
            )
            entry = head, (socket.inet_ntoa(target), 0)
        self._cache[destination] = entry
        return entry

    def _refused(self, error: OSError, size: int, address: tuple[str, int]) -> None:
        """Deal with a packet in the buffer that the underlay did not take.

        EMSGSIZE: it exceeds the interface's MTU, or what a router told the kernel about the path (RFC 1191). The
        kernel keeps and forgets that value for us.
        """
        packet = self._view[header.SIZE : header.SIZE + size]
        if error.errno != errno.EMSGSIZE:
            self.counters["dropped_send_failed"] += 1
            return
        if not packet[6] & 0x40:
            self._send_in_fragments(packet, address)
            return
        self.counters["dropped_too_big"] += 1
        mtu = self._path_mtu(address) - header.SIZE
        message = header.fragmentation_needed(packet, mtu) if mtu > 0 else None
        if message is not None:
            self._tell(message, socket.inet_ntoa(packet[12:16]))

    def _path_mtu(self, address: tuple[str, int]) -> int:
        """Return what the kernel knows of the path to a node, in bytes of the outer packet; 0: nothing."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((address[0], 9))  # no packet is sent
                return probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
            except OSError:
                return 0

    def _tell(self, message: bytes, host: str) -> None:
        """Send an ICMP message through the kernel's routes, as the kernel does with its own: rp_filter lets it pass."""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, header.ICMP) as sender:
            sender.setsockopt(SOL_RAW, ICMP_FILTER, NO_ICMP)
            try:
                sender.sendto(message, (host, 0))
            except OSError:
                self.counters["dropped_send_failed"] += 1

    def _send_in_fragments(self, packet: memoryview, address: tuple[str, int]) -> None:
        """Let the kernel make and cut up the outer packet, for an inner one that allows it.

        Needed only from a cut of the uplink's MTU until the device's own follows; with a header of ours the kernel
        refuses (raw(7)).
        """
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, header.IPIP) as sender:
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, packet[1])
            try:
                sender.bind((socket.inet_ntoa(self.local.to_bytes(4, "big")), 0))
                sender.sendto(packet, address)
            except OSError:
                self.counters["dropped_send_failed"] += 1
                return
        self.counters["sent_packets"] += 1
        self.counters["sent_bytes"] += len(packet)

    def _with_congestion(self, outer: int, packet: memoryview) -> memoryview | bytes | None:
        if header.fault(packet) is not None:
            self.counters["dropped_malformed"] += 1
            return None
        service = header.congestion(outer, packet[1])
        if service is None:
            self.counters["dropped_congestion"] += 1
            return None
        return packet if service == packet[1] else header.with_type_of_service(packet, service)

    def _not_delivered(self, error: OSError) -> None:
        if error.errno == DEVICE_GONE:
            raise error
        self.counters["dropped_malformed"] += 1  # EIO while the device is down, EINVAL for what is no packet


def _raw_socket(local: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, header.IPIP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        sock.bind((socket.inet_ntoa(local.to_bytes(4, "big")), 0))
    except OSError:
        sock.close()
        raise
    return sock
