"""The store: what was given is on disk, what was not given left no trace, and damage is seen."""

import json
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import file_sizes
import pytest
from allocation_store import A1, BLOCK, FILE, WEB, addresses, file_of, holders, numbered, store

from felix_py import ledger
from felix_py.allocations import AddressRefused, AlreadyAttached
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ipam import Block
from felix_py.model import Invalid, WorkloadEndpoint
from felix_py.store_failed import StoreFailed


def test_what_was_given_is_known_to_the_next_process(tmp_path: Path) -> None:
    given_out = store(tmp_path).attach(WEB)
    assert given_out == replace(WEB, addresses=addresses("10.65.0.0"), mac="02:00:0a:41:00:00")
    assert store(tmp_path, WEB).attachments() == (given_out,)


def test_a_pod_with_an_address_of_each_version_of_ip_is_known_to_the_next_process(tmp_path: Path) -> None:
    both = "10.65.0.0/29", "fd65::/122"
    given_out = store(tmp_path, blocks=both).attach(WEB)
    assert given_out.addresses == (IPv4Address("10.65.0.0"), IPv6Address("fd65::"))
    assert given_out.mac == "02:00:0a:41:00:00"
    again = store(tmp_path, WEB)
    assert again.attachments() == (given_out,)
    assert again.endpoints()[0].networks == (IPv4Network("10.65.0.0/32"), IPv6Network("fd65::/128"))
    assert ledger.from_note(ledger.note(given_out), WEB.host_interface, ()).addresses == given_out.addresses


def test_endpoints_are_what_the_agent_routes(tmp_path: Path) -> None:
    store(tmp_path).attach(WEB)
    assert store(tmp_path, WEB).endpoints() == (
        WorkloadEndpoint(
            "default/web-0",
            A1,
            "cali0d7763386da",
            (IPv4Network("10.65.0.0/32"),),
            "default/web-0",
            "c1",
            WEB.netns,
            WEB.interface,
        ),
    )


def test_the_file_can_be_read_by_people(tmp_path: Path) -> None:
    pods = store(tmp_path)
    pods.tunnel_address(BLOCK)
    pods.attach(WEB)
    document = json.loads(file_of(tmp_path).read_text())
    tunnel = document["spec"]["allocations"].pop("10.65.0.0")
    assert tunnel["handle_id"] == "ipip-tunnel-addr-a1"
    assert document.pop("metadata").keys() == {"resourceVersion", "generation", "checksum", "name"}
    assert document == {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPAMBlock",
        "spec": {
            "cidr": "10.65.0.0/29",
            "affinity": "host:a1",
            "allocations": {
                "10.65.0.1": {
                    "handle_id": "pods.c1",
                    "secondary": {
                        "node": "a1",
                        "timestamp": "2026-11-24T08:00:00+00:00",
                        "containerID": "c1",
                        "interface": "eth0",
                        "endpoint": "default/web-0",
                        "hostInterface": "cali0d7763386da",
                        "network": "pods",
                        "netns": "/run/netns/p1",
                        "namespace": "default",
                        "pod": "web-0",
                    },
                }
            },
            "released": {},
        },
    }


def test_the_tunnels_address_is_given_once_and_kept(tmp_path: Path) -> None:
    pods = store(tmp_path)
    assert pods.tunnel_address(BLOCK, keep=False) == IPv4Address("10.65.0.0")
    assert not file_of(tmp_path).exists(), "who only looks writes nothing"
    assert pods.tunnel_address(BLOCK) == IPv4Address("10.65.0.0")
    assert pods.attach(WEB).addresses == addresses("10.65.0.1")
    assert store(tmp_path, WEB).tunnel_address(BLOCK) == IPv4Address("10.65.0.0")
    assert holders(pods)[IPv4Address("10.65.0.0")] == "ipip-tunnel-addr-a1"


