"""A block of addresses as arithmetic: who holds what, which address is given next, and why one is not given."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from typing import TypeAlias

from felix_py.model import IPAddress, IPNetwork, NodeName

NOWHERE = NodeName("")
"""The node of a holder of which nobody said where it is."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever holds an address.

    Attributes:
        handle: names it; all addresses of one handle are released together.
        node: where it is.
        since: when it was given the address.
        details: what else is known of it, as its pod and its interface; holders are the same without.
    """

    handle: str
    node: NodeName = NOWHERE
    since: datetime | None = None
    details: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        known = self.details
        if "endpoint" not in known:
            return self.handle
        container = known.get("containerID", "")[:12] or "an unknown container"
        return f"{known['endpoint']} ({known.get('interface', '')} of {container})"


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms addresses are given.

    Attributes:
        now: the time; None where nothing cools down.
        cooldown: seconds until an address that was given back may be given again.
        reserved: addresses that are given only to whoever asks for them by name.
    """

    now: datetime | None = None
    cooldown: int = 0
    reserved: tuple[IPNetwork, ...] = ()

    def allow(self, released: datetime | None) -> bool:
        """Say whether an address that was given back at that time may be given again."""
        if not self.cooldown or released is None or self.now is None:
            return True
        return self.now - released >= timedelta(seconds=self.cooldown)


ANY = Terms()
"""No cool-down, nothing reserved."""


@dataclass(frozen=True, slots=True)
class Block:
    """The addresses of one block by ordinal; every one is held, cooling down, or was never given.

    Attributes:
        affinity: the node that the block belongs to; None once it was given up with addresses still held.
        held: ordinal to holder.
        released: ordinals that were given back, longest ago first, with the time; they are given again last, so that
            nobody who still talks to the pod of before soon reaches another one.
    """

    cidr: IPNetwork
    affinity: NodeName | None = None
    held: Mapping[int, Holder] = field(default_factory=dict, hash=False)
    released: Mapping[int, datetime | None] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"block {self.cidr}"

    @property
    def size(self) -> int:
        """How many addresses there are; all can be given, for a pod's prefix is one address and has no network."""
        return 1 << (self.cidr.max_prefixlen - self.cidr.prefixlen)

    @property
    def used(self) -> int:
        """How many of them are held."""
        return len(self.held)

    @property
    def holders(self) -> Mapping[IPAddress, Holder]:
        """Return who holds which address, the lowest first."""
        return {self.address(ordinal): self.held[ordinal] for ordinal in sorted(self.held)}

    def address(self, ordinal: int) -> IPAddress:
        """Return the address of an ordinal."""
        return _address(int(self.cidr.network_address) + ordinal, self.cidr.version)

    def ordinal(self, address: IPAddress) -> int | None:
        """Return the ordinal of an address; None where it is not of this block."""
        return int(address) - int(self.cidr.network_address) if address in self.cidr else None

    def holder(self, address: IPAddress) -> Holder | None:
        """Return who holds the address; None when it is free or not of this block."""
        ordinal = self.ordinal(address)
        return self.held.get(ordinal) if ordinal is not None else None

    def free(self, terms: Terms = ANY) -> Iterator[IPAddress]:
        """Return one by one the addresses that may be given, in the order in which they are."""
        never_given = (each for each in range(self.size) if each not in self.held and each not in self.released)
        cooled = (each for each, since in self.released.items() if terms.allow(since))
        found = map(self.address, chain(never_given, cooled))
        if not terms.reserved:
            return found
        return (each for each in found if not any(each in network for network in terms.reserved))

    def may_give(self, address: IPAddress, terms: Terms) -> bool:
        """Say whether `free` would yield this address."""
        ordinal = self.ordinal(address)
        if ordinal is None or ordinal in self.held or not terms.allow(self.released.get(ordinal)):
            return False
        return not any(address in network for network in terms.reserved)

    def idle(self, terms: Terms) -> bool:
        """Say whether nobody holds any address, and none is cooling down: the block may go."""
        return not self.held and all(map(terms.allow, self.released.values()))


