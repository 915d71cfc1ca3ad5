"""Scenarios about IPv6: as a second family on the wire, and as next hops of IPv4 prefixes."""

from ipaddress import IPv6Network

from daemons import PLAIN, Daemon, Neighbour
from felix_node import OWN_AS, FelixNode, block, configuration, node, peer, pool
from interop_lab import BLOCKS, D1, D1_BLOCK, N1, TOR_AS, Lab, six, until

from bgp.types import Attributes, Family
from scenarios.registry import scenario

POOL6, OWN6, THEIRS6 = (IPv6Network(each) for each in ("fd65::/48", "fd65::1:0/122", "fd65::9:0/122"))


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


@scenario("24c", "IPv6 blocks, both ways, into the kernel", pending="IPPool and BlockAffinity take IPv4 only")
def ipv6_blocks(lab: Lab) -> None:
    neighbour = Neighbour(six(N1), OWN_AS, families=(Family.IPV6_UNICAST,))
    router = lab.daemon("d1", TOR_AS, neighbour, address=six(D1), router_id=D1)
    router.announce({THEIRS6: PLAIN})
    own = node("n1", N1, ipv6Address=f"{six(N1)}/64")
    ours = lab.felix("n1", configuration(), own, pool(POOL6), block("n1", OWN6), peer(six(D1), TOR_AS))
    until(lambda: ours.forwards(THEIRS6), "the router's block is in our kernel")
    until(lambda: router.has(OWN6), "our block is in the router's table")


@scenario(
    "24d",
    "IPv4 prefixes with an IPv6 next hop, into the kernel",
    pending="our routes have next hops of their own family only",
)
def extended_route(lab: Lab) -> None:
    ours, _ = _over_ipv6(lab)
    until(lambda: ours.forwards(D1_BLOCK), "the router's block is in our kernel")
    assert ours.gateways(D1_BLOCK) == {str(six(D1))}
