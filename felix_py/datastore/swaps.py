"""Blocks and claims in the folder of the embedded datastore: a file each, changed by compare-and-swap.

Several nodes may share the folder. A change holds one of a few lock files (flock(2), which Linux carries over NFS too),
compares the revision that stands in the file, and replaces the file durably. Nobody ever sees half of one, and whoever
dies on the way leaves the old file or the new one. Readers take no lock.
"""

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

from felix_py import durable, ipam_resources
from felix_py.claims import Conflict, Found, Stored
from felix_py.datastore.api import Damaged
from felix_py.ipam import Block
from felix_py.model import BlockAffinity, Invalid, Key, NodeName
from felix_py.resources import parse

FOLDER = "ipam"
"""Below the folder of resources."""

PLACES: Mapping[str, str] = {"IPAMBlock": "blocks", "BlockAffinity": "affinities"}
"""Kind to folder. Claims change rarely and are watched; blocks change with every pod and are not."""

LOCKS = 64
"""Lock files; resources that share one wait for each other, which costs time only."""

HEAD = re.compile(r'\{"metadata": \{"resourceVersion": "([0-9a-f]{16})"')
"""How a file begins: the revision can be compared without reading the rest."""

HEAD_BYTES = 64
"""Of a file that are enough for its revision."""

SUFFIX = ".json"


class FolderSwaps:
    """`datastore.api.Swaps` in a folder.

    Args:
        folder: in which another one is made for them.
        functions: of replace.c; without them Python does the same, and takes longer.
    """

    def __init__(self, folder: Path, functions: durable.Library | None = durable.FUNCTIONS) -> None:
        self._functions = functions
        self._folder = folder / FOLDER
        self._locks = self._folder / "locks"
        self._paths: dict[Key, Path] = {}
        self._places: dict[Key, durable.Place] = {}
        self._known: dict[Key, Found] = {}  # files as they were understood, so that they need not be again

    def read(self, key: Key) -> Found | None:
        """Return a resource as it is now; see `datastore.api.Swaps`."""
        path, known = self._path(key), self._known.get(key)
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a pod waits for this; a Path costs 20 us
                start = file.read(HEAD_BYTES)
                if known is not None and start.startswith(_head(known.revision)):
                    return known
                text = (start + file.read()).decode()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError as error:
            raise Damaged(key, str(path), "it is no text") from error
        return self._understood(key, path, text)

    def known(self, key: Key) -> Found | None:
        """Return a resource as it was last; see `datastore.api.Swaps`."""
        return self._known.get(key)

    def listing(self, kind: str, of: NodeName | None = None) -> tuple[tuple[Found, ...], tuple[Damaged, ...]]:  # noqa: ARG002 - whose they are stands inside
        """Return all resources of one kind; see `datastore.api.Swaps`."""
        found: list[Found] = []
        damaged: list[Damaged] = []
        for path in sorted((self._folder / PLACES[kind]).glob(f"*{SUFFIX}")):
            try:
                each = self.read(Key(kind, path.name.removesuffix(SUFFIX)))
            except Damaged as problem:
                damaged.append(problem)
            else:
                found += [each] if each is not None else []
        return tuple(found), tuple(damaged)

    def swap(self, key: Key, value: Stored | None, revision: str | None) -> str:
        """Change a resource if it still has this revision; see `datastore.api.Swaps`."""
        path, after = self._path(key), secrets.token_hex(8)
        text = _written(key, value, after) if value is not None else ""
        try:
            if value is None or revision is None or not self._replaced(key, text, revision):
                self._change(key, text, revision)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        if value is not None:
            self._known[key] = Found(value, after)
        else:
            self._known.pop(key, None)
        return after

    def _replaced(self, key: Key, text: str, revision: str) -> bool:
        """Do `_change` at once; False where that comes to nothing, and `_change` says why."""
        where = self._places.get(key)
        if where is None:
            where = self._places[key] = durable.place(self._path(key), self._lock(key))
        return durable.replaced(where, _head(revision), text.encode(), functions=self._functions)

    def _change(self, key: Key, text: str, revision: str | None) -> None:
        """Have this text in a resource's file, or no file for none; nothing where it has another revision."""
        path = self._path(key)
        with self._alone(key):
            if self._revision(key, path) != revision:
                raise Conflict(f"{key} was changed by somebody else")
            if text:
                durable.write(path, text)
            else:
                durable.remove(path)

    def put_aside(self, damaged: Damaged) -> None:
        """Take what cannot be understood out of the way; see `datastore.api.Swaps`."""
        path = self._path(damaged.key)
        with self._alone(damaged.key), suppress(FileNotFoundError):
            try:
                self.read(damaged.key)
            except Damaged:
                path.rename(path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))

    def _path(self, key: Key) -> Path:
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = self._folder / PLACES[key.kind] / f"{key.name}{SUFFIX}"
        return path

    def _revision(self, key: Key, path: Path) -> str | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            head = HEAD.match(os.read(descriptor, HEAD_BYTES).decode(errors="replace"))
        finally:
            os.close(descriptor)
        if head is None:
            raise Damaged(key, str(path), "it does not begin as ours do")
        return head[1]

    def _understood(self, key: Key, path: Path, text: str) -> Found:
        head, known = HEAD.match(text), self._known.get(key)
        if head is not None and known is not None and known.revision == head[1]:
            return known
        try:
            document = json.loads(text)
            if head is None or not isinstance(document, dict) or document.get("kind") != key.kind:
                raise ValueError(f"it does not begin as ours do, or is no {key.kind}")  # noqa: TRY301 - as for no JSON
            value = _value(key, document, str(path))
        except Invalid as invalid:
            raise Damaged(key, str(path), "; ".join(fault.message for fault in invalid.faults)) from invalid
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(key, str(path), " ".join(str(error).split())) from error
        found = self._known[key] = Found(value, head[1])
        return found

    def _lock(self, key: Key) -> str:
        return f"{self._locks}/{crc32(f'{key.kind}/{key.name}'.encode()) % LOCKS:02}"

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """Let nobody else, in whatever process, change this resource meanwhile."""
        path = self._lock(key)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the first time, or somebody has removed all of it
            durable.make_folder(self._locks)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _head(revision: str) -> bytes:
    """Return how a file of this revision begins."""
    return f'{{"metadata": {{"resourceVersion": "{revision}"'.encode()


def _value(key: Key, document: Mapping[str, Any], where: str) -> Stored:
    """Read a document.

    Raises:
        Invalid, ValueError, KeyError, TypeError: for what is none of ours.
    """
    value = ipam_resources.block(document["spec"]) if key.kind == "IPAMBlock" else parse(document, where)[1]
    if not isinstance(value, Block | BlockAffinity):
        raise TypeError(f"it is no {key.kind}")
    return value


def _written(key: Key, value: Stored, revision: str) -> str:
    document = {
        "metadata": {"resourceVersion": revision, "name": key.name},
        "apiVersion": ipam_resources.CRD_VERSION,
        "kind": key.kind,
    }
    if isinstance(value, Block):
        spec = ipam_resources.block_text(value)
    else:
        spec = json.dumps(ipam_resources.affinity_document(value))
    return f'{json.dumps(document)[:-1]}, "spec": {spec}}}\n'
