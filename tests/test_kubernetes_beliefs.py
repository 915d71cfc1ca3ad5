"""What the datastore of Kubernetes makes of what its threads tell: when it is in sync, and what it does not believe."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
import yaml
from asyncinotify import Inotify

from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client
from felix_py.datastore.kubernetes_follow import Told
from felix_py.datastore.removals import HOLD, RESTORING
from felix_py.kubernetes_resources import FOLLOWED, Understood
from felix_py.model import BGPPeer, BlockAffinity, Claim, Fault, IPPool, Key, Node, NodeName
from felix_py.state import Absent, Event, InSync, Present

A1 = Node(NodeName("a1"), ip_interface("172.31.1.11/24"))
POOL = IPPool("default", ip_network("10.65.0.0/16"))
NODES = {Key("Node", "a1"): Understood(A1)}
POOLS = {Key("IPPool", "default"): Understood(POOL)}


class Heard:
    """A datastore that hears what a test tells it."""

    def __init__(self, folder: Path, inotify: Inotify) -> None:
        config = folder / "kubeconfig"
        cluster = {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "users": []}
        context = {"contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}], "current-context": "c"}
        config.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **cluster, **context}))
        self.store = KubernetesDatastore(Client(config), NodeName("a1"), folder, lambda: self._now)
        self._now = 1000.0
        self._inotify = inotify

    def __call__(self, *several: Told) -> list[Event]:
        for told in several:
            self.store._hear(told)
        return list(self.store._take(self._inotify))

    def later(self, seconds: float) -> list[Event]:
        """Let time pass, as the loop does that waits for removals."""
        self._now += seconds
        self.store._changed = True
        return list(self.store._take(self._inotify))

    def whole(self, **kinds: Mapping[Key, Understood]) -> list[Event]:
        """Tell that this is all there is of each kind."""
        return self(*(Told(each.kind, whole=True, good=kinds.get(each.kind, {})) for each in FOLLOWED))


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    with Inotify() as inotify:
        yield Heard(tmp_path, inotify)


def test_in_sync_when_every_kind_is_known_and_no_earlier(heard: Heard) -> None:
    first, *rest = FOLLOWED
    assert heard(*(Told(each.kind, whole=True, good=NODES if each.kind == "Node" else {}) for each in rest)) == []
    news = heard(Told(first.kind, whole=True, good=NODES))
    assert news == [Present(Key("Node", "a1"), A1), InSync()]


def test_a_heartbeat_is_no_news(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS)
    assert heard(Told("Node", good=NODES)) == []


def test_a_list_says_what_is_gone(heard: Heard) -> None:
    other = {Key("Node", "a2"): Understood(Node(NodeName("a2"), ip_interface("172.31.1.12/24")))}
    heard.whole(Node={**NODES, **other}, IPPool=POOLS)
    assert heard(Told("Node", whole=True, good=NODES)) == [Absent(Key("Node", "a2"))]


def test_a_server_that_does_not_know_this_node_is_not_believed(heard: Heard) -> None:
    assert heard.whole(IPPool=POOLS) == []
    assert "knows no Node a1" in heard.store.faults[0]
    assert heard(Told("Node", good=NODES))[-1] == InSync()
    assert heard(Told("Node", gone=frozenset(NODES)), Told("IPPool", gone=frozenset(POOLS))) == []


def test_the_last_pool_never_goes(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS)
    assert heard(Told("IPPool", gone=frozenset(POOLS))) == []
    assert "is gone to the last one" in heard.store.faults[0]
    other = IPPool("other", ip_network("10.66.0.0/16"))
    news = heard(Told("IPPool", good={Key("IPPool", "other"): Understood(other)}))
    assert news == [Present(Key("IPPool", "other"), other)]
    assert heard.later(RESTORING) == [Absent(Key("IPPool", "default"))]
    assert heard.store.faults == ()


def test_what_cannot_be_used_any_more_keeps_its_last_good_version(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS)
    assert heard(Told("IPPool", bad={Key("IPPool", "default"): (Fault("here", "spec.cidr", "is wrong"),)})) == []
    assert heard.store.faults == ("here: spec.cidr: is wrong",)


def test_an_own_node_that_was_made_anew_keeps_its_address_until_it_is_written_again(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS)
    assert heard(Told("Node", good={Key("Node", "a1"): Understood(Node(NodeName("a1")))})) == []
    assert heard.store.faults == ()
    moved = Node(NodeName("a1"), ip_interface("172.31.1.99/24"))
    assert heard(Told("Node", good={Key("Node", "a1"): Understood(moved)})) == [Present(Key("Node", "a1"), moved)]


def test_a_server_that_is_away_is_said_once_for_all_kinds(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS)
    assert heard(*(Told(each.kind, away="the connection failed: x") for each in FOLLOWED)) == []
    (fault,) = heard.store.faults
    assert fault.endswith("Node: the connection failed: x; what was known last stays in force")
    heard(*(Told(each.kind) for each in FOLLOWED))
    assert heard.store.faults == ()


def test_pod_cidrs_stand_in_where_nobody_has_a_pool(heard: Heard) -> None:
    news = heard.whole(Node={Key("Node", "a1"): Understood(A1, (ip_network("10.244.0.0/24"),))})
    assert [event.key for event in news if isinstance(event, Present)] == [
        Key("IPPool", "pod-cidrs-10-244-0-0-24"),
        Key("BlockAffinity", "pod-cidrs-10-244-0-0-24-a1"),
        Key("Node", "a1"),
    ]


# --- removals wait

PEER = BGPPeer("tor-a", ip_address("172.31.1.1"), 64601)
PEERS = {Key("BGPPeer", "tor-a"): Understood(PEER)}


def claim(state: Claim = Claim.CONFIRMED, node: str = "a1") -> dict[Key, Understood]:
    name = f"{node}-10-65-8-192-26"
    value = BlockAffinity(name, NodeName(node), ip_network("10.65.8.192/26"), state)
    return {Key("BlockAffinity", name): Understood(value)}


def test_what_people_wrote_and_own_claims_stay_for_two_seconds(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS, BGPPeer=PEERS, BlockAffinity=claim())
    gone = (Told("BGPPeer", gone=frozenset(PEERS)), Told("BlockAffinity", gone=frozenset(claim())))
    assert heard(*gone) == []
    assert heard.later(HOLD - 0.1) == []
    assert set(heard.later(0.2)) == {Absent(key) for key in (*PEERS, *claim())}


def test_claims_of_others_and_nodes_go_at_once(heard: Heard) -> None:
    others = claim(node="b1")
    heard.whole(Node=NODES, IPPool=POOLS, BlockAffinity=others)
    assert heard(Told("BlockAffinity", gone=frozenset(others))) == [Absent(key) for key in others]


def test_a_server_that_loses_its_memory_kind_by_kind_costs_nothing(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS, BGPPeer=PEERS, BlockAffinity=claim())
    assert heard(Told("BlockAffinity", gone=frozenset(claim()))) == []
    assert heard(Told("BGPPeer", gone=frozenset(PEERS))) == []
    assert heard(Told("IPPool", gone=frozenset(POOLS))) == []
    assert heard.later(3600) == []
    assert not heard.store.restored.is_set()
    # it has a pool again, and nodes write down anew what they have
    assert heard(Told("IPPool", good=POOLS)) == []
    assert heard.store.restored.is_set()
    assert heard.later(5) == []
    assert heard(Told("BlockAffinity", good=claim(Claim.PENDING))) == []
    assert heard(Told("BlockAffinity", good=claim())) == []
    # what nobody writes again is gone
    assert heard.later(RESTORING) == [Absent(key) for key in PEERS]


def test_what_is_written_again_does_not_go(heard: Heard) -> None:
    heard.whole(Node=NODES, IPPool=POOLS, BGPPeer=PEERS)
    heard(Told("BGPPeer", gone=frozenset(PEERS)))
    assert heard(Told("BGPPeer", good=PEERS)) == []
    assert heard.later(HOLD * 2) == []
