from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import SimpleNamespace
from typing import Any

import pytest
from builders import link, links, node, pool
from hypothesis import given
from hypothesis import strategies as st

from bgp.decision import best
from bgp.types import Attributes, Path
from felix_py.calc.desired import Desired, desired
from felix_py.calc.hearsay import Learned, hearsay
from felix_py.calc.longest_match import LongestMatch
from felix_py.calc.next_hops import OBJECT_AT, View, Way, Ways
from felix_py.kernel.objects import KernelState, Link, NextHop, NextHopObject, Route, RouteKey
from felix_py.model import IpipMode, IPPool, Key, Node, NodeName
from felix_py.state import ClusterState, Event, Present

A1 = NodeName("a1")
A2, A3, B1, B2 = map(IPv4Address, ("172.31.1.12", "172.31.1.13", "172.31.2.11", "172.31.2.12"))
LINKS = links(link("lo"), link("eth0", "172.31.1.11/24"))
DEFAULT = RouteKey(IPv4Network("0.0.0.0/0"))


def router(address: str, device: str = "eth0") -> dict[RouteKey, Route]:
    return {DEFAULT: Route(via=IPv4Address(address), device=device, protocol=3)}


def way(mode: IpipMode, *next_hops: IPv4Address, underlay: dict[RouteKey, Route] | None = None, **others: Any) -> Way:
    view = View(Node(A1, IPv4Interface("172.31.1.11/24")), others.pop("links", LINKS), "eth0", underlay or {})
    return Ways(view).to(IPPool("default", IPv4Network("10.65.0.0/16"), mode), next_hops[0], next_hops[1:])


# --- several equal next hops


def test_equal_next_hops_become_one_route_and_say_so() -> None:
    found = way(IpipMode.NEVER, A3, A2)
    assert found.route == Route(hops=(NextHop(A2, "eth0", onlink=True), NextHop(A3, "eth0", onlink=True)))
    assert found.notes == ("BGP finds 2 next hops equal, and flows are spread: 172.31.1.12, 172.31.1.13",)


@pytest.mark.parametrize(
    ("found", "leads_to", "note"),
    [
        pytest.param(
            way(IpipMode.NEVER, B1, A2),
            Route(via=A2, device="eth0", onlink=True),
            "equal next hop 172.31.2.11: no route leads to next hop 172.31.2.11",
            id="no route leads there",
        ),
        pytest.param(
            way(IpipMode.CROSS_SUBNET, B1, A2, underlay=router("172.31.1.1")),
            Route(via=A2, device="eth0", onlink=True),
            "equal next hop 172.31.2.11: not used, as another is reached without a tunnel",
            id="only through the tunnel",
        ),
        pytest.param(
            way(IpipMode.ALWAYS, B1, A2, underlay=router("172.31.1.1")),
            Route(via=B1, device="tunl0", onlink=True),
            "equal next hop 172.31.1.12: not used, as the tunnel takes one next hop for each prefix,"
            " and that is 172.31.2.11",
            id="a second one through the tunnel",
        ),
        pytest.param(
            way(
                IpipMode.NEVER,
                A2,
                B1,
                underlay=router("192.0.2.1", "eth1"),
                links={**LINKS, "eth1": Link("eth1", 9, 1500, up=True, running=False)},
            ),
            Route(via=A2, device="eth0", onlink=True),
            "equal next hop 172.31.2.11: not used while eth1 has no carrier",
            id="an interface without carrier",
        ),
    ],
)
def test_a_next_hop_that_is_left_out_is_named_with_the_reason(found: Way, leads_to: Route, note: str) -> None:
    assert (found.route, found.obstacle, found.notes) == (leads_to, None, (note,))


def test_where_no_equal_next_hop_can_be_reached_the_best_one_names_the_obstacle() -> None:
    found = way(IpipMode.NEVER, B2, B1)
    assert found.obstacle == "no route leads to next hop 172.31.2.12"
    assert "equal next hop 172.31.2.11: no route leads to next hop 172.31.2.11" in found.notes


