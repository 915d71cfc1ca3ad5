"""Which prefixes have another best path now, for somebody who asks for them now and then."""

from collections.abc import Collection
from itertools import repeat

from bgp.decision import BestPath
from bgp.rib import LocRib
from bgp.types import IPNetwork

MOST_MOVED = 1 << 18
"""Prefixes that wait for somebody to ask for them; from there on they are not counted, but all is told anew."""


class Moved:
    """The prefixes that have changed in a Loc-RIB and that nobody has asked for yet; at first that is all of it."""

    def __init__(self) -> None:
        self._prefixes: list[IPNetwork] | None = None  # None is all

    def note(self, prefixes: Collection[IPNetwork]) -> None:
        """Take note of prefixes of which something else holds now."""
        if self._prefixes is not None:
            self._prefixes += prefixes
            if len(self._prefixes) > MOST_MOVED:
                self._prefixes = None

    def note_all(self) -> None:
        """Take note that something else may hold of every prefix."""
        self._prefixes = None

    def taken(self, loc_rib: LocRib) -> dict[IPNetwork, BestPath | None] | None:
        """Return what now holds of those that have changed since this was asked last; None where all may have.

        A prefix none of whose next hops can be reached comes with what would be its best path, and one that has no path
        with None.
        """
        prefixes, self._prefixes = self._prefixes, []
        if prefixes is None:
            return None
        waiting = map(loc_rib.waiting.get, prefixes) if loc_rib.waiting else repeat(None)
        return dict(zip(prefixes, map(loc_rib.best.get, prefixes, waiting), strict=True))
