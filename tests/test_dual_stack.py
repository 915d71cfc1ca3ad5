"""Two racks with both versions of IP: what a1's kernel should hold of IPv6, and how the two meet (RFC 8950)."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from builders import block, link, links, node, pod, pool
from engine_node import EngineNode

from bgp.decision import best
from bgp.types import Attributes, Path
from felix_py import resources
from felix_py.calc import sessions
from felix_py.calc.desired import Desired, desired
from felix_py.calc.hearsay import Learned, hearsay
from felix_py.calc.longest_match import LongestMatch
from felix_py.kernel.objects import KernelState, Link, NextHop, PutSysctl, Route, RouteKey, RouteType, Scope
from felix_py.model import IpipMode, IPNetwork, NodeName, lies_in
from felix_py.state import ClusterState, Event, InSync, Present

A1 = NodeName("a1")
EVENTS: tuple[Event, ...] = (
    node("a1", "172.31.1.11/24", "fd31:1::11/64"),
    node("a2", "172.31.1.12/24", "fd31:1::12/64"),
    node("b1", "172.31.2.11/24", "fd31:2::11/64"),
    pool(),
    pool("fd65::/48", IpipMode.NEVER, name="six", size=122),
    *(block("a1", cidr) for cidr in ("10.65.0.0/26", "fd65::/122")),
    pod("default/web-0", "a1", "cali1", "10.65.0.5/32", "fd65::5/128"),
    InSync(),
)
ETH0 = link("eth0", "172.31.1.11/24", "fd31:1::11/64")
LINKS = links(link("lo"), ETH0, link("cali1"))
TOR = Route(via=IPv6Address("fd31:1::1"), device="eth0", protocol=3)
UNDERLAY = {
    RouteKey(IPv6Network("::/0")): TOR,
    RouteKey(IPv4Network("0.0.0.0/0")): Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3),
}


def learned(prefix: str, *next_hops: str) -> tuple[IPNetwork, Learned]:
    first, *equal = map(ip_address, next_hops)
    return ip_network(prefix), Learned(first, "tor", equal=tuple(equal))


def key(prefix: str) -> RouteKey:
    return RouteKey(ip_network(prefix))


def wish(*paths: tuple[IPNetwork, Learned], events: tuple[Event, ...] = (), **others: object) -> Desired:
    cluster = ClusterState().after_all((*EVENTS, *events))
    arguments: dict[str, object] = {"me": A1, "links": LINKS, "underlay": UNDERLAY, **others}
    return desired(cluster, dict(paths), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "route"),
    [
        pytest.param("fd65::/122", Route(RouteType.BLACKHOLE), id="own block drops strays"),
        pytest.param("fd65::5/128", Route(device="cali1"), id="own pod on its veth; IPv6 knows no scope"),
        pytest.param("10.65.0.5/32", Route(device="cali1", scope=Scope.LINK), id="and its IPv4 address as ever"),
        pytest.param(
            "fd65::40/122",
            Route(via=IPv6Address("fd31:1::12"), device="eth0", onlink=True),
            id="same rack goes straight",
        ),
        pytest.param("fd65::80/122", Route(via=TOR.via, device="eth0"), id="other rack goes through the router"),
        pytest.param(
            "10.65.3.0/26",
            Route(via=IPv6Address("fd31:1::1"), device="eth0", onlink=True),
            id="an IPv4 block with an IPv6 next hop (RFC 8950)",
        ),
        pytest.param(
            "fd65::c0/122",
            Route(hops=tuple(NextHop(IPv6Address(f"fd31:1::{last}"), "eth0", onlink=True) for last in (12, 13))),
            id="equal next hops share the flows",
        ),
    ],
)
def test_routes_of_a_node_with_both_versions_of_ip(prefix: str, route: Route) -> None:
    found = wish(
        learned("fd65::40/122", "fd31:1::12"),
        learned("fd65::80/122", "fd31:2::11"),
        learned("10.65.3.0/26", "fd31:1::1"),
        learned("fd65::c0/122", "fd31:1::13", "fd31:1::12"),
    )
    assert found.state.routes[key(prefix)] == route
    assert found.waiting == {}


@pytest.mark.parametrize(
    ("interfaces", "underlay", "obstacle"),
    [
        pytest.param(
            links(link("eth0", "172.31.1.11/24")),
            UNDERLAY,
            "no interface has this node's address fd31:1::11/64",
            id="the node's IPv6 address is nowhere",
        ),
        pytest.param(LINKS, {}, "no route leads to next hop fd31:2::11", id="no way to the next hop"),
    ],
)
def test_what_keeps_an_ipv6_route_waiting(interfaces: object, underlay: object, obstacle: str) -> None:
    next_hop = "fd31:2::11" if not underlay else "fd31:1::12"
    found = wish(learned("fd65::40/122", next_hop), links=interfaces, underlay=underlay)
    assert found.waiting[key("fd65::40/122")] == obstacle


def test_an_ipv6_next_hop_of_an_ipv4_block_is_never_reached_through_the_tunnel_and_says_why() -> None:
    found = wish(learned("10.65.3.0/26", "fd31:2::1"), events=(pool(mode=IpipMode.ALWAYS),))
    assert found.state.routes[key("10.65.3.0/26")] == Route(via=TOR.via, device="eth0")
    choice = found.chosen[key("10.65.3.0/26")].encapsulation
    assert choice is not None
    assert choice.why == "pool default says Always, but IP in IP does not lead to an IPv6 next hop, as fd31:2::1 is"


def test_an_ipv4_block_may_have_equal_next_hops_of_both_versions() -> None:
    found = wish(learned("10.65.3.0/26", "fd31:1::1", "172.31.1.1"))
    hops = NextHop(ip_address("172.31.1.1"), "eth0", onlink=True), NextHop(ip_address("fd31:1::1"), "eth0", onlink=True)
    assert found.state.routes[key("10.65.3.0/26")] == Route(hops=hops)


def test_routes_to_ipv6_next_hops_stay_plain_where_others_go_through_objects() -> None:
    several = [learned(f"fd65::{number:x}:0/122", "fd31:1::12") for number in range(1, 20)]
    four = [learned(f"10.65.{number}.0/26", "172.31.1.12") for number in range(1, 20)]
    state = wish(*several, *four, objects=True).state
    assert {route.through for key, route in state.routes.items() if key.dst.version == 6} == {None}
    assert list(state.next_hops) == [int(IPv4Address("172.31.1.12"))]


def test_until_bgp_has_converged_ipv6_routes_to_other_nodes_stay() -> None:
    route = Route(via=IPv6Address("fd31:1::12"), device="eth0", onlink=True)
    extended = Route(via=IPv6Address("fd31:1::1"), device="eth0", onlink=True)
    found = wish(
        kept={key("fd65::40/122"): route, key("10.65.3.0/26"): extended, key("fd65::9/128"): Route(device="c")}
    )
    assert found.state.routes[key("fd65::40/122")] == route
    assert found.state.routes[key("10.65.3.0/26")] == extended
    assert found.chosen[key("fd65::40/122")].stale
    assert key("fd65::9/128") not in found.state.routes, "a pod that is gone is known to be gone"


SIX_PARAMETERS = {
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/cali1/disable_ipv6": "0",
    "net/ipv6/conf/cali1/accept_dad": "0",
    "net/ipv6/conf/cali1/forwarding": "1",
}


def test_a_host_becomes_an_ipv6_router_only_where_ipv6_is_used() -> None:
    found = wish().state.sysctls
    assert {path: found[path] for path in SIX_PARAMETERS} == SIX_PARAMETERS
    four = tuple(event for event in EVENTS if not (isinstance(event, Present) and event.key.name == "six"))
    alone = ClusterState().after_all((*four, pod("default/web-0", "a1", "cali1", "10.65.0.5/32")))
    assert SIX_PARAMETERS.keys().isdisjoint(desired(alone, {}, A1, LINKS).state.sysctls)


def test_the_source_address_towards_pods_is_one_of_each_version() -> None:
    spec = {"deviceRouteSourceAddress": "172.31.1.11", "deviceRouteSourceAddressIPv6": "fd31:1::11"}
    document = {"apiVersion": resources.API_VERSION, "kind": "FelixConfiguration", "metadata": {"name": "default"}}
    said = Present(*resources.parse({**document, "spec": spec}, "felix.yaml"))
    routes = wish(events=(said,)).state.routes
    assert [str(routes[key(each)].source) for each in ("10.65.0.5/32", "fd65::5/128")] == ["172.31.1.11", "fd31:1::11"]


def test_blocks_of_both_versions_are_announced_and_the_tunnels_address_is_ipv4() -> None:
    cluster = ClusterState().after_all(EVENTS)
    assert sessions.own_blocks(cluster, A1) == (IPv4Network("10.65.0.0/26"), IPv6Network("fd65::/122"))
    assert sessions.tunnel_blocks(cluster, A1) == (IPv4Network("10.65.0.0/26"),)
    settings = sessions.settings(cluster, A1)
    assert settings is not None
    assert settings.announcements == {IPv4Network("10.65.0.0/26"), IPv6Network("fd65::/122")}
    assert set(settings.accept_within) == {IPv4Network("10.65.0.0/16"), IPv6Network("fd65::/48")}


def test_what_bgp_knows_of_ipv6_is_learned() -> None:
    prefix, peer = IPv6Network("fd65::40/122"), IPv6Address("fd31:1::1")
    paths = [Path(prefix, peer + number, Attributes(next_hop=peer + number)) for number in range(2)]
    chosen = best(paths)
    assert chosen is not None
    assert hearsay({prefix: chosen}, lambda _: "tor").paths == {
        prefix: Learned(IPv6Address("fd31:1::1"), "tor", equal=(IPv6Address("fd31:1::2"),)),
    }


def test_a_match_is_one_of_the_same_version_of_ip() -> None:
    table = LongestMatch([(IPv4Network("0.0.0.0/0"), "four"), (IPv6Network("fd65::/48"), "six")])
    assert table.of(IPv4Address("10.65.0.1")) == "four"
    assert table.of(IPv6Address("fd65::1")) == "six"
    assert table.of(IPv6Network("fd65::/47")) is None
    assert table.of(IPv6Address("::a41:1")) is None, "an IPv4 address as a number"


def test_a_network_lies_in_none_of_another_version_of_ip() -> None:
    assert lies_in(IPv6Network("fd65::/122"), IPv6Network("fd65::/48"))
    assert not lies_in(IPv6Network("fd65::/47"), IPv6Network("fd65::/48"))
    assert not lies_in(IPv4Network("10.65.0.0/26"), IPv6Network("::/0"))
    assert not lies_in(IPv6Network("::a41:0/122"), IPv4Network("0.0.0.0/0"))
    assert lies_in(IPv4Interface("172.31.1.11/24").network, IPv4Network("172.31.0.0/16"))


@pytest.mark.parametrize(
    "path",
    [
        "net/ipv6/conf/all/forwarding",
        "net/ipv6/conf/cali1/forwarding",
        "net/ipv4/conf/cali1/rp_filter",
    ],
)
def test_a_parameter_that_somebody_changed_is_put_back_by_the_next_turn(path: str) -> None:
    node = EngineNode(Link("cali1", 5, 1500, up=True, running=True))
    want = KernelState(sysctls={path: "1", "net/ipv4/ip_forward": "1"})
    node.settle(want)
    assert node.host.sysctls[path] == "1"
    node.turn(want)
    assert node.reports[-1].done == (), "what is well is not written again"
    node.host.change_parameter(path, "0")
    node.turn(want)
    assert node.reports[-1].done == (PutSysctl(path, "1"),)
