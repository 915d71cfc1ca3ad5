"""The packet filter that a node should have: the whole table once in plain sight, and what changes it."""

import asyncio
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from agent_node import host, running
from builders import TWO_RACKS, link, links, pod, pool
from fakes import FakeFilter, FakeHost, FakeParameters, FakeTunnels
from told import SilentDatastore, ToldSpeaker

from felix_py import resources
from felix_py.agent import Agent
from felix_py.calc import netfilter
from felix_py.calc.desired import Desired, desired
from felix_py.calc.netfilter import IPIP, TunnelProtocol
from felix_py.config import Config
from felix_py.kernel import filter_table
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import DeleteFilterTable, KernelRefused, KernelState, PutFilterTable, PutTunnel
from felix_py.kernel.purge import NoPurger
from felix_py.model import Invalid, IpipMode, IPPool, Key, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState, Event, Present

A1 = NodeName("a1")
LINKS = links(link("eth0", "172.31.1.11/24"), link("cali0000000web0"))

CHAINS = """
	chain from-pod {
		meta l4proto 4 counter name "pod-encapsulated" drop
		udp dport 4789 counter name "pod-encapsulated" drop
		iifname . ip saddr @pod-addresses accept
		iifname . ip6 saddr @pod-addresses6 accept
		iifname != @pods counter name "interface-unknown" drop
		ip6 saddr fe80::/10 accept comment "neighbour discovery; never forwarded"
		ip6 saddr :: accept comment "duplicate address detection; never forwarded"
		counter name "pod-spoofed" drop
	}

	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname "cali*" jump from-pod
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname "cali*" oifname != @pods counter name "interface-unknown" drop
	}

	chain encapsulated {
		ip saddr @nodes accept
		ip saddr @external-nodes accept
		ip6 saddr @nodes6 accept
		ip6 saddr @external-nodes6 accept
		counter name "tunnel-stranger" drop
	}

	chain input {
		type filter hook input priority filter; policy accept;
		meta l4proto 4 jump encapsulated
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @masqueraded ip daddr != @pools counter name "nat-outgoing" masquerade fully-random
		ip6 saddr @masqueraded6 ip6 daddr != @pools6 counter name "nat-outgoing" masquerade fully-random
		oifname "tunl0" fib saddr type local fib saddr . oif type != local counter name "tunnel-source" masquerade fully-random
	}
}
"""  # noqa: E501 - as nft prints it


def wish(*events: Event) -> Desired:
    return desired(ClusterState().after_all((*TWO_RACKS, *events)), {}, A1, LINKS, filtered=True)


def table(*events: Event) -> FilterTable:
    found = wish(*events).state.netfilter
    assert found is not None
    return found


def given(name: str, cidr: str, *, nat: bool = False, disabled: bool = False, mode: str = "Never") -> Present:
    range_ = ip_network(cidr)
    made = IPPool(name, range_, IpipMode(mode), 26, disabled=disabled, nat_outgoing=nat)
    return Present(Key("IPPool", name), made)


def felix(**spec: object) -> Present:
    document = {"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration"}
    key, value = resources.parse({**document, "metadata": {"name": "default"}, "spec": spec}, "felix.yaml")
    return Present(key, value)


def chains(found: FilterTable) -> set[str]:
    return {line.split()[1] for line in found.rules.splitlines() if line.startswith("\tchain ")}


def test_a_node_with_everything() -> None:
    found = table(
        given("default", "10.65.0.0/16", nat=True, mode="CrossSubnet"), felix(externalNodesList=["192.0.2.7"])
    )
    assert found.rules[found.rules.index("\n\tchain from-pod") :] == CHAINS
    assert found.elements == {
        "pods": {'"cali0000000web0"'},
        "pod-addresses": {'"cali0000000web0" . 10.65.0.5'},
        "nodes": {"172.31.1.12", "172.31.2.11"},
        "external-nodes": {"192.0.2.7"},
        "pools": {"10.65.0.0/16"},
        "masqueraded": {"10.65.0.0/16"},
    }


