"""Named cluster states, and what a1's kernel should hold for them."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from builders import TWO_RACKS, block, link, links, pod, pool
from hypothesis import given
from hypothesis import strategies as st
from states import STATES, State

from felix_py.calc.desired import Desired, desired
from felix_py.calc.hearsay import Learned
from felix_py.kernel.objects import Route, RouteKey, RouteType, Scope
from felix_py.model import IpipMode, Key, NodeName
from felix_py.state import Absent, ClusterState, Event, Present
from ipip.tunnel import Tunnel

A1 = NodeName("a1")
LINKS = links(link("lo"), link("eth0", "172.31.1.11/24"), link("cali0000000web0"))
LEARNED = {
    IPv4Network("10.65.1.0/26"): Learned(IPv4Address("172.31.1.12"), "172.31.1.12 (a2)"),
    IPv4Network("10.65.2.0/26"): Learned(IPv4Address("172.31.2.11"), "172.31.2.11 (b1)"),
}
DIRECT = Route(via=IPv4Address("172.31.1.12"), device="eth0", onlink=True)
UNDERLAY = {RouteKey(IPv4Network("0.0.0.0/0")): Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)}
TUNNELLED = Route(via=IPv4Address("172.31.2.11"), device="tunl0", onlink=True)


def key(prefix: str) -> RouteKey:
    return RouteKey(IPv4Network(prefix))


def wish(*events: Event, **overrides: object) -> Desired:
    cluster = ClusterState().after_all((*TWO_RACKS, *events))
    arguments: dict[str, object] = {"learned": LEARNED, "me": A1, "links": LINKS, "underlay": UNDERLAY, **overrides}
    return desired(cluster, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "route"),
    [
        pytest.param("10.65.0.0/26", Route(RouteType.BLACKHOLE), id="own block drops strays"),
        pytest.param("10.65.0.5/32", Route(device="cali0000000web0", scope=Scope.LINK), id="own pod on its veth"),
        pytest.param("10.65.1.0/26", DIRECT, id="same rack goes straight"),
        pytest.param("10.65.2.0/26", TUNNELLED, id="other rack goes through the tunnel"),
    ],
)
def test_routes_of_two_racks(prefix: str, route: Route) -> None:
    assert wish().state.routes[key(prefix)] == route


def test_there_are_no_other_routes() -> None:
    assert len(wish().state.routes) == 4


@pytest.mark.parametrize(
    ("mode", "devices"),
    [
        (IpipMode.ALWAYS, ["tunl0", "tunl0"]),
        (IpipMode.CROSS_SUBNET, ["eth0", "tunl0"]),
        (IpipMode.NEVER, ["eth0", "eth0"]),
    ],
)
def test_ipip_mode_decides_the_device(mode: IpipMode, devices: list[str]) -> None:
    routes = wish(pool(mode=mode)).state.routes
    assert [routes[key(prefix)].device for prefix in ("10.65.1.0/26", "10.65.2.0/26")] == devices


def test_every_choice_says_why() -> None:
    choice = wish().chosen[key("10.65.2.0/26")].encapsulation
    assert choice is not None
    assert (
        choice.why
        == "pool default says CrossSubnet and next hop 172.31.2.11 is outside this node's subnet 172.31.1.0/24"
    )


def test_the_tunnel_leaves_room_for_its_header_and_knows_its_peers() -> None:
    assert wish(tunnel_address=IPv4Address("10.65.0.0")).state.tunnels == {
        "tunl0": Tunnel(
            local=IPv4Address("172.31.1.11"),
            mtu=1480,
            address=IPv4Address("10.65.0.0"),
            routes=frozenset({(IPv4Network("10.65.2.0/26"), IPv4Address("172.31.2.11"))}),
            allowed=frozenset({IPv4Address("172.31.1.12"), IPv4Address("172.31.2.11")}),
        )
    }


def test_without_pools_that_encapsulate_there_is_no_tunnel() -> None:
    assert wish(pool(mode=IpipMode.NEVER)).state.tunnels == {}


@pytest.mark.parametrize(
    ("veth", "obstacle"),
    [
        pytest.param((), "cali0000000web0 does not exist", id="veth deleted"),
        pytest.param((link("cali0000000web0", up=False),), "cali0000000web0 is down", id="veth down"),
    ],
)
def test_a_pod_without_its_device_waits_and_says_why(veth: tuple[object, ...], obstacle: str) -> None:
    found = wish(links=links(link("eth0", "172.31.1.11/24"), *veth))  # type: ignore[arg-type]
    assert key("10.65.0.5/32") not in found.state.routes
    assert found.waiting[key("10.65.0.5/32")] == obstacle


def test_a_host_without_default_route_answers_for_the_pods_gateway() -> None:
    assert wish(default_route=False).state.routes[key("169.254.1.1/32")] == Route(device="lo", scope=Scope.LINK)


def test_a_learned_prefix_outside_the_pools_is_no_route() -> None:
    foreign = {IPv4Network("192.0.2.0/24"): Learned(IPv4Address("172.31.1.1"), "tor")}
    assert key("192.0.2.0/24") not in wish(learned=foreign).state.routes


def test_without_encapsulation_another_rack_is_reached_through_the_router() -> None:
    found = wish(pool(mode=IpipMode.NEVER))
    assert found.state.routes[key("10.65.2.0/26")] == Route(via=IPv4Address("172.31.1.1"), device="eth0")


def test_without_encapsulation_and_without_a_router_the_prefix_waits_and_says_why() -> None:
    found = wish(pool(mode=IpipMode.NEVER), underlay={})
    assert found.waiting == {key("10.65.2.0/26"): "no route leads to next hop 172.31.2.11"}


def test_the_longest_match_leads_to_a_next_hop_then_the_lowest_metric() -> None:
    def via(last: int) -> Route:
        return Route(via=IPv4Address(f"172.31.1.{last}"), device="eth0", protocol=3)

    rack_b = IPv4Network("172.31.2.0/24")
    underlay = UNDERLAY | {RouteKey(rack_b, metric=20): via(20), RouteKey(rack_b, metric=10): via(10)}
    found = wish(pool(mode=IpipMode.NEVER), underlay=underlay)
    assert found.state.routes[key("10.65.2.0/26")].via == IPv4Address("172.31.1.10")


KEPT = {key("10.65.1.0/26"): DIRECT, key("10.65.2.0/26"): TUNNELLED, key("10.65.0.9/32"): Route(device="cali9")}


def test_until_bgp_has_converged_routes_to_other_nodes_stay_and_so_does_their_tunnel() -> None:
    found = wish(learned={}, kept=KEPT)
    assert found.state.routes[key("10.65.1.0/26")] == DIRECT
    assert found.state.routes[key("10.65.2.0/26")] == TUNNELLED
    assert found.state.tunnels["tunl0"].routes == {(IPv4Network("10.65.2.0/26"), IPv4Address("172.31.2.11"))}
    assert found.chosen[key("10.65.2.0/26")].stale
    assert key("10.65.0.9/32") not in found.state.routes, "a pod that is gone is known to be gone"


def test_what_bgp_says_beats_what_was_kept() -> None:
    found = wish(learned={IPv4Network("10.65.2.0/26"): Learned(IPv4Address("172.31.1.12"), "a2")}, kept=KEPT)
    assert found.state.routes[key("10.65.2.0/26")] == DIRECT


def test_while_peers_have_not_spoken_what_was_kept_beats_what_bgp_says() -> None:
    learned = {IPv4Network("10.65.2.0/26"): Learned(IPv4Address("172.31.1.12"), "a2")}
    found = wish(learned=learned, kept=KEPT, deferred=True)
    assert found.state.routes[key("10.65.2.0/26")] == TUNNELLED
    assert [(each.candidate.origin, each.reason) for each in found.lost[key("10.65.2.0/26")]] == [
        (
            "bgp a2",
            "what was kept from before the restart goes before what some peers say while others have not spoken yet",
        )
    ]


def test_while_peers_have_not_spoken_a_prefix_that_was_not_there_before_is_taken_from_those_who_have() -> None:
    assert wish(deferred=True).state.routes == wish().state.routes


def test_a_block_that_became_ours_beats_what_was_kept() -> None:
    found = wish(block("a1", "10.65.1.0/26"), Absent(Key("BlockAffinity", "a2-10.65.1.0-26")), learned={}, kept=KEPT)
    assert found.state.routes[key("10.65.1.0/26")] == Route(RouteType.BLACKHOLE)


def test_what_is_gone_leaves_no_route() -> None:
    assert key("10.65.0.5/32") not in wish(Absent(Key("WorkloadEndpoint", "default/web-0"))).state.routes


@given(st.permutations(TWO_RACKS))
def test_only_the_last_state_matters(order: list[Event]) -> None:
    cluster = ClusterState().after_all(order)
    assert desired(cluster, LEARNED, A1, LINKS, underlay=UNDERLAY) == wish()


def test_a_contest_is_told_with_its_losers() -> None:
    found = wish(pod("default/web-1", "a1", "cali0000000web1", "10.65.0.5/32"))
    assert found.chosen[key("10.65.0.5/32")].origin == "default/web-0"
    assert [(each.candidate.origin, each.rule, each.reason) for each in found.lost[key("10.65.0.5/32")]] == [
        ("default/web-1", "can be installed", "it cannot be installed: cali0000000web1 does not exist")
    ]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_a_named_state_has_its_routes(state: State) -> None:
    found = state.wish()
    assert {str(each): str(route) for each, route in found.state.routes.items()} == state.routes
    assert {str(each): why for each, why in found.waiting.items()} == state.waiting


EVERY_NEWS = tuple(dict.fromkeys(event for state in STATES for event in state.events if isinstance(event, Present)))


@given(st.sampled_from(STATES), st.data())
def test_only_the_present_state_matters_whatever_happened_before(state: State, data: st.DataObject) -> None:
    """Tell the last news of each resource in any order, older news before it, all of it cut into batches."""
    last = data.draw(st.permutations(state.events))
    told = {event.key for event in last if isinstance(event, Present)}
    older = data.draw(st.lists(st.sampled_from(EVERY_NEWS), max_size=12))
    history: list[Event] = [*older, *(Absent(event.key) for event in older if event.key not in told), *last]
    if data.draw(st.booleans()):
        history = _interleaved(history, data)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(history)), max_size=5)))
    cluster = ClusterState()
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        cluster = cluster.after_all(history[start:end])
    shuffled = replace(
        state,
        learned=tuple(data.draw(st.permutations(state.learned))),
        links=dict(data.draw(st.permutations(list(state.links.items())))),
        underlay=dict(data.draw(st.permutations(list(state.underlay.items())))),
    )
    assert shuffled.wish_of(cluster) == state.wish()


def _interleaved(history: list[Event], data: st.DataObject) -> list[Event]:
    """Shuffle news of different resources; news of one resource keep their order."""
    streams: dict[object, list[Event]] = {}
    for event in history:
        streams.setdefault(getattr(event, "key", None), []).append(event)
    order = data.draw(st.permutations([name for name, events in streams.items() for _ in events]))
    return [streams[name].pop(0) for name in order]


@given(st.permutations(range(4)), st.permutations(["172.31.1.12", "172.31.1.13", "172.31.1.14", "172.31.2.11"]))
def test_the_next_hops_of_a_route_do_not_depend_on_which_came_first(order: list[int], hops: list[str]) -> None:
    prefixes = [IPv4Network(f"10.65.{number}.0/26") for number in (1, 2, 3, 4)]
    first, *equal = map(IPv4Address, hops)
    learned = {prefixes[number]: Learned(first, "bgp", equal=tuple(equal)) for number in order}
    routes = wish(Absent(Key("BlockAffinity", "a1-10.65.0.0-26")), learned=learned).state.routes
    legs = [" ".join(str(hop.via) for hop in routes[RouteKey(prefix)].hops) for prefix in prefixes]
    assert legs == ["172.31.1.12 172.31.1.13 172.31.1.14"] * 4, "and not the one in the other rack, through the tunnel"
