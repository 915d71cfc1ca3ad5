"""When a BGP process is taken for stuck, and how soon a dead one is started again.

Peers keep what they were told while our process is dead (graceful restart, RFC 4724), but not while it is silent: one
whose hold timer runs out forgets everything at once. So a stuck process has to be found, and killed, before that.
"""

from collections.abc import Iterable
from dataclasses import dataclass

PING = 5.0
"""Seconds between two questions whether the process lives, where no hold time asks for more."""

PINGS_IN_HOLD_TIME = 12
"""Questions in the shortest hold time. Two thirds of it are left in the worst case when a process gets stuck, since
KEEPALIVEs go out every third; four questions take half of that."""

LOOK = 0.5
"""Seconds between two looks at most: sessions come up at any time, and with them a shorter hold time."""

COUNTING = 5.0
"""Seconds between two questions that ask for the counts of messages too: it takes long where there are many peers."""

UNANSWERED = 3
"""Questions in a row that may stay without an answer. They are counted, and not seconds: where it was us who got no
processor time, none was asked."""

RESPAWN_FIRST, RESPAWN_LAST = 0.1, 10.0
"""Seconds before a process is started again: at first, and at most. It stays far below the restart time of 120 s."""

HEALTHY = 60.0
"""Seconds of life after which a death is no reason any more to wait longer for the next process."""


def ping_interval(hold_times: Iterable[int]) -> float:
    """Return the seconds between two questions whether the process lives.

    Args:
        hold_times: of all sessions that are up, in seconds; 0 is none.
    """
    return min([PING, *(seconds / PINGS_IN_HOLD_TIME for seconds in hold_times if seconds)])


@dataclass(slots=True)
class Questions:
    """Whether a process lives: when it is asked, and when it has been silent for too long.

    Attributes:
        unanswered: questions since anything was heard of it.
    """

    unanswered: int = 0
    _asked: float = -PING
    _counted: float = -COUNTING

    def pause(self, hold_times: Iterable[int]) -> float:
        """Return the seconds until it is worth a look whether a question is due."""
        return min(LOOK, ping_interval(hold_times))

    def due(self, hold_times: Iterable[int], now: float) -> bool:
        """Say whether to ask now, and take note of it."""
        if now - self._asked < ping_interval(hold_times):
            return False
        self._asked = now
        self.unanswered += 1
        return True

    def stuck(self) -> bool:
        """Say whether too many were left without an answer."""
        return self.unanswered > UNANSWERED

    def counting(self, now: float) -> bool:
        """Say whether this one asks for the counts of messages too, and take note of it."""
        if now - self._counted < COUNTING:
            return False
        self._counted = now
        return True


@dataclass(slots=True)
class Respawns:
    """How long to wait before the next process is started.

    Attributes:
        count: how many had to be started because the one before had died.
    """

    count: int = 0
    _pause: float = 0.0

    def after(self, lived: float, *, settled: bool, on_purpose: bool) -> float:
        """Return the seconds until the next one is started.

        Args:
            lived: seconds that the last one lived.
            settled: it had every session up, and everything heard and told. What kills a process again and again kills
                it before that.
            on_purpose: we ended it ourselves.
        """
        if on_purpose or settled or lived > HEALTHY:
            self._pause = 0.0
        if not on_purpose:
            self._pause = min(RESPAWN_LAST, self._pause * 2 + RESPAWN_FIRST)
            self.count += 1
        return self._pause
