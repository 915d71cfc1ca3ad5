"""Tells programs that are not ours how large pods' packets may be: one number in a file of the state directory."""

from contextlib import suppress
from pathlib import Path

import structlog

from felix_py import durable

NAME = "mtu"
"""Of the file; Calico's CNI plugin and others read /var/lib/calico/mtu, which is made the same way."""

log = structlog.get_logger()


class MtuFile:
    """The file, written when the number has changed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._written: int | None = None
        with suppress(OSError, ValueError):  # none yet, or one that is damaged: it is written anew
            self._written = int(self._path.read_text())

    def put(self, value: int) -> None:
        """Have the file hold so many bytes; where it cannot be written, that is said once for each number."""
        if value == self._written:
            return
        self._written = value
        try:
            durable.write(self._path, f"{value}\n")
        except OSError as error:
            log.warning("mtu.refused", reason=f"{self._path} cannot be written: {error.strerror}")