def test_without_a_tunnel_and_nat_nothing_makes_the_kernel_track_connections() -> None:
    assert chains(table(pool(mode=IpipMode.NEVER))) == {"from-pod", "prerouting", "forward"}


def test_a_tunnel_brings_who_may_use_it() -> None:
    never, always = table(pool(mode=IpipMode.NEVER)), table(pool(mode=IpipMode.ALWAYS))
    assert chains(always) - chains(never) == {"encapsulated", "input", "postrouting"}


def test_every_tunnel_has_its_own_rule_and_pods_may_not_send_into_any() -> None:
    tunnels = {"tunl0": IPIP, "vxlan.felix": TunnelProtocol(17, 8472)}
    rules = netfilter.table(A1, (), (), (), (), tunnels).rules
    assert "\t\tmeta l4proto 4 jump encapsulated\n\t\tudp dport 8472 jump encapsulated\n" in rules
    dropped = [line.strip() for line in rules.splitlines() if '"pod-encapsulated" drop' in line]
    assert [line.split(" counter")[0] for line in dropped] == ["meta l4proto 4", "udp dport 4789", "udp dport 8472"]
    assert 'oifname "tunl0" fib' in rules
    assert 'oifname "vxlan.felix" fib' in rules


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        pytest.param(
            [given("a", "10.65.0.0/16", nat=True), given("b", "10.66.0.0/16")],
            {"pools": {"10.65.0.0/16", "10.66.0.0/16"}, "masqueraded": {"10.65.0.0/16"}},
            id="a pool without natOutgoing is a destination that is not masqueraded",
        ),
        pytest.param(
            [given("a", "10.65.0.0/16", nat=True, disabled=True)],
            {"pools": {"10.65.0.0/16"}, "masqueraded": {"10.65.0.0/16"}},
            id="the pods of a disabled pool go on",
        ),
        pytest.param(
            [given("a", "10.64.0.0/16", nat=True), given("b", "10.65.0.0/16", nat=True), given("c", "10.65.3.0/24")],
            {"pools": {"10.64.0.0/15"}, "masqueraded": {"10.64.0.0/15"}},
            id="neighbours and pools in pools are joined, as interval sets want it",
        ),
        pytest.param(
            [given("a", "fd65::/48", nat=True), given("b", "10.65.0.9/32", nat=True)],
            {
                "pools": {"10.65.0.9"},
                "pools6": {"fd65::/48"},
                "masqueraded": {"10.65.0.9"},
                "masqueraded6": {"fd65::/48"},
            },
            id="each version of IP has its sets; a range of one address is an address",
        ),
    ],
)
def test_pools(pools: list[Present], expected: dict[str, set[str]]) -> None:
    values = [each.value for each in pools if isinstance(each.value, IPPool)]
    assert netfilter.table(A1, (), (), values, (), {}).elements == expected


def test_only_the_pods_of_this_node_are_known_each_by_its_addresses() -> None:
    elsewhere = pod("default/web-1", "a2", "cali0000000web1", "10.65.1.5/32")
    both = WorkloadEndpoint("p", A1, "cali1", (ip_network("10.65.0.6/32"), ip_network("fd65::6/128")))
    found = table(elsewhere, Present(Key("WorkloadEndpoint", "p"), both)).elements
    assert found["pods"] == {'"cali0000000web0"', '"cali1"'}
    assert found["pod-addresses"] == {'"cali0000000web0" . 10.65.0.5', '"cali1" . 10.65.0.6'}
    assert found["pod-addresses6"] == {'"cali1" . fd65::6'}


def test_external_nodes_may_send_through_every_driver() -> None:
    found = wish(felix(externalNodesList=["192.0.2.8/30", "fd31::/120"]), pool(mode=IpipMode.ALWAYS)).state
    assert found.netfilter is not None
    assert found.netfilter.elements["external-nodes"] == {"192.0.2.8/30"}
    assert found.netfilter.elements["external-nodes6"] == {"fd31::/120"}
    assert found.tunnels["tunl0"].allowed == {
        IPv4Address("172.31.1.12"), IPv4Address("172.31.2.11"), *IPv4Network("192.0.2.8/30"),
    }  # fmt: skip


