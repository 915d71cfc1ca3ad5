"""What does not fit in what is written down of blocks and addresses, each with the fix; it changes nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from felix_py.ipam import Block, Holder
from felix_py.model import BlockAffinity, Claim, IPAddress, IPNetwork, IPPool, Node, NodeName, lies_in
from felix_py.state import ClusterState


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit.

    Attributes:
        subject: the block, address or claim that it is about.
        problem: what is wrong, as a sentence without its full stop.
        fix: what to do, or who does it by himself.
    """

    subject: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that is written down.

    Attributes:
        damaged: sentences about what cannot be understood.
        claims: affinities that nodes keep.
        node: the one that looks.
        in_use: which address this node's pods and tunnels use, and by which handle.
    """

    cluster: ClusterState
    blocks: tuple[Block, ...]
    damaged: tuple[str, ...]
    claims: tuple[BlockAffinity, ...]
    node: NodeName
    in_use: Mapping[IPAddress, str]


def findings(books: Books) -> tuple[Finding, ...]:
    """Return everything that does not fit."""
    return (
        *(
            Finding("datastore", each, "its node puts it aside and writes it anew with its next pod")
            for each in books.damaged
        ),
        *_overlaps(books.blocks),
        *_blocks(books),
        *_claims(books),
        *_strangers(books),
        *_here(books),
    )


def _overlaps(blocks: Iterable[Block]) -> Iterator[Finding]:
    before: Block | None = None
    for block in sorted(
        blocks, key=lambda each: (each.cidr.version, int(each.cidr.network_address), each.cidr.prefixlen)
    ):
        if before is not None and before.cidr.overlaps(block.cidr):
            problem = f"shares addresses with {before}"
            yield Finding(str(block), problem, "move the pods of one of them, and release its addresses")
        else:
            before = block  # networks overlap only where one lies in the other, and the larger one comes first


def _blocks(books: Books) -> Iterator[Finding]:
    pools, nodes = books.cluster.of(IPPool), {node.name for node in books.cluster.of(Node)}
    for block in books.blocks:
        if not any(lies_in(block.cidr, pool.cidr) for pool in pools):
            fix = f"add an IPPool for it, or delete its {block.used} pods"
            yield Finding(str(block), "lies in no IPPool, so its addresses are not routed", fix)
        if block.affinity is None and not block.held:
            yield Finding(
                str(block), "belongs to nobody, and nobody uses it", "the next node that needs a block claims it"
            )
        if block.affinity is not None and block.affinity not in nodes:
            problem = f"belongs to node {block.affinity}, which does not exist"
            yield Finding(str(block), problem, "the other nodes take it back after 15 minutes")


def _claims(books: Books) -> Iterator[Finding]:
    owners: dict[IPNetwork, NodeName | None] = {block.cidr: block.affinity for block in books.blocks}
    for claim in books.claims:
        subject = f"claim of node {claim.node} to block {claim.cidr}"
        owner = owners.get(claim.cidr)
        if claim.claim is Claim.PENDING and owner not in (None, claim.node):
            yield Finding(
                subject, f"was begun, and node {owner} has the block", f"it goes when node {claim.node} claims next"
            )
        elif claim.claim is not Claim.CONFIRMED:
            word = "begun" if claim.claim is Claim.PENDING else "being ended"
            yield Finding(
                subject, f"was {word} and is not finished", f"it goes on when node {claim.node} needs a block"
            )
        elif claim.cidr not in owners:
            yield Finding(subject, "is confirmed, and the block is gone", "its node writes it anew with its next pod")
        elif owner != claim.node:
            problem = f"is confirmed, and the block says {f'node {owner}' if owner else 'nobody'}"
            yield Finding(subject, problem, f"start the agent of node {claim.node} anew")
    for affinity in books.cluster.of(BlockAffinity):
        owner = owners.get(affinity.cidr, affinity.node)
        if affinity not in books.claims and affinity.confirmed and owner not in (None, affinity.node):
            problem = f"gives the block {affinity.cidr} to node {affinity.node}, and node {owner} uses it"
            yield Finding(f"BlockAffinity {affinity.name}", problem, f"give node {affinity.node} another block")


def _strangers(books: Books) -> Iterator[Finding]:
    nodes = {node.name for node in books.cluster.of(Node)}
    for block in books.blocks:
        for address, holder in block.holders.items():
            if holder.node not in nodes:
                problem = f"is held by {holder} on node {holder.node}, which does not exist"
                yield Finding(str(address), problem, "the other nodes take it back after 15 minutes")


def _here(books: Books) -> Iterator[Finding]:
    written = dict(held_by(books.blocks, books.node))
    for address, holder in written.items():
        if books.in_use.get(address) != holder.handle:
            problem = f"is held by {holder}, and nothing here uses it"
            yield Finding(
                str(address), problem, f"it is taken back after 15 minutes; or `felixctl ipam release {address}`"
            )
    for address, handle in books.in_use.items():
        if address not in written:
            yield Finding(str(address), f"is used by {handle}, and no block says so", "it is written with the next pod")


def held_by(blocks: Iterable[Block], node: NodeName) -> Iterator[tuple[IPAddress, Holder]]:
    """Yield what a node holds."""
    for block in blocks:
        for address, holder in block.holders.items():
            if holder.node == node:
                yield address, holder
