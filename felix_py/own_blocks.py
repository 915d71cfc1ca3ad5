"""The blocks of one node: those that somebody wrote down for it, and those that it claims."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

import structlog

from felix_py import choosing, claims, ipam
from felix_py.calc import encap
from felix_py.choosing import Chosen
from felix_py.claims import Ask, Claimed, Conflict, Lost
from felix_py.datastore.api import Damaged, Swaps
from felix_py.datastore.drive import drive, persevere
from felix_py.ipam import ANY, Block, Holder
from felix_py.model import BlockAffinity, IPAddress, IPNetwork, IPPool, NodeName, Use, lies_in
from felix_py.state import ClusterState

_Basis: TypeAlias = tuple[tuple[BlockAffinity, ...], frozenset[str], tuple[IPNetwork, ...]]
"""What its blocks depend on: all affinities, the names of those that nodes keep, and those that it claimed."""

log = structlog.get_logger()


class OwnBlocks:
    """Which blocks this node has, and how it comes by more. For one thread at a time.

    Attributes:
        cluster: returns all resources as they are known now.
        announced: returns prefixes that other nodes announce; no block among them is claimed.
        mine: who of this node uses which address, as far as it is known here.
    """

    def __init__(self, swaps: Swaps, node: NodeName, clock: Callable[[], datetime]) -> None:
        self.cluster: Callable[[], ClusterState] = ClusterState
        self.announced: Callable[[], Collection[IPNetwork]] = tuple
        self.mine: dict[IPAddress, Holder] = {}
        self._lent: set[IPNetwork] = set()
        self._swaps = swaps
        self._node = node
        self._clock = clock
        self._kept: frozenset[str] | None = None  # names of all affinities that are kept by nodes
        self._claimed: dict[IPNetwork, None] = {}  # ours, in the order in which they were claimed
        self._unfinished: list[IPNetwork] = []
        self._all: tuple[_Basis, tuple[IPNetwork, ...]] = ((), frozenset(), ()), ()

    def refresh(self) -> None:
        """Read anew which blocks this node has claimed.

        Raises:
            OSError: when the datastore cannot be read.
        """
        affinities = self.claims(self._node)
        own = [each for each in affinities if each.node == self._node]
        confirmed = {each.cidr for each in own if each.confirmed}
        known = [cidr for cidr in self._claimed if cidr in confirmed]
        self._claimed = dict.fromkeys((*known, *sorted(confirmed.difference(known), key=_order)))
        self._unfinished = [each.cidr for each in own if not each.confirmed]
        # One that is gone stays known: it was never written by hand, and is in force for a while yet.
        self._kept = (self._kept or frozenset()) | {each.name for each in affinities}

    def all(self) -> tuple[IPNetwork, ...]:
        """Return the blocks of this node: those that somebody wrote down, then those that it claimed."""
        if self._kept is None:
            self.refresh()
        cluster, kept, claimed = self.cluster(), self._kept or frozenset(), tuple(self._claimed)
        # Asked for each pod, and the same for thousands of them.
        basis = cluster.of(BlockAffinity), kept, claimed
        if basis[0] is not self._all[0][0] or basis[1:] != self._all[0][1:]:
            by_hand = choosing.by_hand(cluster, self._node, kept)
            self._all = basis, tuple(dict.fromkeys((*sorted(by_hand, key=_order), *claimed)))
        return self._all[1]

    def known(self) -> tuple[IPNetwork, ...]:
        """Return `all` without a look at the datastore; none before somebody has looked. For any thread."""
        return self.all() if self._kept is not None else ()

    def claimed(self) -> tuple[IPNetwork, ...]:
        """Return those that the node claimed itself."""
        return tuple(cidr for cidr in self.all() if cidr in self._claimed)

    def claims(self, of: NodeName | None = None) -> tuple[BlockAffinity, ...]:
        """Return the affinities that nodes keep, whatever their state: of all nodes, or at least of one."""
        found = (each.value for each in self._swaps.listing("BlockAffinity", of)[0])
        return tuple(each for each in found if isinstance(each, BlockAffinity))

    def inside(self, pools: Iterable[IPPool]) -> list[IPNetwork]:
        """Return those that lie in one of these pools."""
        ranges = [pool.cidr for pool in pools]
        return [cidr for cidr in self.all() if any(lies_in(cidr, each) for each in ranges)]

    def terms(self) -> ipam.Terms:
        """Return on which terms addresses are given now."""
        terms = choosing.terms(self.cluster(), self._clock())
        return replace(terms, reserved=(*terms.reserved, *self._lent)) if self._lent else terms

    # --- more of them

    def more(self, pools: tuple[IPPool, ...], version: int) -> Iterator[IPNetwork | str]:
        """Claim blocks as long as somebody asks and yield each of them; at the end, why there are no more."""
        lost: list[IPNetwork] = []
        while True:
            cidr = self._resumable(pools)
            if cidr is None:
                choice = self.choice(pools, version, lost)
                if not isinstance(choice, Chosen):
                    yield choice.why
                    return
                cidr = choice.cidr
                log.info("ipam.block.claimed", block=str(cidr), pool=choice.pool, cause=choice.why)
            if isinstance(self.claim(cidr), Lost):
                lost.append(cidr)
            else:
                yield cidr

    def choice(self, pools: tuple[IPPool, ...], version: int, lost: Iterable[IPNetwork] = ()) -> choosing.Choice:
        """Choose the block that would be claimed next, or say why there is none.

        Args:
            pools: those that serve whoever asks.
            version: of IP.
            lost: blocks that others turned out to have.
        """
        own = [each for each in self.all() if each.version == version]
        return choosing.next_block(self.cluster(), pools, self._node, own, (*self._occupied(), *own, *lost))

    def _resumable(self, pools: Iterable[IPPool]) -> IPNetwork | None:
        """Return a block whose claim was begun and not finished, by an agent that died."""
        for cidr in self._unfinished:
            if any(lies_in(cidr, pool.cidr) for pool in pools):
                self._unfinished.remove(cidr)
                return cidr
        return None

    def _occupied(self) -> Iterator[IPNetwork]:
        blocks, _ = self._swaps.listing("IPAMBlock")
        yield from (each.value.cidr for each in blocks)
        yield from (each.cidr for each in self.cluster().of(BlockAffinity))
        yield from self.announced()

    def claim(self, cidr: IPNetwork) -> Claimed | Lost:
        """Make a block this node's own, where it is not.

        Raises:
            OSError: it is claimed or not; trying again goes on from there.
        """
        if cidr in self.all():
            return self.ready(cidr) or Claimed(cidr)
        try:
            done = persevere(lambda: claims.claim(self._node, cidr), self._swaps)
        except (Damaged, Conflict) as problem:
            return Lost(str(problem))
        if isinstance(done, Claimed):
            self._claimed[cidr] = None
            self._kept = (self._kept or frozenset()) | {claims.affinity_key(self._node, cidr).name}
            self._rewrite(cidr)
        return done

    def ready(self, cidr: IPNetwork, damaged: Damaged | None = None) -> Lost | None:
        """See that an own block is written; one that is gone or damaged is written anew, with what is in use here.

        Args:
            cidr: of the block.
            damaged: what is known to be wrong with it.

        Returns:
            why it cannot be used, if it cannot.
        """
        found = None
        try:
            found = self._swaps.read(claims.block_key(cidr)) if damaged is None else None
        except Damaged as problem:
            damaged = problem
        if damaged is not None:
            sentence = f"{damaged}; it is put aside, and written anew from what is in use here"
            log.warning("datastore.fault", fault=sentence)
            self._swaps.put_aside(damaged)
        if found is not None and isinstance(found.value, Block) and found.value.affinity == self._node:
            return None
        try:
            lost = persevere(lambda: claims.take(self._node, cidr), self._swaps)
        except (Damaged, Conflict) as problem:
            lost = Lost(str(problem))
        if lost is not None:
            self.refresh()
        elif found is None:
            self._rewrite(cidr)
        return lost

    def _rewrite(self, cidr: IPNetwork) -> None:
        """Write into a new block what is in use there already, and leave what other nodes announce to them.

        They have borrowed it from the block that was there before, and write it down themselves when they notice.
        """
        single = (each for each in self.announced() if each.prefixlen == each.max_prefixlen)
        self._lent.update(each for each in single if lies_in(each, cidr))
        asks = [Ask(holder, address) for address, holder in self.mine.items() if address in cidr]
        if asks:
            drive(claims.assign(cidr, asks, ANY, None), self._swaps)

    def claim_for_tunnel(self) -> None:
        """Claim a block of a pool that is for tunnels only, where this node needs a tunnel: no pod ever asks for one.

        Raises:
            OSError: it is claimed or not; trying again goes on from there.
        """
        pools, _ = choosing.serving(self.cluster(), choosing.Client(self._node, Use.TUNNEL))
        tunnelled = [pool for pool in self.cluster().of(IPPool) if not pool.disabled and encap.device(pool) is not None]
        for version in sorted({pool.cidr.version for pool in tunnelled}):
            reserved = tuple(pool for pool in pools if pool.cidr.version == version and Use.WORKLOAD not in pool.uses)
            if reserved and not self.inside(reserved):
                next(self.more(reserved, version))

    # --- fewer of them

    def end_unused(self) -> list[IPNetwork]:
        """Give up claimed blocks that are not in use, and whose pool does not serve this node any more.

        Raises:
            OSError: some of them are still claimed.
        """
        client = choosing.Client(self._node)
        cluster, gone = self.cluster(), []
        for cidr in self.claimed():
            pool = next((each for each in cluster.of(IPPool) if lies_in(cidr, each.cidr)), None)
            if pool is not None and choosing.node_refusal(cluster, pool, client) is None:
                continue
            if self.end(self._node, cidr) is None:
                del self._claimed[cidr]
                gone.append(cidr)
        return gone

    def end(self, node: NodeName, cidr: IPNetwork) -> str | None:
        """Give a block up that is not in use; return why not, if it is."""
        terms = self.terms()
        why = persevere(lambda: claims.give_up(node, cidr, lambda block: block.idle(terms)), self._swaps)
        if why is None:
            log.info("ipam.block.released", block=str(cidr), node=str(node))
        return why


def _order(cidr: IPNetwork) -> tuple[int, int, int]:
    return cidr.version, int(cidr.network_address), cidr.prefixlen