def test_the_tunnel_follows_its_node_to_another_block(tmp_path: Path) -> None:
    pods = store(tmp_path, blocks=("10.65.0.0/29", "10.65.9.0/29"))
    pods.tunnel_address(BLOCK)
    assert pods.tunnel_address(IPv4Network("10.65.9.0/29")) == IPv4Address("10.65.9.0")
    assert pods.attach(WEB).addresses == addresses("10.65.0.1")
    assert holders(pods) == {IPv4Address("10.65.0.1"): "default/web-0 (eth0 of c1)"}


def test_a_full_block_has_no_address_for_the_tunnel(tmp_path: Path) -> None:
    pods = store(tmp_path, blocks=("10.65.0.0/32",))
    single = IPv4Network("10.65.0.0/32")
    pods.attach(WEB)
    assert pods.tunnel_address(single) is None


def test_the_second_of_one_container_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    pods = store(tmp_path)
    first = pods.attach(WEB)
    with pytest.raises(AlreadyAttached, match=r"container c1 has eth0 already, with 10\.65\.0\.0; DEL it first"):
        pods.attach(replace(WEB, host_interface="cali2"))
    with pytest.raises(AlreadyAttached, match="cali0d7763386da belongs to default/web-0"):
        pods.attach(replace(WEB, container_id="c2"))
    assert pods.attachments() == (first,)


def test_all_of_several_addresses_or_none(tmp_path: Path) -> None:
    pods = store(tmp_path)
    with pytest.raises(AddressRefused, match=r"192\.0\.2\.1 is outside block"):
        pods.attach(WEB, addresses("10.65.0.3", "192.0.2.1"))
    assert pods.block(BLOCK).used == 0
    assert pods.attach(WEB, addresses("10.65.0.3", "10.65.0.5")).addresses == addresses("10.65.0.3", "10.65.0.5")


def test_released_addresses_cool_down_across_restarts(tmp_path: Path) -> None:
    pods = store(tmp_path)
    pods.detach(pods.attach(WEB))
    again = store(tmp_path)
    assert [str(address) for address in again.block(BLOCK).free()][-1] == "10.65.0.0"
    assert again.attach(WEB).addresses == addresses("10.65.0.1")


def test_releasing_twice_writes_once(tmp_path: Path) -> None:
    pods = store(tmp_path)
    attachment = pods.attach(WEB)
    pods.detach(attachment)
    before = file_of(tmp_path).stat()
    pods.detach(attachment)
    assert file_of(tmp_path).stat() == before


def test_a_pod_without_interface_holds_nothing_after_a_restart(tmp_path: Path) -> None:
    store(tmp_path).attach(WEB)
    assert store(tmp_path).attachments() == ()


