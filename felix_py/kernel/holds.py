"""Why a route is not being written although it is due, and until when."""

import errno
from dataclasses import dataclass
from enum import StrEnum

from felix_py.kernel.wire import Refusal

RETRY_FIRST, RETRY_LAST = 0.1, 10.0
"""Seconds before a refused route is tried again: at first, and after doubling at most. Felix tries every 10 s."""

NEVER = float("inf")
"""Until something happens that ends the wait, however long that takes."""

PASSING = frozenset({errno.ENETDOWN, errno.ENODEV, errno.ENXIO})
"""Refusals that belong to an interface that comes or goes; nothing is wrong, and its next event ends them."""


class Waiting(StrEnum):
    """What a route waits for."""

    RETRY = "refused"
    CALM = "contested"
    GRACE = "grace"
    CONNTRACK = "conntrack"


@dataclass(frozen=True, slots=True)
class Hold:
    """One route that has to wait.

    Attributes:
        until: when it is due again, on the clock of the engine's callers.
        cause: what others did that made a write necessary; it counts when the write is made.
        pause: of a retry, the seconds that were waited; the next wait is twice as long.
    """

    waiting: Waiting
    until: float
    refusal: Refusal | None = None
    pause: float = 0.0
    cause: str | None = None

    @property
    def passing(self) -> bool:
        """Whether nothing is wrong: an interface comes or goes."""
        return self.refusal is not None and self.refusal.code in PASSING

    def reason(self, now: float) -> str:
        """Say why, and when it goes on."""
        seconds = max(0.0, self.until - now)
        match self.waiting:
            case Waiting.RETRY:
                return f"{self.refusal.text if self.refusal else 'refused'}; tried again in {seconds:.1f} s"
            case Waiting.CALM:
                return f"others keep changing it; put back in {seconds:.1f} s"
            case Waiting.GRACE:
                return f"nobody wants it, but its endpoint may be on the way; removed in {seconds:.0f} s"
            case Waiting.CONNTRACK:
                return "waits until connections of the address's last owner are forgotten"


def after_refusal(refusal: Refusal, before: Hold | None, now: float, cause: str | None = None) -> Hold:
    """Return the wait after a refusal: 0.1 s at first, twice the last wait after that, 10 s at most."""
    again = before is not None and before.waiting is Waiting.RETRY
    pause = min(before.pause * 2, RETRY_LAST) if before is not None and again else RETRY_FIRST
    return Hold(Waiting.RETRY, now + pause, refusal, pause, cause)
