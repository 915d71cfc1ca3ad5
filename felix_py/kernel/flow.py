"""Protocol and ports of a packet, by which rules of policy routing and packet filters choose; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132

PROTOCOLS: Mapping[str, int] = {
    "icmp": ICMP,
    "igmp": 2,
    "ipip": 4,
    "ipencap": 4,
    "tcp": TCP,
    "udp": UDP,
    "dccp": 33,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": ICMPV6,
    "ipv6-icmp": ICMPV6,
    "ospf": 89,
    "sctp": SCTP,
    "udplite": 136,
}
"""By the names of /etc/protocols and of nft; https://www.iana.org/assignments/protocol-numbers."""

WITH_PORTS = frozenset({TCP, UDP, 33, SCTP, 136})
"""Protocols whose header begins with two ports."""

NAMES = ("tcp", "udp", "icmp", "sctp")
"""Protocols that a user is told of; every other one can be given by its number as well."""

LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Flow:
    """Protocol and ports of a packet.

    Attributes:
        protocol: number of the IP protocol.
        source_port: None where nobody says, or the protocol has none.
        destination_port: the same.
    """

    protocol: int
    source_port: int | None = None
    destination_port: int | None = None

    def of_version(self, version: int) -> Self:
        """Return the flow as a version of IP has it: ICMP is another protocol in IPv6 (RFC 4443)."""
        return replace(self, protocol=ICMPV6) if (self.protocol, version) == (ICMP, 6) else self

    def back(self) -> Self:
        """Return the flow of the answers."""
        return replace(self, source_port=self.destination_port, destination_port=self.source_port)

    def __str__(self) -> str:
        """Say it as `tcp from port 5000 to port 80`."""
        source = [] if self.source_port is None else [f"from port {self.source_port}"]
        target = [] if self.destination_port is None else [f"to port {self.destination_port}"]
        return " ".join([name_of(self.protocol), *source, *target])


def name_of(protocol: int) -> str:
    """Return the name of a protocol, or its number where it has none here."""
    return next((name for name, number in PROTOCOLS.items() if number == protocol), str(protocol))


def protocol(text: str) -> int:
    """Return the number of a protocol.

    Raises:
        ValueError: with what to give instead.
    """
    number = PROTOCOLS.get(text.lower(), int(text) if text.isascii() and text.isdigit() else -1)
    if not 0 <= number <= 255:  # noqa: PLR2004 - eight bits, RFC 791 section 3.1
        raise ValueError(f"{text!r} is no protocol; give {', '.join(NAMES)} or a number from 0 to 255")
    return number


def port(text: str) -> int:
    """Return a port.

    Raises:
        ValueError: with what to give instead.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LARGEST_PORT):
        raise ValueError(f"{text!r} is no port; give a number from 1 to {LARGEST_PORT}, as 80")
    return int(text)


def flow(number: int | None, source_port: int | None, destination_port: int | None) -> Flow | None:
    """Return a flow; None where nothing is said of it.

    Args:
        number: of the protocol.
        source_port: of the packets.
        destination_port: of the packets.

    Raises:
        ValueError: where ports are given of what has none.
    """
    named = next((each for each in (destination_port, source_port) if each is not None), None)
    if number is None and named is not None:
        raise ValueError(f"port {named} is of no protocol; give --proto tcp, udp or sctp as well")
    if number is None:
        return None
    if named is not None and number not in WITH_PORTS:
        raise ValueError(
            f"{name_of(number)} has no ports, and port {named} was given; leave it out, or give --proto tcp"
        )
    return Flow(number, source_port, destination_port)
