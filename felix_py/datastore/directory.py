"""The embedded datastore: a folder of YAML resources, watched by inotify and applied live, and their passwords."""

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import structlog
import yaml
from asyncinotify import Inotify

from felix_py import durable, resources
from felix_py.contradictions import Placed
from felix_py.datastore import secrets, settling
from felix_py.datastore.secrets import CHANGES, Passwords
from felix_py.datastore.settling import Reading, settle
from felix_py.datastore.swaps import FOLDER, PLACES
from felix_py.model import Fault, Invalid, Key, Resource
from felix_py.state import Event, InSync

SUFFIXES = (".yaml", ".yml", ".json")
CLAIMS = Path(FOLDER, PLACES["BlockAffinity"])
"""Where nodes keep the blocks that they claim; watched, while what becomes of single addresses is not."""

log = structlog.get_logger()


Text: TypeAlias = str | OSError | ValueError
"""What a file holds, or why it cannot be read."""


def read(folder: Path) -> Reading:
    """Read and validate every resource of the folder."""
    return understood(texts(folder))


def texts(folder: Path) -> dict[Path, Text]:
    """Return what every file of the folder holds, those that nodes keep at the end."""
    kept = (folder / CLAIMS).glob("*.json")
    found: dict[Path, Text] = {}
    for path in chain(sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES), sorted(kept)):
        try:
            found[path] = path.read_text()
        except FileNotFoundError:
            continue  # removed since it was listed
        except (ValueError, OSError) as error:
            found[path] = error
    return found


def understood(files: Mapping[Path, Text]) -> Reading:
    """Validate every resource of these files."""
    good: dict[Key, tuple[str, Resource]] = {}
    faults: list[Fault] = []
    faulty: set[Key] = set()
    unreadable: set[str] = set()
    for path, text in files.items():
        try:
            documents = _documents(path, text)
        except (yaml.YAMLError, ValueError, OSError) as error:
            faults.append(Fault(str(path), "", f"cannot be read: {_one_line(error)}"))
            unreadable.add(str(path))
            continue
        for document in documents:
            try:
                _take(document, str(path), good)
            except Invalid as invalid:
                faults.extend(invalid.faults)
                faulty |= {key for key in (resources.key_of(document),) if key is not None and key not in good}
    return Reading(good, tuple(faults), frozenset(unreadable), frozenset(faulty))


def _documents(path: Path, text: Text) -> list[object]:
    """Return what stands in a file.

    Raises:
        yaml.YAMLError, ValueError, OSError: as whoever reads it.
    """
    if not isinstance(text, str):
        raise text
    if path.parent.name == CLAIMS.name:  # written by nodes, one of each block, and read a hundred times as fast so
        return [json.loads(text)]
    return [document for document in yaml.load_all(text, _LOADER) if document is not None]


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is not None and problem is not None:
        return f"{problem}, line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def _take(document: object, where: str, good: dict[Key, tuple[str, Resource]]) -> None:
    key, value = resources.parse(document, where)
    if key in good:
        sentence = f"stands also in {good[key][0]}; keep one of the two"
        raise Invalid(Fault(f"{where}: {key}", "metadata.name", sentence))
    good[key] = (where, value)


class DirectoryDatastore:
    """A folder of resources; editing a file is applying it."""

    def __init__(self, folder: Path, secret_directory: Path = secrets.DIRECTORY) -> None:
        self._folder = folder
        self._in_force: Placed = {}
        self._passwords = Passwords(secret_directory)
        self._faults: tuple[Fault, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault of the files as they are now, one sentence each."""
        return tuple(map(str, self._faults))

    async def events(self) -> AsyncGenerator[tuple[Event, ...], None]:
        """Yield what the folder holds, then every change of it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with Inotify() as inotify:
            inotify.add_watch(self._folder, CHANGES)
            with contextlib.suppress(OSError):  # a folder that nobody may write is no place for claims
                (self._folder / CLAIMS).mkdir(parents=True, exist_ok=True)
            yield (*self._look(inotify), InSync())
            async for event in inotify:
                if event.name is None or event.name.suffix != durable.UNFINISHED:
                    news = self._look(inotify)
                    yield news

    def _look(self, inotify: Inotify) -> tuple[Event, ...]:
        with contextlib.suppress(OSError):  # it is not there; where it appears, the folder around it says so
            inotify.add_watch(self._folder / CLAIMS, CHANGES)
        before = self._in_force
        self._in_force, faults = settle(before, read(self._folder))
        found = (*settling.news(before, self._in_force), *self._passwords.look(inotify, self._in_force))
        for fault in faults:
            if fault not in self._faults:
                log.error("datastore.fault", fault=str(fault))
        self._faults = faults
        if found:
            log.info("datastore.loaded", directory=str(self._folder), resources=len(self._in_force), changed=len(found))
        return found
