"""News of BGP, taken in one after the other: wish, bytes and what is known of BGP come to what one whole look gives."""

from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

from builders import block, link, links, node, pod, pool
from hypothesis import given
from hypothesis import strategies as st

from felix_py.calc.desired import amended, desired
from felix_py.calc.hearsay import Hearsay, hearsay
from felix_py.kernel.objects import Link, Route, RouteKey
from felix_py.kernel.wish import Wish
from felix_py.model import IpipMode, NodeName
from felix_py.state import ClusterState, InSync

A1 = NodeName("a1")
PREFIXES = [
    IPv4Network(text) for text in ("10.65.0.0/26", "10.65.0.5/32", "10.65.1.0/26", "10.65.1.64/26", "10.99.0.0/26")
]
"""Our own block, the address of a pod of ours, two of others', and one outside the pool."""

UNDERLAY = {RouteKey(IPv4Network("172.31.2.0/24")): Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)}
INDEXES = {"eth0": 2, "cali1": 7}  # and tunl0 is missing: its routes cannot be put in bytes

next_hops = st.sampled_from([IPv4Address(text) for text in ("172.31.1.12", "172.31.2.11", "172.31.9.9")])
"""In our subnet, behind a router, and where no route leads."""


def best(next_hop: IPv4Address | None, peer: str, *, stale: bool, equal: list[IPv4Address]) -> Any:
    def path(hop: IPv4Address | None) -> Any:
        return SimpleNamespace(attributes=SimpleNamespace(next_hop=hop), stale=stale, peer=peer)

    return SimpleNamespace(path=path(next_hop), equal=tuple(map(path, equal)))


NEIGHBOUR = best(IPv4Address("172.31.1.12"), "one", stale=False, equal=[])

paths = st.builds(
    best,
    st.none() | next_hops | next_hops | next_hops,
    st.sampled_from(["one", "two"]),
    stale=st.booleans(),
    equal=st.lists(next_hops, max_size=2),
)


@st.composite
def histories(draw: st.DrawFn) -> list[list[tuple[IPv4Network, Any]]]:
    """Batches of changes; in one batch several prefixes often share the very object."""
    few = [None, *draw(st.lists(paths, min_size=1, max_size=2))]
    batch = st.dictionaries(st.sampled_from(PREFIXES), st.sampled_from(few), max_size=4).map(
        lambda each: [*each.items()]
    )
    return draw(st.lists(batch, max_size=5))


def cluster(mode: IpipMode) -> ClusterState:
    web = pod("default/web", "a1", "cali1", "10.65.0.5/32")
    return ClusterState().after_all(
        (node("a1", "172.31.1.11/24"), pool(mode=mode), block("a1", "10.65.0.0/26"), web, InSync())
    )


@given(
    histories(),
    st.sampled_from([IpipMode.NEVER, IpipMode.CROSS_SUBNET]),
    st.sampled_from([link("cali1"), link("cali1", up=False), link("cali2")]),
    st.booleans(),
)
def test_many_small_steps_come_to_one_large_one(
    history: list[list[tuple[IPv4Network, Any]]],
    mode: IpipMode,
    veth: Link,
    objects: bool,  # noqa: FBT001 - drawn
) -> None:
    around: dict[str, Any] = {"underlay": UNDERLAY, "objects": objects, "filtered": True}
    known, interfaces = cluster(mode), links(link("eth0", "172.31.1.11/24"), veth)
    said: dict[IPv4Network, Any] = {}
    heard = Hearsay()
    wish = desired(known, heard.paths, A1, interfaces, **around)
    taken = Wish()
    taken.take(wish.state.routes, INDEXES)
    for changes in history:
        before, said = heard, {prefix: each for prefix, each in (said | dict(changes)).items() if each is not None}
        heard = before.after(changes, str_of)
        assert heard.paths == hearsay(said, str_of).paths
        if heard is before:
            continue
        assert heard.before is before.mark
        earlier, wish = wish, amended(wish, heard.news)
        assert wish == desired(known, heard.paths, A1, interfaces, **around)
        assert wish.state.netfilter is earlier.state.netfilter is not None, "no path changes the packet filter"
        was, whole = dict(taken.bodies), Wish()
        changed = taken.take(wish.state.routes, INDEXES, wish.state.amended)
        whole.take(wish.state.routes, INDEXES)
        assert (taken.bodies, taken.without_device) == (whole.bodies, whole.without_device)
        assert {*changed} >= {name for name in {*was, *taken.bodies} if was.get(name) != taken.bodies.get(name)}
        assert taken.served >= whole.served
        assert earlier == desired(known, before.paths, A1, interfaces, **around), "what was is not touched"


def str_of(found: Any) -> str:
    return str(found.path.peer)


def test_what_waits_for_its_next_hop_waits_until_it_can_go_another_way_or_is_gone() -> None:
    prefix, interfaces = PREFIXES[2], links(link("eth0", "172.31.1.11/24"))
    lost = best(IPv4Address("172.31.9.9"), "one", stale=False, equal=[])
    wish, heard, found = desired(cluster(IpipMode.NEVER), {}, A1, interfaces), Hearsay(), []
    for change in (lost, NEIGHBOUR, lost, None):
        heard = heard.after([(prefix, change)], str_of)
        wish = amended(wish, heard.news)
        found.append((RouteKey(prefix) in wish.state.routes, wish.waiting.get(RouteKey(prefix))))
    no_way = "no route leads to next hop 172.31.9.9"
    assert found == [(False, no_way), (True, None), (False, no_way), (False, None)]


def test_a_wish_that_did_not_come_from_the_one_taken_last_is_taken_whole() -> None:
    interfaces = links(link("eth0", "172.31.1.11/24"))
    two_steps = Hearsay().after([(PREFIXES[2], NEIGHBOUR)], str_of)
    empty = desired(cluster(IpipMode.NEVER), {}, A1, interfaces)
    missed = amended(empty, two_steps.news)
    wish = amended(missed, two_steps.after([(PREFIXES[3], NEIGHBOUR)], str_of).news)
    taken = Wish()
    taken.take(empty.state.routes, INDEXES)
    assert len(taken.take(wish.state.routes, INDEXES, wish.state.amended)) == 2
