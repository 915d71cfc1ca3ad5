"""Rules of policy routing out of the kernel's messages, and what each says of a packet, as `ip rule` shows them; pure.

Formats and numbers are those of include/uapi/linux/fib_rules.h.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TypeAlias

from felix_py.kernel import hop_codec
from felix_py.kernel.flow import Flow, name_of
from felix_py.kernel.messages import RTMSG, attributes
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress, IPNetwork

RTM_GETRULE = 34
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_OIFNAME = 1, 2, 3, 6, 10, 15, 17
FRA_L3MDEV, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 19, 22, 23, 24
INVERT = 0x2

LOCAL = "lo"
"""The interface by which packets of this host itself come in, in the eyes of rules."""

TABLES = {253: "default", 254: "main", 255: "local"}
"""Routing tables with a name; /etc/iproute2/rt_tables."""

TO_TABLE = 1
ACTIONS = {2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
REJECTING = frozenset({"blackhole", "unreachable", "prohibit"})

RANGE = struct.Struct("=HH")

Ports: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; what it does not look at is None.

    Attributes:
        priority: rules are asked in this order.
        action: `lookup`, or how it ends what it matches.
        table: that it looks in.
        inverted: it takes what does not match (`not`).
        mark: a packet without a mark does not match.
    """

    priority: int
    action: str
    table: int
    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    incoming: str | None = None
    outgoing: str | None = None
    mark: int | None = None
    protocol: int | None = None
    source_ports: Ports | None = None
    destination_ports: Ports | None = None
    inverted: bool = False

    @property
    def by_flow(self) -> bool:
        """Whether it looks at protocol or ports."""
        return (self.protocol, self.source_ports, self.destination_ports) != (None, None, None)

    def __str__(self) -> str:
        """Write it as `ip rule` does."""
        fields = {
            "from": self.source or "all",
            "to": self.destination,
            "fwmark": None if self.mark is None else hex(self.mark),
            "iif": self.incoming,
            "oif": self.outgoing,
            "ipproto": None if self.protocol is None else name_of(self.protocol),
            "sport": _range(self.source_ports),
            "dport": _range(self.destination_ports),
        }
        words = [f"{name} {value}" for name, value in fields.items() if value is not None]
        does = f"lookup {table_name(self.table)}" if self.action == "lookup" else self.action
        return " ".join([f"{self.priority}:", *(["not"] if self.inverted else []), *words, does])

    def takes(
        self, destination: IPAddress, source: IPAddress | None, device: str | None, flow: Flow | None
    ) -> bool | None:
        """Say whether a packet without a mark matches; None where that depends on what is not known of it.

        Args:
            destination: of the packet.
            source: of the packet; None where that is yet to be chosen.
            device: by which it came in; None where this host sends it.
            flow: protocol and ports; None where nobody says.
        """
        found = (
            _within(self.destination, destination),
            self.source is None or (source is not None and _within(self.source, source)),
            self.incoming in (None, device or LOCAL),
            self.outgoing is None,  # an interface that the sender has bound its socket to
            self.mark is None,
            *self._of_flow(flow),
        )
        if False in found:
            return self.inverted
        return None if None in found else not self.inverted

    def _of_flow(self, flow: Flow | None) -> tuple[bool | None, ...]:
        if flow is None:
            return (None if self.by_flow else True,)
        return (
            self.protocol in (None, flow.protocol),
            _has(self.source_ports, flow.source_port),
            _has(self.destination_ports, flow.destination_port),
        )


def _within(network: IPNetwork | None, address: IPAddress) -> bool:
    return network is None or address in network


def _has(ports: Ports | None, port: int | None) -> bool | None:
    if ports is None:
        return True
    return None if port is None else ports[0] <= port <= ports[1]


def _range(ports: Ports | None) -> str | None:
    if ports is None:
        return None
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def table_name(number: int) -> str:
    """Return a routing table's name, or its number."""
    return TABLES.get(number, str(number))


def every(family: Family) -> bytes:
    """Ask for all rules of a version of IP."""
    return RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)


def rule(body: bytes) -> Rule:
    """Read a rule out of its message.

    Raises:
        ValueError: when the kernel says what we cannot read.
    """
    family, to, origin, _, table, _, _, action, flags = RTMSG.unpack_from(body)
    found = dict(attributes(body, RTMSG.size))
    number = hop_codec.number(found.get(FRA_TABLE))
    return Rule(
        hop_codec.number(found.get(FRA_PRIORITY)) or 0,
        "lookup" if action == TO_TABLE else ACTIONS.get(action, f"action {action}"),
        table if number is None else number,
        _network(family, found.get(FRA_SRC), origin),
        _network(family, found.get(FRA_DST), to),
        _text(found.get(FRA_IIFNAME)),
        _text(found.get(FRA_OIFNAME)),
        hop_codec.number(found.get(FRA_FWMARK)) or None,
        found[FRA_IP_PROTO][0] if FRA_IP_PROTO in found else None,
        _ports(found.get(FRA_SPORT_RANGE)),
        _ports(found.get(FRA_DPORT_RANGE)),
        bool(flags & INVERT),
    )


def _network(family: int, packed: bytes | None, length: int) -> IPNetwork | None:
    if packed is None:
        return None
    return ip_network((packed[: 4 if family == Family.IPV4 else 16], length), strict=False)


def _text(packed: bytes | None) -> str | None:
    return packed.rstrip(b"\0").decode() if packed is not None else None


def _ports(packed: bytes | None) -> Ports | None:
    return RANGE.unpack_from(packed) if packed is not None else None
