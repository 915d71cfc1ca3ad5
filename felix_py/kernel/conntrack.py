"""Makes the kernel forget the tracked connections of an address that has changed hands, in a thread of its own.

Otherwise the next owner of a pod's address would inherit what the last one had open: packets of old connections would
reach it as established ones, and NAT would go on as it was. The node needs no `conntrack` program for it.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from felix_py.kernel.conntrack_table import ANSWER_SECONDS, Absent, Forgotten, KernelTable
from felix_py.model import IPAddress

TRIES = 3
"""How often a purge is begun before it is given up, as in Felix."""

log = structlog.get_logger()


class Table(Protocol):
    """The tracked connections of one network namespace; `conntrack_table.KernelTable` is the real one."""

    def forget(self, addresses: Iterable[IPAddress], *, kernel_chooses: bool) -> Forgotten:
        """Forget every connection with a source among `addresses`, in either direction; leave others alone."""

    def close(self) -> None:
        """Let go of it."""


class Conntrack:
    """Purges addresses in one worker thread, which stays in the network namespace of the thread that makes this.

    Attributes:
        entries_removed: tracked connections that were forgotten so far.
        failures: purges given up so far: something of the address may be left.
    """

    def __init__(self, on_done: Callable[[IPAddress], None], *, open_table: Callable[[], Table] = KernelTable) -> None:
        """Start the worker; the kernel is not spoken to before the first purge.

        Args:
            on_done: told, in the worker thread, of each address that is busy no longer, however its purge went.
            open_table: called in the worker thread, again after a failure.
        """
        self.entries_removed = 0
        self.failures = 0
        self._on_done = on_done
        self._open_table = open_table
        self._table: Table | None = None
        self._said_absent = False
        self._closed = False
        self._news = threading.Condition()
        self._queued: set[IPAddress] = set()
        self._active: frozenset[IPAddress] = frozenset()
        # A thread inherits its maker's network namespace, and a socket belongs to that of the thread that opens it.
        self._worker = threading.Thread(target=self._work, name="conntrack", daemon=True)
        self._worker.start()

    def begin(self, address: IPAddress) -> None:
        """Have the connections of this address forgotten; return at once.

        Begun again while it is under way, a purge is done once more from the start and ends when that has.
        """
        with self._news:
            self._queued.add(address)
            self._news.notify()

    def busy(self, address: IPAddress) -> bool:
        """Say whether a purge of this address has begun and not ended."""
        with self._news:
            return address in self._queued or address in self._active

    def close(self) -> None:
        """Stop after the try that is under way; what still waits stays busy, and nobody is told of it."""
        with self._news:
            self._closed = True
            self._news.notify()
        if threading.current_thread() is not self._worker:
            self._worker.join(ANSWER_SECONDS)

    def _work(self) -> None:
        while self._next():
            self._purge(self._active)
            for address in self._ended():
                self._on_done(address)
        self._let_go()

    def _next(self) -> bool:
        """Wait until there is work and take all of it, for one look at the table serves many; False when closed."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._queued)
            self._active = frozenset(self._queued)
            self._queued.clear()
            return not self._closed

    def _ended(self) -> frozenset[IPAddress]:
        with self._news:
            ended = frozenset() if self._closed else self._active - self._queued
            self._active -= ended
            return ended

    def _purge(self, addresses: frozenset[IPAddress]) -> None:
        entries: Counter[IPAddress] = Counter()
        faults: dict[IPAddress, str] = dict.fromkeys(addresses, "")
        for attempt in range(TRIES):
            if not faults or self._closed:
                break
            faults = self._try(faults, entries, kernel_chooses=attempt == 0)
        if self._closed:
            return
        self.failures += len(faults)
        for address, reason in faults.items():
            log.warning("conntrack.refused", address=str(address), reason=reason)
        for address in addresses - faults.keys():
            log.debug("conntrack.purged", address=str(address), entries=entries[address])

    def _try(
        self, addresses: Iterable[IPAddress], entries: Counter[IPAddress], *, kernel_chooses: bool
    ) -> dict[IPAddress, str]:
        """Return the addresses that are not clean yet, each with the reason."""
        try:
            if self._table is None:
                self._table = self._open_table()
            forgotten = self._table.forget(addresses, kernel_chooses=kernel_chooses)
        except Absent as absent:
            self._let_go()
            self._say_absent(str(absent))
            return {}
        except OSError as error:
            # A new socket knows nothing of an answer that is still half unread in this one.
            self._let_go()
            return dict.fromkeys(addresses, _reason(error))
        self.entries_removed += forgotten.removed
        entries.update(forgotten.by_address)
        return dict(forgotten.faults)

    def _say_absent(self, reason: str) -> None:
        if not self._said_absent:
            self._said_absent = True
            log.info("conntrack.absent", reason=reason)

    def _let_go(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None


def _reason(error: OSError) -> str:
    """Say what went wrong: in the kernel's words, or the system's for its errno."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))
