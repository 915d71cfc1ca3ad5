"""The maps of our programs at pods' interfaces: what the agent writes into them, and what they have counted.

The layouts are those of guard.bpf.c. Interfaces stand there by their index, which no later one has.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct

from felix_py.model import IPAddress
from ipip import bpf
from ipip.bpf_object import MapShape

INDEX, COUNT = Struct("=I"), Struct("=Q")
FIRST = bytes(4)
"""Key of the only set of ports."""

YES = b"\1"
MOST_PORTS = 4

COUNTERS = ("pod-encapsulated", "pod-spoofed", "interface-unknown")
"""In the order of guard.bpf.c's reasons; called as the counters of the nftables table are, for they count the same."""

Maps = dict[str, bpf.Map]


@dataclass
class Contents:
    """What stands in the maps.

    Attributes:
        pods: the interfaces of known pods, by index.
        sources: index and address of each that may send.
    """

    pods: set[int] = field(default_factory=set)
    sources: set[tuple[int, IPAddress]] = field(default_factory=set)
    ports: frozenset[int] = frozenset()

    def by_index(self) -> dict[int, frozenset[IPAddress]]:
        """Return what each known pod's interface may send from."""
        found: dict[int, set[IPAddress]] = {index: set() for index in self.pods}
        for index, address in self.sources:
            found.setdefault(index, set()).add(address)
        return {index: frozenset(addresses) for index, addresses in found.items()}


def make(shapes: Mapping[str, MapShape]) -> Maps:
    """Make maps without anything in them: pods' interfaces pass nothing."""
    made: Maps = {}
    try:
        for name, shape in shapes.items():
            made[name] = bpf.make_map(name, shape)
    except OSError:
        close(made)
        raise
    return made


def close(maps: Maps) -> None:
    """Let go of the maps; they stay for as long as a program is attached that uses them."""
    for each in maps.values():
        os.close(each.descriptor)
    maps.clear()


def read(maps: Maps) -> Contents:
    """Return what stands in the maps."""
    pods = {INDEX.unpack(key)[0] for key in bpf.keys(maps["pods"])}
    sources = {
        (INDEX.unpack_from(key)[0], ip_address(key[4:]))
        for name in ("sources", "sources6")
        for key in bpf.keys(maps[name])
    }
    octets = bpf.read(maps["ports"], FIRST) or b""
    ports = (int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2))
    return Contents(pods, sources, frozenset(port for port in ports if port))


def change(maps: Maps, have: Contents, want: Contents) -> None:
    """Write what differs, and note it in `have` as it is done; who may send less is told that first.

    Raises:
        ValueError: when there are more than MOST_PORTS ports; nothing was written then.
    """
    ports = _octets(want.ports)
    for index, address in have.sources - want.sources:
        bpf.remove(maps[_map(address)], INDEX.pack(index) + address.packed)
        have.sources.discard((index, address))
    for index in have.pods - want.pods:
        bpf.remove(maps["pods"], INDEX.pack(index))
        have.pods.discard(index)
    if have.ports != want.ports:
        bpf.write(maps["ports"], FIRST, ports)
        have.ports = want.ports
    for index in want.pods - have.pods:
        bpf.write(maps["pods"], INDEX.pack(index), YES)
        have.pods.add(index)
    for index, address in want.sources - have.sources:
        bpf.write(maps[_map(address)], INDEX.pack(index) + address.packed, YES)
        have.sources.add((index, address))


def admit(maps: Maps, have: Contents, index: int, addresses: Iterable[IPAddress]) -> None:
    """Let one more interface send, from these addresses; the others stay as they are."""
    bpf.write(maps["pods"], INDEX.pack(index), YES)
    have.pods.add(index)
    for address in addresses:
        bpf.write(maps[_map(address)], INDEX.pack(index) + address.packed, YES)
        have.sources.add((index, address))


def counters(maps: Maps) -> dict[str, int]:
    """Return how many packets were dropped, by the names in `COUNTERS`."""
    return {
        name: sum(COUNT.unpack(each)[0] for each in bpf.read_per_cpu(maps["counters"], INDEX.pack(number)))
        for number, name in enumerate(COUNTERS)
    }


def _map(address: IPAddress) -> str:
    match address:
        case IPv4Address():
            return "sources"
        case IPv6Address():
            return "sources6"


def _octets(ports: Iterable[int]) -> bytes:
    octets = b"".join(port.to_bytes(2, "big") for port in sorted(ports))
    if len(octets) > 2 * MOST_PORTS:
        raise ValueError(f"{len(octets) // 2} ports of tunnels, and room for {MOST_PORTS}")
    return octets.ljust(2 * MOST_PORTS, b"\0")
