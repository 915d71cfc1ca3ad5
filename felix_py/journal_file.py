"""The journal on disk: one JSON object a line, appended in batches, rotated once, read back whatever state it is in."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from felix_py.journal_words import Told

NAME = "journal.jsonl"
"""In the state directory; the one before has `.1` behind its name."""

ROTATE_AT = 1 << 20
"""Bytes after which a new file is begun: the two files hold 5,000 to 10,000 changes."""

READ_AT_MOST = 2 * ROTATE_AT
"""Bytes read of a file's end at start, however long somebody else has made it."""

MODE = 0o640
"""Pods' names and peers' addresses are not for everybody on the machine."""

CHUNK = 256
"""Entries written at once: what a failing disk costs is the making of so many lines."""

MOST_NUMBER = 1 << 53
"""Numbers below are exact in every JSON reader (RFC 8259 section 6)."""


class Entry(NamedTuple):
    """One change.

    Attributes:
        number: counts up by one for ever, restarts included.
        at: seconds since 1970, by the wall's clock.
    """

    number: int
    at: float
    event: str
    told: Told


def document(entry: Entry) -> dict[str, Any]:
    """Return an entry as felixctl prints it and as the file holds it; the time as RFC 3339 has it."""
    return {
        "id": entry.number,
        "time": datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "event": entry.event,
        **entry.told._asdict(),
    }


def parse(line: bytes) -> Entry | None:
    """Read one line back; None where it is not one of ours, whole."""
    try:
        found = json.loads(line)
        number = found["id"]
        told = Told(found["subject"], found["what"], intern(found["cause"]))
        entry = Entry(number, datetime.fromisoformat(found["time"]).timestamp(), intern(found["event"]), told)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    whole = type(number) is int and 0 < number < MOST_NUMBER and all(isinstance(text, str) for text in told)
    return entry if whole else None


class JournalFile:
    """The file and the one before it. Used by one thread at a time.

    Attributes:
        written: number of the last entry that is known to be on disk.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME
        self.older = directory / f"{NAME}.1"
        self.written = 0

    def read(self) -> tuple[Entry, ...]:
        """Return what the files hold, oldest first, without lines that are damaged or told twice.

        Raises:
            OSError: when a file is there and cannot be read.
        """
        found: list[Entry] = []
        for path in (self.older, self.path):
            for line in _lines(path):
                entry = parse(line)
                if entry is not None and entry.number > self.written:
                    found.append(entry)
                    self.written = entry.number
        return tuple(found)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries behind the others; `written` says how far it came.

        Raises:
            OSError: when the disk is full or the file cannot be written.
        """
        for start in range(0, len(entries), CHUNK):
            chunk = entries[start : start + CHUNK]
            data = b"".join(json.dumps(document(entry)).encode() + b"\n" for entry in chunk)
            with self._open_for(len(data)) as descriptor:
                _write(descriptor, data)
            self.written = chunk[-1].number

    @contextlib.contextmanager
    def _open_for(self, length: int) -> Iterator[int]:
        """Open the file that `length` more bytes go to; by name each time, since others may move or delete it."""
        descriptor = self._open()
        try:
            size = os.fstat(descriptor).st_size
            if size and size + length > ROTATE_AT:
                self.path.replace(self.older)
                os.close(descriptor)
                descriptor = -1
                descriptor = self._open()
            elif size and os.pread(descriptor, 1, size - 1) != b"\n":
                _write(descriptor, b"\n")  # a full disk or a crash left half a line, which ours must not continue
            yield descriptor
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Not through a link: its mode is set below, and rotation would leave what it points to behind.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, MODE)
        os.fchmod(descriptor, MODE)  # whatever the umask took away
        return descriptor


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _lines(path: Path) -> Iterable[bytes]:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - READ_AT_MOST))
            return file.read(READ_AT_MOST).splitlines()
    except FileNotFoundError:
        return ()
