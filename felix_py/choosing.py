"""Where an address comes from: which pools serve, and which block is claimed or borrowed from next; each with why."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias
from zlib import crc32

from felix_py.ipam import Block, Terms
from felix_py.model import (
    BlockAffinity,
    IPAddress,
    IPNetwork,
    IPPool,
    IPReservation,
    Key,
    Namespace,
    NodeName,
    Use,
    lies_in,
)
from felix_py.state import ClusterState

NAMESPACE_NAMES = ("projectcalico.org/name", "kubernetes.io/metadata.name")
"""Labels that every namespace has: its name, as Calico and as Kubernetes put it."""

IPV4 = 4
"""Address version, as `ipaddress` numbers it."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who wants an address.

    Attributes:
        namespace: of the pod; None for what is in none.
        pools: version of IP, and name or range of each pool that it asks for; others of that version do not serve it.
    """

    node: NodeName
    use: Use = Use.WORKLOAD
    namespace: str | None = None
    pools: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """This block is claimed next, and this is why."""

    cidr: IPNetwork
    pool: str
    why: str


@dataclass(frozen=True, slots=True)
class NoneLeft:
    """No block can be claimed, and this is why."""

    why: str


Choice: TypeAlias = Chosen | NoneLeft


def refusal(cluster: ClusterState, pool: IPPool, client: Client) -> str | None:
    """Say why a pool does not serve a client, the first rule that fits; None where it does."""
    named = f"namespace {client.namespace}" if client.namespace else "pods without a namespace"
    asked = [each for version, each in client.pools if version == pool.cidr.version]
    rules = (
        (bool(asked) and not {pool.name, str(pool.cidr)} & {*asked}, f"the pod asks for {', '.join(asked)}"),
        (client.use not in pool.uses, f"its allowedUses lack {client.use}"),
        (
            pool.namespace_selector is not None
            and client.use is Use.WORKLOAD
            and not pool.namespace_selector.matches(_labels(cluster, client.namespace)),
            f"its namespaceSelector {pool.namespace_selector} does not select {named}",
        ),
    )
    found = next((f"IPPool {pool.name} does not serve: {why}" for applies, why in rules if applies), None)
    return node_refusal(cluster, pool, client) or found


def node_refusal(cluster: ClusterState, pool: IPPool, client: Client) -> str | None:
    """Say why a pool serves nobody of a client's node; None where it serves some."""
    node = cluster.node(client.node)
    rules = (
        (pool.disabled, "it is disabled"),
        (
            pool.node_selector is not None and not pool.node_selector.matches(node.labels if node else {}),
            f"its nodeSelector {pool.node_selector} does not select node {client.node}",
        ),
    )
    return next((f"IPPool {pool.name} does not serve: {why}" for applies, why in rules if applies), None)


def _labels(cluster: ClusterState, namespace: str | None) -> dict[str, str]:
    if namespace is None:
        return {}
    found = cluster.resources.get(Key("Namespace", namespace))
    labels = found.labels if isinstance(found, Namespace) else {}
    return {**dict.fromkeys(NAMESPACE_NAMES, namespace), **labels}


def versions(cluster: ClusterState, client: Client, own: Iterable[IPNetwork]) -> tuple[int, ...]:
    """Return of which versions of IP a client has an address: those of the node's blocks, and of pools to claim from.

    A node without an IPv6 address of its own could not be reached, so it claims no blocks of IPv6.
    """
    found = {cidr.version for cidr in own}
    node = cluster.node(client.node)
    if cluster.ipam().claims_blocks:
        pools, _ = serving(cluster, client)
        found |= {pool.cidr.version for pool in pools if pool.cidr.version == IPV4 or (node and node.address6)}
    return tuple(sorted(found)) or (IPV4,)


