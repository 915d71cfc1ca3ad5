from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from operator import itemgetter

import pytest
from bgp_builders import ME, NODE_AS, TOR, network, path, peer
from hypothesis import given
from hypothesis import strategies as st

from bgp.filters import Action, AddCommunity, Filter, Operator, Rule, SetPriority
from bgp.ipv4_prefix import IPv4Prefix
from bgp.policy import MOST_REMEMBERED, Accepted, ImportPolicy, Reason, Refusal, as_path_text
from bgp.policy_facts import NodeFacts, PeerFacts, peer_facts
from bgp.types import AsHop, Attributes, Path

ME6 = ip_address("fd00:1::11")
NODE = NodeFacts(
    asn=NODE_AS,
    router_id=IPv4Address("9.9.9.9"),
    addresses=frozenset({ME, ME6}),
    accept_within=(network("10.65.0.0/16"), network("10.66.0.0/16"), ip_network("fd00:65::/32")),
    own=frozenset({network("10.65.0.0/26"), ip_network("fd00:65::/122")}),
)
PEER = PeerFacts(TOR, local_asn=NODE_AS)
POLICY = ImportPolicy(NODE, PEER)


def policy(*rules: Rule, **others: object) -> ImportPolicy:
    """Return one for a peer with a filter of these rules, for both families."""
    filters = (Filter("f", import_v4=rules, import_v6=rules),) if rules else ()
    return ImportPolicy(NODE, replace(PEER, filters=filters, **others))  # type: ignore[arg-type]


def path6(prefix: str, next_hop: str | None = "fd00:1::12") -> Path:
    told = path("172.31.1.1", prefix="10.65.2.0/26")
    hop = ip_address(next_hop) if next_hop else None
    return replace(told, prefix=ip_network(prefix), attributes=replace(told.attributes, next_hop=hop))


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
    assert POLICY.judge(wanted) == Accepted(wanted.attributes)


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
        pytest.param(path6("::/0"), "default route", id="the default route of IPv6"),
        pytest.param(path6("fe80::/64"), "martian prefix (fe80::/10)", id="IPv6 link local"),
        pytest.param(path6("::1/128"), "martian prefix (::/96)", id="IPv6 loopback"),
        pytest.param(path6("::/1"), "martian prefix (::/96)", id="half of all IPv6"),
        pytest.param(path6("2001:db8::/48"), "outside every IP pool (fd00:65::/32)", id="a foreign IPv6 prefix"),
        pytest.param(
            path6("fd00:65::3f/128"), "inside our own block (fd00:65::/122)", id="an address of our IPv6 block"
        ),
        pytest.param(path6("fd00:65:1::/122", "fe80::1"), "no usable next hop (fe80::1)", id="a link-local next hop"),
        pytest.param(
            path6("fd00:65:1::/122", "::ffff:172.31.1.1"),
            f"no usable next hop ({ip_address('::ffff:172.31.1.1')})",
            id="an IPv4 address in the clothes of IPv6",
        ),
        pytest.param(path6("fd00:65:1::/122", "172.31.1.1"), "no usable next hop (172.31.1.1)", id="IPv6 over IPv4"),
        pytest.param(path6("fd00:65:1::/122", str(ME6)), f"we are its next hop ({ME6})", id="our IPv6 address"),
        pytest.param(
            path("172.31.1.1", prefix="10.65.0.5/32"),
            "inside our own block (10.65.0.0/26)",
            id="an address of our block",
        ),
    ],
)
def test_refused(unwanted: Path, sentence: str) -> None:
    assert str(POLICY.judge(unwanted)) == sentence


