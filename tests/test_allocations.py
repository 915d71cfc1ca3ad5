"""The store: what was given is on disk, what was not given left no trace, and damage is seen."""

import json
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py import ledger
from felix_py.allocations import AddressRefused, Allocations, AlreadyAttached, StoreFailed
from felix_py.ledger import Attachment, Ledger
from felix_py.model import Invalid, NodeName, WorkloadEndpoint

A1 = NodeName("a1")
BLOCK = IPv4Network("10.65.0.0/29")
WEB = Attachment(
    container_id="c1",
    interface="eth0",
    name="default/web-0",
    host_interface="cali0d7763386da",
    pod="default/web-0",
    network="pods",
    netns="/run/netns/p1",
    created=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
)


def numbered(number: int) -> Attachment:
    return Attachment(f"c{number}", "eth0", f"default/p{number}", f"cali{number}")


def store(folder: Path, *living: Attachment) -> Allocations:
    return Allocations(folder, A1, living=lambda: living)


def addresses(*texts: str) -> tuple[IPv4Address, ...]:
    return tuple(map(IPv4Address, texts))


def test_what_was_given_is_known_to_the_next_process(tmp_path: Path) -> None:
    given_out = store(tmp_path).attach(WEB, (BLOCK,))
    assert given_out == replace(WEB, addresses=addresses("10.65.0.0"), mac="02:00:0a:41:00:00")
    assert store(tmp_path, WEB).attachments() == (given_out,)


def test_a_pod_with_an_address_of_each_version_of_ip_is_known_to_the_next_process(tmp_path: Path) -> None:
    given_out = store(tmp_path).attach(WEB, (BLOCK, IPv6Network("fd65::/122")))
    assert given_out.addresses == (IPv4Address("10.65.0.0"), IPv6Address("fd65::"))
    assert given_out.mac == "02:00:0a:41:00:00"
    again = store(tmp_path, WEB)
    assert again.attachments() == (given_out,)
    assert again.endpoints()[0].networks == (IPv4Network("10.65.0.0/32"), IPv6Network("fd65::/128"))
    assert ledger.from_note(ledger.note(given_out), WEB.host_interface, ()).addresses == given_out.addresses


def test_endpoints_are_what_the_agent_routes(tmp_path: Path) -> None:
    store(tmp_path).attach(WEB, (BLOCK,))
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
    pods.attach(WEB, (BLOCK,))
    assert json.loads((tmp_path / "allocations.json").read_text()) == {
        "format": 1,
        "handles": {"ipip-tunnel-addr-a1": "10.65.0.0"},
        "released": [],
        "attachments": [
            {
                "container_id": "c1",
                "interface": "eth0",
                "name": "default/web-0",
                "host_interface": "cali0d7763386da",
                "pod": "default/web-0",
                "network": "pods",
                "mac": "02:00:0a:41:00:01",
                "netns": "/run/netns/p1",
                "addresses": ["10.65.0.1"],
                "created": "2026-11-24T08:00:00+00:00",
            }
        ],
    }


def test_the_tunnels_address_is_given_once_and_kept(tmp_path: Path) -> None:
    pods = store(tmp_path)
    assert pods.tunnel_address(BLOCK, keep=False) == IPv4Address("10.65.0.0")
    assert not (tmp_path / "allocations.json").exists(), "who only looks writes nothing"
    assert pods.tunnel_address(BLOCK) == IPv4Address("10.65.0.0")
    assert pods.attach(WEB, (BLOCK,)).addresses == addresses("10.65.0.1")
    assert store(tmp_path, WEB).tunnel_address(BLOCK) == IPv4Address("10.65.0.0")
    assert pods.block(BLOCK).holder(IPv4Address("10.65.0.0")) == "ipip-tunnel-addr-a1"


def test_the_tunnel_follows_its_node_to_another_block(tmp_path: Path) -> None:
    pods = store(tmp_path)
    pods.tunnel_address(BLOCK)
    assert pods.tunnel_address(IPv4Network("10.65.9.0/29")) == IPv4Address("10.65.9.0")
    assert pods.block(BLOCK).holders == {}


def test_a_full_block_has_no_address_for_the_tunnel(tmp_path: Path) -> None:
    pods = store(tmp_path)
    single = IPv4Network("10.65.0.0/32")
    pods.attach(WEB, (single,))
    assert pods.tunnel_address(single) is None


def test_the_second_of_one_container_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    pods = store(tmp_path)
    first = pods.attach(WEB, (BLOCK,))
    with pytest.raises(AlreadyAttached, match=r"container c1 has eth0 already, with 10\.65\.0\.0; DEL it first"):
        pods.attach(replace(WEB, host_interface="cali2"), (BLOCK,))
    with pytest.raises(AlreadyAttached, match="cali0d7763386da belongs to default/web-0"):
        pods.attach(replace(WEB, container_id="c2"), (BLOCK,))
    assert pods.attachments() == (first,)


