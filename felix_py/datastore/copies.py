"""A file in two copies, which take turns: a change overwrites the older one, and so never what stands.

A change costs one sync of data that lies where it lay, instead of a new file, its name, and three writes to the disk in
turn. What tells the copies apart is how they begin: a generation that counts changes, and a checksum of all that
follows. A copy that was being written when the power failed, or its writer died, is none by its checksum, and the other
one stands; it was all that had been acknowledged.
"""

import re
from typing import NamedTuple
from zlib import crc32

TWIN = ".twin"
"""How the name of the second copy ends, behind that of the first."""

HEAD = re.compile(
    rb'\{"metadata": \{"resourceVersion": "([0-9a-f]{16})"'
    rb'(?:, "generation": ([0-9]{1,15}), "checksum": "[0-9a-f]{8}"|(?=, "name": ))'
)
"""How a file begins: revision, generation, checksum. What has no second copy, or is of an earlier version, has a
revision only."""

HEAD_BYTES = 128
"""Of a file that are enough for all of it."""

STEP = 4096
"""Bytes of which a copy has a multiple: one that does not become longer is overwritten without any other change."""

NO_GENERATION = 0


class Copy(NamedTuple):
    """What one copy holds.

    Attributes:
        head: how it begins.
        size: of all of it, in bytes.
        rest: what follows, without the spaces that fill it up.
        fault: why it is none, as a sentence; nothing where it is one.
    """

    head: bytes
    size: int
    revision: str = ""
    generation: int = NO_GENERATION
    rest: bytes = b""
    fault: str = ""

    @property
    def document(self) -> bytes:
        """All of it, as a JSON document."""
        return self.head + self.rest


class Pair(NamedTuple):
    """Both copies of a file, each None where it is not there."""

    first: Copy | None
    second: Copy | None

    @property
    def newest(self) -> int | None:
        """Which copy stands, 0 or 1; None for neither."""
        whole = [number for number, each in enumerate(self) if each is not None and not each.fault]
        return max(whole, key=self.generation, default=None)

    @property
    def standing(self) -> Copy | None:
        """The copy that stands."""
        return None if self.newest is None else self[self.newest]

    @property
    def torn(self) -> tuple[int, ...]:
        """Which copies are there and are none."""
        return tuple(number for number, each in enumerate(self) if each is not None and each.fault)

    @property
    def heads(self) -> tuple[bytes, bytes]:
        """How both begin; nothing where one is not there."""
        first, second = (each.head if each is not None else b"" for each in self)
        return first, second

    def generation(self, number: int) -> int:
        """Return the generation of a copy that is there.

        One without, beside a second copy that was not the first change, was written by an agent of an earlier version
        that was run again, and knew of no second copy: it is newer.
        """
        copy, other = self[number], self[1 - number]
        if copy is None:
            return NO_GENERATION
        if copy.generation == NO_GENERATION and other is not None and not other.fault and other.generation > 1:
            return other.generation + 1
        return copy.generation


def paths(path: str) -> tuple[str, str]:
    """Return where the copies of a file are."""
    return path, path + TWIN


def read(path: str) -> Pair:
    """Return both copies of a file.

    Raises:
        OSError: one of them is there and cannot be read.
    """
    first, second = (_read(each) for each in paths(path))
    return Pair(first, second)


def heads(path: str) -> tuple[bytes, bytes]:
    """Return how both copies begin, at least; nothing where one is not there.

    Raises:
        OSError: one of them is there and cannot be read.
    """
    first, second = (_bytes(each, HEAD_BYTES) or b"" for each in paths(path))
    return first, second


def render(revision: str, generation: int, rest: bytes, size: int) -> bytes:
    """Return a copy that is at least so long, filled up with spaces."""
    head = _head(revision, generation, rest)
    length = len(head) + len(rest) + 1
    return (head + rest).ljust(max(size, -(-length // STEP) * STEP) - 1) + b"\n"


def judged(data: bytes) -> Copy:
    """Return what a copy is of which this was read."""
    found = HEAD.match(data)
    if found is None:
        return Copy(data[:HEAD_BYTES], len(data), fault="it does not begin as ours do")
    head, rest = found[0], data[found.end() :].rstrip()
    revision, generation = found[1].decode(), int(found[2] or NO_GENERATION)
    whole = found[2] is None or head == _head(revision, generation, rest)
    fault = "" if whole else "its checksum is that of something else"
    return Copy(head, len(data), revision, generation, rest, fault)


def counts(head: bytes) -> bool:
    """Say whether a copy that begins so has a generation."""
    found = HEAD.match(head)
    return found is not None and found[2] is not None


def judged_head(data: bytes) -> bytes:
    """Return how a copy of ours begins."""
    found = HEAD.match(data)
    return found[0] if found is not None else data[:HEAD_BYTES]


def _head(revision: str, generation: int, rest: bytes) -> bytes:
    checksum = crc32(rest, crc32(f"{revision} {generation}".encode()))
    text = f'{{"metadata": {{"resourceVersion": "{revision}", "generation": {generation}, "checksum": "{checksum:08x}"'
    return text.encode()


def _read(path: str) -> Copy | None:
    data = _bytes(path)
    return judged(data) if data is not None else None


def _bytes(path: str, most: int = -1) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a pod waits for this; a Path costs 20 us
            return file.read(most)
    except (FileNotFoundError, NotADirectoryError):
        return None