def test_next_hops_behind_one_router_are_one_leg() -> None:
    found = way(IpipMode.NEVER, B2, B1, underlay=router("172.31.1.1"))
    assert found.route == Route(via=IPv4Address("172.31.1.1"), device="eth0")
    assert found.next_hop is None, "it stands for two, so no object of one of them may say where it goes"


def test_a_router_without_carrier_takes_no_flows() -> None:
    one, two = NextHop(IPv4Address("172.31.1.1"), "eth0"), NextHop(IPv4Address("192.0.2.1"), "eth1")
    unplugged = {**LINKS, "eth1": Link("eth1", 9, 1500, up=True, running=False)}
    found = way(IpipMode.NEVER, B1, underlay={DEFAULT: Route(hops=(one, two), protocol=3)}, links=unplugged)
    assert found.route == Route(via=one.via, device="eth0")


@given(st.permutations([A2, A3, B2, B1]), st.sampled_from(IpipMode), st.booleans())
def test_the_legs_of_a_route_without_tunnel_do_not_depend_on_the_order(
    order: list[IPv4Address],
    mode: IpipMode,
    routed: bool,  # noqa: FBT001 - drawn
) -> None:
    underlay = router("172.31.1.1") if routed else {}
    found, straight = way(mode, *order, underlay=underlay), way(mode, *sorted(order), underlay=underlay)
    assert way(mode, order[0], *reversed(order[1:]), underlay=underlay) == found
    if mode is IpipMode.ALWAYS:
        # The outer packets of the tunnel go by the underlay: without a router only the own subnet can be reached.
        reached = [each for each in (order[0], *sorted(order)) if routed or each in (A2, A3)]
        assert found.route == Route(via=reached[0], device="tunl0", onlink=True)
    else:
        assert found.route == straight.route
        assert len(found.route.hops) == (3 if mode is IpipMode.NEVER and routed else 2)


# --- what BGP knows


def path(prefix: str, peer: str, next_hop: str | None = None, **others: Any) -> Path:
    attributes = Attributes(IPv4Address(next_hop or peer))
    return Path(IPv4Network(prefix), IPv4Address(peer), attributes, router_id=IPv4Address(peer), **others)


def test_what_bgp_knows_is_told_with_equal_next_hops_and_each_peer_is_named_once() -> None:
    asked: list[str] = []

    def name(chosen: Any) -> str:
        asked.append(str(chosen.path.peer))
        return f"{chosen.path.peer} (a2)"

    one, two = "10.65.1.0/26", "10.65.2.0/26"
    # The peers' order is not that of the next hops that they tell.
    several = [path(two, "172.31.1.12"), path(two, "172.31.1.13", str(B2)), path(two, "172.31.1.14", str(B1))]
    paths = {IPv4Network(one): best([path(one, "172.31.1.12")]), IPv4Network(two): best(several)}
    assert hearsay({prefix: chosen for prefix, chosen in paths.items() if chosen}, name).paths == {
        IPv4Network("10.65.1.0/26"): Learned(A2, "172.31.1.12 (a2)"),
        IPv4Network("10.65.2.0/26"): Learned(A2, "172.31.1.12 (a2)", equal=(B1, B2)),
    }
    assert asked == ["172.31.1.12"]


def test_a_path_without_an_ipv4_next_hop_leads_nowhere() -> None:
    lost = SimpleNamespace(path=replace(path("10.65.1.0/26", "172.31.1.12"), attributes=Attributes(None)), equal=())
    assert hearsay({IPv4Network("10.65.1.0/26"): lost}, str).paths == {}  # type: ignore[dict-item]


# --- next-hop objects


def heard(
    count: int, next_hop: IPv4Address, second_byte: int = 65, equal: Iterable[IPv4Address] = ()
) -> dict[IPv4Network, Learned]:
    said = Learned(next_hop, str(next_hop), equal=tuple(equal))
    return {IPv4Network(f"10.{second_byte}.{number}.0/24"): said for number in range(count)}


