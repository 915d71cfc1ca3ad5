from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest
from bgp_builders import A2, ME, NODE_AS, TOR, network, path
from hypothesis import given
from hypothesis import strategies as st

from bgp.export_policy import ExportPolicy
from bgp.filters import Action, AddCommunity, Filter, Operator, PrependAsPath, Rule, SetPriority
from bgp.peering import NextHopMode
from bgp.policy import MOST_REMEMBERED, Accepted, Reason, Refusal
from bgp.policy_facts import NodeFacts, PeerFacts
from bgp.types import Attributes, Path

NODE = NodeFacts(NODE_AS, IPv4Address("9.9.9.9"), frozenset({ME}))
REFLECTOR = replace(NODE, cluster_id=IPv4Address("244.0.0.1"))
IBGP = PeerFacts(A2, NODE_AS)
CLIENT = replace(IBGP, client=True)
EBGP = PeerFacts(TOR, NODE_AS, external=True)
OWN = network("10.65.0.0/26")
ITSELF = None
"""The next hop that stands for ourselves."""


def told(outcome: Accepted | Refusal) -> Attributes:
    assert isinstance(outcome, Accepted), outcome
    return outcome.attributes


def reason(outcome: Accepted | Refusal) -> Reason:
    assert isinstance(outcome, Refusal), outcome
    return outcome.reason


def filtered(peer: PeerFacts, *rules: Rule) -> PeerFacts:
    return replace(peer, filters=(Filter("f", export_v4=rules, export_v6=rules),))


# --- our own


def test_our_own_by_ibgp() -> None:
    assert ExportPolicy(NODE, IBGP).own(OWN) == Accepted(Attributes(ITSELF, local_preference=100))


def test_our_own_by_ebgp_comes_from_our_as_towards_the_peer() -> None:
    assert ExportPolicy(NODE, EBGP).own(OWN) == Accepted(Attributes(ITSELF, as_path=(64512,)))
    assert told(ExportPolicy(NODE, replace(EBGP, local_asn=65010)).own(OWN)).as_path == (65010,)


def test_our_own_is_our_own_whatever_the_next_hop_mode() -> None:
    assert told(ExportPolicy(NODE, replace(EBGP, next_hop_mode="Keep")).own(OWN)).next_hop is ITSELF


def test_prefix_advertisements_tag_what_lies_inside_and_no_more() -> None:
    tagging = replace(
        NODE,
        communities={
            network("10.65.0.0/16"): ((64512, 1), (64512, 1, 7)),
            network("10.65.0.0/24"): ((64512, 2), (64512, 1)),
            network("10.66.0.0/16"): ((64512, 3),),
            ip_network("fd00:65::/32"): ((64512, 6),),
        },
    )
    policy = ExportPolicy(tagging, IBGP)
    assert set(told(policy.own(OWN)).communities) == {(64512, 1), (64512, 2)}
    assert told(policy.own(OWN)).large_communities == ((64512, 1, 7),)
    assert told(policy.own(network("10.65.9.0/26"))).communities == ((64512, 1),)
    assert told(policy.own(network("10.64.0.0/15"))).communities == ()
    assert told(policy.own(ip_network("fd00:65::/122"))).communities == ((64512, 6),)


def test_what_we_tag_ourselves_is_meant_for_those_whom_we_tell() -> None:
    tagging = replace(NODE, communities={OWN: ((65535, 65281), (65535, 65282))})
    assert told(ExportPolicy(tagging, EBGP).own(OWN)).communities == ((65535, 65281), (65535, 65282))


def test_prefixes_that_are_told_alike_share_their_attributes() -> None:
    policy = ExportPolicy(NODE, EBGP)
    assert policy.own(OWN) is policy.own(network("10.65.1.0/26"))


def test_while_draining_everything_says_so_and_is_ranked_last() -> None:
    going = replace(NODE, draining=True)
    assert ExportPolicy(going, EBGP).own(OWN) == Accepted(
        Attributes(ITSELF, as_path=(64512,), communities=((65535, 0),))
    )
    urgent = filtered(IBGP, Rule(Action.ACCEPT, operations=(SetPriority(1),)))
    for peer in (IBGP, urgent):
        attributes = told(ExportPolicy(going, peer).own(OWN))
        assert (attributes.communities, attributes.local_preference) == (((65535, 0),), 0)


# --- filters


def test_an_export_filter_hides_a_prefix_and_names_its_rule() -> None:
    policy = ExportPolicy(NODE, filtered(EBGP, Rule(Action.REJECT, OWN, Operator.EQUAL)))
    assert str(policy.own(OWN)) == "rejected by a filter (filter f, exportV4 rule 1: Equal 10.65.0.0/26)"
    assert isinstance(policy.own(network("10.65.1.0/26")), Accepted)


