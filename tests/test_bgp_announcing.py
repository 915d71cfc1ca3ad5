"""What the speaker wants announced, as ExaBGP's text, and as ExaBGP itself understands that."""

from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest
from bgp_builders import A2, B1, attributes, network, peer, settings
from exabgp.bgp.message.open.asn import ASN
from exabgp.environment import getenv
from exabgp.logger import log
from exabgp.reactor.api import API
from hypothesis import given
from hypothesis import strategies as st

from bgp.attribute_codec import Terms
from bgp.exabgp_attributes import as_path, text
from bgp.exabgp_codec import lines
from bgp.prefixes import Prefixes
from bgp.types import (
    Announce,
    AnnounceEndOfRib,
    Attributes,
    Family,
    IPNetwork,
    Origin,
    Refresh,
    Said,
    Teardown,
    UpdateReceived,
    Withdraw,
)
from bgp.update_codec import Decoder

FOUR, SIX = network("10.65.0.0/26"), network("fd00:65::/64")
N1, N2 = IPv6Address("fd00::1"), IPv6Address("fd00::2")
BOTH = tuple(Family)
EVERYTHING = Attributes(
    next_hop=IPv4Address("172.31.3.1"),
    origin=Origin.INCOMPLETE,
    as_path=(64512, 65001, frozenset({65003, 65002}), 65004),
    local_preference=0,
    med=0,
    communities=((64512, 7), (65535, 0)),
    large_communities=((4200000000, 1, 2),),
    originator_id=IPv4Address("172.31.3.9"),
    cluster_list=(IPv4Address("244.0.0.1"), IPv4Address("244.0.0.2")),
    extended_communities=(bytes.fromhex("0002fc0000000009"),),
    atomic_aggregate=True,
    aggregator=(65004, IPv4Address("10.0.0.1")),
    unrecognized=((0xE0, 99, b"\x01\x02"),),
)


@pytest.fixture(scope="module")
def parser() -> API:
    """Return ExaBGP's own parser of commands."""
    log.init(getenv())
    return API(None)


def sent(parser: API, command: str) -> dict[IPNetwork, Attributes]:
    """Return what a peer within our AS gets to hear after a command, as we read it."""
    agreed = SimpleNamespace(local_as=ASN(64512), peer_as=ASN(64512), asn4=True)
    heard: dict[IPNetwork, Attributes] = {}
    for change in parser.api_attributes(command, []):
        packed, prefix = change.attributes.pack(agreed), change.nlri.pack_nlri()
        body = b"\0\0" + len(packed).to_bytes(2, "big") + packed + prefix
        (update,) = Decoder(B1, Terms(), Prefixes()).update(body).heard
        assert isinstance(update, UpdateReceived)
        assert update.attributes is not None
        heard.update(dict.fromkeys(update.announced, update.attributes))
    return heard


def command(attributes: Attributes, *prefixes: IPNetwork) -> str:
    (line,) = lines(Announce(prefixes, (), attributes), settings(peer(B1)))
    return line


# --- attributes


def test_every_attribute_as_text() -> None:
    assert text(EVERYTHING) == (
        "origin incomplete as-path [ 64512 65001 ] ( 65002 65003 ) [ 65004 ] med 0 local-preference 0 atomic-aggregate "
        "aggregator (65004:10.0.0.1) community [ 64512:7 65535:0 ] large-community [ 4200000000:1:2 ] "
        "extended-community [ 0x0002fc0000000009 ] originator-id 172.31.3.9 cluster-list [ 244.0.0.1 244.0.0.2 ] "
        "attribute [ 0x63 0xe0 0x0102 ]"
    )


def test_exabgp_sends_every_attribute_as_we_mean_it(parser: API) -> None:
    prefixes = FOUR, network("10.65.7.0/26")
    assert sent(parser, command(EVERYTHING, *prefixes)) == dict.fromkeys(prefixes, EVERYTHING)


hops = st.integers(1, 4294967295) | st.frozensets(st.integers(1, 65535), min_size=1, max_size=3)
paths = st.builds(
    Attributes,
    next_hop=st.just(IPv4Address("172.31.3.1")),
    origin=st.sampled_from(Origin),
    as_path=st.lists(hops, max_size=5).map(tuple),
    local_preference=st.integers(0, 4294967295),
    med=st.none() | st.integers(0, 4294967295),
    communities=st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=3, unique=True).map(tuple),
    originator_id=st.none() | st.ip_addresses(v=4),
    cluster_list=st.lists(st.ip_addresses(v=4), max_size=3).map(tuple),
)


