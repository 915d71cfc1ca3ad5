"""A file replaced by compiled code: if it begins as expected, durably, with its lock held; or not touched at all."""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from watched_replace import Watched

from felix_py import durable
from felix_py.durable import UNFINISHED, Place, place, replaced

OLD, NEW = b"revision 1: old", b"revision 2: new"


@pytest.fixture
def there(tmp_path: Path) -> Place:
    file = tmp_path / "block.json"
    file.write_bytes(OLD)
    return place(file, str(tmp_path / "lock"))


def _path(name: bytes) -> Path:
    return Path(os.fsdecode(name))


def contents(where: Place) -> dict[str, bytes]:
    folder = _path(where.folder)
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file() and each.name != "lock"}


def test_it_was_compiled_here() -> None:
    assert durable.FUNCTIONS is not None


def test_a_file_that_begins_so_is_replaced_with_its_mode(there: Place) -> None:
    assert replaced(there, b"revision 1", NEW, mode=0o640, functions=durable.FUNCTIONS)
    assert contents(there) == {"block.json": NEW}
    assert stat.S_IMODE(_path(there.path).stat().st_mode) == 0o640


@pytest.mark.parametrize("beginning", [b"revision 2", OLD + b" and more", OLD.ljust(65, b"x")])
def test_one_that_begins_otherwise_stands_as_it_was(there: Place, beginning: bytes) -> None:
    assert not replaced(there, beginning, NEW, functions=durable.FUNCTIONS)
    assert contents(there) == {"block.json": OLD}


def test_one_that_is_not_there_is_not_made(there: Place) -> None:
    _path(there.path).unlink()
    assert not replaced(there, b"", NEW, functions=durable.FUNCTIONS)
    assert contents(there) == {}


def test_without_a_place_for_the_lock_nothing_is_done(there: Place) -> None:
    where = there._replace(lock=there.folder + b"/nowhere/lock")
    assert not replaced(where, b"revision 1", NEW, functions=durable.FUNCTIONS)
    assert contents(there) == {"block.json": OLD}


def test_a_new_file_that_cannot_be_written_leaves_the_old_one(there: Place) -> None:
    _path(there.unfinished).mkdir()
    assert not replaced(there, b"revision 1", NEW, functions=durable.FUNCTIONS)
    assert contents(there) == {"block.json": OLD}


def failing(kind: int) -> Callable[[int], None]:
    """Return what fails to sync files of a kind."""

    def sync(descriptor: int) -> None:
        if stat.S_IFMT(os.fstat(descriptor).st_mode) == kind:
            raise OSError(errno.EIO, "a broken disk")

    return sync


def test_a_disk_that_fails_before_leaves_the_old_file_and_nothing_else(there: Place, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    assert not replaced(there, b"revision 1", NEW, functions=Watched(library, failing(stat.S_IFREG)))
    assert contents(there) == {"block.json": OLD}


def test_a_folder_that_cannot_be_synced_is_told_for_the_old_file_may_come_back(there: Place, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    with pytest.raises(OSError, match="Input/output error"):
        replaced(there, b"revision 1", NEW, functions=Watched(library, failing(stat.S_IFDIR)))
    assert contents(there) == {"block.json": NEW}


def test_whoever_holds_the_lock_is_waited_for(there: Place) -> None:
    done = threading.Event()

    def replace() -> None:
        assert replaced(there, b"revision 1", NEW, functions=durable.FUNCTIONS)
        done.set()

    with _path(there.lock).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=replace)
        thread.start()
        assert not done.wait(0.1)
        assert contents(there) == {"block.json": OLD}
    assert done.wait(5)
    thread.join()
    assert contents(there) == {"block.json": NEW}


def test_without_the_compiled_function_nothing_is_done(there: Place) -> None:
    assert not replaced(there, b"revision 1", NEW, functions=None)
    assert contents(there) == {"block.json": OLD}
    assert not (_path(there.folder) / f"block.json{UNFINISHED}").exists()
