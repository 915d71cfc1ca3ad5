"""How soon the loop turns again: at once after a quiet time, and less often the more of a core the turns take."""

from dataclasses import dataclass

SHARE_OF_DRIFT = 0.1
"""The part of one core that may go into repairing what others do: a storm must not cost the node more than that."""

SHARE_OF_NEWS = 0.5
"""The part of one core that may go into news of our own: pods, resources, BGP."""

SHORTEST, LONGEST = 0.002, 1.0
"""Seconds between two turns that nobody waits for."""


@dataclass(slots=True)
class Pace:
    """Remembers the last turn.

    Attributes:
        rested: from when on the next turn is due without delay.
    """

    rested: float = 0.0

    def worked(self, started: float, ended: float, *, news: bool) -> None:
        """Take note of a turn.

        Args:
            started: when it began.
            ended: when it was over.
            news: whether it was for news of our own, and not only for what others did to the kernel.
        """
        share = SHARE_OF_NEWS if news else SHARE_OF_DRIFT
        rest = (ended - started) * (1 / share - 1)
        self.rested = ended + min(max(rest, SHORTEST), LONGEST)

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next turn."""
        return max(0.0, self.rested - now)
