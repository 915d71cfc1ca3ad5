from dataclasses import replace
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from bgp_builders import path
from hypothesis import given
from hypothesis import strategies as st

from bgp import communities
from bgp.communities import Community
from bgp.filters import (
    Action,
    AddCommunity,
    Direction,
    Facts,
    Filter,
    Judged,
    Operator,
    PrependAsPath,
    Rule,
    SetPriority,
    decide,
    hits,
    local_preference,
)
from bgp.types import Attributes, IPNetwork, Path

EBGP, IBGP = Facts("eBGP"), Facts("iBGP")
OWN = Facts("iBGP", learned=False)


def accept(**asked: object) -> Rule:
    return Rule(Action.ACCEPT, **asked)  # type: ignore[arg-type]


def reject(**asked: object) -> Rule:
    return Rule(Action.REJECT, **asked)  # type: ignore[arg-type]


def matches(rule: Rule, of: Path, facts: Facts = EBGP) -> bool:
    return decide([Filter("f", import_v4=(rule,), import_v6=(rule,))], "import", of, facts).accepted is not None


@pytest.mark.parametrize(
    ("operator", "prefix_length", "matched"),
    [
        pytest.param("Equal", (None, None), {"10.0.0.0/16"}, id="Equal is the prefix itself"),
        pytest.param("Equal", (17, None), set(), id="Equal with a length that it does not have"),
        pytest.param(
            "In", (None, None), {"10.0.0.0/16", "10.0.1.0/24", "10.0.1.1/32"}, id="In is it and what is inside"
        ),
        pytest.param("In", (24, 28), {"10.0.1.0/24"}, id="In with both lengths"),
        pytest.param("In", (24, None), {"10.0.1.0/24", "10.0.1.1/32"}, id="In with the shortest only"),
        pytest.param("In", (None, 24), {"10.0.0.0/16", "10.0.1.0/24"}, id="In with the longest only"),
        pytest.param("In", (8, 16), {"10.0.0.0/16"}, id="lengths only narrow: what contains the CIDR is not in it"),
        pytest.param(
            "NotEqual", (None, None), {"10.0.0.0/8", "10.0.1.0/24", "10.0.1.1/32", "10.1.0.0/16"}, id="NotEqual"
        ),
        pytest.param("NotIn", (None, None), {"10.0.0.0/8", "10.1.0.0/16"}, id="NotIn"),
        pytest.param(
            "NotIn",
            (24, 28),
            {"10.0.0.0/8", "10.0.0.0/16", "10.0.1.1/32", "10.1.0.0/16"},
            id="NotIn is the negation of In with its lengths",
        ),
    ],
)
def test_prefixes(operator: str, prefix_length: tuple[int | None, int | None], matched: set[str]) -> None:
    prefixes = ("10.0.0.0/8", "10.0.0.0/16", "10.0.1.0/24", "10.0.1.1/32", "10.1.0.0/16")
    rule = accept(cidr=IPv4Network("10.0.0.0/16"), operator=Operator(operator), prefix_length=prefix_length)
    assert {prefix for prefix in prefixes if matches(rule, path("172.31.1.1", prefix=prefix))} == matched


TAGGED = path(
    "172.31.1.1",
    64500,
    64501,
    communities=((64512, 1), (64512, 2)),
    large_communities=((64512, 1, 7),),
    local_preference=2147483135,
)


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param(accept(), EBGP, True, id="nothing asked for is everything"),
        pytest.param(accept(source="RemotePeers"), EBGP, True, id="told by a peer"),
        pytest.param(accept(source="RemotePeers"), OWN, False, id="our own is not told by peers"),
        pytest.param(accept(peer_type="eBGP"), EBGP, True, id="eBGP"),
        pytest.param(accept(peer_type="eBGP"), IBGP, False, id="not eBGP"),
        pytest.param(accept(peer_type="iBGP"), IBGP, True, id="iBGP"),
        pytest.param(accept(interface="*.calico"), Facts("eBGP", interface="vxlan.calico"), True, id="interface"),
        pytest.param(accept(interface="eth?"), Facts("eBGP", interface="eth10"), False, id="? is one character"),
        pytest.param(accept(interface="*"), Facts("eBGP", interface=None), False, id="no interface matches none"),
        pytest.param(accept(communities=((64512, 2),)), EBGP, True, id="one of its communities"),
        pytest.param(accept(communities=((64512, 1, 7),)), EBGP, True, id="a large community"),
        pytest.param(accept(communities=((64512, 3),)), EBGP, False, id="another community"),
        pytest.param(accept(communities=((64512, 1), (64512, 3))), EBGP, False, id="all communities are asked for"),
        pytest.param(accept(as_path_prefix=(64500,)), EBGP, True, id="AS path begins with"),
        pytest.param(accept(as_path_prefix=(64500, 64501)), EBGP, True, id="the whole AS path"),
        pytest.param(accept(as_path_prefix=(64501,)), EBGP, False, id="AS path does not begin with it"),
        pytest.param(accept(as_path_prefix=(64500, 64501, 64502)), EBGP, False, id="longer than the AS path"),
        pytest.param(accept(priority=512), EBGP, True, id="priority, as Calico sends it"),
        pytest.param(accept(priority=1024), EBGP, False, id="another priority"),
        pytest.param(
            accept(priority=512, communities=((64512, 3),)), EBGP, False, id="all that is asked for must hold"
        ),
    ],
)
def test_what_else_a_rule_may_ask(rule: Rule, facts: Facts, expected: bool) -> None:  # noqa: FBT001 - a table
    assert matches(rule, TAGGED, facts) is expected


