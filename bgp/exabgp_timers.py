"""The child's timers: when a KEEPALIVE is due, and by which clock everything that lasts is measured.

ExaBGP 5.0.15 reads the time of day for that, in whole seconds. When somebody sets the host's clock forward by more than
the hold time, all its sessions end; when it is set back, it sends no KEEPALIVE until the old time is reached again.
"""

import math
import time
from typing import Any

from exabgp.bgp import timer
from exabgp.bgp.timer import SendTimer
from exabgp.reactor import delay, peer
from exabgp.reactor.keepalive import KA

from bgp.exabgp_options import keepalive

NEVER = math.inf
"""When the next KEEPALIVE is due of a peer that is sent none."""


class Steady:
    """Stands for the module `time` where ExaBGP measures: seconds that nobody can set."""

    time = staticmethod(time.monotonic)


class Timer(SendTimer):  # type: ignore[misc]
    """Says when a KEEPALIVE is due: as the settings say, but no later than a third of the hold time."""

    def __init__(self, session: Any, proto: Any) -> None:
        super().__init__(session, proto.negotiated.holdtime)
        self._third = int(proto.negotiated.holdtime.keepalive())
        self._peer = proto.peer
        self._sent = time.monotonic()
        self._peer.keepalive_due = self._due()

    def need_ka(self) -> bool:
        """Say whether one is due, and take it for sent."""
        now = time.monotonic()
        needed = now >= self._due()
        if needed:
            self._sent = now
        self._peer.keepalive_due = self._due()  # the reactor sleeps no longer
        return needed

    def _due(self) -> float:
        """Return when the next one is due; the settings are asked each time: they change during a session."""
        interval = min(self._third, keepalive(self._peer.neighbor) or self._third)
        return self._sent + interval if interval else NEVER


class Keepalives(KA):  # type: ignore[misc]
    """ExaBGP's sender of KEEPALIVEs with our timer."""

    def __init__(self, session: Any, proto: Any) -> None:
        super().__init__(session, proto)
        self.send_timer = Timer(session, proto)


def install() -> None:
    """Have ExaBGP ask us."""
    timer.time = delay.time = Steady
    peer.KA = Keepalives
