"""Blocks and claims at a real API server: compare-and-swap, what is stored, what is damaged, and many at a time."""

import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from api_server import ApiServer

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from cluster import eventually

from felix_py import claims, ipam
from felix_py.claims import Ask, Claimed, Conflict, Found, Lost
from felix_py.datastore.api import Damaged, Unavailable
from felix_py.datastore.drive import drive, persevere
from felix_py.datastore.kubernetes_client import ANSWER_TIMEOUT, PATIENCE, Client, Failed
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


def test_the_server_keeps_no_books_about_who_wrote_which_address(swaps: KubernetesSwaps, server: ApiServer) -> None:
    """They would be a third of a full block, in etcd and in each answer, and of the time that a pod waits for it."""
    first = swaps.swap(KEY, Block(CIDR, A1), None)
    second = swaps.swap(KEY, BLOCK, first)
    found = server.request("GET", f"/apis/projectcalico.org/v3/ipamblocks/{KEY.name}")
    assert (found["metadata"]["resourceVersion"], found["metadata"].get("managedFields")) == (second, None)


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


NOBODY = (
    {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "nobody"},
        "spec": {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}
            },
        },
    },
    {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "weak-waits"},
        "spec": {
            "priorityLevelConfiguration": {"name": "nobody"}, "matchingPrecedence": 2,
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "weak"}}],
                "resourceRules": [
                    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "namespaces": ["*"], "clusterScope": True}
                ],
            }],
        },
    },
)  # fmt: skip
"""Gives one user no share: one thing is done for it after the other, and what comes meanwhile is answered with 429."""

TRUST = {
    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "weak-may"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "weak"}],
}  # fmt: skip


def status_of(client: Client) -> int:
    try:
        client.ask("GET", "/api/v1/nodes")
    except Failed as failure:
        return failure.status
    return 200


@contextmanager
def occupied(server: ApiServer, client: Client) -> Iterator[None]:
    """Have one request of the weak wait for a webhook that says nothing: then there is no room for another one."""
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "waits"}}
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as thread:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
        webhook = {
            "name": "silent.felix.example", "rules": [rule], "failurePolicy": "Ignore", "timeoutSeconds": 30,
            "clientConfig": {"url": f"https://127.0.0.1:{silent.getsockname()[1]}/"},
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }  # fmt: skip
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "silent"}, "webhooks": [webhook],
        }  # fmt: skip
        server.apply(*NOBODY, configuration)
        path = "/api/v1/namespaces/default/configmaps?dryRun=All"
        done = Event()

        def ask_on() -> None:
            while not done.is_set():  # the webhook is in force a moment after it was written
                with suppress(Failed):
                    client.ask("POST", path, made, patience=60.0)

        thread.submit(ask_on)
        try:
            eventually(lambda: status_of(client) == 429, "it answers that it takes nothing on")
            yield
        finally:
            done.set()
            server.delete(configuration, *reversed(NOBODY))
            silent.close()


def test_a_server_that_takes_nothing_on_is_asked_again(server: ApiServer, tmp_path: Path) -> None:
    client = Client(server.write_kubeconfig("weak", {"token": "weak-token"}))
    waits = KubernetesSwaps(client, tmp_path)
    server.apply(TRUST)
    try:
        with ThreadPoolExecutor(1) as thread:
            with occupied(server, client):
                revision = thread.submit(waits.swap, KEY, BLOCK, None)
                with pytest.raises(TimeoutError):
                    revision.result(1.0)
                listed = thread.submit(waits.listing, "IPAMBlock", A1)
            written = revision.result(PATIENCE)
            assert listed.result(PATIENCE) == ((Found(BLOCK, written),), ())
        assert waits.read(KEY) == Found(BLOCK, written)
    finally:
        server.delete(TRUST)


def test_who_lists_right_after_the_server_has_started_waits_for_its_memory(
    running: ApiServer, swaps: KubernetesSwaps
) -> None:
    """An agent that starts then would end for it (429: storage is (re)initializing), and its container with it."""
    revision = swaps.swap(KEY, BLOCK, None)
    running.stop()
    running.start()
    assert swaps.listing("IPAMBlock", A1) == ((Found(BLOCK, revision),), ())


def test_a_server_that_hangs_for_a_while_is_waited_for(swaps: KubernetesSwaps, server: ApiServer) -> None:
    """An API server without a processor for seconds is no reason to refuse pods and have all of them come again."""
    first = swaps.swap(KEY, BLOCK, None)
    server.pause(until=True)
    try:
        with ThreadPoolExecutor(1) as thread:
            second = thread.submit(swaps.swap, KEY, Block(CIDR, A1), first)
            with pytest.raises(TimeoutError):
                second.result(ANSWER_TIMEOUT + 1)
            server.pause(until=False)
            written = second.result(PATIENCE)
    finally:
        server.pause(until=False)
    assert swaps.read(KEY) == Found(Block(CIDR, A1), written)


class Counting(Client):
    """Counts what is asked for."""

    def __init__(self, kubeconfig: Path) -> None:
        self.asked: list[str] = []
        super().__init__(kubeconfig)

    def ask(self, method: str, *words: Any, **named: Any) -> dict[str, Any]:
        self.asked.append(method)
        return super().ask(method, *words, **named)


def test_a_pod_that_comes_or_goes_costs_one_request(server: ApiServer, tmp_path: Path) -> None:
    client = Counting(server.kubeconfig)
    mine = KubernetesSwaps(client, tmp_path)
    assert isinstance(persevere(lambda: claims.claim(A1, CIDR), mine), Claimed)
    client.asked.clear()
    for number in range(3):
        asks = [Ask(Holder(f"pods.{number}x{each}", A1)) for each in range(2)]
        drive(claims.assign(CIDR, asks, ANY, A1), mine)
    drive(claims.change(CIDR, lambda block: ipam.release_handle(block, "pods.0x0")), mine)
    assert client.asked == ["PUT"] * 4
    borrower = other(server, tmp_path)
    drive(claims.assign(CIDR, [Ask(Holder("pods.lent", A2))], ANY, None), borrower)
    client.asked.clear()
    given = drive(claims.assign(CIDR, [Ask(Holder("pods.more", A1))], ANY, A1), mine)
    assert client.asked == ["PUT", "GET", "PUT"], "what is remembered is not so any more"
    found = mine.read(KEY)
    assert found is not None
    assert isinstance(found.value, Block)
    assert found.value.holder(given[0]) == Holder("pods.more", A1)  # type: ignore[arg-type]
    assert {each.handle for each in found.value.holders.values()} >= {"pods.lent", "pods.more", "pods.2x1"}


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