@pytest.mark.parametrize("given_preference", [None, 100, 2147482623])
def test_no_preference_the_default_one_and_calicos_are_the_normal_priority(given_preference: int | None) -> None:
    assert matches(accept(priority=1024), path("172.31.1.1", local_preference=given_preference))


def test_the_first_rule_that_matches_decides_over_all_filters() -> None:
    first = Filter(
        "deny-private",
        import_v4=(accept(peer_type="iBGP"), reject(cidr=IPv4Network("10.0.0.0/8"), operator=Operator.IN)),
    )
    second = Filter("all", import_v4=(accept(),))
    told = path("172.31.1.1", prefix="10.65.2.0/26")
    judged = decide([first, second], "import", told, EBGP)
    assert judged.accepted is False
    assert judged.rule == "filter deny-private, importV4 rule 2: In 10.0.0.0/8"
    assert judged.reason == "rejected by filter deny-private, importV4 rule 2: In 10.0.0.0/8"
    assert decide([second, first], "import", told, EBGP).rule == "filter all, importV4 rule 1: everything"


def test_without_a_match_nothing_is_decided() -> None:
    judged = decide([Filter("f", export_v4=(reject(),), import_v6=(reject(),))], "import", TAGGED, EBGP)
    assert judged == Judged(None, TAGGED.attributes)
    assert judged.reason == "no rule matches"


def test_each_family_and_direction_has_its_own_rules() -> None:
    one = Filter("f", (reject(priority=1),), (reject(priority=2),), (reject(priority=3),), (reject(priority=4),))
    assert [words for words, _ in hits([one], {})] == [
        "filter f, importV4 rule 1: priority 1",
        "filter f, exportV4 rule 1: priority 2",
        "filter f, importV6 rule 1: priority 3",
        "filter f, exportV6 rule 1: priority 4",
    ]


def test_ipv6_prefixes_are_matched_by_rules_for_ipv6() -> None:
    inside = accept(cidr=ip_network("fd00:65::/32"), operator=Operator.IN, prefix_length=(64, 122))
    told = replace(TAGGED, prefix=ip_network("fd00:65:1::/122"))
    assert matches(inside, told)
    assert not matches(inside, replace(told, prefix=ip_network("fd00:66::/122")))


def test_a_filter_that_does_not_exist_rejects_everything_and_says_so() -> None:
    judged = decide([Filter("missing", exists=False)], "export", TAGGED, EBGP)
    assert (judged.accepted, judged.reason) == (False, "rejected by filter missing: it does not exist")


def test_operations_are_done_in_order() -> None:
    rule = accept(
        operations=(
            AddCommunity((64512, 9)),
            AddCommunity((64512, 1)),
            AddCommunity((64512, 9, 9)),
            PrependAsPath((65001, 65002)),
            PrependAsPath((65003,)),
            SetPriority(600),
            SetPriority(512),
        )
    )
    judged = decide([Filter("f", import_v4=(rule,))], "import", TAGGED, EBGP)
    assert judged.attributes == replace(
        TAGGED.attributes,
        communities=((64512, 1), (64512, 2), (64512, 9)),
        large_communities=((64512, 1, 7), (64512, 9, 9)),
        as_path=(65003, 65001, 65002, 64500, 64501),
        local_preference=2147483135,
    )
    assert judged.reason.startswith("accepted by filter f, importV4 rule 1: everything; community 64512:9 added; ")


def test_a_priority_is_a_med_where_no_local_preference_is_told() -> None:
    filters = [Filter("f", export_v4=(accept(operations=(SetPriority(512),)),))]
    plain = path("172.31.1.1")
    assert decide(filters, "export", plain, EBGP).attributes == replace(plain.attributes, med=512)
    assert decide(filters, "export", plain, IBGP).attributes == replace(plain.attributes, local_preference=2147483135)


@given(st.integers(1, 2147483646), st.integers(1, 2147483646))
def test_a_lower_priority_number_never_has_the_lower_local_preference(one: int, other: int) -> None:
    lower, higher = sorted((one, other))
    assert local_preference(lower) >= local_preference(higher) >= 0


@given(st.integers(1, 2147483646))
def test_only_what_is_more_urgent_than_normal_is_preferred_to_a_path_without_priority(priority: int) -> None:
    assert (local_preference(priority) > 100) == (priority < 1024)
    assert (local_preference(priority) == 100) == (priority == 1024)


def test_hits_name_rules_that_never_matched() -> None:
    one = Filter("f", import_v4=(reject(peer_type="eBGP"), accept()))
    words = decide([one], "import", TAGGED, IBGP).rule
    assert dict(hits([one], {words: 3})) == {
        "filter f, importV4 rule 1: eBGP": 0,
        "filter f, importV4 rule 2: everything": 3,
    }