def serving(cluster: ClusterState, client: Client) -> tuple[tuple[IPPool, ...], tuple[str, ...]]:
    """Return the pools that serve a client, those with a namespaceSelector first, and why the others do not."""
    pools = [(pool, refusal(cluster, pool, client)) for pool in cluster.of(IPPool)]
    found = [pool for pool, why in pools if why is None]
    # Whoever selects namespaces means them; a pool for everybody is what is left for those that are not meant.
    found.sort(key=lambda pool: pool.namespace_selector is None)
    return tuple(found), tuple(why for _, why in pools if why is not None)


def terms(cluster: ClusterState, now: datetime | None) -> Terms:
    """Return on which terms addresses are given at a time."""
    reserved = tuple(cidr for each in cluster.of(IPReservation) for cidr in each.cidrs)
    return Terms(now, cluster.ipam().cooldown, reserved)


def next_block(
    cluster: ClusterState,
    pools: Iterable[IPPool],
    node: NodeName,
    own: Collection[IPNetwork],
    taken: Iterable[IPNetwork],
) -> Choice:
    """Choose the block that a node claims next.

    Every node begins to look at another place, by its name: so nodes that ask at the same time seldom meet.

    Args:
        cluster: all resources.
        pools: those that serve, of one version of IP.
        node: who claims.
        own: the node's blocks of that version.
        taken: blocks that exist, are claimed, or are announced by somebody else.
    """
    rules, pools = cluster.ipam(), tuple(pools)
    if not rules.claims_blocks:
        return NoneLeft(f"node {node} may claim no block (autoAllocateBlocks is false); add a BlockAffinity for it")
    if len(own) >= rules.max_blocks:
        return NoneLeft(f"node {node} has {len(own)} blocks already (maxBlocksPerHost is {rules.max_blocks})")
    reserved = terms(cluster, None).reserved
    occupied = tuple(taken)
    for pool in pools:
        inside = {each for each in occupied if each.version == pool.cidr.version and each.overlaps(pool.cidr)}
        others = [each for each in inside if each.prefixlen != pool.block_size]
        for position, cidr in _candidates(pool, node):
            if cidr in inside or any(map(cidr.overlaps, others)) or any(lies_in(cidr, each) for each in reserved):
                continue
            return Chosen(cidr, pool.name, f"the first free block of IPPool {pool.name} from number {position} on")
    names = ", ".join(f"IPPool {pool.name} ({pool.cidr})" for pool in pools)
    return NoneLeft(f"no block is left in {names}" if names else "there is no IPPool to claim a block from")


def _candidates(pool: IPPool, node: NodeName) -> Iterator[tuple[int, IPNetwork]]:
    """Yield all blocks of a pool, from the node's own place on, with the number of that place."""
    count = 1 << max(0, pool.block_size - pool.cidr.prefixlen)
    size = 1 << (pool.cidr.max_prefixlen - pool.block_size)
    first, start = int(pool.cidr.network_address), crc32(node.encode()) % count
    network: type[IPv4Network | IPv6Network] = IPv4Network if pool.cidr.version == IPV4 else IPv6Network
    for step in range(count):
        number = (start + step) % count
        yield start, network((first + number * size, pool.block_size))


def lenders(pools: Iterable[IPPool], node: NodeName, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Return the blocks of others that an address may be borrowed from, in the order in which a node asks."""
    ranges = [pool.cidr for pool in pools]
    found = [block for block in blocks if block.affinity != node and any(lies_in(block.cidr, each) for each in ranges)]
    return tuple(sorted(found, key=lambda block: (crc32(f"{node} {block.cidr}".encode()), str(block.cidr))))


def by_hand(cluster: ClusterState, node: NodeName, kept: Collection[str]) -> tuple[IPNetwork, ...]:
    """Return the confirmed blocks of a node whose affinities are not among the claims that nodes keep themselves."""
    return tuple(
        each.cidr
        for each in cluster.of(BlockAffinity)
        if each.node == node and each.confirmed and each.name not in kept
    )


def block_in(pools: Iterable[IPPool], address: IPAddress) -> IPNetwork | None:
    """Return the block of a pool that an address is in, or would be."""
    pool = next((each for each in pools if address in each.cidr), None)
    return ip_network((address, pool.block_size), strict=False) if pool is not None else None
