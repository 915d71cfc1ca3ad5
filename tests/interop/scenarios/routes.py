"""Scenarios about routes: who tells what to whom, what is refused, which one wins, and what the kernel gets."""

import time
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from daemons import PLAIN, Daemon, Neighbour
from felix_node import OWN_AS, block, configuration, node, peer, pool
from interop_lab import BLOCKS, D1, D1_BLOCK, D2, D2_BLOCK, D3, D3_BLOCK, N1, N2, TOR_AS, Lab, stays, until

from bgp.types import Attributes, IPNetwork
from scenarios.registry import base, one_router, pair, scenario

SHARED = IPv4Network("10.65.20.0/26")


@scenario("3", "iBGP mesh of three: everybody has everybody's block, from its owner only")
def mesh_of_three(lab: Lab) -> None:
    nodes = (node("n1", N1), node("n2", N2))
    blocks = (block("n1", BLOCKS["n1"]), block("n2", BLOCKS["n2"]))
    everything = (configuration(mesh=True), *nodes, *blocks, pool(), peer(D1, OWN_AS))
    router = lab.daemon("d1", OWN_AS, Neighbour(N1, OWN_AS), Neighbour(N2, OWN_AS))
    router.announce({D1_BLOCK: PLAIN})
    one, two = lab.stopped_felix("n1"), lab.stopped_felix("n2")
    lab.together(lambda: one.start(*everything), lambda: two.start(*everything))
    until(lambda: one.forwards(BLOCKS["n2"]) and one.forwards(D1_BLOCK), "the first node has both")
    until(lambda: two.forwards(BLOCKS["n1"]) and two.forwards(D1_BLOCK), "the second node has both")
    until(lambda: router.has(*BLOCKS.values()), "the router has both")
    # What came over iBGP must not be passed on over iBGP (RFC 4271 section 9.2.1).
    assert {row["peer"] for row in two.paths(D1_BLOCK)} == {str(D1)}
    assert [seen.peer for seen in router.routes()[BLOCKS["n1"]]] == [N1]
    assert [seen.attributes.local_preference for seen in router.routes()[BLOCKS["n1"]]] == [100]
    assert [row["localPreference"] for row in one.paths(D1_BLOCK)] == [100]


@scenario("4", "eBGP with a top-of-rack router, which passes one node's block on to another AS")
def top_of_rack(lab: Lab) -> None:
    other_as = 64513
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS), Neighbour(N2, other_as))
    router.announce({D1_BLOCK: PLAIN})
    one, two = lab.stopped_felix("n1"), lab.stopped_felix("n2")
    lab.together(
        lambda: one.start(*base("n1", peer(D1, TOR_AS))),
        lambda: two.start(*base("n2", peer(D1, TOR_AS), asn=other_as)),
    )
    until(lambda: one.forwards(BLOCKS["n2"]) and one.forwards(D1_BLOCK), "the first node has both")
    until(lambda: two.forwards(BLOCKS["n1"]) and two.forwards(D1_BLOCK), "the second node has both")
    path = two.path(BLOCKS["n1"], of=D1)
    assert path is not None
    assert path["asPath"] == [TOR_AS, OWN_AS]
    assert path["localPreference"] is None
    assert router.routes()[BLOCKS["n2"]][0].attributes.as_path == (other_as,)


@scenario("5", "The daemon reflects routes between three clients (RFC 4456)")
def reflected(lab: Lab) -> None:
    clients = (Neighbour(N1, OWN_AS, client=True), Neighbour(N2, OWN_AS, client=True))
    cluster = IPv4Address("9.9.9.9")
    router = lab.daemon("d1", OWN_AS, *clients, Neighbour(D2, OWN_AS, client=True, passive=False), cluster_id=cluster)
    third = lab.daemon("d2", OWN_AS, Neighbour(D1, OWN_AS))
    third.announce({D2_BLOCK: PLAIN})
    one, two = lab.stopped_felix("n1"), lab.stopped_felix("n2")
    lab.together(*(lambda each=each: each.start(*base(each.name, peer(D1, OWN_AS))) for each in (one, two)))
    until(lambda: router.has(*BLOCKS.values()), "the reflector has both nodes' blocks")
    until(lambda: two.forwards(BLOCKS["n1"]) and one.forwards(BLOCKS["n2"]), "the nodes have each other's block")
    until(lambda: two.forwards(D2_BLOCK), "and the third client's", within=15)
    until(lambda: third.has(BLOCKS["n1"]), "which has theirs")
    seen = third.routes()[BLOCKS["n1"]][0].attributes
    assert (seen.originator_id, seen.cluster_list, seen.next_hop) == (N1, (cluster,), N1)
    path = two.path(BLOCKS["n1"])
    assert path is not None
    assert (path["nextHop"], path["peer"]) == (str(N1), str(D1))
    # Our own block must not come back to us as somebody's, nor be taken if it does.
    assert not any(row["accepted"] for row in one.paths(BLOCKS["n1"]))
    lab.together(one.kill)


