"""What the parts of a lab must not do to each other: names and addresses are shared, blocks outside of pools."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Network
from typing import TypeAlias

from felix_py.lab.topology import LabNode, Network, Thing, Topology
from felix_py.model import IPAddress, IPNetwork, lies_in

Complaints: TypeAlias = Iterator[tuple[str, str]]


def _shared_names(topology: Topology) -> Complaints:
    seen: dict[str, str] = {}
    for path, name in _all_names(topology):
        rival = seen.setdefault(name, path)
        if rival != path:
            yield path, f"has the name {name}, which {rival} has already; give each thing a name of its own"


def _all_names(topology: Topology) -> Iterator[tuple[str, str]]:
    sections: Mapping[str, tuple[Thing, ...]] = {
        "networks": topology.networks,
        "routers": topology.routers,
        "nodes": topology.nodes,
        "hosts": topology.hosts,
        "reflectors": topology.reflectors,
    }
    for section, things in sections.items():
        for thing in things:
            yield f"{section}.{thing.name}", thing.name
    for pod, node in topology.pods.items():
        yield f"nodes.{node.name}.pods ({pod})", pod


def _shared_addresses(topology: Topology) -> Complaints:
    seen: dict[IPAddress, str] = {}
    for path, address in _all_addresses(topology):
        rival = seen.setdefault(address, path)
        if rival != path:
            yield path, f"is {address}, which {rival} has already; give each machine an address of its own"
    networks: list[Network] = []
    for network in topology.networks:
        for other in networks:
            for mine, theirs in itertools.product(network.cidrs, other.cidrs):
                if lies_in(mine, theirs) or lies_in(theirs, mine):
                    sentence = f"is {mine}, which overlaps {other.name} ({theirs}); give it a range of its own"
                    yield f"networks.{network.name}", sentence
        networks.append(network)


def _all_addresses(topology: Topology) -> Iterator[tuple[str, IPAddress]]:
    for router in topology.routers:
        for network in router.addresses:
            yield from ((f"routers.{router.name}.addresses.{network}", each) for each in router.ends(network))
    for node in topology.nodes:
        yield from ((f"nodes.{node.name}.address", each) for each in node.ends)
    for host in topology.hosts:
        yield from ((f"hosts.{host.name}.address", each) for each in host.ends)
    for reflector in topology.reflectors:
        yield from ((f"reflectors.{reflector.name}.address", each) for each in reflector.ends)


def _blocks(topology: Topology) -> Complaints:
    taken: dict[IPNetwork, str] = {}
    for node in topology.nodes:
        for position, block in enumerate(node.blocks):
            path = f"nodes.{node.name}.blocks[{position}]"
            yield from _block(topology, path, block, taken)
            if isinstance(block, IPv6Network) and node.address6 is None:
                yield (
                    path,
                    f"is {block}, and the node has no IPv6 address; give it one, as [{node.address.ip}, fd31:1::11]",
                )
            taken[block] = path
        room = _room(node)
        if node.pods > room and (node.blocks or not topology.pools):  # without any, it claims its own
            sentence = f"is {node.pods}, and its blocks have room for {room} (one address is the tunnel's)"
            yield f"nodes.{node.name}.pods", f"{sentence}; give the node another block, or fewer pods"


def _room(node: LabNode) -> int:
    """Return how many pods a node's blocks have addresses for: of each version of IP that it has blocks of."""
    rooms = {4: -1}
    for block in node.blocks:
        rooms[block.version] = rooms.get(block.version, 0) + block.num_addresses
    return max(min(rooms.values()), 0)


def _block(topology: Topology, path: str, block: IPNetwork, taken: Mapping[IPNetwork, str]) -> Complaints:
    pool = next((pool for pool in topology.pools if lies_in(block, pool.cidr)), None)
    if pool is None:
        yield path, f"is {block}, which lies in no pool; add one to cluster.ipPools"
    elif block.prefixlen != pool.block_size:
        yield path, f"is {block}, but blocks of pool {pool.name} are /{pool.block_size}; give one of that size"
    rival = next((other for other in taken if lies_in(other, block) or lies_in(block, other)), None)
    if rival is not None:
        yield path, f"is {block}, which overlaps {taken[rival]} ({rival}); a block has one node"


def _default_routes(topology: Topology) -> Complaints:
    for node in topology.nodes:
        if not topology.routers or topology.gateway(node.network) is not None:
            continue
        sentence = f"is {node.network}, which has no router; give a router an address there"
        yield f"nodes.{node.name}.network", sentence


CHECKS: tuple[tuple[str | None, Callable[[Topology], Complaints]], ...] = (
    (None, _shared_names),
    (None, _shared_addresses),
    ("cluster", _blocks),
    ("routers", _default_routes),
)
"""Each check of the whole, with the section that must be without faults for it to mean something."""