@pytest.mark.parametrize(
    ("wanted", "accepted"),
    [
        pytest.param(path("172.31.1.1", prefix="10.65.0.5/32"), True, id="an address of our block"),
        pytest.param(path6("fd00:65::3f/128"), True, id="an address of our IPv6 block"),
        pytest.param(path("172.31.1.1", prefix="10.65.0.4/31"), False, id="more than one address"),
        pytest.param(path("172.31.1.1", prefix="10.65.0.0/26"), False, id="our block"),
        pytest.param(path("172.31.1.1", prefix="10.65.9.9/32"), False, id="a block of one address that is ours"),
    ],
)
def test_others_may_announce_single_addresses_of_a_node_that_lends(wanted: Path, *, accepted: bool) -> None:
    lender = ImportPolicy(replace(NODE, lends=True, own=NODE.own | {network("10.65.9.9/32")}), PEER)
    assert isinstance(lender.judge(wanted), Accepted) == accepted


def test_ipv6_of_others_is_accepted() -> None:
    told = path6("fd00:65:1::/122")
    assert POLICY.judge(told) == Accepted(told.attributes)


def test_an_ipv4_prefix_may_have_an_ipv6_next_hop_where_both_sides_said_so() -> None:
    told = replace(path6("fd00:65:1::/122"), prefix=network("10.65.2.0/26"))
    assert POLICY.judge(told) == Refusal(Reason.NO_NEXT_HOP, "fd00:1::12")
    assert policy(extended_next_hop=True).judge(told) == Accepted(told.attributes)
    assert policy(extended_next_hop=True).judge(path6("fd00:65:1::/122", "172.31.1.1")) == Refusal(
        Reason.NO_NEXT_HOP, "172.31.1.1"
    )


@pytest.mark.parametrize(
    ("as_path", "allowed", "accepted"),
    [
        pytest.param((64500, 64512), 1, True, id="once is allowed once"),
        pytest.param((64512, 64500, 64512), 1, False, id="twice is not"),
        pytest.param((64512, 64500, frozenset({64512, 3})), 2, True, id="twice is allowed twice"),
        pytest.param((64500, 65010), 0, False, id="our AS towards this peer counts"),
        pytest.param((65010, 64512), 1, False, id="both count together"),
    ],
)
def test_our_own_as_as_often_as_allowed(as_path: tuple[AsHop, ...], allowed: int, accepted: bool) -> None:  # noqa: FBT001 - a table
    judged = policy(local_asn=65010, external=True, own_as_allowed=allowed).judge(path("172.31.1.1", *as_path))
    assert isinstance(judged, Accepted) is accepted


def test_a_reflector_refuses_its_cluster_id_and_its_router_id() -> None:
    reflector = ImportPolicy(replace(NODE, cluster_id=IPv4Address("244.0.0.1")), PEER)
    for cluster in ("244.0.0.1", "9.9.9.9"):
        judged = reflector.judge(path("172.31.1.1", cluster_list=(IPv4Address(cluster),)))
        assert judged == Refusal(Reason.OWN_CLUSTER, cluster)


def test_without_pools_nothing_is_accepted() -> None:
    nothing = ImportPolicy(NodeFacts(NODE_AS, ME, frozenset({ME})), PEER)
    assert str(nothing.judge(path("172.31.2.11"))) == "outside every IP pool (there is none)"


def test_a_pool_of_everything_lets_in_neither_martians_nor_the_default_route() -> None:
    everything = ImportPolicy(replace(NODE, accept_within=(network("0.0.0.0/0"), network("10.65.0.0/16"))), PEER)
    assert str(everything.judge(path("172.31.1.1", prefix="127.0.0.0/8"))) == "martian prefix (127.0.0.0/8)"
    assert str(everything.judge(path("172.31.1.1", prefix="0.0.0.0/0"))) == "default route"
    assert isinstance(everything.judge(path("172.31.1.1", prefix="192.0.2.0/24")), Accepted)


# --- filters


def test_a_filter_refuses_and_names_its_rule() -> None:
    inside = Rule(Action.REJECT, network("10.65.2.0/24"), Operator.IN)
    judged = policy(inside).judge(path("172.31.1.1"))
    assert str(judged) == "rejected by a filter (filter f, importV4 rule 1: In 10.65.2.0/24)"
    assert judged.rule == "filter f, importV4 rule 1: In 10.65.2.0/24"


