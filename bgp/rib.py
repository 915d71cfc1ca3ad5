"""The tables of a speaker: what each peer said (Adj-RIB-In), the best of it (Loc-RIB), what we say (Adj-RIB-Out)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network

from bgp import decision
from bgp.decision import BestPath
from bgp.policy import Refusal
from bgp.types import IPAddress, Path


@dataclass(frozen=True, slots=True)
class Received:
    """A path as a peer told it, and what the import policy says to it; refused ones are kept, to be shown.

    Attributes:
        refusal: None where it is accepted.
    """

    path: Path
    refusal: Refusal | None = None


@dataclass(slots=True)
class AdjRibIn:
    """What one peer said, before and after policy. Its methods return the prefixes whose best path may have changed."""

    entries: dict[IPv4Network, Received] = field(default_factory=dict)

    def learn(self, path: Path, refusal: Refusal | None) -> set[IPv4Network]:
        """Take a path in the place of whatever the peer said of its prefix before."""
        new = Received(path, refusal)
        if self.entries.get(path.prefix) == new:
            return set()
        self.entries[path.prefix] = new
        return {path.prefix}

    def withdraw(self, prefixes: Iterable[IPv4Network]) -> set[IPv4Network]:
        """Forget prefixes; those that were never announced are no fault (RFC 4271 section 3.1)."""
        return {prefix for prefix in prefixes if self.entries.pop(prefix, None) is not None}

    def clear(self) -> set[IPv4Network]:
        """Forget everything."""
        return self.withdraw(tuple(self.entries))

    def mark_stale(self) -> set[IPv4Network]:
        """Keep everything, marked: the session is gone and may come back (RFC 4724 section 4.2)."""
        for prefix, entry in self.entries.items():
            self.entries[prefix] = replace(entry, path=replace(entry.path, stale=True))
        return set(self.entries)

    def sweep(self) -> set[IPv4Network]:
        """Forget what is still marked stale."""
        return self.withdraw([prefix for prefix, entry in self.entries.items() if entry.path.stale])

    def judge(self, policy: Callable[[Path], Refusal | None]) -> set[IPv4Network]:
        """Ask the policy again, after it has changed."""
        changed = set()
        for prefix, entry in self.entries.items():
            refusal = policy(entry.path)
            if refusal != entry.refusal:
                self.entries[prefix] = replace(entry, refusal=refusal)
                changed.add(prefix)
        return changed

    def accepted(self, prefix: IPv4Network) -> Path | None:
        """Return the path that takes part in the selection."""
        entry = self.entries.get(prefix)
        return entry.path if entry and entry.refusal is None else None

    @property
    def stale(self) -> int:
        """How many paths are kept although their session is gone."""
        return sum(entry.path.stale for entry in self.entries.values())

    @property
    def refused(self) -> int:
        """How many paths the import policy refuses."""
        return sum(entry.refusal is not None for entry in self.entries.values())


@dataclass(slots=True)
class LocRib:
    """The best path to each prefix, and why it is the best."""

    best: dict[IPv4Network, BestPath] = field(default_factory=dict)

    def select(self, prefix: IPv4Network, adj_ribs_in: Mapping[IPAddress, AdjRibIn]) -> tuple[bool, BestPath | None]:
        """Choose anew for one prefix; return whether anything changed, and the choice."""
        candidates = (adj_rib_in.accepted(prefix) for adj_rib_in in adj_ribs_in.values())
        chosen = decision.best(path for path in candidates if path is not None)
        if chosen == self.best.get(prefix):
            return False, chosen
        if chosen is None:
            del self.best[prefix]
        else:
            self.best[prefix] = chosen
        return True, chosen


@dataclass(slots=True)
class AdjRibOut:
    """What one peer has been told."""

    prefixes: frozenset[IPv4Network] = frozenset()

    def become(self, wanted: frozenset[IPv4Network]) -> tuple[frozenset[IPv4Network], frozenset[IPv4Network]]:
        """Take what should be announced; return what is new, and what has to be withdrawn."""
        new, gone = wanted - self.prefixes, self.prefixes - wanted
        self.prefixes = wanted
        return new, gone
