"""Blocks on a file system that is not known to be this machine's own, as one behind a network."""

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path

import pytest

from felix_py.claims import block_key
from felix_py.datastore import copies
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ipam import Block, Holder

pytestmark = pytest.mark.netns

CIDR = IPv4Network("10.65.0.0/26")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A file system of which replace.c does not know that it is local."""
    subprocess.run(["mount", "-t", "ramfs", "ramfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def inodes(folder: Path) -> set[tuple[str, int]]:
    return {(each.name, each.stat().st_ino) for each in (folder / "ipam" / "blocks").iterdir()}


def written(folder: Path) -> list[set[tuple[str, int]]]:
    """Change a block some times; return which files there were after each change."""
    swaps, revision, seen = FolderSwaps(folder), None, []
    for number in range(5):
        block = Block(CIDR, None, {number: Holder(f"n.c{number}")})
        revision = swaps.swap(block_key(CIDR), block, revision)
        assert FolderSwaps(folder).read(block_key(CIDR)) == swaps.read(block_key(CIDR))
        seen.append(inodes(folder))
    assert copies.read(str(folder / "ipam" / "blocks" / "10-65-0-0-26.json")).newest == 0
    return seen


def test_nothing_is_overwritten_where_others_may_see_what_was(elsewhere: Path) -> None:
    seen = written(elsewhere)
    assert all(before != after for before, after in pairwise(seen))


def test_copies_are_overwritten_here(tmp_path: Path) -> None:
    assert len({frozenset(each) for each in written(tmp_path)[1:]}) == 1