def wish(
    *events: Event, learned: Mapping[IPv4Network, Learned] | None = None, mode: IpipMode = IpipMode.NEVER, **others: Any
) -> Desired:
    cluster = ClusterState().after_all((node("a1", "172.31.1.11/24"), pool(mode=mode), *events))
    arguments: dict[str, Any] = {"underlay": router("172.31.1.1"), "objects": True, **others}
    return desired(cluster, learned or {}, A1, arguments.pop("links", LINKS), **arguments)


def key(prefix: str) -> RouteKey:
    return RouteKey(IPv4Network(prefix))


def test_routes_that_share_a_next_hop_go_through_its_object() -> None:
    found = wish(learned=heard(OBJECT_AT, A2))
    assert found.state.next_hops == {2887713036: NextHopObject(NextHop(A2, "eth0", onlink=True))}
    assert set(found.state.routes.values()) == {Route(through=2887713036)}
    assert found.chosen[key("10.65.3.0/24")].route == Route(via=A2, device="eth0", onlink=True)


def test_fewer_routes_stay_plain_and_so_does_everything_where_objects_are_off() -> None:
    few = wish(learned=heard(OBJECT_AT - 1, A2)).state
    assert (few.next_hops, set(few.routes.values())) == ({}, {Route(via=A2, device="eth0", onlink=True)})
    off = wish(learned=heard(OBJECT_AT, A2), objects=False).state
    assert (off.next_hops, set(off.routes.values())) == ({}, {Route(via=A2, device="eth0", onlink=True)})


def changed(before: KernelState, after: KernelState) -> tuple[bool, list[str], list[str]]:
    """Return whether the routes are as before, and the objects before and after."""
    objects = [[str(each) for each in state.next_hops.values()] for state in (before, after)]
    return before.routes == after.routes, objects[0], objects[1]


def test_another_router_changes_one_object_and_no_route() -> None:
    learned = heard(100, B1)
    before, after = wish(learned=learned).state, wish(learned=learned, underlay=router("172.31.1.2")).state
    assert changed(before, after) == (True, ["via 172.31.1.1 dev eth0"], ["via 172.31.1.2 dev eth0"])


def test_another_uplink_changes_one_object_and_no_route() -> None:
    learned, moved = heard(100, A2), links(link("lo"), link("bond0", "172.31.1.11/24"))
    before, after = wish(learned=learned).state, wish(learned=learned, links=moved).state
    assert changed(before, after) == (True, ["via 172.31.1.12 dev eth0 onlink"], ["via 172.31.1.12 dev bond0 onlink"])


def test_another_pool_mode_changes_one_object_and_no_route() -> None:
    learned = heard(100, B1)
    before, after = wish(learned=learned).state, wish(learned=learned, mode=IpipMode.ALWAYS).state
    assert changed(before, after) == (True, ["via 172.31.1.1 dev eth0"], ["via 172.31.2.11 dev tunl0 onlink"])
    assert len(after.tunnels["tunl0"].routes) == 100, "the tunnel is told of prefixes whatever their routes go through"


def test_several_next_hops_behind_one_router_have_an_object_each() -> None:
    found = wish(learned=heard(20, B1) | heard(20, B2, 66)).state
    assert len(found.next_hops) == 1, "10.66 is in no pool"
    plain = Present(Key("IPPool", "second"), IPPool("second", IPv4Network("10.66.0.0/16")))
    found = wish(plain, learned=heard(20, B1) | heard(20, B2, 66)).state
    assert {number: str(each) for number, each in found.next_hops.items()} == {
        int(B1): "via 172.31.1.1 dev eth0",
        int(B2): "via 172.31.1.1 dev eth0",
    }


