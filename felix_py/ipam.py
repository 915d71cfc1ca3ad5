"""A block of addresses as arithmetic: who holds what, which address is given next, and why one is not given."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from felix_py.model import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Block:
    """The addresses of one block; every one is held, cooling down, or was never given.

    Attributes:
        holders: address to handle, which names whoever holds it.
        released: given back, longest ago first; they are given again last, so that nobody who still talks to the
            pod of before soon reaches another one.
    """

    cidr: IPNetwork
    holders: Mapping[IPAddress, str] = field(default_factory=dict)
    released: tuple[IPAddress, ...] = ()

    def __str__(self) -> str:
        return f"block {self.cidr}"

    @property
    def size(self) -> int:
        """How many addresses there are; all can be given, for a pod's prefix is one address and has no network."""
        return self.cidr.num_addresses

    @property
    def used(self) -> int:
        """How many of them are held."""
        return len(self.holders)

    def holder(self, address: IPAddress) -> str | None:
        """Return the handle of whoever holds the address; None when it is free or not of this block."""
        return self.holders.get(address)

    def free(self) -> Iterator[IPAddress]:
        """Yield the free addresses in the order in which they are given."""
        cooling = set(self.released)
        yield from (address for address in self.cidr if address not in self.holders and address not in cooling)
        yield from self.released


@dataclass(frozen=True, slots=True)
class Assigned:
    """The address was given; `block` is the block afterwards."""

    block: Block
    address: IPAddress


@dataclass(frozen=True, slots=True)
class NotAssigned:
    """Nothing was given, and this is why."""

    why: str


Answer: TypeAlias = Assigned | NotAssigned


def assign(block: Block, handle: str) -> Answer:
    """Give the next free address of the block."""
    address = next(block.free(), None)
    if address is None:
        return NotAssigned(_full(block))
    return Assigned(_held(block, address, handle), address)


def assign_this(block: Block, handle: str, address: IPAddress) -> Answer:
    """Give one particular address of the block."""
    if address not in block.cidr:
        return NotAssigned(f"{address} is outside {block}")
    holder = block.holder(address)
    if holder is not None:
        return NotAssigned(f"{address} is held by {holder}")
    return Assigned(_held(block, address, handle), address)


def assign_from(blocks: Iterable[Block], handle: str, address: IPAddress | None = None) -> Answer:
    """Give an address of the first block that has one; a particular one where `address` names it.

    Returns:
        The answer of the block that gave it, or of all of them why none did.
    """
    refusals: list[str] = []
    for block in blocks:
        answer = assign(block, handle) if address is None else assign_this(block, handle, address)
        if isinstance(answer, Assigned):
            return answer
        refusals.append(answer.why)
    return NotAssigned("; ".join(refusals) or "there is no block to take an address from")


def addresses_from(
    blocks: Iterable[Block], handle: str, wanted: tuple[IPAddress, ...] = ()
) -> tuple[IPAddress, ...] | NotAssigned:
    """Give one address of each version of IP that there are blocks of, IPv4 first; or exactly those that are wanted.

    All or none: where one cannot be given, the answer is why.
    """
    views = list(blocks)
    given: list[IPAddress] = []
    versions = sorted({view.cidr.version for view in views}) or [4]
    asked: list[tuple[int, IPAddress | None]] = [(each.version, each) for each in wanted]
    for version, address in asked or [(each, None) for each in versions]:
        answer = assign_from([view for view in views if view.cidr.version == version], handle, address)
        if isinstance(answer, NotAssigned):
            return answer
        views = [answer.block if view.cidr == answer.block.cidr else view for view in views]
        given.append(answer.address)
    return tuple(given)


def full(blocks: Iterable[Block]) -> str | None:
    """Say that no pod can have addresses, since all blocks of one version of IP are full; None where one can."""
    by_version: dict[int, list[Block]] = {}
    for block in blocks:
        by_version.setdefault(block.cidr.version, []).append(block)
    for several in by_version.values():
        if all(block.used >= block.size for block in several):
            return "; ".join(map(_full, several))
    return None


def _full(block: Block) -> str:
    return f"{block} is full: {block.used} of {block.size} in use"


def release(block: Block, address: IPAddress) -> Block:
    """Take an address back; one that nobody holds changes nothing."""
    if address not in block.holders:
        return block
    holders = {held: handle for held, handle in block.holders.items() if held != address}
    return replace(block, holders=holders, released=(*block.released, address))


def _held(block: Block, address: IPAddress, handle: str) -> Block:
    released = tuple(cooling for cooling in block.released if cooling != address)
    return replace(block, holders={**block.holders, address: handle}, released=released)
