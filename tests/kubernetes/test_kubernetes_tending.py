"""What it costs the API server that a node looks after its blocks, and the first one after those of the dead."""

from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer

from felix_py import claims
from felix_py.allocations import Allocations
from felix_py.datastore.drive import persevere
from felix_py.datastore.kubernetes_client import Client
from felix_py.datastore.kubernetes_swaps import PAGE, KubernetesSwaps
from felix_py.leaks import GRACE
from felix_py.ledger import Attachment
from felix_py.model import BlockAffinity, Claim, IPPool, Key, Node, NodeName
from felix_py.state import ClusterState, InSync, Present
from felix_py.tending import Tending

pytestmark = pytest.mark.kubernetes

A1, A2, DEAD = map(NodeName, ("a1", "a2", "dead"))
PAGES = 2
BLOCKS = [IPv4Network((0x0A410000 + number * 64, 26)) for number in range(PAGE + 1)]


class Asking(Client):
    """Writes down what is asked for."""

    def __init__(self, kubeconfig: Path) -> None:
        self.asked: list[str] = []
        super().__init__(kubeconfig)

    def ask(self, method: str, path: str, *words: Any, **named: Any) -> dict[str, Any]:
        self.asked.append(f"{method} {path.rsplit('/', 1)[-1]}")
        return super().ask(method, path, *words, **named)


class Looking:
    """A node that looks after addresses; nodes a1 and a2 are there, and whatever claims are known."""

    def __init__(self, server: ApiServer, folder: Path, name: NodeName) -> None:
        self.client, self.now = Asking(server.kubeconfig), datetime(2026, 11, 27, 8, 0, tzinfo=UTC)
        self.swaps = KubernetesSwaps(self.client, folder)
        self.cluster = ClusterState().after_all(
            [*(Present(Key("Node", each), Node(each)) for each in (A1, A2)), InSync()]
        )
        self.store = Allocations(self.swaps, name, living=tuple, clock=lambda: self.now)
        self.store.addresses.own.cluster = lambda: self.cluster
        self._tending = Tending(self.store, name, _forget, lambda: self.now)

    def look(self) -> list[str]:
        """Look once, and return what was asked for."""
        self.client.asked.clear()
        self._tending.tidy()
        return self.client.asked


async def _forget(name: str) -> None:
    raise AssertionError(name)


def test_the_first_node_reads_all_blocks_once_in_a_look_and_others_none(server: ApiServer, tmp_path: Path) -> None:
    writer = KubernetesSwaps(Client(server.kubeconfig), tmp_path)
    for cidr in BLOCKS:
        writer.swap(claims.block_key(cidr), claims.Block(cidr, A2), None)
    first, second = (Looking(server, tmp_path, name) for name in (A1, A2))
    own = ["GET blockaffinities", "GET ipamblocks"]
    assert first.look() == [*own, *["GET ipamblocks"] * PAGES]
    assert second.look() == [*own, "GET ipamblocks"]


def test_a_dead_nodes_claim_is_given_up(server: ApiServer, tmp_path: Path) -> None:
    first = Looking(server, tmp_path, A1)
    cidr = BLOCKS[0]
    persevere(lambda: claims.claim(DEAD, cidr), first.swaps)
    name = claims.affinity_key(DEAD, cidr).name
    left = BlockAffinity(name, DEAD, cidr, Claim.CONFIRMED)
    first.cluster = first.cluster.after_all([Present(Key("BlockAffinity", name), left)])
    assert first.look().count("GET blockaffinities") == 2
    first.now += GRACE
    first.look()
    assert first.swaps.listing("IPAMBlock") == first.swaps.listing("BlockAffinity") == ((), ())


def test_to_ask_whether_pods_may_come_costs_nothing_while_there_is_room(server: ApiServer, tmp_path: Path) -> None:
    """Runtimes ask every few seconds, by the CNI command STATUS."""
    node = Looking(server, tmp_path, A1)
    pool = IPPool("small", IPv4Network("10.65.0.0/31"), block_size=31)
    node.cluster = node.cluster.after_all([Present(Key("IPPool", pool.name), pool)])
    for number in range(2):
        node.store.attach(Attachment(f"c{number}", "eth0", f"default/p{number}", f"cali{number}", network="n"))
        node.client.asked.clear()
        refusal = node.store.exhausted()
        assert (refusal is None, node.client.asked == []) == ((True, True) if number == 0 else (False, False))
