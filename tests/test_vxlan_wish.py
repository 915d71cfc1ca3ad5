"""VXLAN in the wish of a node: which device, which route, which reason; and what a pool may say."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from builders import block, link, links, node, vxlan_pool

from felix_py import resources
from felix_py.calc import encap, vxlans
from felix_py.calc.desired import Desired, desired
from felix_py.calc.encap import Encapsulation
from felix_py.calc.hearsay import Learned
from felix_py.calc.transition import GUARD, LEAD, LINGER, NOTHING, Former, Transition
from felix_py.kernel.objects import Route, RouteKey
from felix_py.model import FelixConfiguration, Invalid, IPPool, Key, Node, NodeName, TunnelMode, VxlanMode
from felix_py.state import ClusterState, Event, InSync, Present
from vxlan.tunnel import DEVICES, Vxlan, gateway, mac_of

A1 = NodeName("a1")
NODES: tuple[Event, ...] = (
    node("a1", "172.31.1.11/24", "fd31:1::11/64"),
    node("a2", "172.31.1.12/24", "fd31:1::12/64"),
    node("b1", "172.31.2.11/24", "fd31:2::11/64"),
)
BLOCKS: tuple[Event, ...] = (
    block("a1", "10.65.0.0/26"),
    block("a2", "10.65.1.0/26"),
    block("b1", "10.65.2.0/26"),
    block("b1", "fd65::2:0/122"),
)
LINKS = links(link("lo"), link("eth0", "172.31.1.11/24", "fd31:1::11/64"))
DEFAULT = {
    RouteKey(IPv4Network("0.0.0.0/0")): Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3),
    RouteKey(IPv6Network("::/0")): Route(via=IPv6Address("fd31:1::1"), device="eth0", protocol=3),
}
A2, B1, B1_6 = IPv4Address("172.31.1.12"), IPv4Address("172.31.2.11"), IPv6Address("fd31:2::11")
TO_A2, TO_B1 = RouteKey(IPv4Network("10.65.1.0/26")), RouteKey(IPv4Network("10.65.2.0/26"))
TO_B1_6 = RouteKey(IPv6Network("fd65::2:0/122"))


def wish(*events: Event, mode: VxlanMode = VxlanMode.CROSS_SUBNET, **overrides: Any) -> Desired:
    pools = vxlan_pool(mode=mode), vxlan_pool("fd65::/48", mode, name="default-ipv6")
    cluster = ClusterState().after_all((*NODES, *BLOCKS, *pools, *events, InSync()))
    arguments = {"learned": {}, "by_datastore": True, "underlay": DEFAULT, **overrides}
    return desired(cluster, me=A1, links=LINKS, **arguments)


def device(found: Desired, name: str = DEVICES[4]) -> Vxlan:
    tunnel = found.state.tunnels[name]
    assert isinstance(tunnel, Vxlan)
    return tunnel


@pytest.mark.parametrize(
    ("mode", "key", "route"),
    [
        (VxlanMode.ALWAYS, TO_A2, Route(via=A2, device="vxlan.calico", onlink=True)),
        (VxlanMode.CROSS_SUBNET, TO_A2, Route(via=A2, device="eth0", onlink=True)),
        (VxlanMode.CROSS_SUBNET, TO_B1, Route(via=B1, device="vxlan.calico", onlink=True)),
        (VxlanMode.CROSS_SUBNET, TO_B1_6, Route(via=gateway(B1_6, mac_of("b1", 6)), device="vxlan-v6.calico")),
        (VxlanMode.NEVER, TO_B1, Route(via=IPv4Address("172.31.1.1"), device="eth0")),
    ],
)
def test_routes_by_mode(mode: VxlanMode, key: RouteKey, route: Route) -> None:
    assert wish(mode=mode).state.routes[key] == route


def test_what_bgp_learned_goes_the_same_way() -> None:
    learned = {TO_B1.dst: Learned(B1, "172.31.2.11 (b1)"), TO_B1_6.dst: Learned(B1_6, "fd31:2::11 (b1)")}
    by_bgp, by_datastore = wish(learned=learned, by_datastore=False), wish()
    assert {key: by_bgp.state.routes[key] for key in (TO_B1, TO_B1_6)} == {
        key: by_datastore.state.routes[key] for key in (TO_B1, TO_B1_6)
    }
    assert by_bgp.chosen[TO_B1].origin == "bgp 172.31.2.11 (b1)"
    assert by_datastore.chosen[TO_B1].origin == "block b1"


def test_without_bgp_and_without_a_tunnel_a_node_behind_a_router_is_pointed_out() -> None:
    found = wish(mode=VxlanMode.NEVER)
    assert found.chosen[TO_B1].notes == ("node b1 is behind a router, which has to know this block by itself",)
    assert found.chosen[TO_A2].notes == ()


def test_the_device_knows_every_other_node_whatever_their_routes() -> None:
    found = device(wish(tunnel_address=IPv4Address("10.65.0.1")))
    known = {(mac_of("a2", 4), A2), (mac_of("b1", 4), B1)}
    assert found == Vxlan(
        IPv4Address("172.31.1.11"),
        1450,
        4096,
        4789,
        mac_of("a1", 4),
        IPv4Address("10.65.0.1"),
        frozenset(known),
        frozenset(known),
    )
    assert device(wish(), DEVICES[6]).mtu == 1430
    assert wish(mode=VxlanMode.NEVER).state.tunnels == {}


def test_the_configuration_says_identifier_port_and_mtu() -> None:
    felix = FelixConfiguration("default", vxlan_vni=7, vxlan_port=8472, vxlan_mtu=1400, vxlan_mtu6=1390)
    found = wish(Present(Key("FelixConfiguration", "default"), felix), filtered=True)
    assert [(each.vni, each.port, each.mtu) for each in (device(found), device(found, DEVICES[6]))] == [
        (7, 8472, 1400),
        (7, 8472, 1390),
    ]
    assert found.state.netfilter is not None
    assert found.state.netfilter.rules.count("udp dport 8472 jump encapsulated") == 1


def test_a_next_hop_that_is_no_node_has_no_device() -> None:
    learned = {TO_B1.dst: Learned(IPv4Address("172.31.1.1"), "172.31.1.1 (tor)")}
    found = wish(learned=learned, by_datastore=False, mode=VxlanMode.ALWAYS)
    assert TO_B1 not in found.state.routes
    assert found.waiting[TO_B1] == "next hop 172.31.1.1 is no Node, or has the VXLAN address of another"


def test_of_nodes_with_one_hardware_address_the_first_by_name_has_it_and_nobody_has_ours() -> None:
    def named(name: str, host: int, mac: str | None) -> Node:
        return Node(NodeName(name), IPv4Interface(f"172.31.1.{host}/24"), vxlan_mac=mac)

    shared = "02:00:00:00:00:01"
    nodes = [named("c", 3, shared), named("b", 2, shared), named("a1", 1, None), named("thief", 4, mac_of("a1", 4))]
    assert vxlans.macs(nodes, A1) == {IPv4Address("172.31.1.2"): shared}


POOL = IPPool("p", IPv4Network("10.65.0.0/16"), vxlan_mode=TunnelMode.CROSS_SUBNET)


@pytest.mark.parametrize(
    ("pool", "next_hop", "own", "encapsulation", "words"),
    [
        (replace(POOL, vxlan_mode=TunnelMode.ALWAYS), A2, "172.31.1.11/24", Encapsulation.VXLAN, "vxlanMode Always"),
        (POOL, A2, "172.31.1.11/24", Encapsulation.NONE, "is in this node's subnet 172.31.1.0/24"),
        (POOL, B1, "172.31.1.11/24", Encapsulation.VXLAN, "is outside this node's subnet 172.31.1.0/24"),
        (POOL, A2, "172.31.1.11/32", Encapsulation.VXLAN, "is outside this node's subnet 172.31.1.11/32"),
        (POOL, A2, None, Encapsulation.VXLAN, "is outside this node's subnet none"),
        (POOL, B1_6, "172.31.1.11/24", Encapsulation.NONE, "VXLAN does not lead to an IPv6 next hop"),
        (replace(POOL, vxlan_mode=TunnelMode.NEVER), B1, "172.31.1.11/24", Encapsulation.NONE, "says ipipMode Never"),
    ],
)
def test_every_choice_has_its_reason(
    pool: IPPool, next_hop: Any, own: str | None, encapsulation: Encapsulation, words: str
) -> None:
    choice = encap.choose(pool, next_hop, IPv4Interface(own) if own else None)
    assert choice.encapsulation is encapsulation
    assert words in choice.why


# --- pools that change

NEVER = replace(POOL, vxlan_mode=TunnelMode.NEVER)
IPIP = replace(NEVER, ipip_mode=TunnelMode.ALWAYS)
VXLAN4, TUNL0 = DEVICES[4], "tunl0"


def test_at_the_start_nothing_is_as_before() -> None:
    assert Transition().take([POOL, IPIP], 0.0) == NOTHING


def test_a_new_tunnel_is_made_at_once_and_used_when_others_have_theirs() -> None:
    transition = Transition()
    transition.take([NEVER], 0.0)
    assert transition.take([POOL], 5.0) == Former(pools={"p": NEVER})
    assert transition.next_due == 5.0 + LEAD
    assert transition.take([POOL], 5.0 + LEAD) == NOTHING
    assert transition.next_due is None


def test_a_tunnel_that_no_pool_needs_stays_a_while_and_its_rules_a_little_longer() -> None:
    transition = Transition()
    transition.take([POOL], 0.0)
    assert transition.take([NEVER], 5.0) == Former(frozenset({VXLAN4}), frozenset({VXLAN4}))
    assert transition.take([NEVER], 5.0 + LINGER) == Former(guarded=frozenset({VXLAN4}))
    assert transition.next_due == 5.0 + LINGER + GUARD
    assert transition.take([NEVER], 5.0 + LINGER + GUARD) == NOTHING


def test_from_one_tunnel_to_another_both_are_there_and_the_old_one_is_used_first() -> None:
    transition = Transition()
    transition.take([IPIP], 0.0)
    both = frozenset({TUNL0})
    assert transition.take([POOL], 5.0) == Former(
        both, both, {"p": replace(POOL, ipip_mode=IPIP.ipip_mode, vxlan_mode=NEVER.vxlan_mode)}
    )
    assert transition.take([POOL], 5.0 + LEAD) == Former(both, both)
    assert transition.take([IPIP], 7.0) == Former(frozenset({VXLAN4}), frozenset({VXLAN4})), "it stands: used at once"


def test_a_tunnel_that_is_gone_is_a_new_one() -> None:
    transition = Transition()
    transition.take([POOL], 0.0)
    transition.take([NEVER], 5.0)
    transition.take([NEVER], 5.0 + LINGER)
    assert transition.take([POOL], 5.1 + LINGER) == Former(pools={"p": NEVER})


def test_a_pool_that_is_new_waits_for_nobody() -> None:
    transition = Transition()
    transition.take([], 0.0)
    assert transition.take([POOL], 5.0) == NOTHING


def test_the_wish_keeps_both_tunnels_while_routes_follow_the_mode_before() -> None:
    pool = vxlan_pool(mode=VxlanMode.NEVER).value
    assert isinstance(pool, IPPool)
    before = replace(pool, ipip_mode=TunnelMode.ALWAYS)
    found = wish(former=Former(frozenset({TUNL0}), frozenset({TUNL0}), {"default": before}), filtered=True)
    assert found.state.routes[TO_B1] == Route(via=B1, device=TUNL0, onlink=True)
    assert found.state.tunnels.keys() == {TUNL0, *DEVICES.values()}
    rules = found.state.netfilter.rules if found.state.netfilter else ""
    assert "meta l4proto 4 jump encapsulated\n\t\tudp dport 4789 jump encapsulated\n" in rules


# --- what a pool may say


def pool_of(**spec: object) -> IPPool:
    document = {
        "apiVersion": resources.API_VERSION,
        "kind": "IPPool",
        "metadata": {"name": "p"},
        "spec": {"cidr": "10.65.0.0/16", **spec},
    }
    found = resources.parse(document, "pools.yaml")[1]
    assert isinstance(found, IPPool)
    return found


def test_a_pool_of_either_version_may_say_vxlan() -> None:
    assert pool_of(vxlanMode="CrossSubnet").vxlan_mode is VxlanMode.CROSS_SUBNET
    assert pool_of(vxlanMode="Always", ipipMode="Never", cidr="fd65::/48").vxlan_mode is VxlanMode.ALWAYS


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"vxlanMode": "Always", "ipipMode": "CrossSubnet"},
            "spec.vxlanMode: is Always while spec.ipipMode is CrossSubnet; give Never for one of the two",
        ),
        ({"vxlanMode": "Sometimes"}, "spec.vxlanMode: is 'Sometimes'; give Always, CrossSubnet or Never"),
    ],
)
def test_what_a_pool_may_not_say(spec: dict[str, object], sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        pool_of(**spec)
    assert [str(fault).removeprefix("pools.yaml: IPPool p: ") for fault in refused.value.faults] == [sentence]


def test_a_node_may_have_its_hardware_address_written_down() -> None:
    document = {
        "apiVersion": resources.API_VERSION,
        "kind": "Node",
        "metadata": {"name": "b1"},
        "spec": {"vxlanTunnelMACAddr": "02-00-00-00-00-0A", "vxlanTunnelMACAddrV6": "01:00:5e:00:00:01"},
    }
    with pytest.raises(Invalid, match=r"spec\.vxlanTunnelMACAddrV6: is '01:00:5e:00:00:01'; give the hardware address"):
        resources.parse(document, "nodes.yaml")
    document["spec"] = {"vxlanTunnelMACAddr": "02-00-00-00-00-0A"}
    found = resources.parse(document, "nodes.yaml")[1]
    assert isinstance(found, Node)
    assert found.vxlan_mac == "02:00:00:00:00:0a"
