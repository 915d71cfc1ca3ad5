"""Holds back repairs of what somebody keeps breaking: a quarrel is reported, not fought (after RFC 2439)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

HALF_LIFE = 4.0
"""Seconds in which half of a penalty is forgiven."""

SUPPRESS = 8.0
"""Penalty above which repairs wait; each disturbance adds 1, so some eight in a row are repaired at once."""

REUSE = 4.0
"""Penalty below which a repair is due again: one half-life after suppression at the latest when nothing new happens."""

CEILING = 16.0
"""Penalty at most, however many disturbances: quiet is noticed after two half-lives."""

NEGLIGIBLE = 0.5
"""Penalty below which a quarrel is over: five half-lives after the ceiling, one after a single disturbance."""


@dataclass(slots=True)
class Quarrel:
    """One thing that others keep changing.

    Attributes:
        penalty: as of `at`.
        disturbances: how often, since the penalty was last negligible.
        port: netlink port of the last one who did it, for most programs their process ID; 0 is the kernel.
        suppressed: repairs wait.
        until: the next repair; fixed when the wait begins, so that an endless storm cannot put it off for ever.
    """

    penalty: float
    at: float
    disturbances: int = 0
    port: int = 0
    suppressed: bool = False
    until: float | None = None

    def now(self, now: float) -> float:
        """Return the penalty as it has decayed until now."""
        return float(self.penalty * 0.5 ** ((now - self.at) / HALF_LIFE))


class Damping:
    """The quarrels of one engine, by what they are about."""

    def __init__(self) -> None:
        self.quarrels: dict[bytes, Quarrel] = {}

    def disturbed(self, identity: bytes, now: float, port: int = 0) -> bool:
        """Take note that somebody changed this; return whether it has just become too much."""
        quarrel = self.quarrels.setdefault(identity, Quarrel(0.0, now))
        quarrel.penalty, quarrel.at = min(quarrel.now(now) + 1.0, CEILING), now
        quarrel.disturbances += 1
        quarrel.port = port
        started = quarrel.penalty > SUPPRESS and not quarrel.suppressed
        quarrel.suppressed = quarrel.suppressed or started
        return started

    def due(self, identity: bytes, now: float) -> float:
        """Return when a repair may be made: now, or later."""
        quarrel = self.quarrels.get(identity)
        if quarrel is None or not quarrel.suppressed:
            return now
        if quarrel.until is None:
            quarrel.until = now + _seconds_until(quarrel.now(now), REUSE)
        return quarrel.until

    def repaired(self, identity: bytes) -> None:
        """Take note that it is as it should be; if that does not last, the next wait begins anew."""
        if (quarrel := self.quarrels.get(identity)) is not None:
            quarrel.until = None

    def calm(self, now: float) -> tuple[bytes, ...]:
        """Forget what has been quiet; return those that had been suppressed."""
        ended = []
        for identity, quarrel in tuple(self.quarrels.items()):
            penalty = quarrel.now(now)
            if penalty < NEGLIGIBLE:
                del self.quarrels[identity]
                if quarrel.suppressed:
                    ended.append(identity)
        return tuple(ended)

    def ends(self) -> Iterator[float]:
        """Yield when each quarrel that was suppressed will be over, if nothing more happens."""
        for quarrel in self.quarrels.values():
            if quarrel.suppressed:
                yield quarrel.at + _seconds_until(quarrel.penalty, NEGLIGIBLE) + 0.001  # just after, so that it is

    @property
    def suppressed(self) -> tuple[bytes, ...]:
        """What is being held back or has been a moment ago."""
        return tuple(identity for identity, quarrel in self.quarrels.items() if quarrel.suppressed)


def _seconds_until(penalty: float, target: float) -> float:
    """Return how long a penalty takes to decay to a target."""
    return HALF_LIFE * math.log2(penalty / target) if penalty > target else 0.0
