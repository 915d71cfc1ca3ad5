"""The table of tunnels that a trace knows: how much each adds, by which device packets enter it, and who gets them."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from felix_py.kernel.flow import Flow
from felix_py.trace.words import Packet
from ipip import tunnel


class Remote(Enum):
    """Who says which node gets a packet."""

    GATEWAY = "the gateway of the route"
    FORWARDING = "the forwarding entry of the gateway's hardware address"


class Encapsulation(NamedTuple):
    """A way to wrap packets.

    Attributes:
        devices: where packets go in, and come out at the other end, by the version of IP inside.
        overhead: bytes that the outer headers add, by the version of IP outside.
        protocol: number of the IP protocol of the outer header.
        port: the UDP port, where it is UDP.
        remote: who says which node gets a packet.
    """

    name: str
    devices: Mapping[int, str]
    overhead: Mapping[int, int]
    protocol: int
    port: int | None
    remote: Remote


TABLE: Mapping[str, Encapsulation] = {
    each.name: each
    for each in (
        Encapsulation("ipip", {4: tunnel.DEVICE}, {4: tunnel.OVERHEAD}, 4, None, Remote.GATEWAY),
        # RFC 7348 section 5: outer IP, 8 of UDP, 8 of VXLAN, 14 of the inner Ethernet; the names are Calico's.
        Encapsulation("vxlan", {4: "vxlan.calico", 6: "vxlan-v6.calico"}, {4: 50, 6: 70}, 17, 4789, Remote.FORWARDING),
    )
}
"""By name; a further encapsulation is a line here."""


def of_device(device: str | None) -> Encapsulation | None:
    """Return what a device wraps packets in; None where it is no tunnel."""
    return next((each for each in TABLE.values() if device in each.devices.values()), None)


def flow_of(packet: Packet) -> Flow | None:
    """Return protocol and ports of a packet; a tunnel's packet has those of its kind. None where nobody says."""
    if packet.encapsulation is None:
        return packet.flow
    kind = TABLE[packet.encapsulation]
    return Flow(kind.protocol, None, kind.port)


def unsaid(packet: Packet, *ports: str) -> str:
    """Say what would have to be said of a packet for a rule to be judged.

    Args:
        packet: whose flow is not known, or not whole.
        ports: the options of trace by which the ports are given that the rule looks at.
    """
    if packet.encapsulation is not None:
        return "the tunnel chooses the port that it sends from"
    return "give --proto, and --port where it has ports" if packet.flow is None else f"give {' and '.join(ports)}"
