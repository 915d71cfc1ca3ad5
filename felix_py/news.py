"""Lets whoever asked once wait for the next change: a number that grows with each, and answers that wait for it."""

import asyncio
import contextlib
from collections.abc import Mapping

from felix_py.api import Answer, Handler

LONGEST_WAIT = 5.0
"""Seconds that an answer may wait for a change; well below the client's deadline."""


class News:
    """Counts changes of what felixctl shows, and wakes who waits for one."""

    def __init__(self) -> None:
        self._number = 0
        self._changed = asyncio.Event()

    def ring(self) -> None:
        """Take note of a change; cheap, since there may be thousands a second and nobody who waits."""
        self._number += 1
        if not self._changed.is_set():
            self._changed.set()

    @property
    def number(self) -> int:
        """How many changes there were."""
        return self._number

    async def changed(self, after: int, seconds: float) -> None:
        """Wait until there were more changes than `after`, for some seconds at most."""
        if after != self._number or seconds <= 0:
            return
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def waiting(self, handler: Handler) -> Handler:
        """Return a handler that takes `after` and `wait` too: it answers when something has changed, or after a while.

        `revision` of the answer is what to give as `after` next time. A number that was never given answers at once.
        """

        async def answer(parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
            fault = await self._wait(query)
            if fault is not None:
                return 400, {"error": fault}
            revision = self._number
            status, document = await handler(parts, query)
            assert isinstance(document, dict)  # noqa: S101 - pages are of another server
            return status, {**document, "revision": revision} if status == 200 else document  # noqa: PLR2004 - OK

        return answer

    async def _wait(self, query: Mapping[str, str]) -> str | None:
        """Wait as asked; return what is wrong with the question."""
        try:
            after, seconds = int(query.get("after", "-1")), float(query.get("wait", "0"))
        except ValueError:
            return "after and wait are numbers: after=REVISION&wait=SECONDS"
        if not 0 <= seconds <= LONGEST_WAIT:
            return f"wait is {query['wait']!r}; give 0 to {LONGEST_WAIT:.0f} seconds"
        await self.changed(after, seconds)
        return None
