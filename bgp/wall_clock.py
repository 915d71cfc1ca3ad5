"""What time of day a moment had, which a clock told that only goes forward: the same whenever it is asked."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

STEP = timedelta(seconds=1)
"""What the two clocks may drift apart before times of day are told anew: somebody has set the clock, or slews it."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One reading of both clocks, `now` in seconds."""

    now: float
    wall: datetime

    def at(self, moment: float) -> datetime:
        """Return the time of day of a moment on the clock that only goes forward."""
        # Exact, as the difference of both is not: the same whatever time it is now.
        return self.wall - timedelta(seconds=self.now) + timedelta(seconds=moment)


class WallClock:
    """Turns moments of one clock into times of day.

    Two clocks cannot be read at once. Worked out anew with each question, one and the same moment would have times of
    day that differ by what passes between the two readings, and now and then by a second where seconds are shown.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._wall = wall
        self._zero: datetime | None = None

    def read(self) -> Clock:
        """Return this moment by both clocks."""
        before, wall, now = self._clock(), self._wall(), self._clock()
        zero, doubt = wall - timedelta(seconds=now), timedelta(seconds=now - before)
        if self._zero is None or abs(zero - self._zero) > STEP + doubt:
            self._zero = zero
        return Clock(now, self._zero + timedelta(seconds=now))

    def at(self, moment: float) -> datetime:
        """Return the time of day of a moment on the clock."""
        return self.read().at(moment)
