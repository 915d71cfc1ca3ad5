"""Files that a crash, a full disk or a power cut leave whole: the old one or the new one."""

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from felix_py.compiled import loaded

UNFINISHED = ".new"
"""How names of files end that are not complete yet."""

LIBRARY = Path(__file__).with_name("replace.so")


class Copies(NamedTuple):
    """Where the two copies of a file are that several change, and what they begin with.

    Attributes:
        lock: the file that everybody locks who changes them.
        newer: the path of the copy that stands.
        older: of the one that is to be overwritten.
        folder: of both.
        beginnings: of the newer and of the older one; that of one which is to be made is empty.
        unsure: whether the newer one may not be on disk, since somebody else wrote it.
    """

    lock: bytes
    newer: bytes
    older: bytes
    folder: bytes
    beginnings: tuple[bytes, bytes]
    unsure: bool = False


class Library:
    """The function of replace.c.

    Raises:
        OSError: when there is no such library.
    """

    def __init__(self, path: Path) -> None:
        function = ctypes.CDLL(str(path)).overwrite_older
        text, size = ctypes.c_char_p, ctypes.c_size_t
        function.argtypes = (text, text, text, size, text, text, size, text, ctypes.c_int, text, size)
        function.restype = ctypes.c_long
        self.overwrite_older: Callable[..., int] = function


FUNCTIONS = loaded(Library, LIBRARY)


def overwritten(copies: Copies, data: bytes, *, functions: Library | None) -> bool:
    """Overwrite the older of two copies with the lock held, if both are as expected; all of it without the interpreter.

    On disk when this returns. A copy that does not become longer needs no space, and one sync of what it holds.

    Args:
        copies: of the file.
        data: all that the older one is to hold; no shorter than what it holds.
        functions: those compiled; without them nothing is done.

    Returns:
        False where both are as they were: whoever does it otherwise meets the reason.

    Raises:
        OSError: the newer copy stands as it was, and the older one is gone.
    """
    if functions is None:
        return False
    lock, newer, older, folder, (stands, follows), unsure = copies
    # The folder is synced only where a copy is made, or somebody may have died over one.
    became = functions.overwrite_older(
        lock, newer, stands, len(stands), older, follows, len(follows), folder, unsure, data, len(data)
    )
    if became < 0:
        raise OSError(-became, os.strerror(-became))
    return became == 0


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file, and make its folder where there is none.

    Both the file and the folder's entry are on disk when this returns (fsync(2): the entry needs a sync of its own).

    Args:
        path: of the file.
        text: all that it is to hold.
        mode: its permissions.

    Raises:
        OSError: the old file stands as it was.
    """
    # Plain system calls: a pod waits for this, and objects of files and paths cost as much as the disk.
    whole = str(path)
    temporary, folder = f"{whole}{UNFINISHED}", whole.rpartition("/")[0]
    try:
        descriptor = _opened(temporary, path)
        try:
            os.fchmod(descriptor, mode)
            _write_all(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, whole)  # noqa: PTH104 - as above
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise
    _sync(folder or ".")


def _opened(temporary: str, path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, 0o600)
    except FileNotFoundError:
        make_folder(path.parent)
        return os.open(temporary, flags, 0o600)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def remove(path: Path) -> None:
    """Remove a file; it stays removed after a power cut once this returns.

    Raises:
        OSError: it is still there, or may be again after a power cut.
    """
    path.unlink()
    _sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those around it, where it is missing; each is there after a power cut once this returns.

    Raises:
        OSError: it cannot be made.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _sync(folder: Path | str) -> None:
    """Put a folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
