"""What a node's IP-in-IP tunnel should be; no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

OVERHEAD = 20
"""Bytes: one outer IPv4 header without options, RFC 2003 section 3."""

DEVICE = "tunl0"
"""The name that the kernel's ipip module gives to its fallback device; Calico's users look for it."""

MINIMUM_MTU = 576
"""Bytes: every IPv4 host must accept datagrams of this size, RFC 791 section 3.1."""

Driver = Literal["kernel", "ebpf", "tun"]
"""What carries the packets: the ipip module, programs of ours in the kernel, or a process of ours on a TUN device."""

Asked = Literal["auto", "kernel", "ebpf", "tun"]
"""What the settings may say."""


class TunnelRefused(Exception):  # noqa: N818 - named for what the caller does: try again later
    """The tunnel could not be made as wanted; one sentence says what stands in the way and what to do."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One device that reaches every other node, as desired or as read back.

    Attributes:
        local: source of the outer header: this node's own address.
        address: the tunnel's own inner address, kept as a /32, so that the host has a source that answers come
            back to through the tunnel; None where the node has no block to take one from.
        mtu: bytes of the inner packet.
        routes: which inner prefixes go to which node (outer destination). The kernel driver reads the same fact from
            the gateway of the FIB's routes and needs no copy, so it reports what it was given.
        allowed: the only outer sources that are decapsulated.
        up: administrative state.
    """

    local: IPv4Address
    mtu: int
    address: IPv4Address | None = None
    routes: frozenset[tuple[IPv4Network, IPv4Address]] = frozenset()
    allowed: frozenset[IPv4Address] = frozenset()
    name: str = DEVICE
    up: bool = True


NOTHING = IPv4Address(0)
"""Stands in what was read back for an address that is not as anyone would want it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a driver says that it carries; as it stands here: nothing at all."""

    local: IPv4Address = NOTHING
    routes: frozenset[tuple[IPv4Network, IPv4Address]] = frozenset()
    allowed: frozenset[IPv4Address] = frozenset()


def differences(want: Tunnel, have: Tunnel) -> Mapping[str, tuple[object, object]]:
    """Name every attribute that differs, with the value wanted and the value found."""
    names = ("local", "mtu", "address", "routes", "allowed", "up")
    pairs = {name: (getattr(want, name), getattr(have, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