@scenario("5b", "We reflect routes between three of the daemon (RFC 4456)")
def reflector(lab: Lab) -> None:
    clients = {
        "d1": (D1, D1_BLOCK),
        "d2": (D2, D2_BLOCK),
        "d3": (D3, D3_BLOCK),
    }
    routers = {}
    for name, (_, prefix) in clients.items():
        routers[name] = lab.daemon(name, OWN_AS, Neighbour(N1, OWN_AS))
        routers[name].announce({prefix: PLAIN})
    cluster = IPv4Address("9.9.9.9")
    peers = (peer(address, OWN_AS) for address, _ in clients.values())
    lab.felix("n1", configuration(), node("n1", N1, routeReflectorClusterID=str(cluster)), pool(), *peers)
    prefixes = {prefix for _, prefix in clients.values()}
    for router in routers.values():
        until(partial(router.has, *prefixes), "every client has every block")
    seen = routers["d2"].routes()[D1_BLOCK][0].attributes
    assert (seen.originator_id, seen.cluster_list, seen.next_hop) == (D1, (cluster,), D1)
    routers["d1"].withdraw(D1_BLOCK)
    until(lambda: not routers["d3"].has(D1_BLOCK), "a withdrawal is reflected too")


@scenario("6", "Withdrawals, both ways")
def withdrawn(lab: Lab) -> None:
    ours, router = pair(lab)
    router.announce({D2_BLOCK: PLAIN})
    until(lambda: ours.forwards(D2_BLOCK), "a second prefix is in our kernel")
    router.withdraw(D1_BLOCK)
    lab.note(f"{until(lambda: not ours.forwards(D1_BLOCK), 'the first one is gone') * 1000:.0f} ms")
    assert ours.forwards(D2_BLOCK)
    extra = IPv4Network("10.65.3.0/26")
    ours.apply(*base("n1", peer(D1, TOR_AS), block("n1", extra)))
    until(lambda: router.has(extra), "our second block is in the router's table")
    ours.apply(*base("n1", peer(D1, TOR_AS)))
    until(lambda: not router.has(extra), "our second block is withdrawn")
    assert router.has(BLOCKS["n1"])
    assert ours.session(D1)["flaps"] == 0


@scenario("14", "Our own AS in an AS path: refused as a loop")
def as_loop(lab: Lab) -> None:
    ours, router = pair(lab)
    router.announce({D2_BLOCK: Attributes(next_hop=None, as_path=(64999, OWN_AS)), D3_BLOCK: PLAIN})
    until(lambda: ours.forwards(D3_BLOCK), "a prefix without a loop is in our kernel")
    path = ours.path(D2_BLOCK)
    assert path is not None
    assert path["accepted"] is False
    assert path["reason"] == f"own AS in the AS path ({TOR_AS} 64999 {OWN_AS})"
    assert not ours.forwards(D2_BLOCK)


@scenario("15", "Communities, standard and large, arrive as they were sent")
def communities(lab: Lab) -> None:
    ours, router = pair(lab)
    router.announce(
        {D2_BLOCK: Attributes(next_hop=None, communities=((64500, 7),), large_communities=((4200000001, 2, 3),))}
    )
    until(lambda: ours.forwards(D2_BLOCK), "the prefix is in our kernel")
    path = ours.path(D2_BLOCK)
    assert path is not None
    assert (path["communities"], path["largeCommunities"]) == (["64500:7"], ["4200000001:2:3"])


