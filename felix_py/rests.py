"""The loop's rests between two turns: as long as others work at the kernel, and while pods come."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from felix_py.calm import Calm
from felix_py.model import NodeName
from felix_py.pacing import CHURN, Pace

SHORT_REST = 0.01
"""Seconds between turns while somebody waits for a pod, whatever a storm would make them."""

LOOK = 0.03
"""Seconds between two looks at what the kernel tells, while turns wait for pods: for longer ones pods would wait."""


class Rests:
    """Those of one node; everything here runs in the loop.

    Attributes:
        calm: what has happened since the last turn.
        pace: how long turns took of late.
        hurry: set while somebody waits for a turn.
    """

    def __init__(self, me: NodeName, clock: Callable[[], float]) -> None:
        self.calm = Calm(me)
        self.pace = Pace()
        self.hurry = asyncio.Event()
        self._clock = clock
        self._moved = float("-inf")

    def pods_move(self) -> None:
        """Take note that a pod comes or goes; for any thread."""
        self._moved = self._clock()
        self.calm.expect(self._moved)

    async def rest(self, settle: float, *, short: bool) -> None:
        """Rest until the next turn, not while somebody waits for it.

        Args:
            settle: seconds that are waited for more in any case.
            short: for a moment only, however much the last turns took.
        """
        delay = max(settle, self.pace.delay(self._clock()))
        if self._pods_move:
            delay = max(delay, self.pace.among_pods())
        await self._pause(min(delay, SHORT_REST) if short else delay)

    async def wait_for_pods(self, calm: Callable[[], Awaitable[bool]]) -> None:
        """Wait while pods come one after the other, as long as nothing else happens.

        Args:
            calm: takes what the kernel tells, and says whether it was of such pods alone.
        """
        while self._pods_move and self.calm.lasts(self._clock()) and not self.hurry.is_set() and await calm():
            await self._pause(LOOK)

    @property
    def _pods_move(self) -> bool:
        return self._clock() - self._moved < CHURN

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.hurry.wait()
