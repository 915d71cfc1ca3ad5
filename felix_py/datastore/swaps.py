"""Blocks and claims in the folder of the embedded datastore: a file each, changed by compare-and-swap.

Several nodes may share the folder. A change holds one of a few lock files (flock(2), which Linux carries over NFS too),
compares the revision that stands in the file, and is durable. A claim is replaced by a new file; a block, which changes
with every pod, has two copies that take turns (`datastore.copies`). Nobody ever takes half of one for a whole, and
whoever dies on the way leaves what was there before or what is new. Readers take no lock, unless something looks odd.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import structlog

from felix_py import durable
from felix_py.claims import Conflict, Found, Stored
from felix_py.datastore import copies, swap_documents
from felix_py.datastore.api import Damaged
from felix_py.datastore.copies import Pair
from felix_py.model import Key, NodeName

log = structlog.get_logger()

FOLDER = "ipam"
"""Below the folder of resources."""

PLACES: Mapping[str, str] = {"IPAMBlock": "blocks", "BlockAffinity": "affinities"}
"""Kind to folder. Claims change rarely and are watched; blocks change with every pod and are not."""

COPIED = frozenset({"IPAMBlock"})
"""Kinds that have two copies."""

LOCKS = 64
"""Lock files; resources that share one wait for each other, which costs time only."""

SUFFIX = ".json"


class _Known(NamedTuple):
    """A file as it was understood, so that it need not be again.

    Attributes:
        heads, sizes: how both copies begin, and their bytes.
        newest: the copy that stands, 0 or 1.
        generation: of that.
        torn: of the other one, where it is none.
        unsure: whether what stands may not be on disk: another process wrote it, and may have died over it.
        late: whether the other one became none after this process had seen it.
    """

    found: Found
    heads: tuple[bytes, bytes]
    sizes: tuple[int, int]
    newest: int
    generation: int
    torn: Damaged | None = None
    unsure: bool = True
    late: bool = False

    def stands(self, starts: tuple[bytes, bytes]) -> bool:
        """Say whether nothing has happened to a file that begins so."""
        pairs = zip(starts, self.heads, strict=True)
        return all(start.startswith(head) and bool(start) == bool(head) for start, head in pairs)

    def outlived(self, standing: copies.Copy | None) -> bool:
        """Say whether a copy that stands now was the older one already: what stood meanwhile is gone."""
        return standing is not None and standing.head == self.heads[1 - self.newest]

    def overwritten(self, found: Found, data: bytes) -> "_Known":
        """Return the same after the older copy durably became this."""
        place, generation = 1 - self.newest, self.generation + 1
        heads, sizes = list(self.heads), list(self.sizes)
        heads[place], sizes[place] = copies.judged_head(data), len(data)
        return _Known(found, (heads[0], heads[1]), (sizes[0], sizes[1]), place, generation, unsure=False)


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
        self._known: dict[Key, _Known] = {}

    def read(self, key: Key) -> Found | None:
        """Return a resource as it is now; see `datastore.api.Swaps`."""
        known = self._look(key)
        return known.found if known is not None else None

    def known(self, key: Key) -> Found | None:
        """Return a resource as it was last; see `datastore.api.Swaps`."""
        known = self._known.get(key)
        return known.found if known is not None else None

    def listing(self, kind: str, of: NodeName | None = None) -> tuple[tuple[Found, ...], tuple[Damaged, ...]]:  # noqa: ARG002 - whose they are stands inside
        """Return all resources of one kind; see `datastore.api.Swaps`."""
        found: list[Found] = []
        damaged: list[Damaged] = []
        for key in self._keys(kind):
            try:
                known = self._look(key)
            except Damaged as problem:
                damaged.append(problem)
            else:
                found += [known.found] if known is not None else []
                damaged += [known.torn] if known is not None and known.torn is not None else []
        return tuple(found), tuple(damaged)

    def _keys(self, kind: str) -> list[Key]:
        """Return what there is of one kind, and remove what somebody left unfinished who died."""
        names: set[str] = set()
        for each in (self._folder / PLACES[kind]).glob(f"*{SUFFIX}*"):
            whole = each.name.removesuffix(durable.UNFINISHED)
            name = whole.removesuffix(copies.TWIN).removesuffix(SUFFIX)
            if whole not in copies.paths(f"{name}{SUFFIX}"):
                continue  # put aside, or none of ours
            if each.name == whole:
                names.add(name)
            else:
                self._sweep(Key(kind, name), each)
        return [Key(kind, name) for name in sorted(names)]

    def _sweep(self, key: Key, unfinished: Path) -> None:
        """Remove what its writer cannot finish any more, for nobody writes who has not the lock."""
        try:
            with self._alone(key):
                unfinished.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("datastore.fault", fault=f"{unfinished} is left over and cannot be removed: {error.strerror}")

    def swap(self, key: Key, value: Stored | None, revision: str | None) -> str:
        """Change a resource if it still has this revision; see `datastore.api.Swaps`."""
        after = secrets.token_hex(8)
        try:
            if value is None:
                self._remove(key, revision)
            elif revision is None or not self._overwritten(key, Found(value, after), revision):
                self._change(key, Found(value, after), revision)
        except OSError as error:
            self._known.pop(key, None)  # another thread may have seen what did not come to be
            raise OSError(error.errno, error.strerror, str(self._path(key))) from error
        return after

    def _overwritten(self, key: Key, found: Found, revision: str) -> bool:
        """Do `_change` at once; False where that comes to nothing, and `_change` says why."""
        known = self._known.get(key)
        if key.kind not in COPIED or known is None or known.found.revision != revision or known.torn is not None:
            return False
        if not copies.counts(known.heads[known.newest]):
            return False
        older = 1 - known.newest
        data = copies.render(
            found.revision, known.generation + 1, swap_documents.rest(key, found.value), known.sizes[older]
        )
        places = tuple(map(os.fsencode, copies.paths(str(self._path(key)))))
        where = durable.Copies(
            lock=os.fsencode(self._lock(key)),
            newer=places[known.newest],
            older=places[older],
            folder=os.fsencode(self._path(key).parent),
            beginnings=(known.heads[known.newest], known.heads[older]),
            unsure=known.unsure,
        )
        if not durable.overwritten(where, data, functions=self._functions):
            return False
        self._known[key] = known.overwritten(found, data)
        return True

    def _change(self, key: Key, found: Found, revision: str | None) -> None:
        """Write a resource, where it has this revision still."""
        path, rest = str(self._path(key)), swap_documents.rest(key, found.value)
        with self._alone(key):
            known, pair = self._expected(key, revision)
            if known is not None and known.late and known.torn is not None:
                raise known.torn
            older = 1 - known.newest if known is not None and key.kind in COPIED else 0
            if older in pair.torn:
                _set_aside(copies.paths(path)[older])
            generation = known.generation + 1 if known is not None else 1
            if key.kind in COPIED and known is not None and not copies.counts(known.heads[known.newest]):
                # Of an earlier version: what lies beside it counts for nothing, and goes before it might again.
                if older not in pair.torn and pair[older] is not None:
                    durable.remove(Path(copies.paths(path)[older]))
                generation = 1
            data = (
                copies.render(found.revision, generation, rest, 0)
                if key.kind in COPIED
                else swap_documents.single(found, rest)
            )
            durable.write(Path(copies.paths(path)[older]), data.decode())
            base = known or _Known(found, (b"", b""), (0, 0), 1, 0)
            self._known[key] = base._replace(generation=generation - 1).overwritten(found, data)

    def _remove(self, key: Key, revision: str | None) -> None:
        """Remove a resource, where it has this revision still; what is older goes first, for it must not come back."""
        with self._alone(key):
            known, pair = self._expected(key, revision)
            order = (0, 1) if known is None else (1 - known.newest, known.newest)
            for number in order:
                if pair[number] is not None:
                    durable.remove(Path(copies.paths(str(self._path(key)))[number]))
            self._known.pop(key, None)

    def _expected(self, key: Key, revision: str | None) -> tuple[_Known | None, Pair]:
        """Return a resource and its copies, for whoever has its lock; or say that its revision is another one."""
        before, pair = self._seen(key)
        known = self._understood(key, before, pair)
        if (known.found.revision if known is not None else None) != revision:
            raise Conflict(f"{key} was changed by somebody else")
        return known, pair

    def put_aside(self, damaged: Damaged) -> None:
        """Take what cannot be understood out of the way; see `datastore.api.Swaps`."""
        key, path = damaged.key, str(self._path(damaged.key))
        with self._alone(key):
            known, pair = self._seen(key)
            aside = pair.torn  # beside a copy that stands, somebody died over it
            try:
                self._understood(key, known, pair)
            except Damaged:
                aside = (0, 1)
            for number in aside:
                with suppress(FileNotFoundError):
                    _set_aside(copies.paths(path)[number])
            if aside:
                self._known.pop(key, None)

    # --- what a file says

    def _look(self, key: Key) -> _Known | None:
        """Return a resource as it is now."""
        path, known = str(self._path(key)), self._known.get(key)
        if known is not None and known.stands(copies.heads(path)):
            return known
        pair = copies.read(path)
        if not pair.torn and not (known is not None and known.outlived(pair.standing)):
            return self._understood(key, known, pair)
        with self._alone(key):  # somebody may be writing right now
            return self._understood(key, *self._seen(key))

    def _seen(self, key: Key) -> tuple[_Known | None, Pair]:
        """Return what was known of a file, and its copies as they are; in this order, for another thread may write."""
        known = self._known.get(key)
        return known, copies.read(str(self._path(key)))

    def _understood(self, key: Key, before: _Known | None, pair: Pair) -> _Known | None:
        """Return what copies say that are not just being written.

        Args:
            key: which resource.
            before: what was known when the copies were read.
            pair: the copies.

        Raises:
            Damaged: they say nothing, or less than was known.
        """
        path = str(self._path(key))
        faults = {number: Damaged(key, copies.paths(path)[number], _fault(pair, number)) for number in pair.torn}
        newest, standing = pair.newest, pair.standing
        if newest is None or standing is None:
            if faults:
                raise next(iter(faults.values()))
            self._note(key, before, None)
            return None
        if before is not None and before.outlived(standing):
            # Whoever was here all the time knows what stood. Only who starts may take the other copy for all that was
            # acknowledged: the power failed, or a writer died.
            raise next(iter(faults.values()), None) or Damaged(key, path, "what was written last is gone")
        same = before is not None and before.found.revision == standing.revision
        found = (
            before.found
            if before is not None and same
            else swap_documents.parsed(key, copies.paths(path)[newest], standing)
        )
        sizes = tuple(each.size if each is not None else 0 for each in pair)
        known = _Known(found, pair.heads, (sizes[0], sizes[1]), newest, pair.generation(newest))
        known = known._replace(
            unsure=not same or before is None or before.unsure, torn=next(iter(faults.values()), None)
        )
        if before is not None and known.torn is not None:
            known = known._replace(late=before.late or pair.heads != before.heads)
        self._note(key, before, known)
        return known

    def _note(self, key: Key, before: _Known | None, known: _Known | None) -> None:
        """Keep what a file says, unless another thread knows something newer since."""
        if self._known.get(key) is not before:
            return
        if known is not None:
            self._known[key] = known
        else:
            self._known.pop(key, None)

    def _path(self, key: Key) -> Path:
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = self._folder / PLACES[key.kind] / f"{key.name}{SUFFIX}"
        return path

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


def _fault(pair: Pair, number: int) -> str:
    copy = pair[number]
    return copy.fault if copy is not None else ""


def _set_aside(path: str) -> None:
    """Give a file a name that nobody takes for one of ours."""
    os.rename(path, f"{path}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")  # noqa: PTH104 - as its caller has it
