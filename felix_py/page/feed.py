"""What readers of a page are sent: one gatherer for all, at a bounded rate, and to each what is new since it last read.

A reader that stops reading is waited for by nobody. There is no queue for it: it holds the tables that it was sent
last, and is sent the difference to those of the moment in which it reads again.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Protocol

from felix_py.first_done import first_done
from felix_py.page import tables
from felix_py.page.tables import Tables

REST = 0.5
"""Seconds between two looks at least; people see no difference, and a storm of changes costs no more than this."""

SHARE = 10
"""A look is followed by a rest of this many times its own duration: open pages take a tenth of a core at most."""

LONGEST = 5.0
"""Seconds of rest at most: a page that is older is none."""

HEARTBEAT = 10.0
"""Seconds of silence until a comment is sent, by which a browser's death is noticed."""

READERS = 16
"""Pages at a time; each holds the tables that it was sent last."""


class Source(Protocol):
    """Where a page's tables come from."""

    async def gather(self) -> Tables:
        """Return everything as it is now."""

    async def changed(self) -> None:
        """Wait until there may be something new."""


class Full(Exception):  # noqa: N818 - named for what it means: there is no room for another reader
    """As many pages are open as may be."""


class Feed:
    """Serves any number of readers from one source; `run` has to be at work."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._latest: Tables | None = None
        self._number = 0
        self._readers = 0
        self._wanted = asyncio.Event()
        self._came = asyncio.Event()
        self._told = asyncio.Event()

    @property
    def readers(self) -> int:
        """How many pages are open."""
        return self._readers

    async def run(self) -> None:
        """Gather whenever something has changed, as long as somebody reads, until cancelled."""
        while True:
            await self._wanted.wait()
            began = self._clock()
            after = tables.settled(self._latest or {}, await self._source.gather())
            if self._latest is None or any(after[name] is not self._latest.get(name) for name in after):
                self._latest = after
                self._number += 1
                told, self._told = self._told, asyncio.Event()
                told.set()
            rest = min(max(REST, SHARE * (self._clock() - began)), LONGEST)
            self._came.clear()
            await first_done(self._came.wait(), self._rested(rest))

    async def _rested(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._source.changed()

    def messages(self) -> AsyncGenerator[bytes, None]:
        """Return the events of one reader, as HTML's section 9.2 (server-sent events) writes them.

        Raises:
            Full: when there are READERS already.
        """
        if self._readers >= READERS:
            raise Full(f"{READERS} pages are open already; close one")
        return self._messages()

    async def _messages(self) -> AsyncGenerator[bytes, None]:
        with self._reading():
            known: Tables = {}
            number = -1
            while True:
                told = self._told
                if self._latest is not None and self._number != number:
                    latest, kind = self._latest, "news" if number >= 0 else "whole"
                    news, known, number = tables.changes(known, latest), latest, self._number
                    yield message(kind, news)
                    continue
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        await told.wait()
                except TimeoutError:
                    yield b":\n\n"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        self._readers += 1
        self._wanted.set()
        if self._latest is None:
            self._came.set()
        try:
            yield
        finally:
            self._readers -= 1
            if self._readers == 0:
                self._wanted.clear()
                self._latest = None  # what was gathered is old when the next one comes


def message(kind: str, news: dict[str, Any]) -> bytes:
    """Write one event: `whole` is everything, `news` what has changed; `now` is the server's time of day."""
    document = json.dumps({"now": round(time.time(), 3), **news}, separators=(",", ":"))
    return f"event: {kind}\ndata: {document}\n\n".encode()
