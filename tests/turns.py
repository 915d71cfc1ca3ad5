"""Who runs when `pytest -n` shares the tests out among workers: together by default, and `alone` where that is marked.

A unit of work is a file, so that its labs stand once; those of its tests that are `alone` are a unit of their own, and
all such units come last. The workers agree by two locks on files, which the kernel drops for a worker that dies. With
one process there is nobody to agree with, and nothing here does anything.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

MARK = "alone"

COSTS = ("matrix", "vm", "compose", "interop", "netns")
"""Markers by what a file takes that has them, the longest first: what comes last should be short, so that all workers
end at about the same time."""


def join(config: pytest.Config, facts: Callable[[], dict[str, Any]]) -> None:
    """Take part in a run that several processes share; call this in `pytest_configure`.

    Args:
        config: of this process.
        facts: finds out what every worker finds in its `workerinput` then; asked in the process that shares out.
    """
    told = getattr(config, "workerinput", None)
    if told is not None:
        config.pluginmanager.register(Worker(Path(told["turns"]), told["workerid"]))
    elif getattr(config.option, "numprocesses", None):
        folder = Path(tempfile.mkdtemp(prefix="felix-test-"))
        config.add_cleanup(lambda: shutil.rmtree(folder))
        config.pluginmanager.register(Controller(folder, facts()))


class Turns:
    """The lock that all hold together, or one alone.

    Whoever wants it alone holds the door while he waits for those inside, and so does not wait for ever.

    Args:
        folder: where the two files of the lock are; the same for all who agree.
    """

    def __init__(self, folder: Path) -> None:
        self._door, self._room = (os.open(folder / name, os.O_CREAT | os.O_RDWR, 0o600) for name in ("door", "room"))

    def take(self, *, alone: bool) -> None:
        """Wait for a turn."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Let others have theirs."""
        fcntl.flock(self._room, fcntl.LOCK_UN)


class Worker:
    """What a worker does: say what is alone, and take turns with the others.

    Args:
        folder: that all workers of a run share.
        name: of this worker.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._turns = Turns(folder)
        self._told = folder / f"{name}.alone"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the tests into the order in which units are given out; within a unit they stay as they are."""
        items.sort(key=_place)
        self._told.write_text("\n".join(item.nodeid for item in items if _alone(item)))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """Hold a turn for a whole unit: its labs, and what else it shares, are at work between its tests too."""
        if item.config.stash.get(HELD, None) != _unit(item):
            self._turns.take(alone=_alone(item))
            item.config.stash[HELD] = _unit(item)
        try:
            return (yield)
        finally:
            if nextitem is None or _unit(nextitem) != _unit(item):
                item.config.stash[HELD] = None
                self._turns.leave()


Unit = tuple[str, bool]
HELD = pytest.StashKey[Unit | None]()


def _alone(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None


def _unit(item: pytest.Item) -> Unit:
    return item.nodeid.partition("::")[0], _alone(item)


def _place(item: pytest.Item) -> tuple[bool, int]:
    cost = next((place for place, marker in enumerate(COSTS) if item.get_closest_marker(marker)), len(COSTS))
    return _alone(item), cost


class Controller:
    """What the process does that shares the tests out.

    Args:
        folder: that all workers of a run share.
        facts: what every worker needs to know of this machine, found out once.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self._folder = folder
        self._facts = facts

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the others are."""
        node.workerinput.update(self._facts, turns=str(self._folder))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Give out files, in the order of the workers' lists."""
        from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only who has it gets here

        config.option.loadscopereorder = False
        folder = self._folder

        class Files(LoadScopeScheduling):  # type: ignore[misc]
            def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
                self.alone = {name for told in folder.glob("*.alone") for name in told.read_text().splitlines()}
                super().add_node_collection(node, collection)

            def _split_scope(self, nodeid: str) -> str:
                return nodeid.partition("::")[0] + (f"::{MARK}" if nodeid in self.alone else "")

        return Files(config, log)
