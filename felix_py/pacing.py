"""How soon the loop turns again: at once, as long as the turns of late have not taken too much of a core."""

from dataclasses import dataclass

SHARE = 0.1
"""The part of one core that may go into repairing what others do: a storm must not cost the node more than that."""

NEWS = 0.2
"""What a second of work for news of our own (pods, resources, BGP) counts: they may take half of a core."""

CREDIT = 0.3
"""Seconds of work without rest after a quiet time: a thousand routes deleted at once take a tenth of it, a hundred
thousand that BGP tells for the first time two thirds."""

SHORTEST, LONGEST = 0.002, 0.5
"""Seconds between two turns that nobody waits for. What could not be rested in the longest is forgiven: a storm that is
over must not slow down what comes after it."""


CHURN, CHURN_LONGEST = 0.1, 0.4
"""Seconds between turns while pods come and go: those that come do not wait for one, and their events are many."""

CHURN_SHARE = 0.05
"""The part of one core that turns may take meanwhile: pods that come need it more."""


@dataclass(slots=True)
class Pace:
    """A bucket of seconds that may be worked; it fills while time passes.

    Attributes:
        credit: as of `at`; below zero the loop rests.
        busy: seconds of a core that the last turn took.
    """

    credit: float = CREDIT
    at: float = 0.0
    busy: float = 0.0

    def worked(self, busy: float, ended: float, *, news: bool) -> None:
        """Take note of a turn.

        Args:
            busy: seconds of a core that it took; on a machine with much to do it may have lasted much longer.
            ended: when it was over.
            news: whether it was for news of our own, and not only for what others did to the kernel.
        """
        filled = min(CREDIT, self.credit + (ended - self.at) * SHARE)
        credit = filled - busy * (NEWS if news else 1.0)
        self.credit, self.at, self.busy = max(credit, -LONGEST * SHARE), ended, busy

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next turn."""
        rest = min(max(-self.credit / SHARE, SHORTEST), LONGEST)
        return max(0.0, self.at + rest - now)

    def among_pods(self) -> float:
        """Return the seconds to wait before the next turn while pods come and go, as long as nobody waits for it."""
        return min(max(CHURN, self.busy / CHURN_SHARE), CHURN_LONGEST)