def test_all_of_several_addresses_or_none(tmp_path: Path) -> None:
    pods = store(tmp_path)
    with pytest.raises(AddressRefused, match=r"192\.0\.2\.1 is outside block"):
        pods.attach(WEB, (BLOCK,), addresses("10.65.0.3", "192.0.2.1"))
    assert pods.block(BLOCK).used == 0
    assert pods.attach(WEB, (BLOCK,), addresses("10.65.0.3", "10.65.0.5")).addresses == addresses(
        "10.65.0.3", "10.65.0.5"
    )


def test_released_addresses_cool_down_across_restarts(tmp_path: Path) -> None:
    pods = store(tmp_path)
    pods.detach(pods.attach(WEB, (BLOCK,)))
    again = store(tmp_path)
    assert [str(address) for address in again.block(BLOCK).free()][-1] == "10.65.0.0"
    assert again.attach(WEB, (BLOCK,)).addresses == addresses("10.65.0.1")


def test_releasing_twice_writes_once(tmp_path: Path) -> None:
    pods = store(tmp_path)
    attachment = pods.attach(WEB, (BLOCK,))
    pods.detach(attachment)
    before = (tmp_path / "allocations.json").stat()
    pods.detach(attachment)
    assert (tmp_path / "allocations.json").stat() == before


def test_a_pod_without_interface_holds_nothing_after_a_restart(tmp_path: Path) -> None:
    store(tmp_path).attach(WEB, (BLOCK,))
    assert store(tmp_path).attachments() == ()