@lru_cache(4096)
def _address(number: int, version: int) -> IPAddress:
    """Return an address; ip_address() would take a small number for IPv4."""
    return IPv4Address(number) if version == 4 else IPv6Address(number)  # noqa: PLR2004 - IP versions


@dataclass(frozen=True, slots=True)
class Assigned:
    """The address was given; `block` is the block afterwards."""

    block: Block
    address: IPAddress


@dataclass(frozen=True, slots=True)
class NotAssigned:
    """Nothing was given, and this is why.

    Attributes:
        gone: the block is not there, or not whose it has to be.
    """

    why: str
    gone: bool = False


Answer: TypeAlias = Assigned | NotAssigned


def assign(block: Block, holder: Holder, terms: Terms = ANY, rather: IPAddress | None = None) -> Answer:
    """Give an address of the block: rather this one, if it may be given, and else the next free one."""
    address = rather if rather is not None and block.may_give(rather, terms) else next(block.free(terms), None)
    if address is None:
        return NotAssigned(full(block, terms))
    return Assigned(_held(block, address, holder), address)


def assign_this(block: Block, holder: Holder, address: IPAddress, terms: Terms = ANY) -> Answer:
    """Give one particular address of the block, also one that is reserved, and none that still cools down."""
    ordinal = block.ordinal(address)
    if ordinal is None:
        return NotAssigned(f"{address} is outside {block}")
    if ordinal in block.held:
        return NotAssigned(f"{address} is held by {block.held[ordinal]}")
    if not terms.allow(block.released.get(ordinal)):
        return NotAssigned(f"{address} was given back less than {terms.cooldown} s ago (ipCooldownSeconds)")
    return Assigned(_held(block, address, holder), address)


def full(block: Block, terms: Terms = ANY) -> str:
    """Say in words why a block has no address to give."""
    said = f"{block} is full: {block.used} of {block.size} in use"
    cooling = sum(not terms.allow(since) for since in block.released.values())
    others = block.size - block.used - cooling
    return (
        said
        + (f", {cooling} cool down (ipCooldownSeconds)" if cooling else "")
        + (f", {others} reserved (IPReservation)" if others else "")
    )


def release(block: Block, address: IPAddress, now: datetime | None = None) -> Block:
    """Take an address back; one that nobody holds changes nothing."""
    ordinal = block.ordinal(address)
    return _without(block, [ordinal], now) if ordinal is not None and ordinal in block.held else block


def release_handle(block: Block, handle: str, now: datetime | None = None) -> Block:
    """Take back all addresses of one handle."""
    gone = [ordinal for ordinal, each in block.held.items() if each.handle == handle]
    return _without(block, gone, now) if gone else block


def release_holders(block: Block, holders: Iterable[tuple[IPAddress, Holder]], now: datetime | None = None) -> Block:
    """Take addresses back from exactly these holders; an address that somebody else has by now stays."""
    gone = [
        ordinal
        for address, holder in holders
        if (ordinal := block.ordinal(address)) is not None and block.held.get(ordinal) == holder
    ]
    return _without(block, gone, now) if gone else block


def _without(block: Block, ordinals: Iterable[int], now: datetime | None) -> Block:
    gone = set(ordinals)
    held = {ordinal: holder for ordinal, holder in block.held.items() if ordinal not in gone}
    return replace(block, held=held, released={**block.released, **dict.fromkeys(sorted(gone), now)})


def _held(block: Block, address: IPAddress, holder: Holder) -> Block:
    ordinal = int(address) - int(block.cidr.network_address)
    released = block.released
    if ordinal in released:
        released = {each: since for each, since in released.items() if each != ordinal}
    return Block(block.cidr, block.affinity, {**block.held, ordinal: holder}, released)
