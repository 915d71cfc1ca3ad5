"""Blocks and addresses between nodes that share a datastore: each protocol as a generator of steps, without the store.

A protocol yields `Read` and `Swap`, is sent what was found, and has `Conflict` thrown at it where a swap came too late.
Whoever drives it may stop for ever between any two steps; the next run of anybody's protocol finds a state that it can
go on from. The laws, which tests explore for every interleaving:

* an address has one holder, since a block changes only by a swap against the very block that was looked at;
* a node's affinity is confirmed only while the block is its own: who takes a block away says so in the affinity first,
  and who (again) claims it writes the block first, so that one of the two swaps comes too late.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from felix_py import ipam
from felix_py.ipam import Block, Holder, NotAssigned, Terms
from felix_py.model import BlockAffinity, Claim, IPAddress, IPNetwork, Key, NodeName

NOT_IN_NAMES = str.maketrans(".:/", "---")
"""What a resource's name may not hold (RFC 1123), as Calico replaces it."""

TRIES = 100
"""Swaps of one change that may come too late before it is given up, as in Calico (libcalico-go/lib/ipam)."""

Stored: TypeAlias = Block | BlockAffinity


class Conflict(Exception):  # noqa: N818 - named for what the caller does: read again
    """The resource is another one by now; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Found:
    """A resource as it is stored, and its revision: opaque, and another one after every change."""

    value: Stored
    revision: str


@dataclass(frozen=True, slots=True)
class Read:
    """Asks for the resource as it is now; the answer is `Found`, or None.

    Attributes:
        remembered: as it was known last will do too, since a swap follows, which tells whether it still is so.
    """

    key: Key
    remembered: bool = False


@dataclass(frozen=True, slots=True)
class Swap:
    """Asks for a change, if the resource still has this revision; the answer is the new revision.

    Attributes:
        value: what it is to be; None removes it.
        revision: None where it must not exist.
    """

    key: Key
    value: Stored | None
    revision: str | None


Step: TypeAlias = Read | Swap
Result = TypeVar("Result")
Protocol: TypeAlias = Generator[Step, Any, Result]


@dataclass(frozen=True, slots=True)
class Claimed:
    """The block is the node's own, and may be announced."""

    cidr: IPNetwork


@dataclass(frozen=True, slots=True)
class Lost:
    """The block is not the node's own, and this is why."""

    why: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A wish for an address; any of the block, or a particular one.

    Attributes:
        rather: one that is given before any other, where it may be.
    """

    holder: Holder
    address: IPAddress | None = None
    rather: IPAddress | None = None


@lru_cache(4096)
def block_key(cidr: IPNetwork) -> Key:
    """Return where a block is stored."""
    return Key("IPAMBlock", str(cidr).translate(NOT_IN_NAMES))


def affinity_key(node: NodeName, cidr: IPNetwork) -> Key:
    """Return where a node's claim to a block is stored."""
    return Key("BlockAffinity", f"{node}-{str(cidr).translate(NOT_IN_NAMES)}")


def claim(node: NodeName, cidr: IPNetwork) -> Protocol[Claimed | Lost]:
    """Make a block the node's own: affinity pending, block written, affinity confirmed; repeating it is safe."""
    key = affinity_key(node, cidr)
    found: Found | None = yield Read(key)
    if found is not None and isinstance(found.value, BlockAffinity) and found.value.confirmed:
        return Claimed(cidr)
    mine = BlockAffinity(key.name, node, cidr, Claim.PENDING)
    revision = yield Swap(key, mine, found.revision if found else None)
    lost = yield from take(node, cidr)
    if lost is not None:
        yield Swap(key, None, revision)
        return lost
    yield Swap(key, replace(mine, claim=Claim.CONFIRMED), revision)
    return Claimed(cidr)


def take(node: NodeName, cidr: IPNetwork) -> Protocol[Lost | None]:
    """Write the block as the node's own, even where it is that already: who is about to remove it comes too late."""
    key = block_key(cidr)
    found: Found | None = yield Read(key)
    before = _block(found) or Block(cidr)
    if before.affinity not in (None, node):
        return Lost(f"{before} belongs to node {before.affinity}")
    yield Swap(key, replace(before, affinity=node), found.revision if found else None)
    return None


