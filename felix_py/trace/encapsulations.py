"""The table of tunnels that a trace knows: how much each adds, and by which device packets enter and leave it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ipip import tunnel


class Encapsulation(NamedTuple):
    """A way to wrap packets.

    Attributes:
        device: where packets go in, and where they come out at the other end.
        overhead: bytes that the outer headers add.
        protocol: as the outer header says it, in the words of nft: protocol 4 for IP in IP, UDP for others.
        chain: the counter of our packet filter that counts what strangers send.
    """

    name: str
    device: str
    overhead: int
    protocol: str


TABLE: Mapping[str, Encapsulation] = {"ipip": Encapsulation("ipip", tunnel.DEVICE, tunnel.OVERHEAD, "4")}
"""By name; a further encapsulation is a line here, as long as its routes name the remote node as their gateway."""


def of_device(device: str | None) -> Encapsulation | None:
    """Return what a device wraps packets in; None where it is no tunnel."""
    return next((each for each in TABLE.values() if each.device == device), None)


def overhead(names: Iterable[str]) -> int:
    """Return the bytes that these add together."""
    return sum(TABLE[name].overhead for name in names)
