"""What a power cut may leave of a folder: every state that a disk may be in, after each step of whoever writes there.

The model is that of fsync(2): what a file holds is on disk once the file was synced, a name once its folder was. What
was not synced is there or not; a file's contents may be there in part, or as zeros, and where a file was written over,
any part of them may be that from before.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Image = dict[str, bytes]
"""Path below the folder to contents; a folder is its path with a slash, and no contents."""

TORN: tuple[Callable[[bytes, bytes], bytes], ...] = (
    lambda data, _: data,
    lambda _, before: before,
    lambda _, __: b"",
    lambda data, _: data[: len(data) // 2],
    lambda data, _: bytes(len(data)),
    lambda data, _: data[:-2] + b"\0\0",
    lambda data, before: data[: len(data) // 2] + before[len(data) // 2 :],
    lambda data, before: before[: len(before) // 2] + data[len(before) // 2 :],
    lambda data, before: data[:128] + before[128:],
    lambda data, before: data[:64] + before[64:],
)
"""What may have become of a file that was written and not synced: what was written, and what was there before."""


@dataclass
class Disk:
    """Watches a folder, and knows what of it is on disk.

    Attributes:
        judge: called with each state that a power cut may leave.
    """

    folder: Path
    judge: Callable[[Image], None]
    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[Path, dict[str, int]] = field(default_factory=dict)
    judging: bool = False

    def cut(self) -> None:
        """Let the power fail now, in every way."""
        if self.judging:  # the judge's own steps are nobody's
            return
        self.judging = True
        try:
            for image in self._images():
                self.judge(image)
        finally:
            self.judging = False

    def synced(self, descriptor: int) -> None:
        """Take note that a file or a folder was synced."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.names[path] = {each.name: each.stat().st_ino for each in path.iterdir()}
        else:
            self.contents[path.stat().st_ino] = path.read_bytes()

    def _images(self) -> Iterator[Image]:
        yield self._least()
        for tear in TORN:
            yield self._most(tear)

    def _least(self) -> Image:
        """Return the state in which only what was synced is there."""
        image: Image = {}
        inodes = {each.stat().st_ino: each for each in self.folder.rglob("*")}
        pending = [self.folder]
        while pending:
            folder = pending.pop()
            for name, inode in self.names.get(folder, {}).items():
                path = folder / name
                where = str(path.relative_to(self.folder))
                if inodes.get(inode, path).is_dir() or path in self.names:
                    image[where + "/"] = b""
                    pending.append(path)
                else:
                    image[where] = self.contents.get(inode, b"")
        return image

    def _most(self, tear: Callable[[bytes, bytes], bytes]) -> Image:
        """Return the state in which everything is there, but what was not synced is torn."""
        image: Image = {}
        for path in self.folder.rglob("*"):
            where = str(path.relative_to(self.folder))
            if path.is_dir():
                image[where + "/"] = b""
            else:
                data = path.read_bytes()
                before = self.contents.get(path.stat().st_ino, b"")
                image[where] = data if before == data else tear(data, before)
        return image


@contextmanager
def watched(disk: Disk) -> Iterator[None]:
    """Let the power fail before and after each step by which something comes to the disk, or goes."""
    rename, unlink, mkdir = os.rename, os.unlink, os.mkdir

    def sync(real: Callable[[int], None]) -> Callable[[int], None]:
        def synced(descriptor: int) -> None:
            disk.cut()
            real(descriptor)
            disk.synced(descriptor)
            disk.cut()

        return synced

    def step(real: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any, **more: Any) -> Any:
            disk.cut()
            result = real(*arguments, **more)
            disk.cut()
            return result

        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", sync(os.fsync))
        patch.setattr(os, "fdatasync", sync(os.fdatasync))
        patch.setattr(os, "rename", step(rename))
        patch.setattr(os, "unlink", step(unlink))
        patch.setattr(os, "mkdir", step(mkdir))
        yield


def restore(image: Image, folder: Path) -> None:
    """Make a folder of a state."""
    for where, data in sorted(image.items()):
        path = folder / where
        if where.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
