"""Files that a crash, a full disk or a power cut leave whole: the old one or the new one."""

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

UNFINISHED = ".new"
"""How names of files end that are not complete yet."""


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
    temporary = f"{path}{UNFINISHED}"
    try:
        with _opened(temporary, path.parent) as file:
            os.fchmod(file.fileno(), mode)
            _write_all(file, text.encode())
            os.fsync(file.fileno())
        os.rename(temporary, path)  # noqa: PTH104 - as above
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise
    _sync(path.parent)


def _opened(temporary: str, folder: Path) -> FileIO:
    try:
        return open(temporary, "wb", buffering=0)  # noqa: PTH123 - a pod waits for this; a Path costs 0.1 ms
    except FileNotFoundError:
        make_folder(folder)
        return open(temporary, "wb", buffering=0)  # noqa: PTH123 - as above


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


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


def _sync(folder: Path) -> None:
    """Put a folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