@scenario("15b", "Communities that we set, standard and large")
def own_communities(lab: Lab) -> None:
    router = one_router(lab)
    extra = IPv4Network("10.65.3.0/26")
    advertised = [{"cidr": str(BLOCKS["n1"]), "communities": ["64512:7", "64512:1:2"]}]
    lab.felix("n1", *base("n1", peer(D1, TOR_AS), block("n1", extra), prefixAdvertisements=advertised))
    until(lambda: router.has(BLOCKS["n1"], extra), "our blocks are in the router's table")
    seen, plain = (router.routes()[prefix][0].attributes for prefix in (BLOCKS["n1"], extra))
    assert (seen.communities, seen.large_communities) == (((64512, 7),), ((64512, 1, 2),))
    assert (plain.communities, plain.large_communities) == ((), ())


NO_EXPORT = "65535:65281"
"""RFC 1997: the neighbouring AS may use it, and must not pass it on."""


def _with_no_export(lab: Lab) -> tuple[Daemon, Daemon]:
    """Return a router that has two blocks of ours, one of them with NO_EXPORT, and one beyond it that has the other."""
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS), Neighbour(D2, TOR_AS + 1, passive=False))
    beyond = lab.daemon("d2", TOR_AS + 1, Neighbour(D1, TOR_AS))
    extra = IPv4Network("10.65.3.0/26")
    advertised = [{"cidr": str(BLOCKS["n1"]), "communities": [NO_EXPORT]}]
    lab.felix("n1", *base("n1", peer(D1, TOR_AS), block("n1", extra), prefixAdvertisements=advertised))
    until(lambda: router.has(BLOCKS["n1"], extra), "both blocks are in the router's table")
    assert router.routes()[BLOCKS["n1"]][0].attributes.communities == ((65535, 65281),)
    until(lambda: beyond.has(extra), "the block without a community goes on", within=15)
    return router, beyond


def _goes_on(lab: Lab) -> None:
    _, beyond = _with_no_export(lab)
    until(lambda: beyond.has(BLOCKS["n1"]), "the block with NO_EXPORT goes on all the same")


@scenario(
    "15c",
    "NO_EXPORT, set by us: the router does not pass the block on",
    cannot={"gobgp": "it shows NO_EXPORT, and passes the route on to another AS all the same"},
    refuse=_goes_on,
)
def no_export(lab: Lab) -> None:
    _, beyond = _with_no_export(lab)
    stays(lambda: not beyond.has(BLOCKS["n1"]), 0.5, "the block with NO_EXPORT stays where it is")


@scenario("16", "Local preference before the length of the AS path, and the reason says so")
def local_preference(lab: Lab) -> None:
    first = lab.daemon("d1", OWN_AS, Neighbour(N1, OWN_AS))
    second = lab.daemon("d2", OWN_AS, Neighbour(N1, OWN_AS))
    first.announce({SHARED: Attributes(next_hop=None, as_path=(64999, 64998), local_preference=200)})
    second.announce({SHARED: Attributes(next_hop=None, local_preference=100)})
    ours = lab.felix("n1", *base("n1", peer(D1, OWN_AS), peer(D2, OWN_AS)))
    until(lambda: len(ours.paths(SHARED)) == 2, "both paths are here")
    until(lambda: ours.forwards(SHARED), "the prefix is in our kernel")
    by_peer = {row["peer"]: row for row in ours.paths(SHARED)}
    assert (by_peer[str(D1)]["best"], by_peer[str(D2)]["best"]) == (True, False)
    assert "200" in by_peer[str(D2)]["reason"]
    assert ours.gateways(SHARED) == {str(D1)}
    first.withdraw(SHARED)
    until(lambda: ours.gateways(SHARED) == {str(D2)}, "the other path takes over")
    first.announce({SHARED: Attributes(next_hop=None, local_preference=100)})
    second.announce({SHARED: Attributes(next_hop=None, as_path=(64999,), local_preference=100)})
    until(lambda: ours.gateways(SHARED) == {str(D1)}, "the shorter AS path wins")


@scenario("17", "Two routers, one prefix: two next hops in the kernel (ECMP)")
def multipath(lab: Lab) -> None:
    routers = [lab.daemon(name, asn, Neighbour(N1, OWN_AS)) for name, asn in (("d1", TOR_AS), ("d2", TOR_AS))]
    for router in routers:
        router.announce({SHARED: PLAIN})
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS), peer(D2, TOR_AS)))

    until(lambda: ours.gateways(SHARED) == {str(D1), str(D2)}, "both next hops are in the kernel")
    routers[1].withdraw(SHARED)
    until(lambda: ours.gateways(SHARED) == {str(D1)}, "one next hop is left")
    routers[1].announce({SHARED: PLAIN})
    until(lambda: ours.gateways(SHARED) == {str(D1), str(D2)}, "both are back")