def test_where_pools_send_to_one_next_hop_in_two_ways_the_busier_way_gets_the_object() -> None:
    tunnelled = Present(Key("IPPool", "second"), IPPool("second", IPv4Network("10.66.0.0/16"), IpipMode.ALWAYS))
    found = wish(tunnelled, learned=heard(20, B1) | heard(30, B1, 66)).state
    assert {number: str(each) for number, each in found.next_hops.items()} == {
        int(B1): "via 172.31.2.11 dev tunl0 onlink"
    }
    assert found.routes[key("10.66.0.0/24")] == Route(through=int(B1))
    assert found.routes[key("10.65.0.0/24")] == Route(via=IPv4Address("172.31.1.1"), device="eth0")


def test_routes_over_several_next_hops_stay_plain() -> None:
    found = wish(learned=heard(20, A2, equal=(A3,))).state
    assert found.next_hops == {}
    assert {str(route) for route in found.routes.values()} == {
        "nexthop via 172.31.1.12 dev eth0 onlink nexthop via 172.31.1.13 dev eth0 onlink"
    }


def test_without_carrier_routes_are_plain_since_no_object_can_be_made() -> None:
    unplugged = {"eth0": replace(LINKS["eth0"], running=False)}
    found = wish(learned=heard(20, A2), links=unplugged).state
    assert (found.next_hops, set(found.routes.values())) == ({}, {Route(via=A2, device="eth0", onlink=True)})


# --- the same after a restart

OBJECT = {int(B1): NextHopObject(NextHop(B1, "tunl0", onlink=True))}
THROUGH = {key(f"10.65.{number}.0/24"): Route(through=int(B1)) for number in range(20)}


@pytest.mark.parametrize("said", [0, 1, 10, 20])
def test_while_bgp_says_again_what_was_kept_nothing_changes_in_the_kernel(said: int) -> None:
    learned = heard(said, B1)
    found = wish(learned=learned, mode=IpipMode.ALWAYS, kept=THROUGH, kept_next_hops=OBJECT).state
    assert (found.routes, found.next_hops) == (THROUGH, OBJECT)
    assert len(found.tunnels["tunl0"].routes) == 20


def test_kept_routes_are_plain_where_objects_were_switched_off() -> None:
    found = wish(mode=IpipMode.ALWAYS, kept=THROUGH, kept_next_hops=OBJECT, objects=False).state
    assert (set(found.routes.values()), found.next_hops) == ({Route(via=B1, device="tunl0", onlink=True)}, {})


def test_a_kept_route_through_an_object_that_was_not_read_stays_as_it_is() -> None:
    assert wish(kept=THROUGH).state.routes == THROUGH


def test_a_kept_route_over_several_next_hops_stays_as_it_is() -> None:
    several = {key("10.65.1.0/24"): Route(hops=(NextHop(A2, "eth0", onlink=True), NextHop(A3, "eth0", onlink=True)))}
    assert wish(kept=several).state.routes == several


# --- what it rests on


def test_all_prefixes_of_a_next_hop_share_one_route() -> None:
    learned = heard(200, A2) | heard(200, B1, 66)
    second = Present(Key("IPPool", "second"), IPPool("second", IPv4Network("10.66.0.0/16")))
    for objects in (False, True):
        found = wish(second, learned=learned, objects=objects).state
        assert (len(found.routes), len({id(route) for route in found.routes.values()})) == (400, 2)


networks = st.builds(
    lambda number, length: IPv4Network((number, length), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@given(st.lists(networks, max_size=8), networks)
def test_the_longest_match_is_what_a_search_through_all_finds(several: list[IPv4Network], where: IPv4Network) -> None:
    # Networks around the one that is looked for, or nothing would ever match.
    several += [where.supernet(new_prefix=each.prefixlen) for each in several if each.prefixlen <= where.prefixlen]
    table = LongestMatch((network, str(network)) for network in several)
    holders = [network for network in several if where.subnet_of(network)]
    assert table.of(where) == (str(max(holders, key=lambda each: each.prefixlen)) if holders else None)
    address = where.network_address
    holders = [network for network in several if address in network]
    assert table.of(address) == (str(max(holders, key=lambda each: each.prefixlen)) if holders else None)
