from ipaddress import IPv4Address, IPv6Address

import pytest
from bgp_builders import ME, NODE_AS, network, path

from bgp.policy import ImportPolicy, Reason, Refusal, as_path_text
from bgp.types import Path

POLICY = ImportPolicy(
    asn=NODE_AS,
    router_id=IPv4Address("9.9.9.9"),
    local_address=ME,
    accept_within=(network("10.65.0.0/16"), network("10.66.0.0/16")),
    own=frozenset({network("10.65.0.0/26")}),
)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(path("172.31.2.11"), id="another node's block, by iBGP"),
        pytest.param(path("172.31.1.1", 64500), id="by eBGP"),
        pytest.param(path("172.31.1.1", 64500, prefix="10.66.0.0/16"), id="a whole pool"),
        pytest.param(path("172.31.1.1", 64500, prefix="10.65.0.0/24"), id="what contains our block"),
        pytest.param(path("172.31.2.11", next_hop="172.31.9.9"), id="a next hop that is not the peer"),
        pytest.param(path("172.31.2.11", local_preference=2147482623), id="Calico's local preference"),
    ],
)
def test_accepted(wanted: Path) -> None:
    assert POLICY.refusal(wanted) is None


@pytest.mark.parametrize(
    ("unwanted", "sentence"),
    [
        pytest.param(
            path("172.31.1.1", 64500, 64512), "own AS in the AS path (64500 64512)", id="our own route, sent back"
        ),
        pytest.param(
            path("172.31.1.1", 64500, frozenset({64512, 7})),
            "own AS in the AS path (64500 {7,64512})",
            id="in an AS set",
        ),
        pytest.param(
            path("172.31.1.1", originator_id=IPv4Address("9.9.9.9")),
            "we are its originator (9.9.9.9)",
            id="reflected back to us",
        ),
        pytest.param(
            path("172.31.1.1", cluster_list=(IPv4Address("1.1.1.1"), IPv4Address("9.9.9.9"))),
            "our cluster ID is in its cluster list (1.1.1.1 9.9.9.9)",
            id="a cluster loop",
        ),
        pytest.param(path("172.31.1.1", next_hop=None), "no usable next hop", id="no next hop"),
        pytest.param(path("172.31.1.1", next_hop="0.0.0.7"), "no usable next hop (0.0.0.7)", id="this network"),
        pytest.param(
            path("172.31.1.1", next_hop="224.0.0.1"), "no usable next hop (224.0.0.1)", id="a multicast group"
        ),
        pytest.param(
            path("172.31.1.1", next_hop="127.0.0.1"), "no usable next hop (127.0.0.1)", id="a loopback address"
        ),
        pytest.param(path("172.31.1.1", next_hop=str(ME)), f"we are its next hop ({ME})", id="ourselves as next hop"),
        pytest.param(path("172.31.1.1", prefix="0.0.0.0/0"), "default route", id="the default route"),
        pytest.param(path("172.31.1.1", prefix="224.0.0.0/4"), "martian prefix (224.0.0.0/4)", id="multicast"),
        pytest.param(path("172.31.1.1", prefix="127.1.0.0/16"), "martian prefix (127.0.0.0/8)", id="loopback"),
        pytest.param(path("172.31.1.1", prefix="0.0.0.0/1"), "martian prefix (0.0.0.0/8)", id="half of everything"),
        pytest.param(
            path("172.31.1.1", prefix="192.0.2.0/24"),
            "outside every IP pool (10.65.0.0/16, 10.66.0.0/16)",
            id="a foreign prefix",
        ),
        pytest.param(
            path("172.31.1.1", prefix="10.64.0.0/15"),
            "outside every IP pool (10.65.0.0/16, 10.66.0.0/16)",
            id="a prefix around a pool",
        ),
        pytest.param(
            path("172.31.1.1", prefix="10.65.0.0/26"), "inside our own block (10.65.0.0/26)", id="our own block"
        ),
        pytest.param(
            path("172.31.1.1", prefix="10.65.0.5/32"),
            "inside our own block (10.65.0.0/26)",
            id="an address of our block",
        ),
    ],
)
def test_refused(unwanted: Path, sentence: str) -> None:
    assert str(POLICY.refusal(unwanted)) == sentence


def test_an_ipv6_next_hop_is_none_that_we_can_use() -> None:
    told = path("172.31.1.1")
    with_ipv6 = Path(told.prefix, told.peer, told.attributes.__class__(IPv6Address("fd00::1")))
    assert POLICY.refusal(with_ipv6) == Refusal(Reason.NO_NEXT_HOP, "fd00::1")


def test_without_pools_nothing_is_accepted() -> None:
    nothing = ImportPolicy(NODE_AS, ME, ME, (), frozenset())
    assert str(nothing.refusal(path("172.31.2.11"))) == "outside every IP pool (there is none)"


def test_an_as_path_is_printed_as_routers_do() -> None:
    assert as_path_text((64500, frozenset({7, 3}), 1)) == "64500 {3,7} 1"
