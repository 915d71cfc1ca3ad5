"""Our nftables table on the real kernel: read back as it was written, kept against others, left alone when right."""

import re
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_network

import pytest
from route_node import CLUSTER, lab, one_pod
from spaces import Space

from felix_py.calc import netfilter
from felix_py.calc.netfilter import IPIP, TunnelProtocol
from felix_py.kernel import filter_counters
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.nftables import Nftables
from felix_py.kernel.objects import KernelRefused
from felix_py.model import IPPool, Node, NodeName, WorkloadEndpoint

pytestmark = pytest.mark.netns

A1 = NodeName("a1")
OURS = ("list", "table", "inet", "felix")


@pytest.fixture
def space() -> Iterator[Space]:
    made = Space()
    yield made
    made.close()


@pytest.fixture
def ours(space: Space) -> Iterator[Nftables]:
    made = space.do(Nftables)
    yield made
    space.do(made.close)


def test_counters_are_read_without_the_library(space: Space, ours: Nftables) -> None:
    assert space.do(filter_counters.read) == {}
    space.do(ours.write, table(), None)
    assert set(space.do(filter_counters.read)) == set(re.findall(r"\tcounter (\S+) \{", table().rules))


def table(pods: int = 2, *, nat: bool = True, tunnels: dict[str, TunnelProtocol] | None = None) -> FilterTable:
    local = [
        WorkloadEndpoint(
            f"p{number}",
            A1,
            f"cali{number}",
            (
                ip_network(f"10.65.0.{number}/32"),
                ip_network(f"fd65::{number + 1:x}/128"),
                ip_network("::ffff:a41:1/128"),
            ),
        )
        for number in range(pods)
    ]
    nodes = [
        Node(NodeName("a2"), IPv4Interface("172.31.1.12/24"), address6=IPv6Interface("fd31:1::12/64")),
        Node(NodeName("b1"), IPv4Interface("172.31.2.11/24")),
    ]
    pools = [IPPool("four", ip_network("10.65.0.0/16"), nat_outgoing=nat), IPPool("six", ip_network("fd65::/48"))]
    external = [ip_network("192.0.2.0/24"), ip_network("198.51.100.7/32"), ip_network("fd32::/64")]
    return netfilter.table(A1, nodes, external, pools, local, {"tunl0": IPIP} if tunnels is None else tunnels)


WITHOUT_PODS = netfilter.table(A1, (), (), (), (), {}, of_pods=False)

EVERY = {
    "for other guards of pods, without a tunnel": WITHOUT_PODS,
    "everything": table(),
    "no pods": table(0),
    "no tunnel": table(tunnels={}),
    "neither tunnel nor nat": table(nat=False, tunnels={}),
    "two tunnels": table(tunnels={"tunl0": IPIP, "vxlan.felix": TunnelProtocol(17, 8472)}),
    "a hundred pods": table(100),
    "empty": netfilter.table(A1, (), (), (), (), {}),
}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_written_is_read_back_as_it_was_wished(space: Space, ours: Nftables, name: str) -> None:
    assert space.do(ours.read) is None
    space.do(ours.write, EVERY[name], None)
    another = space.do(Nftables)  # as an agent without memory would read it
    assert space.do(another.read) == EVERY[name]
    space.do(another.close)


def test_each_turns_into_each_other_and_into_none(space: Space, ours: Nftables) -> None:
    have = space.do(ours.read)
    for want in (*EVERY.values(), *reversed(EVERY.values()), None):
        space.do(ours.write, want, have)
        have = space.do(ours.read)
        assert have == want
    assert space.run("nft", "list", "ruleset") == ""


def test_counters_stay_when_pods_come_and_go(space: Space, ours: Nftables) -> None:
    space.do(ours.write, table(1), None)
    space.run("nft", "add rule inet felix forward counter packets 7 bytes 7 comment foreign")
    before = space.do(ours.read)
    space.do(ours.write, FilterTable(before.rules, table(2).elements), before)
    assert "packets 7" in space.run("nft", *OURS)


def test_our_own_changes_are_no_news_and_others_are(space: Space, ours: Nftables) -> None:
    space.do(ours.read)
    space.do(ours.write, table(), None)
    assert not space.do(ours.changed)
    space.run("nft", "add table ip elsewhere")
    assert space.do(ours.changed), "whose change it was is only known by reading"
    assert space.do(ours.read) == table()
    assert not space.do(ours.changed)


def test_a_change_by_others_at_the_same_time_is_not_taken_for_ours(space: Space, ours: Nftables) -> None:
    space.do(ours.read)
    space.run("nft", "add table ip elsewhere")  # between our look and our write
    space.do(ours.write, table(), None)
    assert space.do(ours.changed)


