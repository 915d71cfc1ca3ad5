"""The directory datastore on a real folder: news, faults, the last good state, live changes."""

import asyncio
import os
from pathlib import Path

import pytest

from felix_py.datastore import directory
from felix_py.datastore.directory import DirectoryDatastore
from felix_py.model import Key
from felix_py.state import Absent, ClusterState, Event, InSync

NODE = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: a1}
spec: {bgp: {ipv4Address: 172.31.1.11/24}}
"""
POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default}
spec: {cidr: 10.65.0.0/16, ipipMode: CrossSubnet}
"""


def write(path: Path, text: str) -> None:
    """Write as editors and configuration tools do: a new file renamed over the old one."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)


async def batches(store: DirectoryDatastore, *steps: "list[object]") -> list[tuple[Event, ...]]:
    """Take the first news, then do each step and take the news that it causes."""
    found = []
    events = store.events()
    found.append(await asyncio.wait_for(anext(events), 5))
    for step, *arguments in steps:
        step(*arguments)  # type: ignore[operator]
        news: tuple[Event, ...] = ()
        while not news:
            news = await asyncio.wait_for(anext(events), 5)
        found.append(news)
    await events.aclose()  # type: ignore[attr-defined]
    return found


def test_what_the_folder_holds_then_every_change(tmp_path: Path) -> None:
    write(tmp_path / "node.yaml", NODE)
    first, added, removed = asyncio.run(
        batches(
            DirectoryDatastore(tmp_path),
            [write, tmp_path / "pool.yaml", POOL],
            [os.unlink, tmp_path / "node.yaml"],
        )
    )
    assert isinstance(first[-1], InSync)
    assert [event.key for event in first[:-1]] == [Key("Node", "a1")]  # type: ignore[union-attr]
    assert [event.key for event in added] == [Key("IPPool", "default")]  # type: ignore[union-attr]
    assert removed == (Absent(Key("Node", "a1")),)


def test_a_missing_folder_is_made_and_is_empty(tmp_path: Path) -> None:
    (first,) = asyncio.run(batches(DirectoryDatastore(tmp_path / "resources")))
    assert first == (InSync(),)


def test_broken_yaml_keeps_what_the_file_gave_before(tmp_path: Path) -> None:
    write(tmp_path / "node.yaml", NODE)
    store = DirectoryDatastore(tmp_path)

    async def scenario() -> tuple[Event, ...]:
        first, other = await batches(
            store, [lambda: (write(tmp_path / "node.yaml", "spec: [oops"), write(tmp_path / "pool.yaml", POOL))]
        )
        return first + other

    cluster = ClusterState().after_all(asyncio.run(scenario()))
    assert set(cluster.resources) == {Key("Node", "a1"), Key("IPPool", "default")}


def test_broken_yaml_is_one_sentence_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "pool.yaml").write_text("kind: IPPool\nspec: [oops\n")
    (fault,) = directory.read(tmp_path).faults
    assert str(fault).startswith(f"{tmp_path}/pool.yaml: cannot be read: ")
    assert str(fault).endswith("expected ',' or ']', line 3, column 1")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(b"\xff\xfe\x00rubbish", "cannot be read: 'utf-8' codec can't decode byte 0xff", id="no text"),
        pytest.param(b"- a\n- b\n", "holds ['a', 'b'] where a resource (a mapping) should be", id="a list"),
        pytest.param(b"a: &a [*a]\n", "kind: is None, which is unknown", id="a reference to itself"),
    ],
)
def test_rubbish_is_reported_and_harms_nothing_else(tmp_path: Path, data: bytes, sentence: str) -> None:
    (tmp_path / "rubbish.yaml").write_bytes(data)
    write(tmp_path / "node.yaml", NODE)
    reading = directory.read(tmp_path)
    assert set(reading.good) == {Key("Node", "a1")}
    assert sentence in str(reading.faults[0])


def in_force(folder: Path, *texts: str) -> tuple[directory.Placed, list[str]]:
    """Settle one text of the folder's only file after the other; return what holds in the end, and the faults."""
    placed: directory.Placed = {}
    faults: tuple[object, ...] = ()
    for text in texts:
        write(folder / "all.yaml", text)
        placed, faults = directory.settle(placed, directory.read(folder))
    return placed, [str(fault) for fault in faults]


BAD_POOL = POOL.replace("10.65.0.0/16", "10.65.0.1/16")


def test_an_invalid_resource_is_absent_and_its_neighbours_stay(tmp_path: Path) -> None:
    placed, faults = in_force(tmp_path, NODE + "---" + BAD_POOL)
    assert set(placed) == {Key("Node", "a1")}
    assert len(faults) == 1
    assert "IPPool default: spec.cidr: is '10.65.0.1/16'" in faults[0]


def test_an_edit_that_makes_a_resource_invalid_keeps_its_last_good_version(tmp_path: Path) -> None:
    good, _ = in_force(tmp_path, POOL)
    placed, faults = in_force(tmp_path, POOL, BAD_POOL)
    assert placed == good
    assert len(faults) == 1


def test_removing_a_resource_from_a_faulty_file_removes_it(tmp_path: Path) -> None:
    placed, _ = in_force(tmp_path, NODE + "---" + POOL, BAD_POOL)
    assert set(placed) == {Key("IPPool", "default")}


def test_a_new_pool_that_overlaps_loses_to_the_one_in_force_whatever_its_name(tmp_path: Path) -> None:
    rival = POOL.replace("default", "aaa").replace("10.65.0.0/16", "10.64.0.0/10")
    placed, faults = in_force(tmp_path, POOL, POOL + "---" + rival)
    assert set(placed) == {Key("IPPool", "default")}
    assert "IPPool aaa: spec.cidr: is 10.64.0.0/10, which overlaps IPPool default (10.65.0.0/16)" in faults[0]


def test_an_edit_that_contradicts_another_resource_is_undone(tmp_path: Path) -> None:
    other = NODE.replace("a1", "a2").replace("172.31.1.11", "172.31.1.12")
    good, _ = in_force(tmp_path, NODE + "---" + other)
    placed, faults = in_force(
        tmp_path, NODE + "---" + other, NODE.replace("172.31.1.11", "172.31.1.12") + "---" + other
    )
    assert placed == good
    assert "Node a1: spec.bgp.ipv4Address: is 172.31.1.12, which Node a2 has already" in faults[0]
