"""Gives and takes back addresses: of own blocks, of blocks claimed for it, and of other nodes' blocks."""

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TypeAlias

import structlog

from felix_py import choosing, claims, ipam
from felix_py.choosing import Chosen, Client
from felix_py.claims import Ask, Conflict, Lost
from felix_py.datastore.api import Damaged, Swaps
from felix_py.datastore.drive import drive
from felix_py.ipam import Block, Holder, NotAssigned, Terms
from felix_py.model import IPAddress, IPNetwork, IPPool, Namespace, NodeName
from felix_py.own_blocks import OwnBlocks
from felix_py.state import ClusterState

WAYS = 256
"""Clients of which it is remembered where their addresses come from: there is one for each namespace."""

log = structlog.get_logger()

Held: TypeAlias = tuple[IPAddress, Holder]
Given: TypeAlias = IPAddress | NotAssigned


@dataclass(frozen=True, slots=True)
class Wish:
    """A wish for addresses: one of each version of IP that the client can have, or exactly those that are wanted.

    Attributes:
        rather: those that are given before others, where they may be.
    """

    client: Client
    holder: Holder
    wanted: tuple[IPAddress, ...] = ()
    rather: tuple[IPAddress, ...] = ()

    def ask(self, version: int) -> Ask:
        """Return what is asked of a block of one version of IP."""
        return Ask(self.holder, rather=next((each for each in self.rather if each.version == version), None))


@dataclass(frozen=True, slots=True)
class _Way:
    """Where one client's addresses come from: the pools that serve it, and own blocks inside them, by version of IP."""

    basis: tuple[object, ...]
    pools: tuple[IPPool, ...]
    refusals: tuple[str, ...]
    versions: tuple[int, ...]
    inside: Mapping[int, tuple[IPNetwork, ...]]