def test_what_is_refused_says_why_and_changes_nothing(space: Space, ours: Nftables) -> None:
    space.do(ours.write, table(), None)
    wrong = FilterTable(table().rules, {**table().elements, "nodes": frozenset({"nowhere in particular"})})
    with pytest.raises(KernelRefused, match="nftables refused: "):
        space.do(ours.write, wrong, table())
    assert space.do(ours.read) == table()


def test_rules_that_this_library_prints_otherwise_are_not_written_again_and_again(space: Space, ours: Nftables) -> None:
    oddly = FilterTable(table().rules.replace("meta l4proto 4 ", "meta l4proto ipencap "), table().elements)
    space.do(ours.write, oddly, space.do(ours.read))
    assert space.do(ours.read) == oddly
    space.do(ours.write, table(), oddly)
    assert space.do(ours.read) == table()


def test_without_the_library_a_sentence_says_what_to_install(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("felix_py.kernel.nftables.LIBRARY", "libnowhere.so.1")
    without = space.do(Nftables)
    with pytest.raises(KernelRefused, match=r"install libnftables1\), or set netfilter: Disabled in felix\.yaml$"):
        space.do(without.write, table(), None)
    space.do(without.close)


# --- kept by an agent


def test_a_flushed_table_is_back_within_a_second() -> None:
    with lab() as made:
        running, _ = one_pod(made, guard="nftables")
        before = running.space.run("nft", "--stateless", *OURS)
        start = time.monotonic()
        running.space.run("nft", "flush ruleset")
        assert running.until(lambda: running.space.run("nft", "--stateless", *OURS, check=False) == before)
        assert time.monotonic() - start < 1
        told = running.events("netfilter.put")[-1]
        assert told["what"] == "the table is not there"
        assert re.fullmatch(r"changed by process \d+ \(nft\)", told["cause"])


@pytest.mark.parametrize(
    "harm",
    [
        "delete chain inet felix forward",
        "flush chain inet felix from-pod",
        'add rule inet felix forward oifname "cali1" drop',
        'delete element inet felix pods { "cali1" }',
        'add element inet felix pod-addresses { "cali1" . 10.65.0.99 }',
        "add set inet felix more { type ipv4_addr; }",
    ],
)
def test_harm_is_undone(harm: str) -> None:
    with lab() as made:
        running, _ = one_pod(made, guard="nftables")
        before = running.space.run("nft", "--stateless", *OURS)
        running.space.run("nft", harm)
        assert running.until(lambda: running.space.run("nft", "--stateless", *OURS) == before)
        assert running.loud() == []


def test_a_restarted_agent_and_others_tables_make_it_write_nothing() -> None:
    with lab() as made:
        running, _ = one_pod(made, guard="nftables")
        running.stop()
        running.space.run("nft", "add table ip elsewhere")
        handles = running.space.run("nft", "--handle", *OURS)
        written = len(running.events("netfilter.put"))
        running.start()
        running.learn({"10.65.1.0/26": "172.31.1.12"})
        running.settle()
        running.space.run("nft", "add chain ip elsewhere more")
        running.settle()
        assert running.space.run("nft", "--handle", *OURS) == handles
        assert len(running.events("netfilter.put")) == written
        assert "table ip elsewhere" in running.space.run("nft", "list", "tables")


def test_a_node_that_is_switched_off_removes_the_table() -> None:
    with lab() as made:
        running, _ = one_pod(made, guard="nftables")
        running.stop()
        running.settings = running.settings._replace(netfilter=False)
        running.start()
        assert running.until(lambda: running.space.run("nft", "list", "ruleset") == "")
        assert running.loud() == []


def test_a_pod_is_in_the_table_before_it_is_routed() -> None:
    with lab() as made:
        running, _ = one_pod(made, guard="nftables")
        running.forget("WorkloadEndpoint", "default/web")
        assert running.until(lambda: "cali1" not in running.space.run("nft", *OURS))
        seen = made.monitor(running.space)
        running.tell(made.pod(running.space, "cali2", "10.65.0.3").present("default/two"))
        assert running.until(lambda: seen.of("10.65.0.3/32"))
        turn = [event["event"] for event in running.log if event["event"] in ("netfilter.put", "route.put")]
        assert turn[-2:] == ["netfilter.put", "route.put"]


def test_the_cluster_of_these_tests_needs_no_tracking() -> None:
    with lab() as made:
        running = made.node(*CLUSTER)
        assert "postrouting" not in running.space.run("nft", *OURS)
