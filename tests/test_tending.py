"""What is looked after: leaks, pods and nodes that are gone, blocks that are not in use; and what does not fit."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path

import pytest
from block_files import standing
from builders import node, pool

from felix_py import claims, ipam_check
from felix_py.allocations import AddressRefused, Allocations
from felix_py.claims import Ask
from felix_py.datastore.drive import drive
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ipam import ANY, Block, Holder
from felix_py.ipam_check import Books
from felix_py.leaks import GRACE, Suspects
from felix_py.ledger import Attachment
from felix_py.model import BlockAffinity, Claim, IPAMConfiguration, IPPool, Key, NodeName
from felix_py.state import Absent, ClusterState, Event, InSync, Present
from felix_py.tending import Tending

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
A1, A2 = map(NodeName, ("a1", "a2"))
BOTH: tuple[Event, ...] = (node("a1", "172.31.1.11/24"), node("a2", "172.31.1.12/24"))


class Cluster:
    """Nodes that share a folder; each knows what pods it has."""

    def __init__(self, folder: Path, *events: Event) -> None:
        self.folder = folder
        self.now = NOON
        self.known = ClusterState().after_all((*BOTH, pool("10.65.0.0/28", size=30), InSync(), *events))
        self.living: dict[NodeName, list[Attachment]] = {A1: [], A2: []}

    def node(self, name: NodeName) -> tuple[Allocations, Tending]:
        store = Allocations(
            FolderSwaps(self.folder), name, living=lambda: tuple(self.living[name]), clock=lambda: self.now
        )
        store.addresses.own.cluster = lambda: self.known
        return store, Tending(store, name, _forget, lambda: self.now)

    def pod(self, store: Allocations, name: NodeName, number: int) -> IPv4Address:
        made = store.attach(Attachment(f"c{number}", "eth0", f"default/p{number}", f"cali{number}", network="n"))
        self.living[name].append(made)
        (address,) = made.addresses
        assert isinstance(address, IPv4Address)
        return address

    def look(self, tending: Tending) -> tuple[str, ...]:
        """Look now, and again when the time of grace is over."""
        assert tending.look() == ()
        self.now += GRACE
        return tending.look()

    def problems(self, store: Allocations) -> list[tuple[str, str]]:
        addresses = store.addresses
        blocks, damaged = addresses.blocks()
        claimed = addresses.own.claims()
        books = Books(self.known, blocks, tuple(map(str, damaged)), claimed, A1, store.in_use())
        return [(each.subject, each.problem) for each in ipam_check.findings(books)]


async def _forget(_: str) -> None:
    """Forget nothing."""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def holders(store: Allocations) -> dict[str, str]:
    return {str(address): str(each) for block in store.addresses.blocks()[0] for address, each in block.holders.items()}


def test_a_leak_is_taken_back_after_the_time_of_grace_and_not_before(cluster: Cluster) -> None:
    store, tending = cluster.node(A1)
    address = cluster.pod(store, A1, 1)
    (block,) = store.addresses.own.all()
    drive(claims.assign(block, [Ask(Holder("n.leak", A1))], ANY, None), FolderSwaps(cluster.folder))
    assert [problem for _, problem in cluster.problems(store)] == ["is held by n.leak, and nothing here uses it"]
    assert tending.look() == ()
    cluster.now += GRACE - timedelta(seconds=1)
    tending.look()
    assert len(holders(store)) == 2
    cluster.now += timedelta(seconds=1)
    tending.look()
    assert list(holders(store)) == [str(address)]
    assert cluster.problems(store) == []


def test_a_pod_whose_interface_is_gone_is_detached_and_named_when_no_del_came_for_so_long(cluster: Cluster) -> None:
    store, tending = cluster.node(A1)
    cluster.pod(store, A1, 1)
    cluster.pod(store, A1, 2)
    cluster.living[A1].pop(0)
    assert cluster.look(tending) == ("default/p1",)
    assert list(holders(store).values()) == ["default/p2 (eth0 of c2)"]
    assert [each.name for each in store.attachments()] == ["default/p2"]


def test_what_a_node_that_is_no_more_had_is_taken_back_by_the_first_of_the_others(cluster: Cluster) -> None:
    dead, _ = cluster.node(A2)
    cluster.pod(dead, A2, 1)
    store, tending = cluster.node(A1)
    assert cluster.look(tending) == ()
    assert len(holders(store)) == 1, "node a2 exists: only it knows what it uses"
    cluster.known = cluster.known.after_all([Absent(Key("Node", "a2"))])
    cluster.look(tending)
    assert holders(store) == {}
    assert (store.addresses.blocks()[0], store.addresses.own.claims()) == ((), ())


def test_a_claimed_block_that_is_not_in_use_is_given_up_when_its_pool_no_longer_serves(cluster: Cluster) -> None:
    store, tending = cluster.node(A1)
    cluster.pod(store, A1, 1)
    shut = replace(cluster.known.of(IPPool)[0], disabled=True)
    cluster.known = cluster.known.after_all([Present(Key("IPPool", shut.name), shut)])
    tending.look()
    assert len(store.addresses.own.all()) == 1, "a pod uses it"
    store.detach(store.attachments()[0])
    tending.look()
    assert (store.addresses.own.all(), store.addresses.blocks()[0]) == ((), ())


def damaged(path: Path) -> tuple[Cluster, Allocations, Tending, IPv4Address, IPv4Address]:
    """Damage a block from which a pod of its owner has the first address, and one of another node the second."""
    cluster = Cluster(path, pool("10.65.0.0/30", size=30))
    owner, _ = cluster.node(A1)
    first = cluster.pod(owner, A1, 1)
    borrower, tending = cluster.node(A2)
    borrowed = cluster.pod(borrower, A2, 2)
    (file,) = standing(path)
    file.write_text("{")
    owner.addresses.own.announced = lambda: {ip_network(borrowed)}  # by BGP, since it lies in no block of its node
    return cluster, owner, tending, first, borrowed


def test_a_borrowed_address_is_written_again_after_its_block_was_damaged(tmp_path: Path) -> None:
    cluster, owner, tending, first, borrowed = damaged(tmp_path)
    second = cluster.pod(owner, A1, 3)  # puts the damaged block aside, and knows of its own pods only
    tending.look()
    holders = owner.addresses.block(IPv4Network("10.65.0.0/30")).holders
    assert {address: holder.node for address, holder in holders.items()} == {first: A1, borrowed: A2, second: A1}


def test_a_pod_that_goes_first_after_its_block_was_damaged_gives_no_borrowed_address_away(tmp_path: Path) -> None:
    cluster, owner, tending, first, borrowed = damaged(tmp_path)
    owner.detach(owner.attachments()[0])
    given = {cluster.pod(owner, A1, number) for number in (3, 4, 5)}
    assert borrowed not in given
    assert first in given, "it was given back"
    tending.look()
    holders = owner.addresses.block(IPv4Network("10.65.0.0/30")).holders
    assert {address: holder.node for address, holder in holders.items()} == {borrowed: A2} | dict.fromkeys(given, A1)


def test_nodes_borrow_when_no_block_is_left_and_strict_ones_do_not(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, pool("10.65.0.0/30", size=30))
    lender, _ = cluster.node(A1)
    cluster.pod(lender, A1, 1)
    borrower, _ = cluster.node(A2)
    assert cluster.pod(borrower, A2, 2) in IPv4Network("10.65.0.0/30")
    assert borrower.addresses.own.all() == ()
    strict = IPAMConfiguration(strict_affinity=True)
    cluster.known = cluster.known.after_all([Present(Key("IPAMConfiguration", "default"), strict)])
    with pytest.raises(AddressRefused, match=r"no block is left in IPPool default \(10\.65\.0\.0/30\)"):
        cluster.pod(borrower, A2, 3)
    borrower.detach(borrower.attachments()[0])
    assert list(holders(lender).values()) == ["default/p1 (eth0 of c1)"]


def test_a_claim_that_an_agent_died_over_is_finished_by_the_next_one(cluster: Cluster) -> None:
    swaps, cidr = FolderSwaps(cluster.folder), IPv4Network("10.65.0.4/30")
    key = claims.affinity_key(A1, cidr)
    swaps.swap(key, BlockAffinity(key.name, A1, cidr, Claim.PENDING), None)
    store, _ = cluster.node(A1)
    assert [subject for subject, _ in cluster.problems(store)] == ["claim of node a1 to block 10.65.0.4/30"]
    assert cluster.pod(store, A1, 1) in cidr
    assert cluster.problems(store) == []


def test_addresses_of_both_versions_are_given_together_or_not_at_all(tmp_path: Path) -> None:
    six = node("a1", "172.31.1.11/24", "fd31::11/64")
    cluster = Cluster(tmp_path, six, pool("fd65::/128", name="six", size=128))
    store, _ = cluster.node(A1)
    first = store.attach(Attachment("c1", "eth0", "default/p1", "cali1"))
    assert [address.version for address in first.addresses] == [4, 6]
    with pytest.raises(AddressRefused, match="block fd65::/128 is full"):
        store.attach(Attachment("c2", "eth0", "default/p2", "cali2"))
    assert len(holders(store)) == 2, "nobody has half of what he needs"


DAMAGES: tuple[tuple[str, Callable[[Books], Books], str], ...] = (
    (
        "two blocks share addresses",
        lambda books: replace(books, blocks=(*books.blocks, Block(IPv4Network("10.65.0.0/29"), A2))),
        "shares addresses with block 10.65.0.0/29",
    ),
    (
        "a block in no pool",
        lambda books: replace(books, blocks=(*books.blocks, Block(IPv4Network("10.9.0.0/30"), A1))),
        "lies in no IPPool, so its addresses are not routed",
    ),
    (
        "a claim without its block",
        lambda books: replace(books, blocks=()),
        "is confirmed, and the block is gone",
    ),
    (
        "a claim to somebody else's block",
        lambda books: replace(books, blocks=tuple(replace(each, affinity=A2) for each in books.blocks)),
        "is confirmed, and the block says node a2",
    ),
    (
        "a block of nobody",
        lambda books: replace(books, blocks=(*books.blocks, Block(IPv4Network("10.65.0.12/30")))),
        "belongs to nobody, and nobody uses it",
    ),
    (
        "a node that is none",
        lambda books: replace(books, blocks=(*books.blocks, Block(IPv4Network("10.65.0.12/30"), NodeName("z")))),
        "belongs to node z, which does not exist",
    ),
    (
        "an address that no block knows",
        lambda books: replace(books, in_use={**books.in_use, IPv4Address("10.65.0.13"): "n.c9"}),
        "is used by n.c9, and no block says so",
    ),
    ("damage", lambda books: replace(books, damaged=("x is damaged",)), "x is damaged"),
)


@pytest.mark.parametrize(("damage", "problem"), [each[1:] for each in DAMAGES], ids=[each[0] for each in DAMAGES])
def test_check_finds_what_does_not_fit(cluster: Cluster, damage: Callable[[Books], Books], problem: str) -> None:
    block = Block(IPv4Network("10.65.0.0/30"), A1, {0: Holder("n.c1", A1)})
    claim = BlockAffinity("a1-10-65-0-0-30", A1, block.cidr)
    books = Books(cluster.known, (block,), (), (claim,), A1, {IPv4Address("10.65.0.0"): "n.c1"})
    assert ipam_check.findings(books) == ()
    assert problem in [each.problem for each in ipam_check.findings(damage(books))]


def test_a_suspect_that_was_seen_in_use_is_none_any_more() -> None:
    nobody: Suspects[str] = Suspects()
    suspects = nobody.after(["a", "b"], NOON).after(["b"], NOON + timedelta(minutes=1))
    suspects = suspects.after(["a", "b"], NOON + timedelta(minutes=2))
    assert suspects.due(NOON + GRACE) == ("b",)
    assert set(suspects.due(NOON + GRACE + timedelta(minutes=2))) == {"a", "b"}