# --- a second implementation, in the words of the resource's reference, and slow


def naive(filters: list[Filter], direction: Direction, told: Path, facts: Facts) -> bool | None:
    for each in filters:
        for rule in {"import": each.import_v4, "export": each.export_v4}[direction]:
            if naive_match(rule, told, facts):
                return rule.action == "Accept"
    return None


def naive_match(rule: Rule, told: Path, facts: Facts) -> bool:
    if rule.cidr is not None and not naive_prefix(rule, rule.cidr, told.prefix):
        return False
    if rule.source == "RemotePeers" and not facts.learned:
        return False
    if rule.interface is not None and (facts.interface is None or not fnmatchcase(facts.interface, rule.interface)):
        return False
    if rule.peer_type is not None and rule.peer_type != facts.peer_type:
        return False
    carried: set[Community] = {*told.attributes.communities, *told.attributes.large_communities}
    if not carried.issuperset(rule.communities):
        return False
    as_path = list(told.attributes.as_path)
    return all(as_path and as_path.pop(0) == asn for asn in rule.as_path_prefix)


def naive_prefix(rule: Rule, cidr: IPNetwork, prefix: IPNetwork) -> bool:
    assert isinstance(cidr, IPv4Network)
    assert isinstance(prefix, IPv4Network)
    shortest, longest = rule.prefix_length
    fits = (shortest is None or prefix.prefixlen >= shortest) and (longest is None or prefix.prefixlen <= longest)
    if rule.operator == "Equal":
        return prefix == cidr and fits
    if rule.operator == "NotEqual":
        return not (prefix == cidr and fits)
    if rule.operator == "In":
        return prefix.subnet_of(cidr) and fits
    return not (prefix.subnet_of(cidr) and fits)


NETWORKS = st.builds(
    lambda number, length: IPv4Network((number << 24 & 0xFFFFFFFF, length), strict=False),
    st.integers(0, 255),
    st.sampled_from([0, 1, 4, 7, 8, 9, 16, 32]),
)
BOUNDS = st.none() | st.sampled_from([0, 4, 7, 8, 9, 16, 32])
COMMUNITIES = st.sampled_from([(64512, 1), (64512, 2), (64512, 1, 1)])
RULES = st.builds(
    Rule,
    st.sampled_from(Action),
    source=st.sampled_from([None, None, "RemotePeers"]),
    interface=st.sampled_from([None, None, "eth*", "eth0", "*"]),
    peer_type=st.sampled_from([None, None, "eBGP", "iBGP"]),
    communities=st.lists(COMMUNITIES, max_size=1).map(tuple),
    as_path_prefix=st.lists(st.integers(1, 2), max_size=2).map(tuple),
) | st.builds(Rule, st.sampled_from(Action), NETWORKS, st.sampled_from(Operator), st.tuples(BOUNDS, BOUNDS))
FILTERS = st.lists(
    st.builds(Filter, st.just("f"), st.lists(RULES, max_size=4).map(tuple), st.lists(RULES, max_size=4).map(tuple)),
    max_size=3,
)
PATHS = st.builds(
    Path,
    NETWORKS,
    st.just(IPv4Address("172.31.1.1")),
    st.builds(
        Attributes,
        st.just(IPv4Address("172.31.1.1")),
        as_path=st.lists(st.integers(1, 2), max_size=3).map(tuple),
        communities=st.lists(st.sampled_from([(64512, 1), (64512, 2)]), max_size=2).map(tuple),
        large_communities=st.lists(st.just((64512, 1, 1)), max_size=1).map(tuple),
    ),
)
FACTS = st.builds(Facts, st.sampled_from(["eBGP", "iBGP"]), st.booleans(), st.sampled_from([None, "eth0", "eth1"]))


@given(FILTERS, st.sampled_from(["import", "export"]), PATHS, FACTS)
def test_filters_decide_as_the_reference_words_it(
    filters: list[Filter], direction: Direction, told: Path, facts: Facts
) -> None:
    assert decide(filters, direction, told, facts).accepted == naive(filters, direction, told, facts)


# --- communities


@pytest.mark.parametrize(("text", "community"), [("64512:100", (64512, 100)), ("4200000000:0:7", (4200000000, 0, 7))])
def test_communities_are_read_and_written(text: str, community: Community) -> None:
    assert communities.parse(text) == community
    assert communities.words(community) == text


@pytest.mark.parametrize("text", ["", "64512", "65536:1", "1:2:4294967296", "1:2:3:4", "a:1", "1:-1", "1: 2", "१:1"])
def test_what_is_no_community_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="is no community: write 64512:100") as caught:
        communities.parse(text)
    assert repr(text) in str(caught.value)


def test_a_community_is_added_once_and_nothing_new_changes_nothing() -> None:
    before = TAGGED.attributes
    assert communities.tagged(before, [(64512, 1), (64512, 1, 7)]) is before
    assert communities.tagged(before, [(1, 1), (1, 1)]).communities == ((64512, 1), (64512, 2), (1, 1))
