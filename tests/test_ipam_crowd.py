"""Sixteen nodes that share one folder and are killed at random: no address twice, none lost, books in order."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ipam_crowd
import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - what a kill leaves behind does not depend on the disk; test_power_cuts is about that

ADDRESSES = 600
"""Given out here; `make bench NAME=ipam` gives out 20,000."""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="felix-crowd-", dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.mark.slow
def test_what_a_crowd_of_dying_nodes_leaves_behind_is_in_order(folder: Path) -> None:
    given, kills = ipam_crowd.run(folder, ADDRESSES)
    assert given >= ADDRESSES
    assert kills > 0
    assert ipam_crowd.findings(folder) == []
    pods = {pod.name: pod.read_text().split()[0] for pod in (folder / "pods").iterdir()}
    assert ipam_crowd.held(folder) == pods, "whoever has an address is written down, and nobody else"
