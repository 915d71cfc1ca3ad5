"""Blocks and claims at a real API server: compare-and-swap, what is stored, what is damaged, and many at a time."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer

from felix_py import claims
from felix_py.claims import Ask, Claimed, Conflict, Lost
from felix_py.datastore.api import Damaged, Unavailable
from felix_py.datastore.drive import drive, persevere
from felix_py.datastore.kubernetes_client import Client, Failed
from felix_py.datastore.kubernetes_swaps import KubernetesSwaps
from felix_py.datastore.kubernetes_watch import Cause, News
from felix_py.ipam import ANY, Block, Holder, NotAssigned
from felix_py.model import BlockAffinity, Claim, NodeName

pytestmark = pytest.mark.kubernetes

A1, A2 = NodeName("a1"), NodeName("a2")
CIDR = IPv4Network("10.65.0.0/29")
KEY = claims.block_key(CIDR)
NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
BLOCK = Block(
    CIDR,
    A1,
    {
        1: Holder("pods.c1", A1, NOW, {"endpoint": "default/web-0", "interface": "eth0"}),
        2: Holder("ipip-tunnel-addr-a1", A1),
    },
    {5: None, 3: NOW, 4: NOW},
)


@pytest.fixture
def swaps(server: ApiServer, tmp_path: Path) -> KubernetesSwaps:
    return KubernetesSwaps(Client(server.kubeconfig), tmp_path)


def other(server: ApiServer, tmp_path: Path) -> KubernetesSwaps:
    return KubernetesSwaps(Client(server.kubeconfig), tmp_path)


def test_another_node_reads_what_was_written(swaps: KubernetesSwaps, server: ApiServer, tmp_path: Path) -> None:
    assert swaps.read(KEY) is None
    revision = swaps.swap(KEY, BLOCK, None)
    found = other(server, tmp_path).read(KEY)
    assert found is not None
    assert (found.value, found.revision) == (BLOCK, revision)
    assert isinstance(found.value, Block)
    assert found.value.held[1].details == BLOCK.held[1].details
    assert list(found.value.released) == [5, 3, 4], "the order in which they are given again"


def test_a_node_lists_what_concerns_it(swaps: KubernetesSwaps) -> None:
    def concerns(node: NodeName) -> tuple[list[str], list[str]]:
        blocks, affinities = swaps.listing("IPAMBlock", node), swaps.listing("BlockAffinity", node)
        assert blocks[1] == affinities[1] == ()
        return [each.revision for each in blocks[0]], [each.revision for each in affinities[0]]

    long = NodeName("a" * 200)
    revision = swaps.swap(KEY, BLOCK, None)
    lent = claims.block_key(IPv4Network("10.65.0.8/29"))
    borrowed = swaps.swap(lent, Block(IPv4Network("10.65.0.8/29"), long, {1: Holder("pods.c2", A1)}), None)
    affinity = BlockAffinity("a1-10-65-0-0-29", A1, CIDR)
    claimed = swaps.swap(claims.affinity_key(A1, CIDR), affinity, None)
    assert concerns(A1) == ([revision, borrowed], [claimed])
    assert concerns(A2) == ([], [])
    assert concerns(long) == ([borrowed], [])
    swaps.swap(lent, Block(IPv4Network("10.65.0.8/29"), long), borrowed)
    assert concerns(A1) == ([revision], [claimed])


def test_what_was_written_or_removed_a_moment_ago_is_in_the_list(swaps: KubernetesSwaps) -> None:
    for _ in range(20):
        revision = swaps.swap(KEY, BLOCK, None)
        assert [each.revision for each in swaps.listing("IPAMBlock", A1)[0]] == [revision]
        swaps.swap(KEY, None, revision)
        assert swaps.listing("IPAMBlock", A1) == ((), ())


def test_a_server_that_was_restored_is_asked_for_what_it_has(swaps: KubernetesSwaps) -> None:
    revision = swaps.swap(KEY, BLOCK, None)
    swaps._newest["IPAMBlock"] = str(int(revision) + 1_000_000)
    with pytest.raises(Unavailable):
        swaps.listing("IPAMBlock", A1)
    assert [each.revision for each in swaps.listing("IPAMBlock", A1)[0]] == [revision]


@pytest.mark.parametrize("value", [BLOCK, None], ids=["written", "removed"])
def test_whoever_comes_too_late_changes_nothing(swaps: KubernetesSwaps, value: Block | None) -> None:
    first = swaps.swap(KEY, BLOCK, None)
    second = swaps.swap(KEY, Block(CIDR, A1), first)
    for revision in (first, "1"):
        with pytest.raises(Conflict):
            swaps.swap(KEY, value, revision)
    with pytest.raises(Conflict):
        swaps.swap(KEY, BLOCK, None)
    found = swaps.read(KEY)
    assert found is not None
    assert (found.value, found.revision) == (Block(CIDR, A1), second)


def test_what_is_gone_cannot_be_changed(swaps: KubernetesSwaps) -> None:
    revision = swaps.swap(KEY, BLOCK, None)
    swaps.swap(KEY, None, revision)
    assert swaps.read(KEY) is None
    for value in (BLOCK, None):
        with pytest.raises(Conflict):
            swaps.swap(KEY, value, revision)


def test_two_nodes_claim_a_block_and_one_has_it(swaps: KubernetesSwaps, server: ApiServer, tmp_path: Path) -> None:
    theirs = other(server, tmp_path)
    with ThreadPoolExecutor(2) as threads:
        mine = threads.submit(persevere, lambda: claims.claim(A1, CIDR), swaps)
        yours = threads.submit(persevere, lambda: claims.claim(A2, CIDR), theirs)
    assert {type(mine.result()), type(yours.result())} == {Claimed, Lost}
    (affinity,), damaged = swaps.listing("BlockAffinity")
    assert isinstance(affinity.value, BlockAffinity)
    assert (affinity.value.claim, damaged) == (Claim.CONFIRMED, ())
    found = swaps.read(KEY)
    assert found is not None
    assert isinstance(found.value, Block)
    assert found.value.affinity == affinity.value.node


def test_many_who_ask_at_once_get_an_address_each(server: ApiServer, tmp_path: Path) -> None:
    cidr = IPv4Network("10.65.4.0/27")
    stores = [other(server, tmp_path) for _ in range(4)]
    assert isinstance(persevere(lambda: claims.claim(A1, cidr), stores[0]), Claimed)

    def life(number: int) -> list[object]:
        asks = [Ask(Holder(f"pods.{number}x{each}", A1)) for each in range(4)]
        return [drive(claims.assign(cidr, [ask], ANY, None), stores[number % 4])[0] for ask in asks]

    with ThreadPoolExecutor(8) as threads:
        given = [address for several in threads.map(life, range(8)) for address in several]
    assert not [answer for answer in given if isinstance(answer, NotAssigned)]
    assert len(set(given)) == 32
    assert isinstance(drive(claims.assign(cidr, [Ask(Holder("late", A2))], ANY, None), stores[0])[0], NotAssigned)


def test_an_affinity_that_somebody_wrote_is_no_claim(swaps: KubernetesSwaps, server: ApiServer) -> None:
    spec = {"cidr": "10.65.8.0/26", "node": "a1"}
    by_hand = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BlockAffinity",
        "metadata": {"name": "mine"},
        "spec": spec,
    }
    server.apply(by_hand)
    assert swaps.listing("BlockAffinity") == ((), ())


def test_what_is_damaged_is_said_and_put_into_a_file(swaps: KubernetesSwaps, server: ApiServer, tmp_path: Path) -> None:
    swaps.swap(KEY, BLOCK, None)
    path = f"/apis/projectcalico.org/v3/ipamblocks/{KEY.name}"
    patch = {"spec": {"allocations": {"10.99.0.1": {"handle_id": "x", "secondary": {"node": "a1"}}}}}
    server.request("PATCH", path, patch, content="merge-patch+json")
    with pytest.raises(Damaged) as damaged:
        swaps.read(KEY)
    assert swaps.listing("IPAMBlock")[1][0].key == KEY
    swaps.put_aside(damaged.value)
    assert swaps.read(KEY) is None
    (kept,) = (tmp_path / "damaged").iterdir()
    assert "10.99.0.1" in json.loads(kept.read_text())["spec"]["allocations"]


def test_a_server_that_is_away_is_an_error_in_words(swaps: KubernetesSwaps, server: ApiServer) -> None:
    swaps.swap(KEY, BLOCK, None)
    server.stop()
    try:
        for work in (lambda: swaps.read(KEY), lambda: swaps.swap(KEY, None, "1"), lambda: swaps.listing("IPAMBlock")):
            with pytest.raises(Unavailable) as away:
                work()
            assert away.value.remedy == "see that the API server can be reached"
    finally:
        server.start()
    found = swaps.read(KEY)
    assert found is not None
    assert found.value == BLOCK


class Deaf(Client):
    """Loses the answers to changes that the server has done."""

    def ask(self, method: str, *words: Any, **named: Any) -> dict[str, Any]:
        answer = super().ask(method, *words, **named)
        if method != "GET":
            raise Failed(News(Cause.BROKEN, words="Connection reset by peer"))
        return answer


def test_a_change_whose_answer_was_lost_is_looked_up(server: ApiServer, tmp_path: Path) -> None:
    deaf = KubernetesSwaps(Deaf(server.kubeconfig), tmp_path)
    first = deaf.swap(KEY, BLOCK, None)
    second = deaf.swap(KEY, Block(CIDR, A1), first)
    found = deaf.read(KEY)
    assert found is not None
    assert (found.value, found.revision) == (Block(CIDR, A1), second)
    deaf.swap(KEY, None, second)
    assert deaf.read(KEY) is None