def test_a_large_external_network_is_refused_with_the_limit() -> None:
    with pytest.raises(Invalid) as refused:
        felix(externalNodesList=["10.0.0.0/8"])
    assert str(refused.value) == (
        "felix.yaml: FelixConfiguration default: spec.externalNodesList[0]: is '10.0.0.0/8'; give an address, or a "
        "network of at most 4,096, as 192.0.2.7 or 192.0.2.0/24"
    )


# --- from one table to another


ONE = FilterTable("table inet felix {\n}\n", {"pods": frozenset({'"cali1"'}), "nodes": frozenset({"172.31.1.12"})})
TWO = FilterTable(ONE.rules, {"pods": frozenset({'"cali1"', '"cali2"'})})
OTHER = FilterTable("table inet felix {\n\tcomment\n}\n", {"pods": frozenset({'"cali1"'})})


@pytest.mark.parametrize(
    ("want", "have", "expected"),
    [
        pytest.param(ONE, ONE, "", id="nothing to do"),
        pytest.param(None, None, "", id="none wanted, none there"),
        pytest.param(None, ONE, "delete table inet felix\n", id="not wanted any more"),
        pytest.param(
            TWO,
            ONE,
            'delete element inet felix nodes { 172.31.1.12 }\nadd element inet felix pods { "cali2" }\n',
            id="elements change in place",
        ),
        pytest.param(
            OTHER,
            ONE,
            "add table inet felix\ndelete table inet felix\ntable inet felix {\n\tcomment\n}\n\n"
            'add element inet felix pods { "cali1" }\n',
            id="other rules are a new table, in one transaction with its elements",
        ),
        pytest.param(
            OTHER,
            None,
            "add table inet felix\ndelete table inet felix\ntable inet felix {\n\tcomment\n}\n\n"
            'add element inet felix pods { "cali1" }\n',
            id="a first table replaces whatever could not be read",
        ),
    ],
)
def test_commands(want: FilterTable | None, have: FilterTable | None, expected: str) -> None:
    assert filter_table.commands(want, have) == expected


def test_a_difference_is_told_in_a_line() -> None:
    assert filter_table.difference(ONE, None) == "the table is not there"
    assert filter_table.difference(TWO, ONE) == 'nodes without 172.31.1.12; pods with "cali2"'
    assert filter_table.difference(OTHER, ONE) == "the rules differ; nodes without 172.31.1.12"
    many = FilterTable(ONE.rules, {"pods": frozenset(f'"cali{number}"' for number in range(1, 7))})
    assert filter_table.difference(many, ONE).endswith('; pods with "cali2", "cali3", "cali4" and 2 more')


def test_a_listing_is_read_whatever_the_library_makes_of_addresses() -> None:
    listing = (
        "table inet felix {\n\tset pod-addresses6 {\n\t\ttype ifname . ipv6_addr\n"
        '\t\telements = { "cali1" . ::ffff:10.65.0.2,\n\t\t\t     "cali:2" . fd65::1 }\n\t}\n}\n'
    )
    assert filter_table.parse(listing) == FilterTable(
        "table inet felix {\n\tset pod-addresses6 {\n\t\ttype ifname . ipv6_addr\n\t}\n}\n",
        {"pod-addresses6": frozenset({'"cali1" . ' + str(ip_network("::ffff:10.65.0.2")[0]), '"cali:2" . fd65::1'})},
    )


# --- kept by the kernel's thread


class Kept:
    """A kernel in memory with a packet filter."""

    def __init__(self) -> None:
        self.host, self.filter = FakeHost(link("eth0", "172.31.1.11/24"), link("cali0000000web0")), FakeFilter()
        self.tunnels = FakeTunnels(self.host)
        parts = (self.host, self.tunnels, KernelRefused, FakeParameters(self.host), NoPurger())
        self.kernel = Kernel(*parts, netfilter=self.filter)

    def steps(self, want: KernelState) -> list[PutFilterTable]:
        return [step for step in self.kernel.make(want, 0.0).done if isinstance(step, PutFilterTable)]

    def make(self, want: KernelState, now: float = 0.0) -> list[type]:
        self.kernel.catch_up(now)
        if self.kernel.resync_cause:
            self.kernel.resync()
        return [type(step) for step in self.kernel.make(want, now).done]


