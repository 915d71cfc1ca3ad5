"""The journal: every change that was logged, whatever the level, kept in memory and on disk for `felixctl events`."""

import asyncio
import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice, takewhile
from pathlib import Path
from threading import Lock
from typing import Any

import structlog

from felix_py import journal_words
from felix_py.api import Answer
from felix_py.journal_file import Entry, JournalFile, document

KEPT = 10_000
"""Entries in memory, some 3 MB of them."""

GATHER = 0.05
"""Seconds that a burst is gathered before it is written: a storm opens the file 20 times a second at most."""

LONGEST_WAIT = 30.0
"""Seconds that a follower may wait for news; asking again costs it nothing."""

ASKED = ("since", "after", "wait")
"""What may be asked, each a number: seconds back, number of the last entry known, seconds to wait for news."""

log = structlog.get_logger()


class Journal:
    """Observes the log; each entry is in memory at once, and on disk soon after.

    `note` may be called by any thread; the handler and `run` belong to the loop. While `run` is not at work, before and
    after it, each entry is written at once: the last words of an agent are kept.

    Args:
        directory: of the files; None keeps nothing on disk.
        clock: gives seconds since 1970.
    """

    def __init__(self, directory: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = JournalFile(directory) if directory is not None else None
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._number = 0
        self._lock = Lock()
        self._writing = Lock()
        self._refused = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._announced = False
        self._changed = asyncio.Event()
        self._read_back()

    def _read_back(self) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # what cannot be read cannot be written either, and then it is said
            self._entries.extend(self._file.read())
        self._number = self._file.written

    # --- what is told

    def note(self, fields: Mapping[str, Any]) -> None:
        """Keep an event of the log, if it tells of a change; `fields` has its name as `event`."""
        event = str(fields.get("event", ""))
        if fields.get("exc_info"):
            fields = {**fields, "reason": _exception()}
        told = journal_words.tell(event, fields)
        if told is None:
            return
        with self._lock:
            self._number += 1
            self._entries.append(Entry(self._number, self._clock(), event, told))
            announced, self._announced = self._announced, True
            loop = self._loop
        if loop is None:
            self.flush()
        elif not announced:
            with contextlib.suppress(RuntimeError):  # the loop has been closed; nobody waits any more
                loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        """Wake who waits for news: once for a burst, since calling into the loop is what costs."""
        with self._lock:
            self._announced = False
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- what is kept

    async def run(self) -> None:
        """Write what is noted until cancelled; the disk is waited for in a thread of its own."""
        self._loop = asyncio.get_running_loop()
        self._announce()
        try:
            while True:
                changed = self._changed
                await asyncio.to_thread(self.flush)
                await changed.wait()
                await asyncio.sleep(GATHER)
        finally:
            self._loop = None
            self.flush()

    def flush(self) -> None:
        """Write what memory holds and the disk does not; what fails is tried again with the next news."""
        if self._file is None:
            return
        failure = None
        with self._writing:
            due = self._after(self._file.written)
            try:
                self._file.append(due)
            except OSError as error:
                failure = error
            news, self._refused = failure is not None and not self._refused, failure is not None
        if news:
            log.warning(
                "journal.refused",
                reason=f"{self._file.path} cannot be written: {failure.strerror if failure else None}; events are kept "
                "in memory only until it can be: give it room, or another stateDirectory",
            )

    # --- what is asked

    @property
    def last(self) -> int:
        """The number of the newest entry."""
        return self._number

    def newest(self, count: int) -> list[dict[str, Any]]:
        """Return the newest entries as documents, the oldest of them first."""
        with self._lock:
            found = list(islice(reversed(self._entries), count))
        return [document(entry) for entry in reversed(found)]

    def entries(self, *, since: float = -math.inf, after: int = 0) -> tuple[tuple[Entry, ...], int]:
        """Return entries, oldest first, and the number to ask `after` next time.

        Args:
            since: not before this moment, in seconds since 1970.
            after: only those with a higher number. One that was never given is of a journal that is lost: all is news.
        """
        known = after if after <= self._number else 0
        found = self._after(known)
        return tuple(entry for entry in found if entry.at >= since), found[-1].number if found else known

    def _after(self, number: int) -> tuple[Entry, ...]:
        with self._lock:
            newest_first = list(takewhile(lambda entry: entry.number > number, reversed(self._entries)))
        return tuple(reversed(newest_first))

    async def events(self, _parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer /v1/events?since=SECONDS&after=NUMBER&wait=SECONDS; `last` is what to ask `after` next time."""
        try:
            asked = {name: _number(name, query[name]) for name in ASKED if name in query}
        except ValueError as fault:
            return 400, {"error": str(fault)}
        since = self._clock() - asked["since"] if "since" in asked else -math.inf
        after, wait = int(asked.get("after", 0)), min(asked.get("wait", 0.0), LONGEST_WAIT)
        found, last = self.entries(since=since, after=after)
        if not found and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)
            found, last = self.entries(since=since, after=last)
        return 200, {"last": last, "events": [document(entry) for entry in found]}


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {text!r}; give a number, 0 or above, as {name}=30")
    return number


def _exception() -> str:
    """Write the exception that is being handled in one line."""
    error = sys.exc_info()[1]
    return " ".join(f"{type(error).__name__}: {error}".split()) if error is not None else ""
