"""Files that a crash, a full disk or a power cut leave whole: the old one or the new one."""

import os
from contextlib import suppress
from pathlib import Path


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
