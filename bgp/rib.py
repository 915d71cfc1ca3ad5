"""The tables of a speaker: what each peer said (Adj-RIB-In), the best of it (Loc-RIB), what we say (Adj-RIB-Out).

Peers say the same of many prefixes. What is said alike is one object, and so is every choice between the same paths:
the tables hold a reference for each prefix, and the work is done once for all of them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from bgp import decision
from bgp.decision import BestPath
from bgp.policy import Accepted, Refusal
from bgp.types import FAMILY, UNKNOWN_ROUTER, Attributes, Family, IPAddress, IPNetwork

Judge = Callable[[IPNetwork, Attributes], Accepted | Refusal]
"""An import policy: what becomes of a prefix with these attributes."""


def in_order(prefix: IPNetwork) -> tuple[int, int, int]:
    """Return what prefixes are sorted by: IPv4 first, then by address, the larger network first."""
    return prefix.version, int(prefix.network_address), prefix.prefixlen


@dataclass(frozen=True, slots=True)
class Told:
    """What a peer says of the prefixes that it says this of, and what import policy makes of it.

    Attributes:
        attributes: as policy leaves them; where it refuses: as received.
        received: as the peer said them.
        refusal: None where policy accepts; what it refuses is kept, to be shown and to be judged again.
        rule: of a filter that accepted, in words; empty where none did.
        external: heard over eBGP.
        router_id: the peer's BGP identifier, from its OPEN.
        stale: the session is gone, and graceful restart keeps this (RFC 4724).
    """

    peer: IPAddress
    attributes: Attributes
    received: Attributes
    refusal: Refusal | None = None
    rule: str = ""
    external: bool = False
    router_id: IPv4Address = UNKNOWN_ROUTER
    stale: bool = False

    @property
    def decided_by(self) -> str:
        """The rule of a filter, or the reason of a refusal, that decided; empty where nothing had to be decided."""
        return self.rule if self.refusal is None else self.refusal.rule or str(self.refusal.reason)

    def judged(self, outcome: Accepted | Refusal) -> "Told":
        """Return the same after policy has said this."""
        if isinstance(outcome, Refusal):
            return replace(self, attributes=self.received, refusal=outcome, rule="")
        return replace(self, attributes=outcome.attributes, refusal=None, rule=outcome.rule)


@dataclass(slots=True)
class AdjRibIn:
    """What one peer said, before and after policy. Its verbs return the prefixes of which something else holds now."""

    entries: dict[IPNetwork, Told] = field(default_factory=dict)

    def learn(self, prefixes: Iterable[IPNetwork], told: Told) -> list[IPNetwork]:
        """Take what is said now in the place of whatever the peer said of these prefixes before."""
        entries, changed = self.entries, []
        said = dict.fromkeys(prefixes, told)
        if entries.keys().isdisjoint(said.keys()):  # a table that arrives: one step for all, and not one for each
            entries.update(said)
            return list(said)
        for prefix in said:
            before = entries.get(prefix)
            if before is not told and before != told:
                entries[prefix] = told
                changed.append(prefix)
        return changed

    def withdraw(self, prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
        """Forget prefixes; those that were never announced are no fault (RFC 4271 section 3.1)."""
        entries = self.entries
        return [prefix for prefix in prefixes if entries.pop(prefix, None) is not None]

    def clear(self) -> list[IPNetwork]:
        """Forget everything."""
        gone = list(self.entries)
        self.entries.clear()
        return gone

    def mark_stale(self) -> list[IPNetwork]:
        """Keep everything, marked: the session is gone and may come back (RFC 4724 section 4.2)."""
        marked: dict[int, Told] = {}
        changed = []
        for prefix, told in self.entries.items():
            if not told.stale:
                stale = marked.get(id(told)) or marked.setdefault(id(told), replace(told, stale=True))
                self.entries[prefix] = stale
                changed.append(prefix)
        return changed

    def sweep(self, families: Iterable[Family] = tuple(Family)) -> list[IPNetwork]:
        """Forget what is still marked stale."""
        wanted = set(families)
        return self.withdraw(
            [prefix for prefix, told in self.entries.items() if told.stale and FAMILY[prefix.version] in wanted]
        )

    def drop(self, families: Iterable[Family]) -> list[IPNetwork]:
        """Forget everything of some families."""
        unwanted = set(families)
        return self.withdraw([prefix for prefix in self.entries if FAMILY[prefix.version] in unwanted])

    def judge(self, policy: Judge) -> list[IPNetwork]:
        """Ask the policy again, after it has changed."""
        # Outcomes are kept with what comes of them, so that none is taken for another that had its place in memory.
        known: dict[tuple[int, int | Refusal], tuple[Told, bool, Accepted | Refusal]] = {}
        changed = []
        for prefix, told in self.entries.items():
            outcome = policy(prefix, told.received)
            key = id(told), outcome if isinstance(outcome, Refusal) else id(outcome)
            if key not in known:
                new = told.judged(outcome)
                known[key] = new, new != told, outcome
            judged, differs, _ = known[key]
            if differs:
                self.entries[prefix] = judged
                changed.append(prefix)
        return changed

    def accepted(self, prefix: IPNetwork) -> Told | None:
        """Return what takes part in the selection."""
        told = self.entries.get(prefix)
        return told if told is not None and told.refusal is None else None

    @property
    def stale(self) -> int:
        """How many paths are kept although their session is gone."""
        return sum(told.stale for told in self.entries.values())

    @property
    def refused(self) -> int:
        """How many paths the import policy refuses."""
        return sum(told.refusal is not None for told in self.entries.values())

    @property
    def decided_by(self) -> Counter[str]:
        """By rule of a filter, or reason of a refusal: how many of the paths here it decides over."""
        return Counter(told.decided_by for told in self.entries.values() if told.decided_by)


@dataclass(frozen=True, slots=True)
class Contest:
    """The accepted paths to prefixes of which the same peers say the same, and the best of those that can be used.

    Attributes:
        best: None where no next hop can be reached.
        waiting: where there is no best: what it would be if every next hop could be reached.
    """

    paths: tuple[Told, ...]
    best: BestPath | None
    waiting: BestPath | None = None


@dataclass(slots=True)
class LocRib:
    """The best path to each prefix, and why it is the best.

    Its verbs return the prefixes to which packets take another way now, and not those of which a loser changed.

    Attributes:
        waiting: prefixes that have paths and no best one, since none of their next hops can be reached, with what would
            be the best if all could. It is told to nobody; people see it, and it is the best one when its next hop is.
        obstacles: next hops that cannot be reached, and why; paths with one of them are kept, and not eligible
            (RFC 4271 section 9.1.2.1).
    """

    best: dict[IPNetwork, BestPath] = field(default_factory=dict)
    waiting: dict[IPNetwork, BestPath] = field(default_factory=dict)
    contests: dict[IPNetwork, Contest] = field(default_factory=dict)
    obstacles: Mapping[IPAddress, str] = field(default_factory=dict)
    _uses: dict[IPAddress, int] = field(default_factory=dict, repr=False)  # of each next hop, by accepted paths
    _next_hops: frozenset[IPAddress] | None = field(default=None, repr=False)

    def follow(self, peer: IPAddress, adj_rib_in: AdjRibIn, prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
        """Choose anew for prefixes of which a peer says something else now."""
        entries, contests = adj_rib_in.entries, self.contests
        steps: dict[tuple[int, int], _Step] = {}
        changed = []
        for prefix in prefixes:
            before, told = contests.get(prefix), entries.get(prefix)
            step = steps.get((id(before), id(told)))
            if step is None:
                step = steps[id(before), id(told)] = _Step(before, told, self._after(before, peer, told))
            step.prefixes += 1
            if self._put(prefix, before, step.after):
                changed.append(prefix)
        for step in steps.values():
            self._count(step.after, step.prefixes)
            self._count(step.before, -step.prefixes)
        return changed

    def learn(self, adj_rib_in: AdjRibIn, prefixes: Collection[IPNetwork], told: Told) -> Collection[IPNetwork]:
        """Choose anew for prefixes of which a peer says this one thing now: once, where nobody spoke of any before."""
        if told.refusal is not None or not self.contests.keys().isdisjoint(prefixes):
            return self.follow(told.peer, adj_rib_in, prefixes)
        if not prefixes:
            return []
        contest = self._contest((told,))
        contests = dict.fromkeys(prefixes, contest)  # dicts take the hashes of their keys from each other
        self.contests.update(contests)
        self._count(contest, len(prefixes))
        if contest.best is not None:
            self.best.update(dict.fromkeys(contests, contest.best))
        elif contest.waiting is not None:
            self.waiting.update(dict.fromkeys(contests, contest.waiting))
        return prefixes

    def reach(self, obstacles: Mapping[IPAddress, str]) -> list[IPNetwork]:
        """Take note of which next hops cannot be reached now."""
        turned = (obstacles.keys() ^ self.obstacles.keys()) & self._uses.keys()
        self.obstacles = dict(obstacles)
        steps: dict[int, tuple[Contest, Contest]] = {}
        changed = []
        for prefix, before in tuple(self.contests.items()) if turned else ():
            step = steps.get(id(before))
            if step is None:
                concerned = any(told.attributes.next_hop in turned for told in before.paths)
                step = steps[id(before)] = before, self._contest(before.paths) if concerned else before
            if self._put(prefix, before, step[1]):
                changed.append(prefix)
        return changed

    @property
    def next_hops(self) -> frozenset[IPAddress]:
        """Every next hop that an accepted path has, whether it can be reached or not; one object until they change."""
        if self._next_hops is None:
            self._next_hops = frozenset(self._uses)
        return self._next_hops

    def _count(self, contest: Contest | None, prefixes: int) -> None:
        """Take note that so many more prefixes have this contest."""
        for told in contest.paths if contest else ():
            next_hop = told.attributes.next_hop
            if next_hop is None:
                continue
            before = self._uses.get(next_hop, 0)
            self._uses[next_hop] = before + prefixes
            if not self._uses[next_hop]:
                del self._uses[next_hop]
            if not before or next_hop not in self._uses:
                self._next_hops = None

    def _after(self, before: Contest | None, peer: IPAddress, told: Told | None) -> Contest | None:
        others = tuple(each for each in before.paths if each.peer != peer) if before else ()
        if told is not None and told.refusal is None:
            return self._contest((*others, told))
        return self._contest(others) if others else None

    def _contest(self, paths: tuple[Told, ...]) -> Contest:
        best = decision.best(told for told in paths if told.attributes.next_hop not in self.obstacles)
        return Contest(paths, best, decision.best(paths) if best is None else None)

    def _put(self, prefix: IPNetwork, before: Contest | None, after: Contest | None) -> bool:
        """Let a prefix have this contest; say whether packets take another way, or wait for another one."""
        if after is before:
            return False
        if after is None:
            del self.contests[prefix]
        else:
            self.contests[prefix] = after
        best = _replace(self.best, prefix, before.best if before else None, after.best if after else None)
        waits = _replace(self.waiting, prefix, before.waiting if before else None, after.waiting if after else None)
        return best or waits


@dataclass(slots=True)
class _Step:
    """From one contest to another, because a peer says this now; what is here keeps its place in memory meanwhile."""

    before: Contest | None
    told: Told | None
    after: Contest | None
    prefixes: int = 0


def _replace(table: dict[IPNetwork, BestPath], prefix: IPNetwork, old: BestPath | None, new: BestPath | None) -> bool:
    """Put the new one into the place of the old one; say whether that leads another way."""
    if new is not None:
        table[prefix] = new
    elif old is not None:
        del table[prefix]
    return not _same_way(old, new)


def _same_way(one: BestPath | None, other: BestPath | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.path is other.path or one.path == other.path) and one.equal == other.equal


@dataclass(slots=True)
class AdjRibOut:
    """What the wire holds to be said to one peer; while the session is down it is said as soon as it is up."""

    told: dict[IPNetwork, Attributes] = field(default_factory=dict)

    @property
    def prefixes(self) -> frozenset[IPNetwork]:
        """What is announced."""
        return frozenset(self.told)

    def become(
        self, wanted: Mapping[IPNetwork, Attributes], among: Iterable[IPNetwork] | None = None
    ) -> tuple[dict[IPNetwork, Attributes], list[IPNetwork]]:
        """Take what should be announced; return what has to be said for it, and what has to be withdrawn.

        Args:
            wanted: the prefixes that are to be announced.
            among: what was looked at; all others stay as they are. None is all.
        """
        told = self.told
        looked_at = tuple(told) if among is None else among
        gone = [prefix for prefix in looked_at if prefix in told and prefix not in wanted]
        for prefix in gone:
            del told[prefix]
        new = {prefix: each for prefix, each in wanted.items() if (old := told.get(prefix)) is not each and old != each}
        told.update(new)
        return new, gone
