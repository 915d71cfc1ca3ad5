"""replace.c, compiled so that Python sees each step by which something comes to the disk: for power cuts."""

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from felix_py import durable

SOURCE = Path(durable.__file__).with_name("replace.c")

HOOKS = f"""
#define _GNU_SOURCE
#include <unistd.h>
int (*watched_fsync)(int);
int (*watched_fdatasync)(int);
int (*watched_unlink)(const char *);
#define fsync watched_fsync
#define fdatasync watched_fdatasync
#define unlink watched_unlink
#include "{SOURCE}"
"""
"""The headers come first, so that what they declare keeps its name."""

Number, Text = ctypes.c_int, ctypes.c_char_p


class Watched(durable.Library):
    """The compiled function, of which Python does the steps that count: as `os` has them at that moment.

    Args:
        folder: to compile in.
        sync: what it does instead of os.fsync and os.fdatasync.
    """

    def __init__(self, folder: Path, sync: Callable[[int], object] | None = None) -> None:
        compiler = shutil.which("musl-gcc") or shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler: apt-get install musl-tools")
        source, library = folder / "watched.c", folder / "watched.so"
        source.write_text(HOOKS)
        words = [compiler, "-shared", "-fPIC", "-nostdlib", "-Wno-cpp", "-o", library, source]
        subprocess.run(words, check=True)
        super().__init__(library)
        self.calls = 0
        self._failures: list[BaseException] = []
        self._hooks = {
            "watched_fsync": ctypes.CFUNCTYPE(Number, Number, use_errno=True)(self._step("fsync", sync)),
            "watched_fdatasync": ctypes.CFUNCTYPE(Number, Number, use_errno=True)(self._step("fdatasync", sync)),
            "watched_unlink": ctypes.CFUNCTYPE(Number, Text)(self._step("unlink")),
        }
        loaded = ctypes.CDLL(str(library))
        for name, hook in self._hooks.items():
            ctypes.c_void_p.in_dll(loaded, name).value = ctypes.cast(hook, ctypes.c_void_p).value
        compiled, self.overwrite_older = self.overwrite_older, self._overwrite_older
        self._compiled = compiled

    def _step(self, name: str, instead: Callable[..., object] | None = None) -> Callable[..., int]:
        def step(*arguments: Any) -> int:
            try:
                (instead or getattr(os, name))(*arguments)
            except BaseException as failure:  # noqa: BLE001 - C cannot pass it on; raised below
                self._failures.append(failure)
                ctypes.set_errno(getattr(failure, "errno", None) or errno.EIO)
                return -1
            return 0

        return step

    def _overwrite_older(self, *arguments: Any) -> int:
        self.calls += 1
        became = int(self._compiled(*arguments))
        if self._failures and not isinstance(self._failures[0], OSError):
            raise self._failures.pop(0)
        self._failures.clear()
        return became