def test_operations_come_before_our_own_as() -> None:
    rule = Rule(Action.ACCEPT, operations=(PrependAsPath((65001, 65002)), AddCommunity((64512, 9)), SetPriority(512)))
    assert ExportPolicy(NODE, filtered(EBGP, rule)).own(OWN) == Accepted(
        Attributes(ITSELF, as_path=(64512, 65001, 65002), communities=((64512, 9),), med=512),
        "filter f, exportV4 rule 1: everything",
    )
    assert told(ExportPolicy(NODE, filtered(IBGP, rule)).own(OWN)).local_preference == 2147483135


def test_filters_see_the_communities_of_prefix_advertisements() -> None:
    tagging = replace(NODE, communities={OWN: ((64512, 1),)})
    policy = ExportPolicy(tagging, filtered(EBGP, Rule(Action.REJECT, communities=((64512, 1),))))
    assert reason(policy.own(OWN)) is Reason.FILTER
    assert isinstance(policy.own(network("10.65.1.0/26")), Accepted)


def test_a_filter_for_what_peers_told_leaves_our_own_alone() -> None:
    policy = ExportPolicy(REFLECTOR, filtered(EBGP, Rule(Action.REJECT, source="RemotePeers")))
    assert isinstance(policy.own(OWN), Accepted)
    assert reason(policy.learned(path("172.31.2.11"))) is Reason.FILTER


# --- what peers told


def test_nothing_is_passed_on_unasked() -> None:
    for peer in (IBGP, EBGP):
        policy = ExportPolicy(NODE, peer)
        assert reason(policy.learned(path("172.31.9.9", 64501, external=True))) is Reason.NOT_PASSED_ON
        assert not policy.passes_on


def test_a_filter_may_ask_for_it_but_not_within_our_as() -> None:
    asked = Rule(Action.ACCEPT, source="RemotePeers")
    policy = ExportPolicy(NODE, filtered(IBGP, asked))
    assert policy.passes_on
    assert told(policy.learned(path("172.31.9.9", 64501, external=True))).as_path == (64501,)
    assert reason(policy.learned(path("172.31.2.11"))) is Reason.NOT_REFLECTED


def test_never_back_to_who_told_it() -> None:
    policy = ExportPolicy(REFLECTOR, CLIENT)
    assert reason(policy.learned(path(str(A2)), from_client=True)) is Reason.TOLD_BY_PEER


@pytest.mark.parametrize(
    ("external", "from_client", "peer", "passed_on"),
    [
        pytest.param(False, True, CLIENT, True, id="client to client"),
        pytest.param(False, True, IBGP, True, id="client to non-client"),
        pytest.param(False, False, CLIENT, True, id="non-client to client"),
        pytest.param(False, False, IBGP, False, id="non-client to non-client"),
        pytest.param(False, False, EBGP, True, id="non-client to eBGP"),
        pytest.param(True, False, CLIENT, True, id="eBGP to client"),
        pytest.param(True, False, IBGP, True, id="eBGP to non-client"),
    ],
)
def test_whom_a_route_reflector_tells(*, external: bool, from_client: bool, peer: PeerFacts, passed_on: bool) -> None:
    outcome = ExportPolicy(REFLECTOR, peer).learned(path("172.31.2.11", external=external), from_client=from_client)
    assert outcome == Refusal(Reason.NOT_REFLECTED) if not passed_on else isinstance(outcome, Accepted)


def test_a_reflected_path_names_its_originator_once_and_every_cluster() -> None:
    policy = ExportPolicy(REFLECTOR, CLIENT)
    first = told(policy.learned(path("172.31.2.11", router_id=IPv4Address("1.1.1.1"), med=7)))
    assert first == Attributes(
        IPv4Address("172.31.2.11"),
        local_preference=100,
        med=7,
        originator_id=IPv4Address("1.1.1.1"),
        cluster_list=(IPv4Address("244.0.0.1"),),
    )
    again = path("172.31.2.12", originator_id=IPv4Address("1.1.1.1"), cluster_list=(IPv4Address("244.0.0.2"),))
    second = told(policy.learned(again))
    assert second.originator_id == IPv4Address("1.1.1.1")
    assert second.cluster_list == (IPv4Address("244.0.0.1"), IPv4Address("244.0.0.2"))


def test_paths_of_two_peers_that_share_attributes_have_each_its_own_originator() -> None:
    one = path("172.31.2.11", next_hop="172.31.2.99")
    other = replace(one, peer=IPv4Address("172.31.2.12"), router_id=IPv4Address("172.31.2.12"))
    policy = ExportPolicy(REFLECTOR, CLIENT)
    assert told(policy.learned(one)).originator_id == IPv4Address("172.31.2.11")
    assert told(policy.learned(other)).originator_id == IPv4Address("172.31.2.12")