@given(paths)
def test_exabgp_sends_any_path_as_we_mean_it(parser: API, path: Attributes) -> None:
    (heard,) = sent(parser, command(path, FOUR)).values()
    # Communities are a set (RFC 1997): ExaBGP sorts them.
    assert sorted(heard.communities) == sorted(path.communities)
    assert (heard.origin, heard.as_path, heard.med, heard.local_preference) == (
        path.origin,
        path.as_path,
        path.med,
        path.local_preference,
    )
    assert (heard.next_hop, heard.originator_id, heard.cluster_list) == (
        path.next_hop,
        path.originator_id,
        path.cluster_list,
    )


@pytest.mark.parametrize(
    ("hops", "expected"),
    [
        pytest.param((), "", id="none"),
        pytest.param((1, 2), "[ 1 2 ]", id="a sequence"),
        pytest.param((frozenset({2, 1}),), "( 1 2 )", id="a set"),
        pytest.param((1, frozenset({2}), frozenset({3}), 4), "[ 1 ] ( 2 ) ( 3 ) [ 4 ]", id="both"),
    ],
)
def test_as_paths(hops: Any, expected: str) -> None:
    assert as_path(hops) == expected


# --- whom, and with which next hop


TWO_FAMILIES = settings(
    peer(B1, families=BOTH), peer(N1, families=BOTH), local_address6=IPv6Address("fd00::11")
)  # we are 172.31.1.11
ONE_EACH = settings(peer(B1), peer(A2), peer(N1), local_address6=IPv6Address("fd00::11"))
PLAIN = attributes(None, local_preference=100)
REST = "origin igp local-preference 100 nlri"


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        pytest.param(
            Announce((FOUR,), (B1, A2), PLAIN),
            ONE_EACH,
            [f"neighbor 172.31.2.11 , neighbor 172.31.1.12 announce attributes next-hop self {REST} 10.65.0.0/26"],
            id="some peers",
        ),
        pytest.param(
            Announce((FOUR, SIX), (), PLAIN),
            TWO_FAMILIES,
            [
                f"neighbor 172.31.2.11 announce attributes next-hop self {REST} 10.65.0.0/26",
                f"neighbor fd00::1 announce attributes next-hop 172.31.1.11 {REST} 10.65.0.0/26",
                f"neighbor fd00::1 announce attributes next-hop self {REST} fd00:65::/64",
                f"neighbor 172.31.2.11 announce attributes next-hop fd00::11 {REST} fd00:65::/64",
            ],
            id="a family over the other: our address of the family",
        ),
        pytest.param(
            Announce((SIX,), (), attributes(None, local_preference=100)),
            settings(peer(B1, families=BOTH)),
            [],
            id="IPv6 from a node without an IPv6 address",
        ),
        pytest.param(
            Announce((SIX,), (B1,), Attributes(N2)),
            TWO_FAMILIES,
            ["neighbor 172.31.2.11 announce attributes next-hop fd00::2 origin igp nlri fd00:65::/64"],
            id="a next hop that is kept",
        ),
        pytest.param(
            Withdraw((FOUR,), (B1,)),
            ONE_EACH,
            ["neighbor 172.31.2.11 withdraw attributes next-hop self nlri 10.65.0.0/26"],
            id="withdraw",
        ),
        pytest.param(
            AnnounceEndOfRib(B1),
            TWO_FAMILIES,
            [
                '%%eor {"peer": "172.31.2.11", "family": "ipv4 unicast"}',
                '%%eor {"peer": "172.31.2.11", "family": "ipv6 unicast"}',
            ],
            id="End-of-RIB of every family",
        ),
        pytest.param(
            Refresh(B1, Family.IPV6_UNICAST),
            TWO_FAMILIES,
            ['%%refresh {"peer": "172.31.2.11", "family": "ipv6 unicast"}'],
            id="refresh",
        ),
        pytest.param(
            Teardown(B1, 2, "bye"),
            ONE_EACH,
            ['%%close {"peer": "172.31.2.11", "code": 6, "subcode": 2, "data": "03627965", "session": null}'],
            id="goodbye",
        ),
    ],
)
def test_lines(said: Said, wanted: Any, expected: list[str]) -> None:
    assert list(lines(said, wanted)) == expected
