"""What a node's VXLAN device should be, and what is known of those of others; no I/O."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address

DEVICES: Mapping[int, str] = {4: "vxlan.calico", 6: "vxlan-v6.calico"}
"""By version of IP, outside as inside; the names that Calico's users look for."""

OVERHEAD: Mapping[int, int] = {4: 50, 6: 70}
"""Bytes by version of the outer IP: its header, 8 of UDP, 8 of VXLAN, 14 of the inner Ethernet (RFC 7348 section 5)."""

MINIMUM_MTU: Mapping[int, int] = {4: 576, 6: 1280}
"""Bytes that every host must accept (RFC 791 section 3.1), and that every link must carry (RFC 8200 section 5)."""

NOTHING = IPv4Address(0)
"""Stands in what was read back for an address that is not as anyone would want it."""

Entries: TypeAlias = frozenset[tuple[str, IPAddress]]
"""A hardware address, and an address of IP that goes with it."""


@dataclass(frozen=True, slots=True)
class Vxlan:
    """One device that reaches every other node, as desired or as read back.

    Attributes:
        local: source of the outer header: this node's own address.
        mtu: bytes of the inner packet.
        vni: network identifier, 24 bits.
        port: UDP port, here and there.
        mac: of the device, in lower case with colons.
        address: the device's own inner address, kept as a host prefix, so that the host has a source that answers come
            back to through the tunnel; None where the node has no block to take one from.
        forwarding: hardware address of each other node's device, and the node (outer destination).
        neighbours: the same hardware addresses, and what routes name as their gateway.
        up: administrative state.
    """

    local: IPAddress
    mtu: int
    vni: int
    port: int
    mac: str
    address: IPAddress | None = None
    forwarding: Entries = frozenset()
    neighbours: Entries = frozenset()
    name: str = DEVICES[4]
    up: bool = True


@lru_cache(maxsize=1 << 14)
def mac_of(node: str, version: int) -> str:
    """Return the hardware address of a node's device, which every node works out from the name alone.

    It is Calico's: the letter f, then the first five bytes of the SHA-1 of the name, `-v6` appended for IPv6. Its first
    byte, 0x66, says that it was given out locally and is of one interface.
    """
    named = node if version == 4 else f"{node}-v6"  # noqa: PLR2004 - IP versions
    return (b"f" + hashlib.sha1(named.encode(), usedforsecurity=False).digest()[:5]).hex(":")


def link_local(mac: str) -> IPv6Address:
    """Return the link-local address that the kernel gives to an interface with this MAC (RFC 4291 appendix A)."""
    parts = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([parts[0] ^ 2, *parts[1:3], 0xFF, 0xFE, *parts[3:]])
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def gateway(node: IPAddress, mac: str) -> IPAddress:
    """Return what routes to a node name as their gateway on the device.

    Any address would do, as the neighbour entry says whose hardware address is behind it. An IPv4 node is its own, as
    in IP in IP; the kernel takes no gateway of IPv6 to which another interface leads, so there it is link-local.
    """
    return node if isinstance(node, IPv4Address) else link_local(mac)


def mtu(underlay: int, version: int) -> int:
    """Return the largest inner packet, in bytes, that one frame of the underlay can carry."""
    return max(underlay - OVERHEAD[version], MINIMUM_MTU[version])


def before_routes(want: Vxlan, have: Vxlan | None) -> Vxlan:
    """Return what to make before routes move: all that is wanted, beside what routes may still lead to."""
    if have is None:
        return want
    forwarding, neighbours = {mac for mac, _ in want.forwarding}, {address for _, address in want.neighbours}
    return replace(
        want,
        forwarding=want.forwarding | {entry for entry in have.forwarding if entry[0] not in forwarding},
        neighbours=want.neighbours | {entry for entry in have.neighbours if entry[1] not in neighbours},
    )


def differences(want: Vxlan, have: Vxlan) -> Mapping[str, tuple[object, object]]:
    """Name every attribute that differs, with the value wanted and the value found."""
    names = ("local", "mtu", "vni", "port", "mac", "address", "forwarding", "neighbours", "up")
    pairs = {name: (getattr(want, name), getattr(have, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
