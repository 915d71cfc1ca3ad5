"""Carries packets between a TUN device and a raw protocol 4 socket: the data path where the kernel has no ipip module.

Part of the userspace process, which is kept small: the standard library's lightest modules, no dataclasses, addresses
as numbers.
"""

import errno
import os
import select
import socket
from struct import Struct

from ipip import batch, header, queues
from ipip.batch import BATCH, BEFORE, SLOT
from ipip.messages import Memory, write

ENOUGH = 1 << 17
"""Bytes taken from the device before the nodes have their turn: two packets of the largest size, 90 on the wire."""

ROOM_MILLISECONDS = 10
"""How long packets wait for room in the socket before they are dropped: the uplink is slower than the pods, and TCP
learns from a delay what it would otherwise learn from a loss."""

SOCKET_BUFFER = 4 << 20
"""Bytes: a burst of 2500 full packets may wait while Python is busy with the other side."""

CACHE_LIMIT = 1 << 16
"""Destinations remembered at once; the cache starts anew beyond, a scan of a pool must not eat memory."""

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_MTU = 10, 0, 14  # linux/in.h
SOL_RAW, ICMP_FILTER, NO_ICMP = 255, 1, b"\xff\xff\xff\xff"  # linux/icmp.h

INNER = Struct("!B15xI").unpack_from
"""Version and header length, destination."""

ADDRESS = Struct("=HH4s8x")
"""struct sockaddr_in: family, port, address."""

OUTER = Struct("!BB10xI").unpack_from
"""Version and header length, type of service, source."""