def test_what_no_rule_matches_is_judged_as_ever() -> None:
    elsewhere = policy(Rule(Action.REJECT, network("10.67.0.0/16"), Operator.IN))
    assert elsewhere.judge(path("172.31.1.1")) == Accepted(path("172.31.1.1").attributes)
    assert str(elsewhere.judge(path("172.31.1.1", prefix="0.0.0.0/0"))) == "default route"


ASKED_FOR = policy(Rule(Action.ACCEPT))


@pytest.mark.parametrize(
    "prefix", ["0.0.0.0/0", "192.0.2.0/24", "10.64.0.0/15", "10.65.2.0/26", "::/0", "2001:db8::/48"]
)
def test_asked_for(prefix: str) -> None:
    told = path6(prefix) if ":" in prefix else path("172.31.1.1", prefix=prefix)
    assert ASKED_FOR.judge(told) == Accepted(
        told.attributes, f"filter f, importV{told.prefix.version} rule 1: everything"
    )


@pytest.mark.parametrize(
    ("unwanted", "reason"),
    [
        pytest.param(path("172.31.1.1", prefix="127.0.0.0/8"), Reason.MARTIAN, id="martian"),
        pytest.param(path("172.31.1.1", prefix="10.65.0.5/32"), Reason.OWN_BLOCK, id="own block"),
        pytest.param(path("172.31.1.1", 64512), Reason.OWN_AS, id="AS loop"),
        pytest.param(path("172.31.1.1", cluster_list=(NODE.router_id,)), Reason.OWN_CLUSTER, id="cluster loop"),
        pytest.param(path("172.31.1.1", next_hop=str(ME)), Reason.OWN_NEXT_HOP, id="own next hop"),
    ],
)
def test_never_though_a_filter_asks_for_it(unwanted: Path, reason: Reason) -> None:
    judged = ASKED_FOR.judge(unwanted)
    assert isinstance(judged, Refusal)
    assert judged.reason is reason


def test_operations_of_a_filter_change_the_path() -> None:
    rule = Rule(Action.ACCEPT, operations=(AddCommunity((64512, 7)), SetPriority(512)))
    judged = policy(rule).judge(path("172.31.1.1"))
    assert isinstance(judged, Accepted)
    assert judged.attributes == path("172.31.1.1", communities=((64512, 7),), local_preference=2147483135).attributes


def test_the_interface_is_that_of_the_next_hop() -> None:
    rule = Rule(Action.REJECT, interface="eth*")
    known = replace(NODE, interfaces={IPv4Address("172.31.1.1"): "eth0"})
    with_filter = replace(PEER, filters=(Filter("f", import_v4=(rule,)),))
    assert isinstance(ImportPolicy(known, with_filter).judge(path("172.31.1.1")), Refusal)
    assert isinstance(ImportPolicy(NODE, with_filter).judge(path("172.31.1.1")), Accepted)


# --- graceful shutdown


@pytest.mark.parametrize("given_preference", [None, 300])
def test_a_path_of_a_peer_that_is_about_to_go_is_ranked_last(given_preference: int | None) -> None:
    told = path("172.31.1.1", communities=((65535, 0),), local_preference=given_preference)
    assert POLICY.judge(told) == Accepted(replace(told.attributes, local_preference=0))


def test_no_filter_ranks_it_higher_again_and_one_may_rank_a_peer_last() -> None:
    going = path("172.31.1.1", communities=((65535, 0),))
    urgent = policy(Rule(Action.ACCEPT, operations=(SetPriority(1),))).judge(going)
    sent_away = policy(Rule(Action.ACCEPT, operations=(AddCommunity((65535, 0)),))).judge(path("172.31.1.1"))
    for judged in (urgent, sent_away):
        assert isinstance(judged, Accepted)
        assert judged.attributes.local_preference == 0


# --- facts


