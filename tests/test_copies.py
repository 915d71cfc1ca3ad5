"""A block's file in two copies: which one stands, whoever dies while writing, whatever becomes of the other."""

import threading
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from felix_py import durable
from felix_py.claims import Conflict, Found, block_key
from felix_py.datastore import copies
from felix_py.datastore.api import Damaged
from felix_py.datastore.copies import TWIN, judged, render
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ipam import Block, Holder

CIDR = IPv4Network("10.65.0.0/26")
KEY = block_key(CIDR)
EMPTY = Block(CIDR)
REST = b', "name": "x"}}'


def held(*numbers: int) -> Block:
    return replace(EMPTY, held={number: Holder(f"n.c{number}") for number in numbers})


class Node:
    """A node that shares the folder: what it does to the block, and what it finds."""

    def __init__(self, folder: Path, functions: durable.Library | None = durable.FUNCTIONS) -> None:
        self.swaps = FolderSwaps(folder, functions)

    def write(self, block: Block | None) -> None:
        found = self.swaps.read(KEY)
        self.swaps.swap(KEY, block, found.revision if found is not None else None)

    def block(self) -> object:
        found = self.swaps.read(KEY)
        return found.value if found is not None else None


@pytest.fixture(params=["python", "compiled"])
def functions(request: pytest.FixtureRequest) -> durable.Library | None:
    assert durable.FUNCTIONS is not None
    return durable.FUNCTIONS if request.param == "compiled" else None


@pytest.fixture
def node(tmp_path: Path, functions: durable.Library | None) -> Node:
    return Node(tmp_path, functions)


