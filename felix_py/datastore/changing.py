"""Changes of the embedded datastore's folder: all of what is asked for, or nothing of it."""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from felix_py import durable, resources
from felix_py.datastore import directory, editing
from felix_py.datastore.editing import Edit
from felix_py.datastore.settling import Reading, settle
from felix_py.model import Fault, Invalid, Key

MODE = 0o644
"""Of new files; passwords stand in files of their own, elsewhere."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one resource.

    Attributes:
        key: which one.
        what: created, changed, unchanged or deleted.
        path: the file where it stands, or stood.
    """

    key: Key
    what: str
    path: Path


@dataclass(frozen=True, slots=True)
class Standing:
    """A resource as it stands in a file, and what becomes of it."""

    key: Key
    path: Path
    document: Mapping[str, Any]
    fault: str | None


def listed(folder: Path) -> tuple[Standing, ...]:
    """Return every resource of the folder, as it stands there.

    Raises:
        Invalid: when there is no such folder.
    """
    _require(folder)
    files = directory.texts(folder)
    placed, faults = settle({}, directory.understood(files))
    found = []
    for path, text in files.items():
        for part in _parts(text):
            if part.key is not None and isinstance(part.document, Mapping):
                told = [str(fault) for fault in faults if fault.where == f"{path}: {part.key}"]
                in_force = part.key in placed and placed[part.key][0] == str(path)
                fault = None if in_force and not told else "; ".join(told) or "another one is in force"
                found.append(Standing(part.key, path, part.document, fault))
    return tuple(found)


def _parts(text: directory.Text) -> tuple[editing.Part, ...]:
    try:
        return editing.parts(text) if isinstance(text, str) else ()
    except editing.NotYaml:
        return ()  # `felixctl status` says so, and which file it is


def apply(folder: Path, documents: Iterable[object], where: str, *, dry: bool = False) -> tuple[Change, ...]:
    """Have the folder say what the documents say.

    Args:
        folder: of the embedded datastore.
        documents: resources, as a YAML parser made them.
        where: they come from, for messages.
        dry: nothing is written; only what would be is said.

    Raises:
        Invalid: nothing was changed; with every fault of the documents, and what they would break.
        OSError: when a file cannot be written; those before it are.
    """
    wanted: dict[Key, Mapping[str, Any]] = {}
    faults: list[Fault] = []
    for document in documents:
        try:
            key, _ = resources.parse(document, where)
            wanted[_free(key, wanted, where)] = dict(cast("Mapping[str, Any]", document))  # or it had been refused
        except Invalid as invalid:
            faults += invalid.faults
    if faults:
        raise Invalid(*faults)
    if not wanted:
        raise Invalid(Fault(where, "", "holds no resource; give at least one"))
    steps = [(key, partial(editing.put, key=key, document=document)) for key, document in wanted.items()]
    return _change(folder, steps, dry=dry)


def delete(folder: Path, keys: Iterable[Key], *, dry: bool = False) -> tuple[Change, ...]:
    """Take resources out of the folder; raises as `apply` does, and Invalid for one that is not there."""
    steps = [(key, partial(editing.take, key=key)) for key in keys]
    if not steps:
        raise Invalid(Fault("", "", "nothing is named that could be deleted; give a kind and names, or a file with -f"))
    return _change(folder, steps, dry=dry)


def _free(key: Key, wanted: Mapping[Key, object], where: str) -> Key:
    if key in wanted:
        raise Invalid(Fault(f"{where}: {key}", "metadata.name", "stands there twice; keep one of the two"))
    return key


def _change(folder: Path, steps: Iterable[tuple[Key, Any]], *, dry: bool) -> tuple[Change, ...]:
    _require(folder)
    with _alone(folder):
        files = directory.texts(folder)
        before = {path.name: text for path, text in files.items() if path.parent == folder and isinstance(text, str)}
        kept = dict(_kept(folder, files))
        now, changes = dict(before), []
        for key, step in steps:
            if key in kept:
                raise Invalid(Fault(f"{kept[key]}: {key}", "", "is kept by nodes themselves; see `felixctl ipam`"))
            try:
                edit: Edit | None = step(now)
            except editing.NotYaml as problem:
                raise Invalid(Fault(str(folder), "", f"{problem}; put that file right first")) from problem
            if edit is None:
                raise Invalid(Fault(str(folder), "", f"has no {key}; `felixctl get` lists what there is"))
            changes.append(Change(key, _what(now, edit, key), folder / edit.file))
            now = {name: text for name, text in now.items() if name != edit.file}
            if edit.text is not None:
                now[edit.file] = edit.text
        _refuse_harm(folder, files, now)
        if not dry:
            _write(folder, before, now)
    return tuple(changes)


def _what(before: Mapping[str, str], edit: Edit, key: Key) -> str:
    there = any(part.key == key for part in editing.parts(before.get(edit.file, "")))
    after = edit.text is not None and any(part.key == key for part in editing.parts(edit.text))
    if there and after:
        return "unchanged" if before[edit.file] == edit.text else "changed"
    return "created" if after else "deleted"


def _kept(folder: Path, files: Mapping[Path, directory.Text]) -> Iterator[tuple[Key, Path]]:
    for path, text in files.items():
        if path.parent != folder:
            yield from ((part.key, path) for part in _parts(text) if part.key is not None)


def _refuse_harm(folder: Path, files: Mapping[Path, directory.Text], now: Mapping[str, str]) -> None:
    """Refuse what would not come into force, or would put others out of it."""
    before = directory.understood(files)
    rest = {path: text for path, text in files.items() if path.parent != folder or not isinstance(text, str)}
    after: Reading = directory.understood({**{folder / name: text for name, text in sorted(now.items())}, **rest})
    placed, known = settle({}, before)
    _, faults = settle(placed, after)
    if news := [fault for fault in faults if fault not in known]:
        raise Invalid(*news)


def _write(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name, text in now.items():
        if before.get(name) != text:
            path = (folder / name).resolve()  # a link stays one
            durable.write(path, text, mode=path.stat().st_mode & 0o777 if path.exists() else MODE)
    for name in before.keys() - now.keys():
        durable.remove(folder / name)


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise Invalid(Fault(str(folder), "", "does not exist; name the folder of resources with --folder"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder, so that two who change it at once do not undo each other's work (flock(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
