"""The older of two copies overwritten by compiled code: if both are as expected, durably, with the lock held."""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import file_sizes
import pytest
from watched_replace import Watched

from felix_py import durable
from felix_py.durable import Copies, overwritten

OLD, STANDS, NEW = b"revision 1: older ", b"revision 2: stands", b"revision 3: newest"


@pytest.fixture
def there(tmp_path: Path) -> Copies:
    newer, older = tmp_path / "block.json.twin", tmp_path / "block.json"
    newer.write_bytes(STANDS)
    older.write_bytes(OLD)
    paths = (os.fsencode(each) for each in (tmp_path / "lock", newer, older, tmp_path))
    return Copies(*paths, beginnings=(b"revision 2", b"revision 1"))


@pytest.fixture
def alone(there: Copies) -> Copies:
    """One copy, of which there was no other yet."""
    _path(there.older).unlink()
    return there._replace(beginnings=(there.beginnings[0], b""))


def _path(name: bytes) -> Path:
    return Path(os.fsdecode(name))


def contents(where: Copies) -> dict[str, bytes]:
    folder = _path(where.folder)
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file() and each.name != "lock"}


BEFORE = {"block.json.twin": STANDS, "block.json": OLD}
AFTER = {"block.json.twin": STANDS, "block.json": NEW}


def test_it_was_compiled_here() -> None:
    assert durable.FUNCTIONS is not None


def test_the_older_copy_is_overwritten_where_it_lies(there: Copies) -> None:
    before = _path(there.older).stat()
    assert overwritten(there, NEW, functions=durable.FUNCTIONS)
    assert contents(there) == AFTER
    assert _path(there.older).stat().st_ino == before.st_ino


def test_one_that_is_missing_is_made(alone: Copies) -> None:
    assert overwritten(alone, NEW, functions=durable.FUNCTIONS)
    assert contents(alone) == AFTER
    assert stat.S_IMODE(_path(alone.older).stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize("beginning", [b"revision 3", STANDS + b" and more", STANDS.ljust(129, b"x")])
def test_nothing_is_done_where_another_one_stands(there: Copies, beginning: bytes) -> None:
    where = there._replace(beginnings=(beginning, there.beginnings[1]))
    assert not overwritten(where, NEW, functions=durable.FUNCTIONS)
    assert contents(there) == BEFORE


@pytest.mark.parametrize("beginning", [b"revision 0", OLD + b" and more", OLD.ljust(129, b"x"), b""])
def test_nothing_is_done_where_somebody_has_touched_the_older_one(there: Copies, beginning: bytes) -> None:
    where = there._replace(beginnings=(there.beginnings[0], beginning))
    assert not overwritten(where, NEW, functions=durable.FUNCTIONS)
    assert contents(there) == BEFORE


def test_one_that_is_gone_is_not_made_by_somebody_who_does_not_know(there: Copies) -> None:
    _path(there.older).unlink()
    assert not overwritten(there, NEW, functions=durable.FUNCTIONS)
    assert contents(there) == {"block.json.twin": STANDS}


def test_without_the_one_that_stands_nothing_is_done(alone: Copies) -> None:
    _path(alone.newer).unlink()
    assert not overwritten(alone, NEW, functions=durable.FUNCTIONS)
    assert contents(alone) == {}


def test_without_a_place_for_the_lock_nothing_is_done(there: Copies) -> None:
    where = there._replace(lock=there.folder + b"/nowhere/lock")
    assert not overwritten(where, NEW, functions=durable.FUNCTIONS)
    assert contents(there) == BEFORE


def failing(kind: int) -> Callable[[int], None]:
    """Return what fails to sync files of a kind."""

    def sync(descriptor: int) -> None:
        if stat.S_IFMT(os.fstat(descriptor).st_mode) == kind:
            raise OSError(errno.EIO, "a broken disk")

    return sync


def test_what_a_disk_may_not_have_taken_is_nobodys_to_read(there: Copies, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    with pytest.raises(OSError, match="Input/output error"):
        overwritten(there, NEW, functions=Watched(library, failing(stat.S_IFREG)))
    assert contents(there) == {"block.json.twin": STANDS}


def test_a_copy_whose_name_may_be_lost_is_not_there(alone: Copies, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    with pytest.raises(OSError, match="Input/output error"):
        overwritten(alone, NEW, functions=Watched(library, failing(stat.S_IFDIR)))
    assert contents(alone) == {"block.json.twin": STANDS}


def test_a_name_that_is_there_needs_no_sync(there: Copies, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    assert overwritten(there, NEW, functions=Watched(library, failing(stat.S_IFDIR)))
    assert contents(there) == AFTER


def test_whoever_holds_the_lock_is_waited_for(there: Copies) -> None:
    done = threading.Event()

    def overwrite() -> None:
        assert overwritten(there, NEW, functions=durable.FUNCTIONS)
        done.set()

    with _path(there.lock).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=overwrite)
        thread.start()
        assert not done.wait(0.1)
        assert contents(there) == BEFORE
    assert done.wait(5)
    thread.join()
    assert contents(there) == AFTER


def test_without_the_compiled_function_nothing_is_done(there: Copies) -> None:
    assert not overwritten(there, NEW, functions=None)
    assert contents(there) == BEFORE


def test_where_there_is_no_room_the_older_copy_stays(there: Copies) -> None:
    with file_sizes.at_most(len(OLD)):
        assert not overwritten(there, NEW + b" and more", functions=durable.FUNCTIONS)
        assert contents(there) == BEFORE
        assert overwritten(there, NEW, functions=durable.FUNCTIONS), "what is no longer needs no room"
    assert contents(there) == AFTER


def test_where_there_is_no_room_none_is_made(alone: Copies) -> None:
    with file_sizes.at_most(len(OLD)):
        assert not overwritten(alone, NEW + b" and more", functions=durable.FUNCTIONS)
    assert contents(alone) == {"block.json.twin": STANDS}