class Addresses:
    """The addresses that one node gives out. For one thread at a time; what it answers is durable.

    Attributes:
        own: the blocks of this node.
    """

    def __init__(self, swaps: Swaps, node: NodeName, clock: Callable[[], datetime]) -> None:
        self.own = OwnBlocks(swaps, node, clock)
        self._swaps = swaps
        self._node = node
        self._clock = clock
        self._full: set[IPNetwork] = set()
        self._ways: dict[Client, _Way] = {}
        self._owed: list[Held] = []
        self._unwritten: dict[IPAddress, Holder] = {}
        self._tried: ClusterState | None = None  # with what was known when the unwritten were tried last

    def refresh(self) -> None:
        """Read anew which blocks are this node's; what was full may have room by now.

        Raises:
            OSError: when the datastore cannot be read.
        """
        self.own.refresh()
        self._full.clear()

    def block(self, cidr: IPNetwork) -> Block:
        """Return a block as it is now; an empty one where nobody has written it yet, or it cannot be understood."""
        try:
            found = self._swaps.read(claims.block_key(cidr))
        except Damaged:
            return Block(cidr)
        return found.value if found is not None and isinstance(found.value, Block) else Block(cidr)

    def blocks(self, of: NodeName | None = None) -> tuple[tuple[Block, ...], tuple[Damaged, ...]]:
        """Return the blocks of all nodes, or at least those that concern one; and what cannot be understood."""
        found, damaged = self._swaps.listing("IPAMBlock", of)
        return tuple(each.value for each in found if isinstance(each.value, Block)), damaged

    # --- giving

    def give(self, wishes: Sequence[Wish]) -> list[tuple[IPAddress, ...] | NotAssigned]:
        """Give each wish all its addresses, or none and the reason.

        Raises:
            OSError: nothing was given; what could not be taken back at once is with the next call.
        """
        self.pay()
        self.restore()
        given: list[list[Given]] = [[] for _ in wishes]
        try:
            for wish, several in zip(wishes, given, strict=True):
                several.extend(self._particular(wish, address) for address in wish.wanted)
            for (version, client), positions in self._by_client(wishes).items():
                asks = [wishes[each].ask(version) for each in positions]
                for position, answer in zip(positions, self._any(version, client, asks), strict=True):
                    given[position].append(answer)
        except (OSError, Conflict):
            for wish, several in zip(wishes, given, strict=True):
                self._owed += [(each, wish.holder) for each in several if not isinstance(each, NotAssigned)]
            raise
        return self._all_or_none(wishes, given)

    def likely(self, client: Client, others: Collection[IPAddress], count: int = 1) -> list[tuple[IPAddress, ...]]:
        """Guess what `give` would give, by what was known last; for any thread.

        Args:
            client: who will ask.
            others: what was guessed for others, who have not asked yet.
            count: how often it will ask.

        Returns:
            of each time all addresses; as often as there is a telling.
        """
        if not self.own.known():
            return []
        way, terms = self._way(client), self.own.terms()
        free = (self._free(way.inside[version], terms, others) for version in way.versions)
        return [*zip(*(islice(each, count) for each in free), strict=False)]  # of both versions, or none

    def _free(self, blocks: Iterable[IPNetwork], terms: Terms, others: Collection[IPAddress]) -> Iterator[IPAddress]:
        """Yield the addresses that blocks may give, as they were known last."""
        for cidr in blocks:
            found = self._swaps.known(claims.block_key(cidr))
            if found is not None and isinstance(found.value, Block):
                yield from (each for each in found.value.free(terms) if each not in others)

    def _way(self, client: Client) -> "_Way":
        """Return where a client's addresses come from: the same object until something changes. For any thread."""
        cluster, own = self.own.cluster(), self.own.all()
        basis = cluster.of(IPPool), cluster.of(Namespace), own, cluster.node(client.node), cluster.ipam()
        known = self._ways.get(client)
        # Pods come in hundreds; what they have in common is the same object, and looked at once.
        if known is None or any(map(operator.is_not, known.basis[:4], basis[:4])) or known.basis[4] != basis[4]:
            pools, refusals = choosing.serving(cluster, client)
            versions = choosing.versions(cluster, client, own)
            inside = {
                version: tuple(cidr for cidr in self.own.inside(pools) if cidr.version == version)
                for version in versions
            }
            if len(self._ways) >= WAYS:
                self._ways.clear()
            known = self._ways[client] = _Way(basis, pools, refusals, versions, inside)
        return known

    def _by_client(self, wishes: Sequence[Wish]) -> dict[tuple[int, Client], list[int]]:
        groups: dict[tuple[int, Client], list[int]] = {}
        for position, wish in enumerate(wishes):
            for version in () if wish.wanted else self._way(wish.client).versions:
                groups.setdefault((version, wish.client), []).append(position)
        return groups

    def _all_or_none(
        self, wishes: Sequence[Wish], given: list[list[Given]]
    ) -> list[tuple[IPAddress, ...] | NotAssigned]:
        answers: list[tuple[IPAddress, ...] | NotAssigned] = []
        for wish, several in zip(wishes, given, strict=True):
            reasons = [each.why for each in several if isinstance(each, NotAssigned)]
            addresses = tuple(each for each in several if not isinstance(each, NotAssigned))
            answers.append(NotAssigned("; ".join(dict.fromkeys(reasons))) if reasons else addresses)
            self._owed += [(each, wish.holder) for each in addresses if reasons]
        self.pay()
        return answers

    def give_back_later(self, held: Iterable[Held]) -> None:
        """Take addresses back before the next one is given."""
        self._owed += held

    @property
    def unwritten(self) -> bool:
        """Whether something is in use that stands in no block yet."""
        return bool(self._unwritten)

    def pay(self) -> None:
        """Take back what was given and is not used, since something failed after that.

        Raises:
            OSError: it is still to be taken back.
        """
        if self._owed:
            self.take_back(self._owed)
            self._owed = []

    def _particular(self, wish: Wish, address: IPAddress) -> Given:
        """Give one particular address, of whatever block it lies in."""
        cidr = self.cidr_of(address)
        if cidr is None:
            pools, _ = choosing.serving(self.own.cluster(), wish.client)
            cidr = choosing.block_in(pools, address)
            if cidr is None:
                blocks = [f"{address} is outside block {cidr}" for cidr in self.own.all()]
                return NotAssigned("; ".join(blocks) or f"{address} is in no IPPool that serves here")
            claimed = self.own.claim(cidr)
            if isinstance(claimed, Lost):
                return NotAssigned(claimed.why)
        strict = self.own.cluster().ipam().strict_affinity or cidr in self.own.all()
        return self._assigned(cidr, [Ask(wish.holder, address)], self._node if strict else None)[0]

    def _any(self, version: int, client: Client, asks: Sequence[Ask]) -> list[Given]:
        """Give each of them any address of one version."""
        cluster = self.own.cluster()
        way = self._way(client)
        pools, refusals = tuple(pool for pool in way.pools if pool.cidr.version == version), way.refusals
        answers: list[Given | None] = [None] * len(asks)
        reasons: dict[str, None] = {}

        def fill(cidr: IPNetwork, owner: NodeName | None) -> bool:
            """Give what a block has; say whether everybody has an address."""
            left = [number for number, answer in enumerate(answers) if answer is None]
            found = self._assigned(cidr, [asks[number] for number in left], owner)
            for number, answer in zip(left, found, strict=True):
                if isinstance(answer, NotAssigned):
                    reasons[answer.why] = None
                    self._full.add(cidr)
                else:
                    answers[number] = answer
            return None not in answers

        why_no_more = ""
        if not any(fill(cidr, self._node) for cidr in way.inside[version] if cidr not in self._full):
            for cidr in self.own.more(pools, version):
                if isinstance(cidr, str):
                    why_no_more = cidr
                elif fill(cidr, self._node):
                    break
        if None in answers:
            # Before anybody is refused, blocks that were full are looked at again, and then those of others.
            reasons.clear()
            full = any(fill(cidr, self._node) for cidr in self.own.inside(pools))
            if not full and not cluster.ipam().strict_affinity:
                lenders = choosing.lenders(pools, self._node, self.blocks()[0])
                full = any(fill(block.cidr, None) for block in lenders)
        refused = NotAssigned("; ".join((*reasons, why_no_more, *(() if pools else refusals))))
        return [answer if answer is not None else refused for answer in answers]

    def _assigned(self, cidr: IPNetwork, asks: Sequence[Ask], owner: NodeName | None) -> list[Given]:
        """Give addresses of one block."""
        answers, damaged = self._asked(cidr, asks, owner)
        if owner is not None and any(isinstance(each, NotAssigned) and each.gone for each in answers):
            lost = self.own.ready(cidr, damaged)
            answers = self._asked(cidr, asks, owner)[0] if lost is None else [NotAssigned(lost.why)] * len(asks)
        for ask, answer in zip(asks, answers, strict=True):
            if not isinstance(answer, NotAssigned):
                self.own.mine[answer] = ask.holder
        return answers

    def _asked(
        self, cidr: IPNetwork, asks: Sequence[Ask], owner: NodeName | None
    ) -> tuple[list[Given], Damaged | None]:
        try:
            return drive(claims.assign(cidr, asks, self.own.terms(), owner), self._swaps), None
        except Damaged as damaged:
            return [NotAssigned(f"{damaged}; see `felixctl ipam check`", gone=True)] * len(asks), damaged

    def give_in(self, cidr: IPNetwork, holder: Holder) -> Given:
        """Give an address of one particular own block.

        Raises:
            OSError: nothing was given.
        """
        return self._assigned(cidr, [Ask(holder)], self._node)[0]

    def exhausted(self, client: Client) -> str | None:
        """Say why a client could have no address now; None where it could."""
        cluster, own = self.own.cluster(), self.own.all()
        if self.likely(client, ()):
            return None  # runtimes ask every few seconds, and whoever keeps the blocks is not to be asked as often
        refused = (self._exhausted(version, client) for version in choosing.versions(cluster, client, own))
        return next(filter(None, refused), None)

    def _exhausted(self, version: int, client: Client) -> str | None:
        cluster, terms = self.own.cluster(), self.own.terms()
        pools, refusals = choosing.serving(cluster, client)
        pools = tuple(pool for pool in pools if pool.cidr.version == version)
        own = [self.block(cidr) for cidr in self.own.inside(pools)]
        choice = self.own.choice(pools, version)
        lent = () if cluster.ipam().strict_affinity else choosing.lenders(pools, self._node, self.blocks()[0])
        if isinstance(choice, Chosen) or any(next(block.free(terms), None) for block in (*own, *lent)):
            return None
        full = [ipam.full(block, terms) for block in (*own, *lent)]
        return "; ".join((*full, choice.why, *(() if pools else refusals)))

    # --- what is in use already

    def remember(self, held: Iterable[Held], *, written: bool) -> None:
        """Take note of addresses that are in use here.

        Args:
            held: addresses and their holders.
            written: whether their blocks say so; otherwise they will before anything else is given.
        """
        for address, holder in held:
            self.own.mine[address] = holder
            if not written:
                self._unwritten[address] = holder
                self._tried = None

    def find_lost(self) -> None:
        """Take note of what is in use here and stands in no block any more, as when its block was damaged.

        Raises:
            OSError: when the datastore cannot be read.
        """
        blocks, _ = self.blocks(self._node)
        written = {address for block in blocks for address in block.holders}
        lost = [each for each in self.own.mine.items() if each[0] not in written]
        self.remember(lost, written=False)

    def restore(self) -> None:
        """Write down what is in use and stands in no block, as pods whose block somebody removed.

        Raises:
            OSError: some of it is not written yet.
        """
        cluster = self.own.cluster()
        if not self._unwritten or self._tried is cluster:
            return
        for address, holder in tuple(self._unwritten.items()):
            cidr = self.cidr_of(address) or choosing.block_in(cluster.of(IPPool), address)
            if cidr is None:
                continue  # no pool has it, so nobody is given it; there may be one some day
            self.own.claim(cidr)
            answer = self._assigned(cidr, [Ask(holder, address)], None)[0]
            if isinstance(answer, NotAssigned) and not self.holds(address, holder):
                log.error("datastore.fault", fault=f"{holder} uses {address}, and {answer.why}; delete one of the two")
            del self._unwritten[address]
        self._tried = cluster

    def holds(self, address: IPAddress, holder: Holder) -> bool:
        """Say whether a block has this address for this handle."""
        cidr = self.cidr_of(address)
        found = self.block(cidr).holder(address) if cidr is not None else None
        return found is not None and found.handle == holder.handle

    # --- taking back

    def take_back(self, held: Iterable[Held]) -> None:
        """Take addresses back from exactly these holders; repeating it changes nothing.

        Raises:
            OSError: some of them are still held.
        """
        by_block: dict[IPNetwork, list[Held]] = {}
        for address, holder in held:
            cidr = self.cidr_of(address)
            if cidr is not None:
                by_block.setdefault(cidr, []).append((address, holder))
        now = self._clock()
        for cidr, several in by_block.items():
            release = partial(ipam.release_holders, holders=several, now=now)
            try:
                drive(claims.change(cidr, release), self._swaps)
            except Damaged as damaged:
                self._release_damaged(damaged, cidr, release)
            self._full.discard(cidr)
            for address, _ in several:
                self.own.mine.pop(address, None)
                self._unwritten.pop(address, None)

    def _release_damaged(self, damaged: Damaged, cidr: IPNetwork, release: Callable[[Block], Block]) -> None:
        """Put what is damaged aside, and release from what was written before, where that stands."""
        if cidr in self.own.all():
            self.own.ready(cidr, damaged)  # with a look at what other nodes announce of it
        else:
            log.warning("datastore.fault", fault=f"{damaged}; it is put aside, with what it said of addresses")
            self._swaps.put_aside(damaged)
        try:
            drive(claims.change(cidr, release), self._swaps)
        except Damaged as still:
            log.warning("datastore.fault", fault=f"{still}; what it said of addresses is lost")

    def cidr_of(self, address: IPAddress) -> IPNetwork | None:
        """Return the block that an address lies in; None where there is none."""
        own = next((cidr for cidr in self.own.all() if address in cidr), None)
        if own is not None:
            return own
        return next((block.cidr for block in self.blocks()[0] if address in block.cidr), None)