def test_what_is_for_our_own_as_only_does_not_leave_it() -> None:
    inside = path(
        "172.31.2.11",
        64501,
        local_preference=300,
        med=7,
        originator_id=IPv4Address("1.1.1.1"),
        cluster_list=(IPv4Address("244.0.0.2"),),
        extended_communities=(bytes.fromhex("4006000000000001"), bytes.fromhex("0002fc0000000009")),
    )
    assert ExportPolicy(REFLECTOR, EBGP).learned(inside) == Accepted(
        Attributes(ITSELF, as_path=(64512, 64501), extended_communities=(bytes.fromhex("0002fc0000000009"),))
    )


@pytest.mark.parametrize(
    ("mode", "peer", "next_hop"),
    [
        pytest.param("Auto", EBGP, ITSELF, id="Auto is ourselves to eBGP"),
        pytest.param("Auto", CLIENT, IPv4Address("172.31.2.11"), id="Auto is what it was to iBGP"),
        pytest.param("Self", CLIENT, ITSELF, id="Self to iBGP"),
        pytest.param("Keep", EBGP, IPv4Address("172.31.2.11"), id="Keep to eBGP"),
    ],
)
def test_next_hops(mode: NextHopMode, peer: PeerFacts, next_hop: IPv4Address | None) -> None:
    policy = ExportPolicy(REFLECTOR, replace(peer, next_hop_mode=mode))
    assert told(policy.learned(path("172.31.2.11"))).next_hop == next_hop


@pytest.mark.parametrize(
    ("community", "peer", "why_not"),
    [
        pytest.param((65535, 65281), EBGP, "community no-export", id="no-export to eBGP"),
        pytest.param((65535, 65281), CLIENT, None, id="no-export within our AS"),
        pytest.param((65535, 65283), EBGP, "community no-export-subconfed", id="no-export-subconfed to eBGP"),
        pytest.param((65535, 65283), CLIENT, None, id="no-export-subconfed within our AS"),
        pytest.param((65535, 65282), EBGP, "community no-advertise", id="no-advertise to eBGP"),
        pytest.param((65535, 65282), CLIENT, "community no-advertise", id="no-advertise to iBGP"),
    ],
)
def test_well_known_communities(community: tuple[int, int], peer: PeerFacts, why_not: str | None) -> None:
    outcome = ExportPolicy(REFLECTOR, peer).learned(path("172.31.2.11", communities=(community,)))
    assert (str(outcome) if isinstance(outcome, Refusal) else None) == why_not


# --- laws

COMMUNITIES = st.sampled_from([(64512, 1), (65535, 65281), (65535, 65282), (65535, 0)])
PATHS = st.builds(
    lambda teller, communities, external: path(teller, communities=communities, external=external),
    st.sampled_from(["172.31.2.11", str(A2), str(TOR)]),
    st.lists(COMMUNITIES, max_size=3).map(tuple),
    st.booleans(),
)
RULES = st.builds(
    Rule,
    st.sampled_from(Action),
    operations=st.lists(st.sampled_from([SetPriority(1), AddCommunity((64512, 2))]), max_size=2).map(tuple),
)
PEERS = st.builds(
    lambda peer, rules, mode: replace(filtered(peer, *rules), next_hop_mode=mode),
    st.sampled_from([IBGP, CLIENT, EBGP]),
    st.lists(RULES, max_size=2),
    st.sampled_from(["Auto", "Self", "Keep"]),
)
NODES = st.sampled_from([NODE, REFLECTOR, replace(NODE, draining=True), replace(REFLECTOR, draining=True)])


@given(NODES, PEERS, st.lists(st.tuples(PATHS, st.booleans()), max_size=10))
def test_what_must_not_be_told_is_told_to_nobody(
    node: NodeFacts, peer: PeerFacts, told_to_us: list[tuple[Path, bool]]
) -> None:
    policy = ExportPolicy(node, peer)
    for each, from_client in told_to_us:
        outcome = policy.learned(each, from_client=from_client)
        forbidden = {(65535, 65282)} | ({(65535, 65281)} if peer.external else set())
        if forbidden.intersection(each.attributes.communities) or each.peer == peer.address:
            assert isinstance(outcome, Refusal)
        if isinstance(outcome, Accepted):
            assert policy.passes_on
            assert (outcome.attributes.as_path[:1] == (NODE_AS,)) == peer.external
            assert (outcome.attributes.local_preference is None) == peer.external
        assert outcome == ExportPolicy(node, peer).learned(each, from_client=from_client)


def test_what_is_remembered_has_a_bound() -> None:
    policy = ExportPolicy(REFLECTOR, CLIENT)
    for number in range(3 * MOST_REMEMBERED):
        assert told(policy.learned(path("172.31.2.11", number))).as_path == (number,)
    assert len(policy._learned) <= MOST_REMEMBERED
