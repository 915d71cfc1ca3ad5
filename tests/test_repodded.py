"""Pods that come and go, taken into a wish one after the other, come to what a wish made from nothing says."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any

import pytest
from builders import block, link, links, node, pod, pool, vxlan_pool
from hypothesis import given
from hypothesis import strategies as st

from felix_py.calc.desired import Desired, desired
from felix_py.calc.hearsay import Learned
from felix_py.calc.pods import Moment, repodded
from felix_py.kernel.objects import Link, Route, RouteKey
from felix_py.kernel.wish import Wish
from felix_py.model import IpipMode, Key, NodeName, VxlanMode
from felix_py.state import Absent, ClusterState, Event, InSync

A1 = NodeName("a1")
UPLINK = replace(link("eth0", "172.31.1.11/24"), index=2)
UNDERLAY = {RouteKey(IPv4Network("172.31.2.0/24")): Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)}
LEARNED = {ip_network(prefix): Learned(IPv4Address("172.31.1.12"), "a2") for prefix in ("10.65.1.0/26", "10.65.0.4/32")}
"""A block of another node, and an address that a pod of ours may have: it may have been moved here."""

BARE = (node("a1", "172.31.1.11/24"), node("a2", "172.31.1.12/24"), block("a1", "10.65.0.0/26"), InSync())
POOLS: dict[str, tuple[Event, ...]] = {
    "straight": (pool(mode=IpipMode.NEVER),),
    "tunnel": (pool(),),
    "both": (pool(mode=IpipMode.NEVER), vxlan_pool("fd65::/64", VxlanMode.NEVER, name="six")),
}

CALI = [f"cali{number}" for number in range(4)]
names = st.sampled_from(["one", "two", "three", "four", "five"])
comes = st.builds(
    pod,
    names,
    st.sampled_from(["a1", "a1", "a1", "a1", "a2"]),
    st.sampled_from([*CALI, *CALI, "tap1"]),
    st.sampled_from([f"10.65.0.{number}/32" for number in range(1, 6)]),
) | st.builds(pod, names, st.just("a1"), st.sampled_from(CALI), st.just("10.65.0.9/32"), st.just("fd65::9/128"))
goes = names.map(lambda name: Absent(Key("WorkloadEndpoint", name)))


@st.composite
def sights(draw: st.DrawFn) -> tuple[str, Link | None]:
    """An interface as it is from now on, None where it is gone."""
    name = draw(st.sampled_from([*CALI, *CALI, *CALI, "tap1", "eth0"]))
    if draw(st.booleans()) and draw(st.booleans()):
        return name, None
    held = ("172.31.1.11/24",) if name == "eth0" or draw(st.integers(0, 20)) == 0 else ()
    up, mtu = draw(st.booleans()) or draw(st.booleans()), draw(st.sampled_from([1500, 1500, 1400]))
    return name, replace(link(name, *held, up=up, mtu=mtu), index=draw(st.integers(3, 40)))


@dataclass
class Kept:
    """A wish that is amended wherever that goes, with its bytes, and how often it went."""

    around: dict[str, Any]
    wish: Desired
    moment: Moment
    taken: Wish
    amended: int = 0

    def follow(self, events: list[Event], seen: list[tuple[str, Link | None]]) -> None:
        interfaces = {**self.moment.links, **dict(seen)}
        present = {name: each for name, each in interfaces.items() if each is not None}
        now = Moment(self.moment.cluster.after_all(events), present if seen else self.moment.links)
        found, whole = repodded(self.wish, self.moment, now, A1, UNDERLAY), made(now, self.around)
        if found is not None:
            self.amended += 1
            assert found == whole
            assert found.basis is not None
            assert whole.basis is not None
            assert found.basis.standing == whole.basis.standing
            assert found.tables == whole.tables
        self.wish, self.moment = found or whole, now
        self.take()

    def take(self) -> None:
        indexes = {name: each.index for name, each in self.moment.links.items()}
        was, anew = dict(self.taken.bodies), Wish()
        changed = self.taken.take(self.wish.state.routes, indexes, self.wish.state.amended)
        anew.take(self.wish.state.routes, indexes)
        assert (self.taken.bodies, self.taken.without_device) == (anew.bodies, anew.without_device)
        assert {*changed} >= {name for name in {*was, *anew.bodies} if was.get(name) != anew.bodies.get(name)}
        assert self.taken.served >= anew.served


def made(moment: Moment, around: dict[str, Any]) -> Desired:
    return desired(moment.cluster, LEARNED, A1, moment.links, underlay=UNDERLAY, **around)


def kept(pools: str = "straight", *events: Event, **around: Any) -> Kept:
    moment = Moment(ClusterState().after_all((*BARE, *POOLS[pools], *events)), links(UPLINK))
    found = Kept(around, made(moment, around), moment, Wish())
    found.take()
    return found


@given(
    st.lists(st.tuples(st.lists(comes | comes | goes, max_size=3), st.lists(sights(), max_size=3)), max_size=8),
    st.sampled_from([*POOLS]),
    st.fixed_dictionaries(
        {name: st.booleans() for name in ("filtered", "guarded", "objects", "default_route", "by_datastore")}
    ),
)
def test_small_steps_come_to_what_one_look_says(
    history: list[tuple[list[Event], list[tuple[str, Link | None]]]], pools: str, around: dict[str, bool]
) -> None:
    found = kept(pools, **around)
    for events, seen in history:
        found.follow(events, seen)


# --- what goes without a look at all, so that a node with many pods is no slower


def veth(name: str, number: int, *, up: bool = True) -> tuple[str, Link]:
    return name, replace(link(name, up=up), index=number)


FIRST = pod("one", "a1", "cali1", "10.65.0.1/32")
SECOND = pod("two", "a1", "cali2", "10.65.0.2/32")


@pytest.mark.parametrize("guarded", [True, False])
def test_a_pod_comes_and_goes_in_the_order_in_which_the_kernel_tells(guarded: bool) -> None:  # noqa: FBT001 - parameter
    found = kept("straight", FIRST, filtered=True, guarded=guarded)
    found.follow([], [veth("cali1", 7)])
    found.follow([], [veth("cali2", 8, up=False)])
    found.follow([SECOND], [veth("cali2", 8)])
    assert RouteKey(IPv4Network("10.65.0.2/32")) in found.wish.state.routes
    found.follow([Absent(SECOND.key)], [])
    found.follow([], [("cali2", None)])
    assert found.amended == 5


def test_its_interface_may_be_told_of_later_than_the_pod() -> None:
    found = kept("straight", FIRST, filtered=True, guarded=True)
    found.follow([SECOND], [])
    assert found.wish.waiting[RouteKey(IPv4Network("10.65.0.2/32"))] == "cali2 does not exist"
    found.follow([], [veth("cali2", 8)])
    assert not found.wish.waiting.keys() & {RouteKey(IPv4Network("10.65.0.2/32"))}
    assert found.amended == 2


@pytest.mark.parametrize(
    ("events", "seen"),
    [
        pytest.param([node("a3", "172.31.1.13/24")], [], id="another node"),
        pytest.param([pool(mode=IpipMode.ALWAYS)], [], id="a pool's mode"),
        pytest.param([block("a1", "10.65.2.0/26")], [], id="a block of ours"),
        pytest.param([], [("eth0", replace(UPLINK, mtu=1400))], id="the uplink"),
        pytest.param([], [("cali9", replace(link("cali9", "172.31.1.11/24"), index=9))], id="the node's address"),
        pytest.param([pod("two", "a1", "cali2", "10.65.0.1/32")], [], id="an address that a pod has"),
        pytest.param([pod("two", "a1", "cali2", "10.65.0.4/32")], [], id="an address that another node announces"),
        pytest.param([pod("two", "a1", "cali2", "fd65::9/128")], [], id="the first pod with IPv6"),
        pytest.param([Absent(FIRST.key)], [], id="the last pod"),
    ],
)
def test_what_may_touch_more_than_pods_is_looked_at_whole(
    events: list[Event], seen: list[tuple[str, Link | None]]
) -> None:
    found = kept("straight", FIRST, filtered=True, guarded=True)
    found.follow(events, seen)
    assert found.amended == 0