def test_it_comes_before_the_tunnel_and_goes_after_it() -> None:
    kept, want = Kept(), wish(pool(mode=IpipMode.ALWAYS)).state
    steps = kept.make(want)
    assert steps[0] is PutFilterTable
    assert PutTunnel in steps
    assert kept.make(want) == []
    assert kept.make(KernelState())[-1] is DeleteFilterTable
    assert kept.filter.table is None


def test_what_others_do_to_it_is_undone() -> None:
    kept, want = Kept(), wish().state
    kept.make(want)
    kept.filter.flush()
    assert kept.make(want) == [PutFilterTable]
    assert kept.filter.written == [want.netfilter, want.netfilter]


def test_whoever_disturbs_it_is_named_and_forgotten_with_the_repair() -> None:
    kept, want = Kept(), wish().state
    kept.make(want)
    kept.filter.flush()
    more = wish(pod("default/web-1", "a1", "cali1", "10.65.0.6/32")).state
    assert [step.cause for step in kept.steps(want)] == ["changed by process 7 (nft)"]
    assert [step.cause for step in kept.steps(more)] == ["wanted"]


def test_a_restarted_agent_writes_nothing_where_nothing_differs() -> None:
    kept, want = Kept(), wish().state
    kept.make(want)
    parts = (kept.host, kept.tunnels, KernelRefused, FakeParameters(kept.host), NoPurger())
    kept.kernel = Kernel(*parts, netfilter=kept.filter)
    assert kept.make(want) == []


def test_what_is_refused_is_tried_again_and_stops_nothing_else() -> None:
    kept, want = Kept(), wish().state
    kept.filter.refusal = "nftables refused: Operation not supported"
    kept.make(want)
    assert len(kept.host.routes) > 0
    kept.filter.refusal = None
    assert kept.make(want, now=0.05) == [], "not before its time"
    assert kept.make(want, now=1.0) == [PutFilterTable]


def test_no_pod_is_attached_without_it() -> None:
    made, refusing = host(), FakeFilter(refusal="libnftables.so.1 cannot be loaded")
    parts = (made, FakeTunnels(made), KernelRefused, FakeParameters(made), NoPurger())

    async def attach() -> None:
        agent = Agent(Config(A1), Kernel(*parts, netfilter=refusing), SilentDatastore(), ToldSpeaker(), lambda _: None)
        agent.tell(*TWO_RACKS)
        web = WorkloadEndpoint("default/web-0", A1, "cali0000000web0", (IPv4Network("10.65.0.5/32"),))
        await running(agent, lambda: agent.put_endpoint(web))

    with pytest.raises(KernelRefused, match=r"^default/web-0: libnftables.so.1 cannot be loaded$"):
        asyncio.run(attach())


@pytest.mark.parametrize(
    "addresses", [("10.65.0.7/32",), ("10.65.0.7/32", "fd65::7/128"), ("fd65::7/128",)], ids=["IPv4", "both", "IPv6"]
)
def test_a_pod_that_is_admitted_is_what_the_table_of_all_pods_would_say(addresses: tuple[str, ...]) -> None:
    first, second = (
        endpoint_of(pod("default/web-0", "a1", "cali1", "10.65.0.5/32")),
        endpoint_of(pod("p", "a1", "cali2", *addresses)),
    )
    tables = [netfilter.table(A1, (), (), (), local, {}) for local in ((first,), (first, second))]
    assert netfilter.admitted(tables[0], second) == tables[1]


def endpoint_of(news: Present) -> WorkloadEndpoint:
    assert isinstance(news.value, WorkloadEndpoint)
    return news.value
