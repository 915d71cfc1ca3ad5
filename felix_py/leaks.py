"""Addresses that nobody uses any more: which of them are taken back, and when. Pure: time is an argument."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

GRACE = timedelta(minutes=15)
"""How long an address may seem unused before it is taken back: Calico's leakGracePeriod."""

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Suspects(Generic[Thing]):
    """What has seemed unused at every look since a time."""

    since: Mapping[Thing, datetime] = field(default_factory=dict)

    def after(self, unused: Iterable[Thing], now: datetime) -> "Suspects[Thing]":
        """Return the suspects after another look; whatever was seen in use is none any more."""
        return Suspects({each: self.since.get(each, now) for each in unused})

    def due(self, now: datetime, grace: timedelta = GRACE) -> tuple[Thing, ...]:
        """Return those that have been suspects for as long as that."""
        return tuple(each for each, since in self.since.items() if now - since >= grace)
