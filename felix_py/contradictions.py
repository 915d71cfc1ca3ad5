"""Resources that contradict each other: overlapping pools, shared addresses, stray blocks, doubled sessions."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from felix_py.model import BGPPeer, BlockAffinity, Fault, IPAddress, IPNetwork, IPPool, Key, Node, Resource, lies_in

Placed: TypeAlias = Mapping[Key, tuple[str, Resource]]
"""Resources by key, each with the file that it stands in."""


def find(resources: Placed, in_force: Placed | None = None) -> Iterator[tuple[Key, Fault]]:
    """Find resources that contradict others; each loser is named with its rival.

    Args:
        resources: value and place of each valid resource.
        in_force: what holds already: it was there first and wins over news; among equals the first by name wins.
    """
    held = in_force or {}
    order = sorted(resources.items(), key=lambda item: (held.get(item[0], (None, None))[1] != item[1][1], item[0]))
    yield from _overlapping_pools(order)
    yield from _shared_addresses(order)
    yield from _blocks_outside_pools(order)
    yield from _shared_sessions(order)


Ordered: TypeAlias = list[tuple[Key, tuple[str, Resource]]]


def _overlapping_pools(order: Ordered) -> Iterator[tuple[Key, Fault]]:
    seen: list[IPPool] = []
    for key, (where, value) in order:
        if not isinstance(value, IPPool):
            continue
        rival = next((pool for pool in seen if pool.cidr.overlaps(value.cidr)), None)
        if rival is None:
            seen.append(value)
            continue
        sentence = f"is {value.cidr}, which overlaps IPPool {rival.name} ({rival.cidr}); give it a range of its own"
        yield key, Fault(f"{where}: {key}", "spec.cidr", sentence)


def _shared_addresses(order: Ordered) -> Iterator[tuple[Key, Fault]]:
    seen: dict[IPAddress, str] = {}
    for key, (where, value) in order:
        if not isinstance(value, Node):
            continue
        for address in value.addresses:
            rival = seen.setdefault(address, value.name)
            if rival != value.name:
                sentence = f"is {address}, which Node {rival} has already; give each node an address of its own"
                yield key, Fault(f"{where}: {key}", f"spec.bgp.ipv{address.version}Address", sentence)


def _shared_sessions(order: Ordered) -> Iterator[tuple[Key, Fault]]:
    seen: dict[object, BGPPeer] = {}
    for key, (where, value) in order:
        # Selectors may overlap, and then the order of peers decides; the same words twice are a mistake.
        if not isinstance(value, BGPPeer) or value.peer_ip is None:
            continue
        rival = seen.setdefault((value.peer_ip, value.port, value.node, value.node_selector), value)
        if rival is not value:
            sentence = f"is {value.peer_ip}, with whom BGPPeer {rival.name} holds the same nodes' sessions; keep one"
            yield key, Fault(f"{where}: {key}", "spec.peerIP", sentence)


def _blocks_outside_pools(order: Ordered) -> Iterator[tuple[Key, Fault]]:
    pools = [value.cidr for _, (_, value) in order if isinstance(value, IPPool)]
    claimed: dict[IPNetwork, BlockAffinity] = {}
    for key, (where, value) in order:
        # One that is only claimed is no contradiction: whoever comes second finds that out, and takes it back.
        if not isinstance(value, BlockAffinity) or not value.confirmed:
            continue
        rival = claimed.setdefault(value.cidr, value)
        if not any(lies_in(value.cidr, pool) for pool in pools):
            yield key, Fault(f"{where}: {key}", "spec.cidr", f"is {value.cidr}, which lies in no IPPool; add the pool")
        elif rival.node != value.node:
            sentence = f"is {value.cidr}, which {rival.name} gives to node {rival.node}; a block has one node"
            yield key, Fault(f"{where}: {key}", "spec.cidr", sentence)