def test_threads_share_it(tmp_path: Path) -> None:
    pods = store(tmp_path)
    threads = [threading.Thread(target=pods.attach, args=(numbered(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {address for each in pods.attachments() for address in each.addresses} == set(BLOCK)


def test_what_cannot_be_written_is_not_given(tmp_path: Path) -> None:
    pods = store(tmp_path)
    first = pods.attach(numbered(1))
    file, before = file_of(tmp_path), file_of(tmp_path).read_text()
    with file_sizes.at_most(0), pytest.raises(StoreFailed) as caught:
        pods.attach(numbered(2))
    assert str(caught.value) == (
        f"{file.with_name(FILE)} cannot be written: File too large; make it writable; nothing was changed"
    )
    assert pods.attachments() == (first,)
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert file.read_text() == before
    assert pods.attach(numbered(2)).addresses == addresses("10.65.0.1")


def test_what_cannot_be_written_is_still_held(tmp_path: Path) -> None:
    pods = store(tmp_path)
    first = pods.attach(numbered(1))
    with file_sizes.at_most(0), pytest.raises(StoreFailed):
        pods.detach(first)
    assert pods.attachments() == (first,)


def test_a_failing_disk_does_not_take_the_tunnels_address_away(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    pods = store(folder)
    folder.write_text("a file where the folder belongs")
    assert pods.tunnel_address(BLOCK) == IPv4Address("10.65.0.0")
    folder.unlink()
    assert pods.attach(WEB).addresses == addresses("10.65.0.1"), "it is held although it is not written"
    assert store(folder, WEB).tunnel_address(BLOCK) == IPv4Address("10.65.0.0"), "and written with the next pod"


@pytest.mark.parametrize("torn", ["", "{", '{"format": 1, "attachments": [{"container_id": "c'])
def test_death_between_write_and_rename_leaves_the_old_state(tmp_path: Path, torn: str) -> None:
    first = store(tmp_path).attach(numbered(1))
    names = sorted(file.name for file in file_of(tmp_path).parent.iterdir())
    for each in (FILE, f"{FILE}.twin"):
        file_of(tmp_path).with_name(f"{each}.new").write_text(torn)
    again = store(tmp_path, first)
    assert again.attachments() == (first,)
    again.attach(numbered(2))
    assert sorted(file.name for file in file_of(tmp_path).parent.iterdir()) == names


WRITER = """
import sys
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from allocation_store import A1, BLOCK, FILE, WEB, addresses, file_of, holders, numbered, store
from builders import with_blocks
from felix_py.allocations import Allocations
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ledger import Attachment

pods = Allocations(FolderSwaps(Path(sys.argv[1])), "a1", living=lambda: ())
cluster = with_blocks("a1", "10.65.0.0/20")
pods.addresses.own.cluster = lambda: cluster
for n in count():
    attachment = pods.attach(Attachment(f"c{n}", "eth0", f"default/p{n}", f"cali{n}"))
    print(attachment.addresses[0], flush=True)
"""


@pytest.mark.parametrize("after", [1, 7])
@pytest.mark.slow
def test_killing_the_writer_loses_nothing_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    words = [sys.executable, "-c", WRITER, tmp_path, str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(after)]
        writer.kill()
        told += writer.stdout.readlines()
    (block,) = FolderSwaps(tmp_path).listing("IPAMBlock")[0]
    assert isinstance(block.value, Block)
    held = [f"{address}\n" for address in block.value.holders]
    assert held[: len(told)] == told
    assert len(held) <= len(told) + 1


def test_a_file_that_cannot_be_read_is_no_reason_to_start_empty(tmp_path: Path) -> None:
    file_of(tmp_path).mkdir(parents=True)
    with pytest.raises(Invalid, match="cannot be read: Is a directory; without it addresses would be given twice"):
        store(tmp_path)


DAMAGED: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("torn", lambda text: text[: len(text.rstrip()) // 2]),
    ("empty", lambda _: ""),
    ("zeros", lambda text: "\0" * len(text)),
    ("no object", lambda _: "[]"),
    ("another kind", lambda text: text.replace('"IPAMBlock"', '"IPAMHandle"')),
    ("an address that is none", lambda text: text.replace('"10.65.0.0":', '"10.65.0.256":')),
    ("an address of another block", lambda text: text.replace('"10.65.0.0":', '"10.65.9.0":')),
    ("text where a mapping belongs", lambda text: text.replace('"released": {}', '"released": "x"')),
    ("a field is missing", lambda text: text.replace('"affinity"', '"affinities"')),
    ("a number for a name", lambda text: text.replace('"c1"', "7")),
    ("a list for a time", lambda text: text.replace('"2026-11-24T08:00:00+00:00"', "[1]")),
    ("an address held and free", lambda text: text.replace('"released": {}', '"released": {"10.65.0.0": null}')),
)


@pytest.mark.parametrize("damage", [case for _, case in DAMAGED], ids=[name for name, _ in DAMAGED])
def test_damage_is_seen_put_aside_and_living_pods_stay(tmp_path: Path, damage: Callable[[str], str]) -> None:
    first = store(tmp_path).attach(WEB)
    file = file_of(tmp_path)
    broken = damage(file.read_text())
    assert broken != file.read_text()
    file.write_text(broken)
    again = store(tmp_path, first)
    assert file.read_text() == broken, "looking changes nothing"
    assert again.attach(numbered(2)).addresses == addresses("10.65.0.1")
    (aside,) = file.parent.glob(f"{file.name}.damaged-*")
    assert aside.read_text() == broken
    assert [each.container_id for each in store(tmp_path, first, numbered(2)).attachments()] == ["c1", "c2"]


def test_a_folder_that_somebody_removes_while_the_agent_runs_costs_no_address(tmp_path: Path) -> None:
    pods = store(tmp_path)
    pods.attach(WEB)
    shutil.rmtree(tmp_path / "ipam")
    assert pods.attach(numbered(2)).addresses == addresses("10.65.0.1")
    assert [str(address) for address in holders(store(tmp_path, WEB, numbered(2)))] == ["10.65.0.0", "10.65.0.1"]


OLD_FILE = """{"format": 1,
 "handles": {"ipip-tunnel-addr-a1": "10.65.0.0"},
 "released": ["10.65.0.3"],
 "attachments": [
  {"container_id": "c1", "interface": "eth0", "name": "default/web-0", "host_interface": "cali0d7763386da",
   "pod": "default/web-0", "network": "pods", "mac": "02:00:0a:41:00:01", "netns": "/run/netns/p1",
   "addresses": ["10.65.0.1"], "created": "2026-11-24T08:00:00+00:00"},
  {"container_id": "c2", "interface": "eth0", "name": "default/gone", "host_interface": "cali2", "pod": "default/gone",
   "network": "pods", "mac": "02:00:0a:41:00:02", "netns": "", "addresses": ["10.65.0.2"], "created": null}
 ]}
"""


def test_what_earlier_versions_wrote_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "allocations.json").write_text(OLD_FILE)
    living = replace(WEB, mac="", created=None, addresses=addresses("10.65.0.1"))
    pods = store(tmp_path, living)
    assert pods.attachments() == (replace(WEB, addresses=addresses("10.65.0.1"), mac="02:00:0a:41:00:01"),)
    assert pods.tunnel_address(BLOCK) == IPv4Address("10.65.0.0")
    assert pods.attach(numbered(3)).addresses == addresses("10.65.0.2"), "its pod had gone"
    assert [file.name for file in tmp_path.glob("allocations.json*")] == ["allocations.json.migrated"]
    again = store(tmp_path, living, numbered(3))
    assert again.attachments()[0] == pods.attachments()[0]
    assert again.tunnel_address(BLOCK) == IPv4Address("10.65.0.0")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(OLD_FILE[:200], id="torn"),
        pytest.param("[]", id="no object"),
        pytest.param(OLD_FILE.replace('"format": 1', '"format": 2'), id="another format"),
        pytest.param(OLD_FILE.replace("10.65.0.1", "10.65.0.256"), id="an address that is none"),
        pytest.param(OLD_FILE.replace('"netns"', '"nets"'), id="a field is missing"),
        pytest.param(OLD_FILE.replace('"c1"', "7"), id="a number for a name"),
    ],
)
def test_a_damaged_file_of_earlier_versions_costs_no_address_that_is_in_use(tmp_path: Path, text: str) -> None:
    (tmp_path / "allocations.json").write_text(text)
    pods = store(tmp_path, replace(WEB, addresses=addresses("10.65.0.0")))
    assert pods.attach(numbered(3)).addresses == addresses("10.65.0.1")


def test_the_file_is_roots_alone_to_write(tmp_path: Path) -> None:
    store(tmp_path).attach(WEB)
    mode = file_of(tmp_path).stat().st_mode
    assert not mode & (stat.S_IWGRP | stat.S_IWOTH)
