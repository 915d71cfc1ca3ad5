"""What BGP knows as far as routes need it, and what of it is news; all prefixes of which it says the same share it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from bgp.decision import BestPath
from bgp.types import IPAddress, IPNetwork
from felix_py.alike import by_object
from felix_py.calc.next_hops import by_number


class Learned(NamedTuple):
    """What a best path of BGP says of its prefix.

    Attributes:
        next_hop: of the best path.
        peer: who told us, in words.
        stale: the session is gone and graceful restart keeps the path.
        equal: the next hops of the other paths that are as good; the flows are spread over all.
    """

    next_hop: IPAddress
    peer: str
    stale: bool = False
    equal: tuple[IPAddress, ...] = ()


News: TypeAlias = tuple[Learned | None, Sequence[IPNetwork]]
"""Prefixes of which BGP says this now, or nothing any more."""

Change: TypeAlias = tuple[IPNetwork, BestPath | None]
"""The best path that a prefix has now; None where it has none."""

Changes: TypeAlias = Mapping[IPNetwork, BestPath | None] | Iterable[Change]
"""One after the other, or of each prefix what holds in the end."""

Namer: TypeAlias = Callable[[BestPath], str]
"""Names who told us a path; asked once for each peer."""


@dataclass(frozen=True, slots=True, eq=False)
class Hearsay:
    """BGP's best paths at one moment; two are never equal, for who has one takes the next by its news.

    Attributes:
        paths: what is known; paths that lead nowhere are left out.
        news: what differs from the one before, whose `mark` is `before`; None where nobody knows.
        mark: stands for this moment, so that the moment before need not be kept.
    """

    paths: Mapping[IPNetwork, Learned] = field(default_factory=dict)
    news: tuple[News, ...] = ()
    before: object | None = None
    mark: object = field(default_factory=object)

    def after(self, changes: Changes, name: Namer) -> "Hearsay":
        """Return what is known after these changes."""
        news = tuple(_news(changes, name))
        if not news:
            return self
        paths = dict(self.paths)
        for learned, prefixes in news:
            if learned is not None:
                paths.update(dict.fromkeys(prefixes, learned))
            else:
                for prefix in prefixes:
                    paths.pop(prefix, None)
        return Hearsay(paths, news, self.mark)

    def upon(self, earlier: "Hearsay") -> "Hearsay":
        """Return the same for one who has not taken the news of the moment before, where that is the earlier one."""
        if self.before is not earlier.mark:
            return self
        return replace(self, news=(*earlier.news, *self.news), before=earlier.before)

    @property
    def size(self) -> int:
        """How many prefixes the news are about."""
        return sum(len(prefixes) for _, prefixes in self.news)

    def parts(self, size: int) -> list[list[News]]:
        """Return the news in parts, which lead to the same one after the other.

        Args:
            size: the most prefixes that the first part may have; each further one may have twice as many.
        """
        parts: list[list[News]] = [[]]
        room = size
        for learned, prefixes in self.news:
            start = 0
            while start < len(prefixes):
                if not room:
                    size *= 2
                    parts.append([])
                    room = size
                some = prefixes[start : start + room]
                parts[-1].append((learned, some))
                start += len(some)
                room -= len(some)
        return parts


def hearsay(best_paths: Mapping[IPNetwork, BestPath], name: Namer) -> Hearsay:
    """Return everything that the Loc-RIB says, which follows upon nothing."""
    return Hearsay(Hearsay().after(best_paths, name).paths)


def by_value(paths: Mapping[IPNetwork, Learned]) -> Iterable[News]:
    """Return what is known, each time with all prefixes of which it is."""
    return by_object(paths.keys(), paths.values())


def _news(changes: Changes, name: Namer) -> Iterable[News]:
    # Of several changes of one prefix the last counts.
    latest = changes if isinstance(changes, dict) else dict(changes)
    names: dict[IPAddress, str] = {}
    found: dict[Learned | None, list[IPNetwork]] = {}
    for best, prefixes in by_object(latest.keys(), latest.values()):
        learned = _learned(best, names, name) if best is not None else None
        before = found.setdefault(learned, prefixes)
        if before is not prefixes:
            before += prefixes
    return found.items()


def _learned(best: BestPath, names: dict[IPAddress, str], name: Namer) -> Learned | None:
    path = best.path
    next_hop = path.attributes.next_hop
    if next_hop is None:
        return None
    if path.peer not in names:
        names[path.peer] = name(best)
    return Learned(next_hop, names[path.peer], path.stale, _next_hops(best) if best.equal else ())


def _next_hops(best: BestPath) -> tuple[IPAddress, ...]:
    """Return the next hops of the paths that are as good as the best one, lowest first, so that order means nothing."""
    hops = (path.attributes.next_hop for path in best.equal)
    return tuple(sorted((hop for hop in hops if hop is not None), key=by_number))