def files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the older and of the newer copy."""
    first = folder / "ipam" / "blocks" / "10-65-0-0-26.json"
    paths = [Path(each) for each in copies.paths(str(first))]
    newest = copies.read(str(first)).newest
    assert newest is not None
    return paths[1 - newest], paths[newest]


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in (folder / "ipam" / "blocks").iterdir())


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_a_copy_says_what_was_written_and_fills_its_place(size: int) -> None:
    data = render("0123456789abcdef", 7, REST, size)
    copy = judged(data)
    assert (copy.revision, copy.generation, copy.rest, copy.fault) == ("0123456789abcdef", 7, REST, "")
    assert len(data) == copy.size == max(size, 4096)
    assert data.startswith(copy.head)
    assert data.endswith(b"\n")
    assert len(copy.head) <= copies.HEAD_BYTES


@pytest.mark.parametrize("place", range(0, 115, 3))
def test_a_copy_that_is_not_as_it_was_written_is_none(place: int) -> None:
    data = bytearray(render("0123456789abcdef", 7, REST, 0))
    data[place] ^= 1
    assert judged(bytes(data)).fault


def test_a_file_of_an_earlier_version_is_the_oldest(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    (file,) = (each for each in (tmp_path / "ipam" / "blocks").iterdir())
    copy = judged(file.read_bytes())
    file.write_bytes(b'{"metadata": {"resourceVersion": "0123456789abcdef"' + copy.rest + b"\n")
    after = Node(tmp_path)
    assert after.block() == held(1)
    after.write(held(1, 2))
    after.write(held(1, 2, 3))
    assert Node(tmp_path).block() == held(1, 2, 3)


def test_copies_take_turns_and_keep_their_places(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    inodes = [each.stat().st_ino for each in files(tmp_path)]
    for number in range(3, 9):
        older, newer = files(tmp_path)
        node.write(held(*range(1, number + 1)))
        assert files(tmp_path) == (newer, older)
    if node.swaps._functions is not None:
        assert [each.stat().st_ino for each in files(tmp_path)] == inodes
    assert Node(tmp_path).block() == held(*range(1, 9))


def test_a_block_grows_and_shrinks(tmp_path: Path, node: Node) -> None:
    for count in (1, 64, 64, 1, 1, 30):
        node.write(held(*range(count)))
        assert Node(tmp_path).block() == held(*range(count))
        assert node.block() == held(*range(count))


@pytest.mark.parametrize("cut", [0, 40, 100, 300])
def test_a_writer_that_dies_leaves_what_stood(tmp_path: Path, node: Node, cut: int) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    older, newer = files(tmp_path)
    new = render("f" * 16, 3, judged(newer.read_bytes()).rest.replace(b"n.c2", b"n.c9"), 0)
    older.write_bytes(new[:cut] + older.read_bytes()[cut:])
    again = Node(tmp_path)
    (found,), damaged = again.swaps.listing("IPAMBlock")
    assert found.value == held(1, 2)
    assert [each.place for each in damaged] == ([str(older)] if cut else [])
    again.write(held(1, 2, 3))
    assert Node(tmp_path).block() == held(1, 2, 3)
    assert Node(tmp_path).swaps.listing("IPAMBlock")[1] == ()
    assert len([each for each in names(tmp_path) if ".damaged-" in each]) == bool(cut)


def test_whoever_knows_better_does_not_take_the_older_one(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    _, newer = files(tmp_path)
    newer.write_text("{")
    with pytest.raises(Damaged, match=f"{newer} is damaged"):
        node.block()
    with pytest.raises(Damaged):
        node.swaps.swap(KEY, held(7), "0" * 16)
    assert newer.read_text() == "{", "looking changes nothing"


def test_a_block_that_somebody_removed_and_made_again_is_no_older_one(tmp_path: Path, node: Node) -> None:
    for number in range(1, 6):
        node.write(held(number))
    other = Node(tmp_path)
    other.write(None)
    other.write(held(9))
    assert node.block() == held(9)
    node.write(held(9, 10))
    assert other.block() == held(9, 10)


def test_a_newest_copy_that_is_gone_is_missed(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    files(tmp_path)[1].unlink()
    with pytest.raises(Damaged, match="what was written last is gone"):
        node.block()


def test_what_is_put_aside_is_both_copies(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    files(tmp_path)[1].write_text("{")
    with pytest.raises(Damaged) as caught:
        node.block()
    node.swaps.put_aside(caught.value)
    assert node.block() is None
    assert all(".json" in each and ".damaged-" in each for each in names(tmp_path))
    node.write(held(5))
    assert Node(tmp_path).block() == held(5)


def test_a_writer_that_dies_beside_others_costs_nobody_what_stands(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    older, newer = files(tmp_path)
    older.write_bytes(render("f" * 16, 3, b"", 0)[:60])
    assert node.block() == held(1, 2), "what stood still stands"
    assert [each.place for each in node.swaps.listing("IPAMBlock")[1]] == [str(older)]
    with pytest.raises(Damaged, match=f"{older} is damaged") as caught:
        node.write(held(1, 2, 3))  # whoever owns it looks at what others announce before
    node.swaps.put_aside(caught.value)
    assert node.block() == held(1, 2)
    assert newer.exists()
    assert not older.exists()
    node.write(held(1, 2, 3))
    assert Node(tmp_path).block() == held(1, 2, 3)


@pytest.mark.parametrize("number", [1, 5000])
def test_a_writer_that_dies_when_it_has_made_room_leaves_nothing_behind_what_is_written(
    tmp_path: Path, node: Node, number: int
) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    older, _ = files(tmp_path)
    with older.open("ab") as file:
        file.write(bytes(number))
    node.write(held(1, 2, 3))
    assert Node(tmp_path).block() == held(1, 2, 3)
    node.write(held(1, 2, 3, 4))
    assert Node(tmp_path).block() == held(1, 2, 3, 4)


def test_an_agent_of_an_earlier_version_that_was_run_meanwhile_is_believed(tmp_path: Path, node: Node) -> None:
    for number in range(1, 5):
        node.write(held(number))
    first = tmp_path / "ipam" / "blocks" / "10-65-0-0-26.json"
    rest = judged(first.read_bytes()).rest.replace(b"n.c3", b"n.c9")
    first.write_bytes(b'{"metadata": {"resourceVersion": "0123456789abcdef"' + rest + b"\n")
    for each in (Node(tmp_path), node):
        found = each.swaps.read(KEY)
        assert found is not None
        assert found.revision == "0123456789abcdef"
    node.write(held(7))
    assert Node(tmp_path).block() == held(7)


def test_what_is_whole_is_not_put_aside(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    before = names(tmp_path)
    node.swaps.put_aside(Damaged(KEY, "somewhere", "it was"))
    assert names(tmp_path) == before


def test_a_block_that_is_removed_does_not_come_back(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write(held(1))
    node.write(EMPTY)
    removed: list[Path] = []

    def die(path: Path) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        path.unlink()

    older, newer = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            node.write(None)
    assert removed == [older]
    assert newer.exists()
    again = Node(tmp_path)
    assert again.block() == EMPTY
    again.write(None)
    assert again.block() is None
    assert names(tmp_path) == []


def test_nodes_see_each_others_changes_and_only_one_of_two_comes_first(tmp_path: Path) -> None:
    one, other = Node(tmp_path), Node(tmp_path, None)
    one.write(held(1))
    for number in range(2, 12):
        before = other.swaps.read(KEY)
        assert isinstance(before, Found)
        one.write(held(*range(1, number + 1)))
        with pytest.raises(Conflict):
            other.swaps.swap(KEY, held(63), before.revision)
        assert other.block() == held(*range(1, number + 1))
        one, other = other, one
    assert not [each for each in names(tmp_path) if ".damaged-" in each]


def test_readers_never_see_half_of_a_change_nor_an_older_one(tmp_path: Path) -> None:
    writer, reader = Node(tmp_path), Node(tmp_path)
    writer.write(held(*range(40)))
    done = threading.Event()
    problems: list[str] = []
    seen: list[int] = [0]

    def read() -> None:
        while not done.is_set():
            fresh = FolderSwaps(tmp_path).read(KEY)
            found = reader.swaps.read(KEY)
            for each in (fresh, found):
                assert each is not None
                assert isinstance(each.value, Block)
            last = max(found.value.held)  # type: ignore[union-attr]
            if last < seen[-1]:
                problems.append(f"{last} after {seen[-1]}")
            seen.append(last)

    def guarded() -> None:
        try:
            read()
        except Exception as problem:  # noqa: BLE001 - told by the test's own thread
            problems.append(repr(problem))

    thread = threading.Thread(target=guarded)
    thread.start()
    for number in range(40, 64):
        for _ in range(4):
            writer.write(held(*range(number), number))
            writer.write(held(*range(1, number), number))
    done.set()
    thread.join()
    assert problems == []
    assert len(set(seen)) > 2


def test_a_reader_whose_own_node_writes_meanwhile_takes_what_stood_for_no_damage(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    Node(tmp_path).write(held(1, 2, 3))  # so that the next look is at all of it
    real = copies.read

    def late(path: str) -> copies.Pair:
        pair = real(path)
        monkeypatch.setattr(copies, "read", real)
        node.write(held(1, 2, 3, 4))
        return pair

    monkeypatch.setattr(copies, "read", late)
    assert node.block() == held(1, 2, 3)
    assert node.block() == held(1, 2, 3, 4)


def test_a_folder_that_is_removed_is_a_block_that_is_not_there(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    node.write(held(1, 2))
    for each in (tmp_path / "ipam" / "blocks").iterdir():
        each.unlink()
    assert node.block() is None
    node.write(held(3))
    assert Node(tmp_path).block() == held(3)


def test_a_copy_that_cannot_be_read_is_no_copy_that_is_missing(tmp_path: Path, node: Node) -> None:
    node.write(held(1))
    path = Path(f"{files(tmp_path)[1]}{TWIN}") if files(tmp_path)[1].suffix == ".json" else files(tmp_path)[0]
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        Node(tmp_path).block()
    path.rmdir()
