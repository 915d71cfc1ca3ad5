"""Scenarios about IPv6: as a second family on the wire, and as next hops of IPv4 prefixes."""

from ipaddress import IPv6Network

from daemons import PLAIN, Daemon, Neighbour
from felix_node import OWN_AS, Document, FelixNode, block, configuration, node, peer, pool
from interop_lab import BLOCKS, D1, D1_BLOCK, N1, TOR_AS, Lab, six, until

from bgp.types import Attributes, Family, IPAddress, IPNetwork
from scenarios.registry import scenario

POOL6, OWN6, THEIRS6, FORGOTTEN6 = (
    IPv6Network(each) for each in ("fd65::/48", "fd65::1:0/122", "fd65::9:0/122", "fd65::a:0/122")
)


@scenario("24", "IPv6 prefixes over an IPv6 session, up to the import policy")
def ipv6(lab: Lab) -> None:
    neighbour = Neighbour(six(N1), OWN_AS, families=(Family.IPV6_UNICAST,))
    router = lab.daemon("d1", TOR_AS, neighbour, address=six(D1), router_id=D1)
    router.announce({THEIRS6: Attributes(next_hop=None, communities=((64500, 7),))})
    ours = lab.felix("n1", configuration(), node("n1", N1, ipv6Address=f"{six(N1)}/64"), peer(six(D1), TOR_AS))
    until(lambda: ours.established(six(D1)), "the session is up")
    until(lambda: ours.path(THEIRS6), "the router's block is in our Adj-RIB-In")
    path = ours.path(THEIRS6)
    assert path is not None
    assert (path["nextHop"], path["asPath"], path["communities"]) == (str(six(D1)), [TOR_AS], ["64500:7"])
    assert path["reason"].startswith("outside every IP pool")
    router.withdraw(THEIRS6)
    until(lambda: ours.path(THEIRS6) is None, "it is withdrawn")
    assert ours.session(six(D1))["flaps"] == 0


def _over_ipv6(lab: Lab) -> tuple[FelixNode, Daemon]:
    """Return a node of ours and a router with both families over one IPv6 session, and an IPv4 block on either side."""
    families = (Family.IPV4_UNICAST, Family.IPV6_UNICAST)
    neighbour = Neighbour(six(N1), OWN_AS, families=families, extended_next_hop=True)
    router = lab.daemon("d1", TOR_AS, neighbour, address=six(D1), router_id=D1)
    router.announce({D1_BLOCK: PLAIN})
    ours = lab.felix(
        "n1",
        configuration(),
        node("n1", N1, ipv6Address=f"{six(N1)}/64"),
        pool(),
        block("n1", BLOCKS["n1"]),
        peer(six(D1), TOR_AS, addressFamilies=["IPv4", "IPv6"]),
    )
    until(lambda: ours.path(D1_BLOCK), "the router's block is in our Adj-RIB-In")
    return ours, router


@scenario("24b", "IPv4 prefixes with an IPv6 next hop (RFC 8950), up to the best path")
def extended_next_hop(lab: Lab) -> None:
    ours, router = _over_ipv6(lab)
    path = ours.path(D1_BLOCK)
    assert path is not None
    assert (path["nextHop"], path["accepted"], path["best"]) == (str(six(D1)), True, True)
    until(lambda: router.has(BLOCKS["n1"]), "our block is in the router's table")


@scenario("24c", "IPv6 blocks, both ways, into the kernel")
def ipv6_blocks(lab: Lab) -> None:
    neighbour = Neighbour(six(N1), OWN_AS, families=(Family.IPV6_UNICAST,))
    router = lab.daemon("d1", TOR_AS, neighbour, address=six(D1), router_id=D1)
    router.announce({THEIRS6: PLAIN})
    own = node("n1", N1, ipv6Address=f"{six(N1)}/64")
    ours = lab.felix("n1", configuration(), own, pool(POOL6), block("n1", OWN6), peer(six(D1), TOR_AS))
    until(lambda: ours.forwards(THEIRS6), "the router's block is in our kernel")
    assert ours.gateways(THEIRS6) == {str(six(D1))}
    until(lambda: router.has(OWN6), "our block is in the router's table")
    assert _next_hop(router, OWN6) == six(N1)
    assert (route := ours.route(OWN6)) is not None
    assert (route["kind"], route["state"]) == ("blackhole", "installed")
    router.withdraw(THEIRS6)
    until(lambda: not ours.forwards(THEIRS6), "it is withdrawn, and gone from our kernel")


@scenario("24d", "IPv4 prefixes with an IPv6 next hop, into the kernel")
def extended_route(lab: Lab) -> None:
    ours, router = _over_ipv6(lab)
    until(lambda: ours.forwards(D1_BLOCK), "the router's block is in our kernel")
    assert ours.gateways(D1_BLOCK) == {str(six(D1))}
    assert (route := ours.route(D1_BLOCK)) is not None
    assert (route["state"], route["nextHop"], route["encapsulation"]) == ("installed", str(six(D1)), "none")
    lab.ip("n1", "route", "del", str(D1_BLOCK), "proto", "80")
    until(lambda: ours.forwards(D1_BLOCK), "deleted by hand, it is back")
    router.withdraw(D1_BLOCK)
    until(lambda: not ours.forwards(D1_BLOCK), "it is withdrawn, and gone from our kernel")


