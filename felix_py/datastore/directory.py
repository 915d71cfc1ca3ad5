"""The embedded datastore: a folder of YAML resources, watched by inotify and applied live, and their passwords."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import structlog
import yaml
from asyncinotify import Inotify, Mask

from felix_py import contradictions, durable, resources
from felix_py.contradictions import Placed
from felix_py.datastore import secrets
from felix_py.datastore.swaps import FOLDER, PLACES
from felix_py.model import Fault, Invalid, Key, Resource, Secret
from felix_py.state import Absent, Event, InSync, Present

SUFFIXES = (".yaml", ".yml", ".json")
CHANGES = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.CREATE | Mask.ATTRIB
"""ATTRIB, since a password that was open to others may be read once its mode is changed."""

CLAIMS = Path(FOLDER, PLACES["BlockAffinity"])
"""Where nodes keep the blocks that they claim; watched, while what becomes of single addresses is not."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the folder.

    Attributes:
        good: resources that are valid by themselves.
        faults: what is wrong with the others.
        unreadable: files that are no YAML at all; what they gave last stays in force.
        faulty: resources that were named but cannot be used; their last good version stays in force.
    """

    good: Placed = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    unreadable: frozenset[str] = frozenset()
    faulty: frozenset[Key] = frozenset()


def read(folder: Path) -> Reading:
    """Read and validate every resource of the folder."""
    good: dict[Key, tuple[str, Resource]] = {}
    faults: list[Fault] = []
    faulty: set[Key] = set()
    unreadable: set[str] = set()
    kept = (folder / CLAIMS).glob("*.json")
    for path in chain(sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES), sorted(kept)):
        try:
            documents = _documents(path)
        except FileNotFoundError:
            continue  # removed since it was listed
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


def _documents(path: Path) -> list[object]:
    """Return what stands in a file.

    Raises:
        yaml.YAMLError, ValueError, OSError: as whoever reads it.
    """
    text = path.read_text()
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


def settle(before: Placed, reading: Reading) -> tuple[Placed, tuple[Fault, ...]]:
    """Return what is in force after this reading, and what is wrong in it.

    Half-written YAML, a typing error or a contradiction must not cost a route: the last good version of what cannot
    be used stays in force, and what was in force before wins over news that contradict it.
    """
    kept = {key: placed for key, placed in before.items() if placed[0] in reading.unreadable or key in reading.faulty}
    now = {**kept, **reading.good}
    faults: dict[Key, Fault] = {}
    while losers := dict(contradictions.find(now, before)):
        faults |= losers
        for key in losers:
            if key in before and before[key][1] != now[key][1]:
                now[key] = before[key]
            else:
                del now[key]
    return now, (*reading.faults, *faults.values())


def _news(before: Placed, now: Placed) -> Iterator[Event]:
    for key, (_, value) in now.items():
        if key not in before or before[key][1] != value:
            yield Present(key, value)
    for key in before:
        if key not in now:
            yield Absent(key)


class DirectoryDatastore:
    """A folder of resources; editing a file is applying it."""

    def __init__(self, folder: Path, secret_directory: Path = secrets.DIRECTORY) -> None:
        self._folder = folder
        self._secret_directory = secret_directory
        self._in_force: Placed = {}
        self._secrets: dict[str, Secret] = {}
        self._faults: tuple[Fault, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault of the files as they are now, one sentence each."""
        return tuple(map(str, self._faults))

    async def events(self) -> AsyncIterator[tuple[Event, ...]]:
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
        news = (*_news(before, self._in_force), *self._look_at_secrets(inotify))
        for fault in faults:
            if fault not in self._faults:
                log.error("datastore.fault", fault=str(fault))
        self._faults = faults
        if news:
            log.info("datastore.loaded", directory=str(self._folder), resources=len(self._in_force), changed=len(news))
        return news

    def _look_at_secrets(self, inotify: Inotify) -> Iterator[Event]:
        """Read the passwords that resources refer to; watched first, so that no change falls in between."""
        names = secrets.referred(value for _, value in self._in_force.values())
        for folder in secrets.folders(names, self._secret_directory):
            with contextlib.suppress(OSError):  # it is not there, or gone since: the folder around it is watched, too
                inotify.add_watch(folder, CHANGES)
        before, self._secrets = self._secrets, {name: secrets.read(name, self._secret_directory) for name in names}
        for name, secret in self._secrets.items():
            if before.get(name) != secret:
                yield Present(Key("Secret", name), secret)
                if secret.problem is not None:
                    log.error("datastore.fault", fault=secret.problem)
        for name in before:
            if name not in names:
                yield Absent(Key("Secret", name))
