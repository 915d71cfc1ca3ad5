"""When a node's network is there: its routes are in, as far as anybody can tell. Once in an agent's life."""

import asyncio
import contextlib
from collections.abc import Callable

LOOK = 1.0
"""Seconds between two looks where nothing happens: part of what is waited for is time itself."""


class Arrival:
    """Waits for the network of this node."""

    def __init__(self, there: Callable[[], bool], then: Callable[[], None]) -> None:
        """Take what to wait for.

        Args:
            there: says whether routes are in; asked in the loop's thread.
            then: called there when they are.
        """
        self._there, self._then = there, then
        self._moved = asyncio.Event()

    def look(self) -> None:
        """Note that something has happened."""
        self._moved.set()

    async def run(self) -> None:
        """Wait, say it once, and stay."""
        while not self._there():
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._moved.wait()
        self._then()
        await asyncio.Event().wait()
