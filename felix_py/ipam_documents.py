"""Pools, blocks and addresses as documents: who holds what since when, and what does not fit."""

from felix_py import choosing, ipam_check
from felix_py.choosing import Client
from felix_py.documents import Document, time
from felix_py.ipam import Block, Holder, Terms
from felix_py.ipam_check import Books
from felix_py.model import BlockAffinity, IPAddress, IPPool, lies_in


def pools(books: Books) -> Document:
    """Return the pools, each with what is used of it in the whole cluster."""
    return {"node": books.node, "pools": [_pool(pool, books) for pool in books.cluster.of(IPPool)]}


def _pool(pool: IPPool, books: Books) -> Document:
    inside = [block for block in books.blocks if lies_in(block.cidr, pool.cidr)]
    size, used = _size(pool), sum(block.used for block in inside)
    refusal = choosing.node_refusal(books.cluster, pool, Client(books.node))
    return {
        "name": pool.name,
        "cidr": str(pool.cidr),
        "blockSize": pool.block_size,
        "ipipMode": str(pool.ipip_mode),
        "vxlanMode": str(pool.vxlan_mode),
        "natOutgoing": pool.nat_outgoing,
        "allowedUses": sorted(map(str, pool.uses)),
        "nodeSelector": str(pool.node_selector or "all()"),
        "namespaceSelector": str(pool.namespace_selector or "all()"),
        "size": size,
        "used": used,
        "free": size - used,
        "blocks": len(inside),
        "state": "serves this node" if refusal is None else refusal.split(": ", maxsplit=1)[1],
    }


def _size(pool: IPPool) -> int:
    return 1 << (pool.cidr.max_prefixlen - pool.cidr.prefixlen)


def blocks(books: Books, terms: Terms) -> Document:
    """Return all blocks of all nodes, and those that are given to a node and not used yet."""
    written = {block.cidr: block for block in books.blocks}
    given = {each.cidr: each.node for each in books.cluster.of(BlockAffinity) if each.confirmed}
    rest = [Block(cidr, node) for cidr, node in given.items() if cidr not in written]
    every = sorted((*books.blocks, *rest), key=lambda each: (each.cidr.version, int(each.cidr.network_address)))
    return {"node": books.node, "blocks": [_block(block, books, terms) for block in every]}


def _block(block: Block, books: Books, terms: Terms) -> Document:
    claim = next((each for each in books.claims if (each.cidr, each.node) == (block.cidr, block.affinity)), None)
    cooling = sum(not terms.allow(since) for since in block.released.values())
    pool = next((pool.name for pool in books.cluster.of(IPPool) if lies_in(block.cidr, pool.cidr)), None)
    return {
        "cidr": str(block.cidr),
        "pool": pool,
        "node": block.affinity,
        "state": str(claim.claim) if claim else "by hand" if block.affinity else "given up",
        "size": block.size,
        "used": block.used,
        "free": block.size - block.used - cooling,
        "cooling": cooling,
        "borrowed": sum(holder.node != block.affinity for holder in block.held.values()),
        "allocations": [_held(address, holder) for address, holder in block.holders.items()],
    }


def _held(address: IPAddress, holder: Holder) -> Document:
    known = holder.details
    return {
        "address": str(address),
        "handle": holder.handle,
        "node": holder.node or None,
        "pod": f"{known['namespace']}/{known['pod']}" if "pod" in known else None,
        "endpoint": known.get("endpoint"),
        "container": known.get("containerID"),
        "interface": known.get("hostInterface"),
        "since": time(holder.since),
    }


def address(books: Books, wanted: IPAddress, terms: Terms) -> Document:
    """Return everything that is known of one address."""
    block = next((each for each in books.blocks if wanted in each.cidr), None)
    pool = next((each.name for each in books.cluster.of(IPPool) if wanted in each.cidr), None)
    holder = block.holder(wanted) if block else None
    facts: Document = {
        "address": str(wanted),
        "pool": pool,
        "block": str(block.cidr) if block else None,
        "blockNode": block.affinity if block else None,
        "state": _state(block, wanted, terms, pool),
    }
    return facts | (_held(wanted, holder) if holder else {}) | _borrowed(block, holder)


def _borrowed(block: Block | None, holder: Holder | None) -> Document:
    return {"borrowed": bool(block and holder and holder.node != block.affinity)}


def _state(block: Block | None, wanted: IPAddress, terms: Terms, pool: str | None) -> str:
    """Say how an address is, the first line that fits."""
    if block is not None and block.holder(wanted) is not None:
        return "held"
    if pool is None:
        return "in no IPPool"
    if block is not None and not terms.allow(block.released.get(block.ordinal(wanted) or 0)):
        return "cools down"
    if any(wanted in network for network in terms.reserved):
        return "reserved"
    return "free" if block is not None else "in no block"


def check(books: Books) -> Document:
    """Return what does not fit."""
    found = ipam_check.findings(books)
    rows = [{"subject": each.subject, "problem": each.problem, "fix": each.fix} for each in found]
    return {
        "node": books.node,
        "blocks": len(books.blocks),
        "addresses": sum(block.used for block in books.blocks),
        "findings": rows,
    }