def test_the_facts_of_a_session() -> None:
    known = {"one": Filter("one")}
    session = peer(TOR, 64500, local_asn=65010, own_as_allowed=2, client=True, filters=("two", "one"))
    assert peer_facts(session, NODE_AS, known) == PeerFacts(
        PEER.address,
        65010,
        external=True,
        own_as_allowed=2,
        client=True,
        filters=(Filter("two", exists=False), known["one"]),
    )
    assert peer_facts(peer(TOR), NODE_AS, known) == PEER


# --- laws

MANY = [
    Attributes(hop, as_path=as_path, communities=communities)
    for hop in (None, IPv4Address("172.31.1.1"), IPv4Address("172.31.1.2"), ME)
    for as_path in ((), (64500,), (64500, 64512))
    for communities in ((), ((64512, 1),), ((65535, 0),))
]
PREFIXES = ["0.0.0.0/0", "0.0.0.0/1", "10.65.2.0/26", "10.65.2.64/26", "10.65.0.1/32", "10.66.0.0/16", "192.0.2.0/24"]
PATHS = st.builds(
    lambda prefix, attributes: Path(network(prefix), PEER.address, attributes),
    st.sampled_from(PREFIXES),
    st.sampled_from(MANY) | st.sampled_from(MANY).map(replace),
)
SOME_RULES = (
    Rule(Action.REJECT, network("10.66.0.0/16"), Operator.IN),
    Rule(Action.ACCEPT, network("192.0.2.0/24"), Operator.EQUAL, operations=(SetPriority(512),)),
    Rule(Action.ACCEPT, communities=((64512, 1),)),
)


@given(st.lists(PATHS, max_size=20))
def test_a_judgement_does_not_depend_on_what_was_judged_before(paths: list[Path]) -> None:
    one = policy(*SOME_RULES)
    in_order = [one.judge(each) for each in paths]
    backwards = [one.judge(each) for each in reversed(paths)]
    alone = [policy(*SOME_RULES).judge(each) for each in paths]
    assert in_order == backwards[::-1] == alone


NARROW = st.builds(
    lambda number, length: IPv4Network((0x0A410000 + (number << 4), length), strict=False),
    st.integers(0, 0x1FFF) | st.integers(0, 7),
    st.integers(12, 32),
)
"""In and around 10.65.0.0/16 and 10.66.0.0/16, our pools, and often in our block."""


@given(st.lists(NARROW, max_size=30), st.sampled_from(MANY), st.booleans(), st.booleans())
def test_many_are_judged_as_each_alone_is(
    networks: list[IPv4Network],
    said: Attributes,
    filtered: bool,  # noqa: FBT001 - given
    quick: bool,  # noqa: FBT001 - same
) -> None:
    one = policy(*SOME_RULES) if filtered else policy()
    prefixes = [*map(IPv4Prefix, networks)] if quick else networks
    judged = [(prefix, outcome) for outcome, alike in one.weigh_all(prefixes, said) for prefix in alike]
    assert sorted(judged, key=itemgetter(0)) == [(each, one.weigh(each, said)) for each in sorted(networks)]


def test_what_is_remembered_has_a_bound_and_is_not_mixed_up() -> None:
    one = policy()
    for number in range(3 * MOST_REMEMBERED):
        # Nobody else keeps these attributes, so that Python may give their place in memory to the next ones.
        judged = one.judge(path("172.31.1.1", NODE_AS if number % 2 else 64500, number))
        assert isinstance(judged, Refusal) is bool(number % 2)
    assert len(one._networks[4].considered) <= MOST_REMEMBERED


def test_paths_that_share_attributes_share_them_afterwards() -> None:
    shared = path("172.31.1.1", communities=((65535, 0),))
    one, other = POLICY.judge(shared), POLICY.judge(replace(shared, prefix=network("10.66.0.0/26")))
    assert isinstance(one, Accepted)
    assert one is other


def test_an_as_path_is_printed_as_routers_do() -> None:
    assert as_path_text((64500, frozenset({7, 3}), 1)) == "64500 {3,7} 1"