def test_threads_share_it(tmp_path: Path) -> None:
    pods = store(tmp_path)
    threads = [threading.Thread(target=pods.attach, args=(numbered(n), (BLOCK,))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {address for each in pods.attachments() for address in each.addresses} == set(BLOCK)


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    """Make every write to a file fail (EFBIG), as a full disk does, without needing a disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_what_cannot_be_written_is_not_given(tmp_path: Path) -> None:
    pods = store(tmp_path)
    first = pods.attach(numbered(1), (BLOCK,))
    with no_file_may_grow(), pytest.raises(StoreFailed) as caught:
        pods.attach(numbered(2), (BLOCK,))
    assert str(caught.value) == (
        f"{tmp_path}/allocations.json cannot be written: File too large; make it writable; nothing was changed"
    )
    assert pods.attachments() == (first,)
    assert [file.name for file in tmp_path.iterdir()] == ["allocations.json"]
    assert pods.attach(numbered(2), (BLOCK,)).addresses == addresses("10.65.0.1")


def test_what_cannot_be_written_is_still_held(tmp_path: Path) -> None:
    pods = store(tmp_path)
    first = pods.attach(numbered(1), (BLOCK,))
    with no_file_may_grow(), pytest.raises(StoreFailed):
        pods.detach(first)
    assert pods.attachments() == (first,)


def test_a_failing_disk_does_not_take_the_tunnels_address_away(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    pods = store(folder)
    folder.write_text("a file where the folder belongs")
    assert pods.tunnel_address(BLOCK) == IPv4Address("10.65.0.0")
    folder.unlink()
    assert pods.attach(WEB, (BLOCK,)).addresses == addresses("10.65.0.1"), "it is held although it is not written"
    assert store(folder, WEB).tunnel_address(BLOCK) == IPv4Address("10.65.0.0"), "and written with the next pod"


@pytest.mark.parametrize("torn", ["", "{", '{"format": 1, "attachments": [{"container_id": "c'])
def test_death_between_write_and_rename_leaves_the_old_state(tmp_path: Path, torn: str) -> None:
    first = store(tmp_path).attach(numbered(1), (BLOCK,))
    (tmp_path / "allocations.json.new").write_text(torn)
    again = store(tmp_path, first)
    assert again.attachments() == (first,)
    again.attach(numbered(2), (BLOCK,))
    assert [file.name for file in tmp_path.iterdir()] == ["allocations.json"]


WRITER = """
import sys
from ipaddress import IPv4Network
from itertools import count
from pathlib import Path
from felix_py.allocations import Allocations
from felix_py.ledger import Attachment

pods = Allocations(Path(sys.argv[1]), "a1", living=lambda: ())
for n in count():
    attachment = pods.attach(Attachment(f"c{n}", "eth0", f"default/p{n}", f"cali{n}"), (IPv4Network("10.65.0.0/20"),))
    print(attachment.addresses[0], flush=True)
"""


@pytest.mark.parametrize("after", [1, 7])
@pytest.mark.slow
def test_killing_the_writer_loses_nothing_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(after)]
        writer.kill()
        told += writer.stdout.readlines()
    text = (tmp_path / "allocations.json").read_text()
    held = [f"{address}\n" for each in ledger.decode(text).attachments for address in each.addresses]
    assert held[: len(told)] == told
    assert len(held) <= len(told) + 1


def test_a_file_that_cannot_be_read_is_no_reason_to_start_empty(tmp_path: Path) -> None:
    (tmp_path / "allocations.json").mkdir()
    with pytest.raises(Invalid, match="cannot be read: Is a directory; without it addresses would be given twice"):
        store(tmp_path)


DAMAGED: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("torn", lambda text: text[: len(text) // 2]),
    ("empty", lambda _: ""),
    ("no object", lambda _: "[]"),
    ("another format", lambda text: text.replace('"format": 1', '"format": 2')),
    ("an address that is none", lambda text: text.replace("10.65.0.0", "10.65.0.256")),
    ("text where a list belongs", lambda text: text.replace('"released": []', '"released": 5')),
    ("a field is missing", lambda text: text.replace('"netns"', '"nets"')),
    ("a number for a name", lambda text: text.replace('"c1"', "7")),
    ("a list for a time", lambda text: text.replace('"2026-11-24T08:00:00+00:00"', "[1]")),
    ("an address held twice", lambda text: text.replace('"handles": {}', '"handles": {"x": "10.65.0.0"}')),
)


@pytest.mark.parametrize("damage", [case for _, case in DAMAGED], ids=[name for name, _ in DAMAGED])
def test_damage_is_seen_put_aside_and_living_pods_stay(tmp_path: Path, damage: Callable[[str], str]) -> None:
    file = tmp_path / "allocations.json"
    first = store(tmp_path).attach(WEB, (BLOCK,))
    broken = damage(file.read_text())
    file.write_text(broken)
    again = store(tmp_path, first)
    assert file.read_text() == broken, "looking changes nothing"
    assert again.attach(numbered(2), (BLOCK,)).addresses == addresses("10.65.0.1")
    (aside,) = tmp_path.glob("allocations.json.damaged-*")
    assert aside.read_text() == broken
    assert [each.container_id for each in store(tmp_path, first, numbered(2)).attachments()] == ["c1", "c2"]


def test_the_file_is_roots_alone_to_write(tmp_path: Path) -> None:
    store(tmp_path).attach(WEB, (BLOCK,))
    mode = (tmp_path / "allocations.json").stat().st_mode
    assert not mode & (stat.S_IWGRP | stat.S_IWOTH)


names = st.text(st.characters(codec="utf-8"), max_size=8)
some_addresses = st.lists(st.integers(0, 2**32 - 1).map(IPv4Address), unique=True, max_size=6)


@given(some_addresses, names, names)
def test_a_ledger_is_read_back_as_it_was_written(held: list[IPv4Address], name: str, handle: str) -> None:
    first, rest = tuple(held[:2]), held[2:]
    attachment = replace(WEB, name=name, addresses=first)
    handles = {handle: rest[0]} if rest else {}
    whole = Ledger((attachment, replace(attachment, container_id="c2", addresses=())), handles, tuple(rest[1:]))
    assert ledger.decode(ledger.encode(whole)) == whole


@given(st.text(max_size=300))
def test_rubbish_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ledger.decode(text)


@pytest.mark.parametrize(
    "attachment",
    [
        pytest.param(replace(WEB, mac="", netns="", created=None), id="pod"),
        pytest.param(
            Attachment("c2", "net1", "default/web-0/net1", "cali2", pod="default/web-0"), id="second interface"
        ),
        pytest.param(Attachment("c3", "eth0", "container/c3", "cali3", network="pods"), id="no orchestrator"),
    ],
)
@pytest.mark.parametrize("held", [("10.65.0.1",), ("10.65.0.1", "10.65.0.2"), ()])
def test_a_pod_is_known_again_by_the_note_on_its_interface(attachment: Attachment, held: tuple[str, ...]) -> None:
    whole = replace(attachment, addresses=addresses(*held))
    assert ledger.from_note(ledger.note(whole), whole.host_interface, routed=addresses("10.65.0.9")) == whole


@pytest.mark.parametrize(
    "note",
    [
        "",
        "felix",
        "felix c1 eth0 pods 10.65.0.2",
        "somebody else's note with seven words here",
        "felix c1 eth0 pods 10.65.0.2 a b",
        "felix c1 eth0 pods 10.65.0.2 ",
        "felix c1 eth0 pods 10.65.0.256 default/web-0",
    ],
)
def test_an_interface_without_our_note_only_keeps_the_addresses_routed_to_it(note: str) -> None:
    found = ledger.from_note(note, "cali1", addresses("10.65.0.1"))
    assert (found.container_id, found.addresses) == ("", addresses("10.65.0.1"))
