"""Which next hops can be reached, and by which interface: the table, and what it does not depend on."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_network
from typing import Any

import pytest
from builders import link, links, node, pool
from hypothesis import given
from hypothesis import strategies as st

from bgp.speaker_words import NextHops
from felix_py.calc.desired import desired, view_of
from felix_py.calc.hearsay import Learned
from felix_py.calc.next_hops import View
from felix_py.calc.reachability import Reachability
from felix_py.kernel.objects import Link, NextHop, Route, RouteKey, RouteType
from felix_py.model import IPAddress, IpipMode, Node, NodeName
from felix_py.state import ClusterState

ETH0 = link("eth0", "172.31.1.11/24", "fd31:1::11/64")
ETH1 = Link("eth1", 9, 1500, up=True, running=True)
DOWN = replace(ETH0, up=False, running=False)
A1 = NodeName("a1")
ME = Node(A1, IPv4Interface("172.31.1.11/24"), address6=IPv6Interface("fd31:1::11/64"))

Underlay = Mapping[RouteKey, Route]


def routes(**by_interface: str) -> dict[RouteKey, Route]:
    """Return routes of others, by interface: `eth1="default via 192.0.2.1"`."""
    found = {}
    for device, text in by_interface.items():
        prefix, _, router = text.partition(" via ")
        prefix = {"default": "0.0.0.0/0", "default6": "::/0"}.get(prefix, prefix)
        via = ip_address(router) if router else None
        found[RouteKey(ip_network(prefix))] = Route(via=via, device=device, protocol=3)
    return found


def view(*present: Link, underlay: Underlay | None = None, me: Node = ME) -> View:
    def holder(address: Any) -> str | None:
        return next((each.name for each in present if str(address) in each.addresses), None)

    return View(me, links(*present), holder(me.address), underlay or {}, holder(me.address6))


def judged(seen: View, *next_hops: str) -> NextHops:
    return Reachability(seen).of(frozenset(map(ip_address, next_hops)))


SAME, FAR, POD = "172.31.1.12", "172.31.2.11", "10.65.2.1"
SAME6, FAR6, LINK_LOCAL = "fd31:1::12", "fd31:2::11", "fe80::12"


@pytest.mark.parametrize(
    ("seen", "next_hop", "interface", "obstacle"),
    [
        pytest.param(view(ETH0), SAME, "eth0", None, id="in the own subnet"),
        pytest.param(view(ETH0), SAME6, "eth0", None, id="in the own IPv6 subnet"),
        pytest.param(view(DOWN), SAME, None, "eth0 is down", id="the uplink is down"),
        pytest.param(view(DOWN), SAME6, None, "eth0 is down", id="the uplink is down, IPv6"),
        pytest.param(
            view(ETH1), SAME, None, "no interface has this node's address 172.31.1.11/24", id="the uplink is missing"
        ),
        pytest.param(view(ETH1), SAME6, None, "no interface has this node's address fd31:1::11/64", id="missing, IPv6"),
        pytest.param(view(replace(ETH0, running=False)), SAME, "eth0", None, id="without carrier it is still reached"),
        pytest.param(view(ETH0), FAR, None, "no route leads to next hop 172.31.2.11", id="no route"),
        pytest.param(view(ETH0), FAR6, None, "no route leads to next hop fd31:2::11", id="no IPv6 route"),
        pytest.param(view(ETH0, underlay=routes(eth0="default via 172.31.1.1")), FAR, "eth0", None, id="by default"),
        pytest.param(
            view(ETH0, underlay=routes(eth0="default via 172.31.1.1")),
            FAR6,
            None,
            "no route leads to next hop fd31:2::11",
            id="a route of the other version of IP",
        ),
        pytest.param(view(ETH0, underlay=routes(eth0="default6 via fe80::1")), FAR6, "eth0", None, id="IPv6 default"),
        pytest.param(
            view(ETH0, ETH1, underlay=routes(eth0="default via 172.31.1.1", eth1="172.31.2.0/24 via 192.0.2.1")),
            FAR,
            "eth1",
            None,
            id="by the longest match",
        ),
        pytest.param(
            view(ETH0, replace(ETH1, up=False), underlay=routes(eth1="172.31.2.0/24 via 192.0.2.1")),
            FAR,
            None,
            "eth1 is down",
            id="the interface of the route is down",
        ),
        pytest.param(
            view(ETH0, underlay=routes(eth1="172.31.2.0/24 via 192.0.2.1")),
            FAR,
            None,
            "eth1 does not exist",
            id="the interface of the route is gone",
        ),
        pytest.param(
            view(ETH0, underlay={RouteKey(ip_network("172.31.2.0/24")): Route(RouteType.UNREACHABLE)}),
            FAR,
            None,
            "no route leads to next hop 172.31.2.11",
            id="a route that leads nowhere",
        ),
        pytest.param(
            view(
                ETH0,
                replace(ETH1, up=False),
                underlay={
                    RouteKey(ip_network("0.0.0.0/0")): Route(
                        hops=(NextHop(IPv4Address("192.0.2.1"), "eth1"), NextHop(IPv4Address("172.31.1.1"), "eth0"))
                    )
                },
            ),
            FAR,
            "eth0",
            None,
            id="by the one of two routers that is left",
        ),
        pytest.param(view(ETH0, underlay=routes(eth0="default via 172.31.1.1")), POD, "eth0", None, id="in a pool"),
        pytest.param(view(ETH0), LINK_LOCAL, "eth0", None, id="link-local"),
        pytest.param(view(DOWN), LINK_LOCAL, None, "eth0 is down", id="link-local, the interface is down"),
        pytest.param(
            view(ETH0, me=Node(A1, IPv4Interface("172.31.1.11/24"))),
            LINK_LOCAL,
            "eth0",
            None,
            id="link-local, on a node without IPv6 address",
        ),
        pytest.param(view(ETH0, me=Node(A1)), SAME, None, f"no route leads to next hop {SAME}", id="no node"),
    ],
)
def test_a_next_hop_is_reached_or_says_why_not(
    seen: View, next_hop: str, interface: str | None, obstacle: str | None
) -> None:
    found, asked = judged(seen, next_hop), ip_address(next_hop)
    assert found.obstacles == ({asked: obstacle} if obstacle else {})
    assert found.interfaces == ({asked: interface} if interface else {})


def test_every_next_hop_that_is_asked_for_gets_its_answer_and_no_other() -> None:
    reachability = Reachability(view(ETH0))
    one, both = frozenset({ip_address(SAME)}), frozenset({ip_address(SAME), ip_address(FAR)})
    assert reachability.of(both) == NextHops(
        {ip_address(FAR): f"no route leads to next hop {FAR}"}, dict.fromkeys(one, "eth0")
    )
    assert reachability.of(one) == NextHops({}, dict.fromkeys(one, "eth0"))
    assert reachability.of(frozenset()) == NextHops({})


@given(st.lists(st.frozensets(st.sampled_from([SAME, FAR, POD, SAME6, FAR6, LINK_LOCAL]))))
def test_an_answer_does_not_depend_on_what_was_asked_before(asked: list[frozenset[str]]) -> None:
    seen = view(ETH0, underlay=routes(eth0="172.31.2.0/24 via 172.31.1.1"))
    reachability = Reachability(seen)
    for each in asked:
        assert reachability.of(frozenset(map(ip_address, each))) == judged(seen, *each)


@pytest.mark.parametrize("mode", IpipMode)
@given(
    st.sampled_from([SAME, FAR, POD]),
    st.sampled_from([ETH0, DOWN, ETH1]),
    st.sampled_from([{}, routes(eth0="default via 172.31.1.1"), routes(eth1="172.31.2.0/24 via 192.0.2.1")]),
)
def test_the_wish_agrees_in_a_tunnel_and_without(
    mode: IpipMode, next_hop: str, present: Link, underlay: Underlay
) -> None:
    """What the speaker is told cannot be reached is not installed either, and what can be is."""
    cluster = ClusterState().after_all([node("a1", "172.31.1.11/24"), pool(mode=mode)])
    prefix = RouteKey(ip_network("10.65.2.0/26"))
    learned = {prefix.dst: Learned(IPv4Address(next_hop), "b1")}
    found = desired(cluster, learned, A1, links(present), underlay=underlay)
    answer = Reachability(view_of(cluster.node(A1) or ME, links(present), underlay)).of(
        frozenset({IPv4Address(next_hop)})
    )
    tunnelled = next(iter(found.chosen.values())).route.device == "tunl0"
    if tunnelled and present is ETH1:  # a tunnel has this node's address, whatever leads to its other end
        assert found.waiting == {prefix: "no interface has this node's address 172.31.1.11/24"}
    else:
        obstacle = answer.obstacles.get(IPv4Address(next_hop))
        assert found.waiting == ({prefix: obstacle} if obstacle else {})


def test_routes_of_ours_make_no_next_hop_reachable() -> None:
    """What was learned is no argument of the judgement: only the view is, which holds routes of others."""
    asked: frozenset[IPAddress] = frozenset({ip_address(POD)})
    cluster = ClusterState().after_all([node("a1", "172.31.1.11/24"), pool()])
    learned = {ip_network("10.65.2.0/26"): Learned(IPv4Address(SAME), "a2")}
    found = desired(cluster, learned, A1, links(ETH0))
    assert found.waiting == {}
    assert Reachability(view_of(ME, links(ETH0), {})).of(asked).obstacles == {
        ip_address(POD): f"no route leads to next hop {POD}"
    }