def give_up(node: NodeName, cidr: IPNetwork, may_go: Callable[[Block], bool]) -> Protocol[str | None]:
    """End a node's claim to a block, and remove the block, or leave it to its last holders.

    Args:
        node: whose claim it is; not always the one that does this.
        cidr: of the block.
        may_go: judges the block before anything is changed.

    Returns:
        why nothing was changed; None when the claim is over.
    """
    # The block is looked at before the affinity is changed: `claim` does both in the other order.
    found: Found | None = yield Read(block_key(cidr))
    key = affinity_key(node, cidr)
    affinity: Found | None = yield Read(key)
    block = _block(found)
    own = found if block is not None and block.affinity == node else None
    if block is not None and own is not None and not may_go(block):
        return f"{block} is in use: {block.used} of {block.size}"
    revision = None
    if affinity is not None:
        ending = BlockAffinity(key.name, node, cidr, Claim.ENDING)
        revision = yield Swap(key, ending, affinity.revision)
    if block is not None and own is not None:
        yield Swap(block_key(cidr), replace(block, affinity=None) if block.held else None, own.revision)
    if revision is not None:
        yield Swap(key, None, revision)
    return None


def assign(
    cidr: IPNetwork, asks: Sequence[Ask], terms: Terms, owner: NodeName | None
) -> Protocol[list[IPAddress | NotAssigned]]:
    """Give addresses of one block, as many as it has, in one swap.

    Args:
        cidr: of the block.
        asks: who wants one; whoever has one of this block already, by handle, keeps it.
        terms: what may be given.
        owner: whose own the block must be; None lets anybody borrow.
    """
    for remembered in (owner is not None, *(False,) * (TRIES - 1)):
        found: Found | None = yield Read(block_key(cidr), remembered)
        block = _block(found)
        if found is None or block is None or owner not in (None, block.affinity):
            if remembered:
                continue
            why = f"block {cidr} {'does not exist' if block is None else f'is not of node {owner}'}"
            gone = NotAssigned(why, gone=True)
            return [gone] * len(asks)
        after, answers = _assigned(block, asks, terms)
        # Without a swap nobody knows whether it still is so; and who is to be refused may have room by now.
        if remembered and (after is block or any(isinstance(each, NotAssigned) for each in answers)):
            continue
        try:
            if after is not block:
                yield Swap(block_key(cidr), after, found.revision)
        except Conflict:
            continue
        return answers
    return [NotAssigned(f"block {cidr} changes too often; try again")] * len(asks)


def _assigned(block: Block, asks: Sequence[Ask], terms: Terms) -> tuple[Block, list[IPAddress | NotAssigned]]:
    answers: list[IPAddress | NotAssigned] = []
    for ask in asks:
        if ask.address is None:
            answer = ipam.assign(block, ask.holder, terms, ask.rather)
        else:
            answer = ipam.assign_this(block, ask.holder, ask.address, terms)
        if isinstance(answer, NotAssigned):
            answers.append(answer)
        else:
            block = answer.block
            answers.append(answer.address)
    return block, answers


def change(cidr: IPNetwork, how: Callable[[Block], Block]) -> Protocol[Block | None]:
    """Change a block, as by giving addresses back; one that nobody owns and nobody uses goes.

    Returns:
        the block before; None where there was none.

    Raises:
        Conflict: when somebody else changed it again and again.
    """
    for remembered in (True, *(False,) * (TRIES - 1)):
        found: Found | None = yield Read(block_key(cidr), remembered)
        block = _block(found)
        if found is None or block is None:
            if remembered:
                continue
            return None
        after = how(block)
        if remembered and after is block:
            continue
        try:
            if after is not block:
                orphan = after.affinity is None and not after.held
                yield Swap(block_key(cidr), None if orphan else after, found.revision)
        except Conflict:
            continue
        return block
    raise Conflict(f"block {cidr} changes too often; try again")


def _block(found: Found | None) -> Block | None:
    return found.value if found is not None and isinstance(found.value, Block) else None
