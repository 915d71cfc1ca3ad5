"""DELs that felix-cni has written down while no agent was there: a file each, in a folder beside the socket."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FOLDER = "cni-deletions"
"""Beside the socket; felix-cni knows it by this name."""

UNFINISHED = "."
"""How names of files begin that are not complete; whoever was writing one has died, or calls again."""


class Notes:
    """The notes of one node."""

    def __init__(self, socket: Path) -> None:
        self._folder = socket.with_name(FOLDER)

    def calls(self) -> Iterator[tuple[str, bytes]]:
        """Yield each call by the name of its note, in the form in which it would have come over the socket.

        Raises:
            OSError: when they cannot be read.
        """
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            with suppress(FileNotFoundError):  # felix-cni found the agent after all, and took its note back
                if path.name.startswith(UNFINISHED):
                    path.unlink()
                else:
                    yield path.name, path.read_bytes()

    def done(self, name: str) -> None:
        """Take a note away whose call was carried out, or never can be."""
        (self._folder / name).unlink(missing_ok=True)
