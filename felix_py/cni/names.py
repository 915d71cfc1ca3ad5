"""Names that only one command at a time may be about: taken by any thread, and waited for by the loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Lock
from typing import TypeAlias

Waiter: TypeAlias = "tuple[frozenset[str], asyncio.Future[None]]"


class Names:
    """Those of one node's commands. Whoever came first gets them first."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: set[str] = set()
        self._waiting: list[Waiter] = []

    def take(self, names: frozenset[str]) -> bool:
        """Take names if nobody has any of them nor waits for one; for any thread."""
        with self._lock:
            return self._taken(names)

    def _taken(self, names: frozenset[str]) -> bool:
        free = self._held.isdisjoint(names) and all(names.isdisjoint(others) for others, _ in self._waiting)
        if free:
            self._held |= names
        return free

    def give_back(self, names: frozenset[str]) -> None:
        """Let others have them; for any thread."""
        with self._lock:
            self._held -= names
            granted, waiting = [], self._waiting
            self._waiting = []
            for each in waiting:
                if self._taken(each[0]):
                    granted.append(each[1])
                else:
                    self._waiting.append(each)
        for future in granted:
            future.get_loop().call_soon_threadsafe(_tell, future)

    @asynccontextmanager
    async def held(self, names: frozenset[str]) -> AsyncIterator[None]:
        """Wait for names, and have them inside; for the loop."""
        with self._lock:
            granted = asyncio.get_running_loop().create_future()
            if self._taken(names):
                granted.set_result(None)
            else:
                self._waiting.append((names, granted))
        try:
            await granted
            yield
        finally:
            with self._lock:
                gave_up = any(future is granted for _, future in self._waiting)
                self._waiting = [each for each in self._waiting if each[1] is not granted]
            # Where they were granted, and whoever waited was cancelled before it heard, they are given on as well.
            self.give_back(frozenset() if gave_up else names)


def _tell(granted: "asyncio.Future[None]") -> None:
    if not granted.done():
        granted.set_result(None)