@scenario("18", "A next hop that the kernel cannot reach: no route, with the reason, until it can")
def unreachable(lab: Lab) -> None:
    ours, router = pair(lab, asn=OWN_AS)
    beyond = IPv4Address("10.9.77.1")
    router.announce({SHARED: Attributes(next_hop=beyond)})
    until(lambda: ours.path(SHARED), "the path is here")
    path = ours.path(SHARED)
    assert path is not None
    assert path["nextHop"] == str(beyond)
    stays(lambda: not ours.forwards(SHARED), 0.3, "it is not in the kernel")
    row = ours.route(SHARED)
    assert row is None or (row["state"] == "missing" and str(beyond) in row["reason"])
    lab.ip("n1", "route", "add", "10.9.77.0/24", "via", str(D1))
    until(lambda: ours.forwards(SHARED), "the kernel can reach it, and has the prefix")
    lab.ip("n1", "route", "del", "10.9.77.0/24")
    until(lambda: not ours.forwards(SHARED), "the kernel cannot reach it again")


@scenario("19", "Too many prefixes: the session is taken down")
def too_many(lab: Lab) -> None:
    ours, router = pair(lab, peer_spec={"maxPrefixes": {"maximum": 5}})
    router.announce(dict.fromkeys(_many(6), PLAIN))
    until(lambda: not router.session(N1).established, "the session is down")
    assert "refix" in ours.session(D1)["lastError"]
    until(lambda: not ours.forwards(D1_BLOCK), "nothing of it is in the kernel")
    stays(lambda: not ours.established(D1), 1, "it stays down until somebody says so")


@scenario("20", "Our own block, a default route, martians and prefixes outside the pools: refused by name")
def refused(lab: Lab) -> None:
    ours, router = pair(lab)
    wrong: dict[IPNetwork, str] = {
        IPv4Network("10.65.1.32/28"): "inside our own block",
        IPv4Network("10.65.1.0/26"): "inside our own block",
        IPv4Network("192.0.2.0/24"): "outside every IP pool",
        IPv4Network("0.0.0.0/0"): "default route",
        IPv4Network("169.254.0.0/16"): "martian prefix",
    }
    router.announce({**dict.fromkeys(wrong, PLAIN), D2_BLOCK: PLAIN})
    until(lambda: ours.forwards(D2_BLOCK), "a good prefix is in our kernel")
    until(lambda: set(map(str, wrong)) <= {row["prefix"] for row in ours.paths()}, "all of them arrived")
    for prefix, reason in wrong.items():
        path = ours.path(prefix, of=D1)
        assert path is not None
        assert (path["accepted"], path["reason"].partition(" (")[0]) == (False, reason)
        assert not ours.forwards(prefix)


@scenario("22", "Ten thousand prefixes, into the kernel and out again")
def ten_thousand(lab: Lab) -> None:
    ours, router = pair(lab)
    many = _many(10_000)
    router.announce(dict.fromkeys(many, PLAIN))
    took = until(lambda: len(ours.kernel()) >= len(many), "all of them are in the kernel", within=20)
    until(lambda: ours.session(D1)["received"] > len(many), "and counted")
    start = time.monotonic()
    router.kill()
    until(lambda: not ours.kernel(), "all of them are out of the kernel", within=20)
    lab.note(f"in after {took:.1f} s, out {time.monotonic() - start:.1f} s after the router's death")


@scenario("30", "A route deleted by hand is back at once")
def repaired(lab: Lab) -> None:
    ours, _ = pair(lab)
    with lab.route_events("n1") as events:
        lab.ip("n1", "route", "del", str(D1_BLOCK))
        took = until(lambda: ours.forwards(D1_BLOCK), "the route is back")
        until(lambda: events().count(str(D1_BLOCK)) == 2, "its removal and its return were seen")
    assert took < 0.5, f"{took * 1000:.0f} ms"
    lab.note(f"{took * 1000:.0f} ms")


def _many(count: int) -> list[IPNetwork]:
    """Return prefixes inside the pool, but outside every block of the lab."""
    return [IPv4Network(((10 << 24) + (65 << 16) + (128 << 8) + 2 * number, 31)) for number in range(count)]
