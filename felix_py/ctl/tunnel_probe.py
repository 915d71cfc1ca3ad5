"""Sends probes to other nodes and hears what comes back: what `felixctl doctor` knows of protocol 4 and of path MTU."""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from felix_py.ctl import probe_packets
from felix_py.ctl.probe_packets import WAYS, Answered, Ends, Request, TooLarge, Way
from felix_py.kernel.lookup import Lookup
from felix_py.kernel.lookup_codec import Found

MOST = 32
"""Nodes that are probed in one go: enough to see a pattern, and no storm."""

ROUNDS, APART = 3, 0.15
"""How often what was not answered is sent again, and after how many seconds each."""

LAST = 0.3
"""Seconds to wait for the last answers."""

SIZES = (1492, 1480, 1472, 1460, 1450, 1440, 1420, 1400, 1360, 1300, 1280, 1200, 1000, 576)
"""MTUs that paths have: PPPoE, tunnels, clouds, and the least of IPv6 and IPv4."""

NO_WAY = frozenset(
    (errno.EMSGSIZE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.EPERM,
     errno.EINVAL, errno.ENOBUFS)
)  # fmt: skip
"""What sending fails with where a packet is too large, has no way, no interface, or a filter or blackhole in it."""

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
"""include/uapi/linux/if_ether.h. Only who asks for all sees a packet before traffic control, where the ebpf driver of
a tunnel takes its packets."""

SO_RCVBUFFORCE = 33
"""include/uapi/asm-generic/socket.h."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What passes between this node and another.

    Attributes:
        name: of the other node, or its address.
        ways: those that were answered.
        full: bytes of a full packet of the tunnel on the wire.
        largest: bytes of the largest one that was answered; 0 for none.
        told: the routers that said what they can pass on.
    """

    here: IPv4Address
    there: IPv4Address
    name: str
    ways: frozenset[Way]
    full: int
    largest: int
    told: tuple[TooLarge, ...] = ()


@dataclass(slots=True)
class _Heard:
    """What has come back so far."""

    numbers: set[int] = field(default_factory=set)
    told: set[TooLarge] = field(default_factory=set)


def probe(here: IPv4Address, tunnel: IPv4Address, mtu: int, nodes: Mapping[IPv4Address, str]) -> tuple[Probe, ...]:
    """Probe other nodes, all at the same time; it takes half a second at most.

    Args:
        here: this node's own address.
        tunnel: the address of its tunnel.
        mtu: bytes of a full packet inside the tunnel.
        nodes: the others, with their names; of many the first `MOST`.

    Raises:
        PermissionError: for who may not send packets of his own making (CAP_NET_RAW).
    """
    full = mtu + probe_packets.IPV4.size
    chosen = sorted(nodes)[:MOST]
    requests = [each for there in chosen for each in _requests(Ends(here, tunnel, there), full)]
    with _Sockets(requests) as sockets:
        heard = sockets.exchange(requests)
    return tuple(_result(here, there, nodes[there], full, requests, heard) for there in chosen)


def _requests(ends: Ends, full: int) -> Iterable[Request]:
    yield from (Request(ends, way) for way in WAYS)
    yield from (Request(ends, Way.BOTH, size) for size in (full, *SIZES) if size <= full)


def _result(
    here: IPv4Address, there: IPv4Address, name: str, full: int, requests: Sequence[Request], heard: _Heard
) -> Probe:
    own = [requests[number] for number in heard.numbers if requests[number].ends.there == there]
    return Probe(
        here,
        there,
        name,
        frozenset(each.way for each in own if each.size == probe_packets.SMALL),
        full,
        max((each.size for each in own if each.way is Way.BOTH), default=0),
        tuple(sorted(each for each in heard.told if each.destination == there and each.router != here)),
    )


class _Sockets:
    """What sends packets of our own making, and hears all that comes in."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._identifier = os.getpid() & 0xFFFF
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        with contextlib.suppress(PermissionError):  # without CAP_NET_ADMIN the usual queue has to do
            self._wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 21)
        self._hops = dict(_next_hops({each.ends.there for each in requests}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()
        self._wire.close()

    def exchange(self, requests: Sequence[Request]) -> _Heard:
        """Send until all is answered, a few times, and return what has come back."""
        heard = _Heard()
        for turn in range(ROUNDS):
            for number, request in enumerate(requests):
                if number not in heard.numbers:
                    self._send(request, probe_packets.packet(request, self._identifier, number))
            self._hear(requests, heard, time.monotonic() + (APART if turn < ROUNDS - 1 else LAST))
            if len(heard.numbers) == len(requests):
                break
        return heard

    def _send(self, request: Request, data: bytes) -> None:
        try:
            if request.way is Way.BACK and request.ends.there in self._hops:
                # Below the packet filter, which would masquerade the tunnel's address where the pool says natOutgoing.
                device, mac = self._hops[request.ends.there]
                self._wire.sendto(data, (device, ETH_P_IP, 0, 0, mac))
            else:
                self._raw.sendto(data, (str(request.ends.there), 0))
        except OSError as error:
            # Too large for the uplink, no way there, a filter that refuses: that is an answer, too.
            if error.errno not in NO_WAY:
                raise

    def _hear(self, requests: Sequence[Request], heard: _Heard, until: float) -> None:
        while len(heard.numbers) < len(requests) and (left := until - time.monotonic()) > 0:
            if not select.select([self._wire], [], [], left)[0]:
                return
            data, (device, protocol, kind, *_) = self._wire.recvfrom(1 << 16)
            if protocol != ETH_P_IP or kind == socket.PACKET_OUTGOING:
                continue
            said = probe_packets.read(data, self._identifier)
            if isinstance(said, TooLarge):
                heard.told.add(said)
            elif said is not None and said.number < len(requests):
                request = requests[said.number]
                # What was taken out of the tunnel is seen once more, at the tunnel's own device.
                if _answers(request, said) and device == self._hops.get(request.ends.there, (device, b""))[0]:
                    heard.numbers.add(said.number)


def _answers(request: Request, said: Answered) -> bool:
    return said.wrapped is request.way.wrapped_back and said.source == request.ends.there


def _next_hops(nodes: Iterable[IPv4Address]) -> Iterable[tuple[IPv4Address, tuple[str, bytes]]]:
    """Yield by which device, and to which MAC, packets to each node go; nodes without a way are left out."""
    lookup = Lookup()
    try:
        names = dict(socket.if_nameindex())
        for node in nodes:
            found = lookup.route(node, None, 0, names)
            if not isinstance(found, Found) or found.device is None:
                continue
            with contextlib.suppress(OSError):  # the interface went meanwhile: then there is no way
                index = socket.if_nametoindex(found.device)
                lookup.neighbour(found.via or node, index)
                mac = lookup.mac(found.via or node, index)
                if mac is not None:
                    yield node, (found.device, mac)
    finally:
        lookup.close()