@scenario(
    "24g", "Our agent is killed and returns: IPv6 routes and IPv6 next hops stay, what is not said again is swept"
)
def kept(lab: Lab) -> None:
    families = (Family.IPV4_UNICAST, Family.IPV6_UNICAST)
    neighbour = Neighbour(six(N1), OWN_AS, families=families, extended_next_hop=True, restart_time=30)
    router = lab.daemon("d1", TOR_AS, neighbour, address=six(D1), router_id=D1)
    router.announce({D1_BLOCK: PLAIN, THEIRS6: PLAIN, FORGOTTEN6: PLAIN})
    ours = _dual(lab, peer(six(D1), TOR_AS, addressFamilies=["IPv4", "IPv6"]))
    until(lambda: all(map(ours.forwards, (D1_BLOCK, THEIRS6, FORGOTTEN6))), "the router's blocks are in our kernel")
    with lab.route_events("n1", both=True) as events:
        ours.kill()
        until(lambda: not router.session(six(N1)).established, "the router noticed")
        router.withdraw(FORGOTTEN6)
        ours.start()
        until(lambda: not ours.forwards(FORGOTTEN6), "what the router does not say again is swept")
        assert ours.gateways(D1_BLOCK) == ours.gateways(THEIRS6) == {str(six(D1))}
        assert str(FORGOTTEN6) in events()
        assert not any(str(each) in events() for each in (D1_BLOCK, THEIRS6, OWN6))
    assert router.has(BLOCKS["n1"], OWN6)


def _dual(lab: Lab, *peers: Document) -> FelixNode:
    """Return a node of ours with a pool and a block of each version of IP."""
    return lab.felix(
        "n1",
        configuration(),
        node("n1", N1, ipv6Address=f"{six(N1)}/64"),
        *(pool(), pool(POOL6)),
        *(block("n1", BLOCKS["n1"]), block("n1", OWN6)),
        *peers,
    )


def _exchange(ours: FelixNode, router: Daemon) -> None:
    """See that both sides have the other's blocks of both versions of IP, and that a withdrawal reaches our kernel."""
    until(lambda: ours.forwards(D1_BLOCK) and ours.forwards(THEIRS6), "both of the router's blocks are in our kernel")
    assert ours.gateways(THEIRS6) == {str(six(D1))}
    until(lambda: router.has(BLOCKS["n1"], OWN6), "both of our blocks are in the router's table")
    assert _next_hop(router, OWN6) == six(N1)
    assert _next_hop(router, BLOCKS["n1"]) == N1
    router.withdraw(D1_BLOCK, THEIRS6)
    until(lambda: not ours.forwards(D1_BLOCK) and not ours.forwards(THEIRS6), "withdrawn, they leave our kernel")


def _next_hop(router: Daemon, prefix: IPNetwork) -> IPAddress | None:
    return next(seen.attributes.next_hop for seen in router.routes()[prefix] if seen.peer is not None)


@scenario("24e", "Both families over one IPv4 session, into the kernel")
def both_over_ipv4(lab: Lab) -> None:
    families = (Family.IPV4_UNICAST, Family.IPV6_UNICAST)
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, families=families), address6=six(D1))
    router.announce({D1_BLOCK: PLAIN, THEIRS6: Attributes(next_hop=six(D1))})
    ours = _dual(lab, peer(D1, TOR_AS, addressFamilies=["IPv4", "IPv6"]))
    _exchange(ours, router)
    assert [ours.session(each)["state"] for each in (D1, six(D1))] == ["Established", "not configured"]


@scenario("24f", "A session for each family, into the kernel; one of them goes, and the other's routes stay")
def a_session_each(lab: Lab) -> None:
    neighbours = Neighbour(N1, OWN_AS), Neighbour(six(N1), OWN_AS, families=(Family.IPV6_UNICAST,))
    router = lab.daemon("d1", TOR_AS, *neighbours, address6=six(D1))
    announced = {D1_BLOCK: PLAIN, THEIRS6: Attributes(next_hop=six(D1))}
    router.announce(announced)
    ours = _dual(lab, peer(D1, TOR_AS), peer(six(D1), TOR_AS))
    _exchange(ours, router)
    router.announce(announced)
    until(lambda: ours.forwards(D1_BLOCK) and ours.forwards(THEIRS6), "both are back")
    router.shut(six(N1), "maintenance")
    until(lambda: not ours.forwards(THEIRS6), "the IPv6 routes go with their session")
    assert ours.forwards(D1_BLOCK)
    assert ours.session(D1)["flaps"] == 0
