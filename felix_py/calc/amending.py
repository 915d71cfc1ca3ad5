"""The tables of a wish while news of BGP are taken in: only what the news are about is touched, everything else stays.

A wish is made the same way: all that BGP knows is news to one that knows nothing of it. So what comes of many small
steps is what one large step would have come to; there is no second way that could differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from felix_py.calc import candidates
from felix_py.calc.candidates import Candidate, Losers, Winners
from felix_py.kernel.objects import Route, RouteKey

Standing = Mapping[RouteKey, Sequence[Candidate]]
"""Who wants a prefix besides BGP; nearly always nobody does."""


@dataclass(slots=True)
class Tables:
    """What is wanted, by prefix.

    Attributes:
        chosen, lost, waiting: as in `Desired`.
        routes: the routes of those that have been chosen and can be installed.
        stale: how many of them BGP keeps only for a while.
    """

    chosen: Winners = field(default_factory=dict)
    lost: Losers = field(default_factory=dict)
    waiting: dict[RouteKey, str] = field(default_factory=dict)
    routes: dict[RouteKey, Route] = field(default_factory=dict)
    stale: int = 0

    def copy(self) -> "Tables":
        """Return the same; what is done to it does nothing to this one."""
        # A dict of 100,000 is copied in 2 ms: its keys are not hashed again.
        return Tables(dict(self.chosen), dict(self.lost), dict(self.waiting), dict(self.routes), self.stale)

    def take(
        self, keys: dict[RouteKey, None], candidate: Candidate | None, standing: Standing
    ) -> dict[RouteKey, Route | None]:
        """Let BGP want these prefixes so from now on, None: not at all; return the route that each has now."""
        # Dicts and sets take the hash of a key from each other, and to make it is half of what a prefix costs here.
        alone = standing.keys().isdisjoint(keys.keys())  # of two views, the shorter one is gone through
        if candidate is not None and alone and not (candidate.stale or self.stale):
            return self._put_alike(keys, candidate)
        for key in keys:
            self._put(key, (*standing.get(key, ()), *(() if candidate is None else (candidate,))))
        return dict(zip(keys, map(self.routes.get, keys), strict=True))

    def put_all(self, standing: Standing) -> None:
        """Begin with what is wanted besides BGP."""
        for key, group in standing.items():
            self._put(key, group)

    def _put_alike(self, keys: dict[RouteKey, None], candidate: Candidate) -> dict[RouteKey, Route | None]:
        """Let all these prefixes have one candidate, whom nobody contests any of them."""
        self.chosen.update(dict.fromkeys(keys, candidate))
        if candidate.obstacle is not None:
            self.waiting.update(dict.fromkeys(keys, candidate.obstacle))
            for key in keys:
                self.routes.pop(key, None)
            return dict.fromkeys(keys, None)
        for key in keys.keys() & self.waiting.keys() if self.waiting else ():
            del self.waiting[key]
        routes: dict[RouteKey, Route | None] = dict.fromkeys(keys, candidate.route)
        self.routes.update(routes)  # type: ignore[arg-type]  # none of them is None
        return routes

    def _put(self, key: RouteKey, group: Sequence[Candidate]) -> None:
        """Let these be all who want a prefix."""
        before = self.chosen.pop(key, None)
        self.lost.pop(key, None)
        self.waiting.pop(key, None)
        self.stale -= before is not None and before.stale and before.obstacle is None
        if not group:
            self.routes.pop(key, None)
            return
        winner, beaten = candidates.decide(group) if len(group) > 1 else (group[0], ())
        self.chosen[key] = winner
        if beaten:
            self.lost[key] = beaten
        if winner.obstacle is not None:
            self.waiting[key] = winner.obstacle
            self.routes.pop(key, None)
        else:
            self.routes[key] = winner.route
            self.stale += winner.stale
