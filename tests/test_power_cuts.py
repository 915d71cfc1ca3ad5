"""The power fails at any moment: whatever was acknowledged is there afterwards, and the agent starts."""

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from builders import node, pool
from power_cut import Disk, Image, restore, watched
from watched_replace import Watched

from felix_py.allocations import Allocations
from felix_py.claims import block_key
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ledger import Attachment
from felix_py.model import BlockAffinity, IPAddress, NodeName
from felix_py.state import ClusterState, InSync

A1 = NodeName("a1")
CLUSTER = ClusterState().after_all((node("a1", "172.31.1.11/24"), pool("10.65.0.0/29", size=31), InSync()))


def draft(number: int) -> Attachment:
    return Attachment(f"c{number}", "eth0", f"container/c{number}", f"cali{number}", network="pods")


@pytest.fixture(params=["python", "compiled"])
def functions(request: pytest.FixtureRequest, tmp_path: Path) -> Watched | None:
    return Watched(tmp_path) if request.param == "compiled" else None


def allocations(folder: Path, *living: Attachment, functions: Watched | None = None) -> Allocations:
    made = Allocations(FolderSwaps(folder, functions), A1, living=lambda: living)
    made.addresses.own.cluster = lambda: CLUSTER
    return made


class Witness:
    """Remembers what was acknowledged, and looks after each power cut whether it is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.acknowledged: dict[IPAddress, str] = {}
        self.leaving: set[IPAddress] = set()
        self.seen: set[object] = set()

    def judge(self, image: Image) -> None:
        state = frozenset(image.items()), frozenset(self.acknowledged), frozenset(self.leaving)
        if state in self.seen:
            return
        self.seen.add(state)
        restored = self.folder / f"cut{len(self.seen)}"
        restored.mkdir()
        restore(image, restored)
        self._look(restored)
        shutil.rmtree(restored)

    def _look(self, restored: Path) -> None:
        blocks, damaged = FolderSwaps(restored).listing("IPAMBlock")
        claims, torn = FolderSwaps(restored).listing("BlockAffinity")
        assert torn == (), "no claim is half written"
        whole = {block.value.cidr for block in blocks}  # type: ignore[union-attr]
        assert {each.key for each in damaged} <= {block_key(cidr) for cidr in whole}, "of each block one copy is whole"
        held = {address: str(holder) for block in blocks for address, holder in block.value.holders.items()}  # type: ignore[union-attr]
        missing = {each: held.get(each) for each in self.acknowledged if each not in self.leaving and each not in held}
        assert missing == {}, "what was acknowledged is there"
        values = [each.value for each in claims]
        confirmed = {each.cidr for each in values if isinstance(each, BlockAffinity) and each.confirmed}
        assert confirmed <= whole, "what is announced is written down"


def stage(tmp_path: Path) -> tuple[Path, Witness, Disk]:
    """Return a folder, its disk, and a witness of what a power cut leaves of it."""
    folder, restored = tmp_path / "disk", tmp_path / "restored"
    folder.mkdir()
    restored.mkdir()
    witness = Witness(restored)
    return folder, witness, Disk(folder, witness.judge)


@pytest.mark.slow
def test_no_acknowledged_address_is_lost_whenever_the_power_fails(tmp_path: Path, functions: Watched | None) -> None:
    folder, witness, disk = stage(tmp_path)
    pods = allocations(folder, functions=functions)
    with watched(disk):
        given = []
        for number in range(3):  # of blocks with two addresses: two are claimed
            given.append(pods.attach(draft(number)))
            witness.acknowledged[given[-1].addresses[0]] = given[-1].name
            disk.cut()
        for attachment in given[:1]:
            witness.leaving.add(attachment.addresses[0])
            pods.detach(attachment)
        again = pods.attach(draft(9))
        witness.acknowledged[again.addresses[0]] = again.name
        witness.leaving.discard(again.addresses[0])
        disk.cut()
    assert len(witness.seen) > 50
    assert functions is None or functions.calls > 3


@pytest.mark.slow
def test_after_a_power_cut_the_agent_goes_on_from_every_state(tmp_path: Path, functions: Watched | None) -> None:
    """It starts, its pods are gone with the power, and all addresses can be given again, each once."""
    images: list[Image] = []
    folder = tmp_path / "disk"
    folder.mkdir()
    with watched(Disk(folder, lambda image: None if image in images else images.append(image))):
        pods = allocations(folder, functions=functions)
        pods.detach(pods.attach(draft(1)))
        pods.attach(draft(2))
    for number, image in enumerate(images):
        restored = tmp_path / f"restored{number}"
        restored.mkdir()
        restore(image, restored)
        store = allocations(restored)
        given = [store.attach(draft(each)).addresses[0] for each in range(8)]
        assert sorted(given) == sorted(ip_network("10.65.0.0/29"))
        shutil.rmtree(restored)
    assert len(images) > 10


def test_the_witness_sees_a_write_that_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that forgot to sync its folder would be found out."""
    folder, witness, disk = stage(tmp_path)
    pods = allocations(folder)
    monkeypatch.setattr("felix_py.durable._sync", lambda _: None)
    with watched(disk):
        given = pods.attach(replace(draft(1)))
        witness.acknowledged[given.addresses[0]] = given.name
        with pytest.raises(AssertionError, match="what was acknowledged is there"):
            disk.cut()


@pytest.mark.parametrize("forgotten", [stat.S_ISDIR, stat.S_ISREG], ids=["folder", "file"])
def test_the_witness_sees_compiled_code_that_forgets_to_sync(tmp_path: Path, forgotten: Callable[[int], bool]) -> None:
    folder, witness, disk = stage(tmp_path)

    def sync(descriptor: int) -> None:
        if not forgotten(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)

    forgetful = Watched(tmp_path, sync)
    pods = allocations(folder, functions=forgetful)

    def acknowledge() -> None:
        given = pods.attach(draft(1))
        witness.acknowledged[given.addresses[0]] = given.name
        disk.cut()

    with watched(disk), pytest.raises(AssertionError, match="what was acknowledged is there"):
        acknowledge()
    assert forgetful.calls > 0


def test_what_a_writer_died_over_is_on_disk_before_the_other_copy_is_overwritten(tmp_path: Path) -> None:
    """It was killed between write and sync, others took what it had written for what stands, the power fails."""
    folder, witness, disk = stage(tmp_path)
    functions = Watched(tmp_path)
    pods = allocations(folder, functions=functions)
    given = []
    with watched(disk):
        for number in range(2):
            given.append(pods.attach(draft(number), (ip_address(f"10.65.0.{number}"),)))
            witness.acknowledged[given[-1].addresses[0]] = given[-1].name
        (block,) = FolderSwaps(folder).listing("IPAMBlock")[0]
        key = block_key(block.value.cidr)  # type: ignore[union-attr]
        dying = FolderSwaps(folder, functions)
        dying.read(key)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fdatasync", lambda _: None)  # as if it had been killed there
            dying.swap(key, block.value, block.revision)
        again = allocations(folder, *given, functions=functions)
        witness.leaving.add(given[0].addresses[0])
        again.detach(given[0])
        disk.cut()
    assert len(witness.seen) > 5