DEVICE_GONE = errno.EBADFD
"""What reading a TUN descriptor says once its device was deleted (drivers/net/tun.c)."""

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

    def __init__(
        self, tun: int, share: bytes = b"", functions: batch.Library | None = None, *, datagrams: bool = False
    ) -> None:
        self.tun = tun
        self._share = share
        self.local = 0
        self.allowed: frozenset[int] = frozenset()
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.raw: socket.socket | None = None
        self._prefixes: tuple[tuple[int, dict[int, int]], ...] = ()
        self._nodes: frozenset[int] = frozenset()
        self._routes: dict[int, Memory] = {}
        self._cache: dict[int, int] = {}
        self._outgoing, self._incoming = batch.Outgoing(functions), batch.Incoming(functions)
        self._datagrams = datagrams

    def configure(self, local: int, routes: list[tuple[int, int, int]], allowed: frozenset[int]) -> None:
        """Follow these settings from the next packet on.

        Args:
            local: this node's address, source of the outer header.
            routes: network, prefix length and node.
            allowed: outer sources that are decapsulated.
        """
        if self.raw is None or local != self.local:
            fresh = _raw_socket(local, self._share)
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
        self._cache, self._routes = {}, {}

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
        taken = self._take()
        first = 0
        while first < taken:
            made, first = self._outgoing.encapsulate(first, taken)
            self.counters["dropped_malformed"] += self._outgoing.malformed
            self.counters["sent_packets"] += made
            self.counters["sent_bytes"] += self._outgoing.octets
            self._transmit(made)

    def _take(self) -> int:
        """Read packets that have a route from the device; return how many."""
        outgoing, cache, tun = self._outgoing, self._cache, self.tun
        packets, jobs = outgoing.bytes, outgoing.jobs
        at = octets = 0
        try:
            while at < BATCH and octets < ENOUGH:
                size = os.readv(tun, outgoing.windows[at])
                version, destination = INNER(packets, at * SLOT + BEFORE)
                if version >> 4 != 4 or size < BEFORE + header.SIZE:  # noqa: PLR2004 - IPv4
                    self.counters["dropped_malformed"] += 1
                    continue
                try:
                    route = cache[destination]
                except KeyError:
                    route = self._remember(destination)
                if not route:
                    self.counters["dropped_no_route"] += 1
                    continue
                jobs[3 * at + 1] = size
                jobs[3 * at + 2] = route
                octets += size
                at += 1
        except BlockingIOError:
            pass
        return at

    def _transmit(self, count: int) -> None:
        """Send the messages made; deal with each that is refused and go on with the next."""
        if self.raw is None:
            return
        first, descriptor, messages = 0, self.raw.fileno(), self._outgoing.messages
        while first < count:
            try:
                first += messages.send(descriptor, first, count)
            except BlockingIOError as error:
                if not self._room(descriptor):
                    self._refused(error, self._outgoing.inner(first))
                    first += 1
            except OSError as error:
                self._refused(error, self._outgoing.inner(first))
                first += 1

    @staticmethod
    def _room(descriptor: int) -> bool:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLOUT)
        return bool(waiting.poll(ROOM_MILLISECONDS))

    def receive(self) -> None:
        """Carry a batch from the nodes to the device."""
        if self.raw is None:
            return
        incoming = self._incoming
        try:
            count = incoming.messages.receive(self.raw.fileno())
        except OSError:  # nothing left, or an error that a router reported: the kernel has noted the path's MTU
            return
        packets, view, allowed = incoming.bytes, incoming.view, self.allowed
        for slot, size in enumerate(incoming.messages.sizes(count)):
            at = slot * SLOT
            first, service, source = OUTER(packets, at)
            start = (first & 15) * 4
            if source not in allowed:
                self.counters["dropped_source_not_allowed"] += 1
                continue
            if size < start + header.SIZE or packets[at + start] >> 4 != 4:  # noqa: PLR2004 - IPv4
                self.counters["dropped_malformed"] += 1
                continue
            if service & 3 and not self._with_congestion(service, view[at + start : at + size]):
                continue
            incoming.take(slot, start, size - start)
        self._deliver()

    def _deliver(self) -> None:
        for vectors, count, packets, octets in self._incoming.writes(datagrams=self._datagrams):
            try:
                write(self.tun, vectors, count)
            except OSError as error:
                self._not_delivered(error, packets)
                continue
            self.counters["received_packets"] += packets
            self.counters["received_bytes"] += octets

    def _remember(self, destination: int) -> int:
        """Return the address of the route to a destination, for the next packets too; 0: there is none."""
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        node = self.node(destination)
        route = 0
        if node is not None:
            if node not in self._routes:
                self._routes[node] = self._route(node)
            route = self._routes[node].address
        self._cache[destination] = route
        return route

    def _route(self, node: int) -> Memory:
        source, target = self.local.to_bytes(4, "big"), node.to_bytes(4, "big")
        head = bytearray(header.encode(header.Outer(source, target)))
        head[2:4] = head[4:6] = head[10:12] = b"\0\0"  # raw(7): the kernel fills in length, identification, checksum
        made = Memory(1, batch.ROUTE)
        made.view[: header.SIZE] = head
        made.view[header.SIZE :] = ADDRESS.pack(socket.AF_INET, 0, target)
        return made

    def _refused(self, error: OSError, packet: bytes) -> None:
        """Deal with a packet that the underlay did not take, and that counts as sent.

        EMSGSIZE: it exceeds the interface's MTU, or what a router told the kernel about the path (RFC 1191). The
        kernel keeps and forgets that value for us.
        """
        self.counters["sent_packets"] -= 1
        self.counters["sent_bytes"] -= len(packet)
        if error.errno != errno.EMSGSIZE:
            self.counters["dropped_send_failed"] += 1
            return
        address = (socket.inet_ntoa((self.node(int.from_bytes(packet[16:20], "big")) or 0).to_bytes(4, "big")), 0)
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

    def _send_in_fragments(self, packet: bytes, address: tuple[str, int]) -> None:
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

    def _with_congestion(self, outer: int, packet: memoryview) -> bool:
        """Carry a mark of the outer header over to the packet, in place; False: it is dropped."""
        if header.fault(packet) is not None:
            self.counters["dropped_malformed"] += 1
            return False
        service = header.congestion(outer, packet[1])
        if service is None:
            self.counters["dropped_congestion"] += 1
            return False
        if service != packet[1]:
            packet[:] = header.with_type_of_service(packet, service)
        return True

    def _not_delivered(self, error: OSError, packets: int) -> None:
        if error.errno == DEVICE_GONE:
            raise error
        self.counters["dropped_malformed"] += packets  # EIO while the device is down, EINVAL for what is no packet


def _raw_socket(local: int, share: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, header.IPIP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        if share:
            queues.attach(sock, share)  # before it is bound: until then it receives what it should not
        sock.bind((socket.inet_ntoa(local.to_bytes(4, "big")), 0))
    except OSError:
        sock.close()
        raise
    return sock
