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


class Place(NamedTuple):
    """Where a file is that several change: its path, that of what is not complete yet, its folder, and its lock."""

    path: bytes
    unfinished: bytes
    folder: bytes
    lock: bytes


def place(path: Path, lock: str) -> Place:
    """Return the place of a file."""
    names = str(path), f"{path}{UNFINISHED}", str(path.parent), lock
    return Place(*map(os.fsencode, names))


class Library:
    """The function of replace.c.

    Raises:
        OSError: when there is no such library.
    """

    def __init__(self, path: Path) -> None:
        function = ctypes.CDLL(str(path)).replace_if
        text, size = ctypes.c_char_p, ctypes.c_size_t
        function.argtypes = (text, text, text, text, text, size, text, size, ctypes.c_uint)
        function.restype = ctypes.c_long
        self.replace_if: Callable[..., int] = function


FUNCTIONS = loaded(Library, LIBRARY)


def replaced(where: Place, beginning: bytes, data: bytes, *, mode: int = 0o644, functions: Library | None) -> bool:
    """Replace a file as `write` does, with its lock held and if it begins so; all of it without the interpreter.

    Args:
        where: of the file.
        beginning: how it has to begin.
        data: all that it is to hold.
        mode: its permissions.
        functions: those compiled; without them nothing is done.

    Returns:
        False where the file stands as it was: whoever does the same in Python meets the reason.

    Raises:
        OSError: it was replaced, and after a power cut the old one may be back.
    """
    if functions is None:
        return False
    path, unfinished, folder, lock = where
    became = functions.replace_if(lock, path, unfinished, folder, beginning, len(beginning), data, len(data), mode)
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
