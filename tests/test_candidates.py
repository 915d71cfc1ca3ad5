from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.calc.amending import Tables
from felix_py.calc.candidates import RULES, Candidate, Kind, Lost, Rank, by_key, decide
from felix_py.kernel.objects import Route, RouteKey, RouteType

KEY, BESIDE = (RouteKey(IPv4Network(prefix)) for prefix in ("10.65.0.5/32", "10.65.0.6/32"))


def candidate(origin: str, rank: Rank = Rank.WORKLOAD, device: str | None = "cali1", **others: Any) -> Candidate:
    route = Route(device=device) if device else Route(RouteType.BLACKHOLE)
    return Candidate(route, Kind.WORKLOAD, rank, origin, f"rule of {origin}", **others)


@pytest.mark.parametrize(
    ("better", "worse", "rule", "reason"),
    [
        pytest.param(
            candidate("kept", Rank.KEPT, "eth0"),
            candidate("pod", obstacle="cali1 is down"),
            "can be installed",
            "it cannot be installed: cali1 is down",
            id="whatever can be installed beats what cannot",
        ),
        pytest.param(
            candidate("bgp b1", Rank.REMOTE_TUNNEL, "tunl0", carrier=True),
            candidate("pod", carrier=False),
            "carrier",
            "cali1 has no carrier and tunl0 has",
            id="carrier beats rank",
        ),
        pytest.param(
            candidate("pod", carrier=False),
            candidate("block", Rank.BLACKHOLE, None),
            "rank",
            "a pod of this node goes before the blackhole of a block of this node",
            id="what has no interface is not judged by carrier",
        ),
        pytest.param(
            candidate("bgp a2", Rank.REMOTE_DIRECT, "eth0", carrier=True),
            candidate("bgp b1", Rank.REMOTE_TUNNEL, "tunl0", carrier=True),
            "rank",
            "another node that is reached without a tunnel goes before another node that is reached through the tunnel",
            id="a lower rank",
        ),
        pytest.param(
            candidate("zebra", device="cali2", interface=12, carrier=False),
            candidate("adder", device="cali1", interface=7, carrier=False),
            "newest interface",
            "cali2 (index 12) is newer than cali1 (index 7)",
            id="the younger of two pods with one address",
        ),
        pytest.param(
            candidate("adder", interface=7),
            candidate("zebra", interface=7),
            "origin",
            "adder comes before zebra in the alphabet",
            id="two pods on one interface, by name",
        ),
    ],
)
def test_who_wins_and_why(better: Candidate, worse: Candidate, rule: str, reason: str) -> None:
    assert decide([better, worse]) == (better, (Lost(worse, rule, reason),))
    assert decide([worse, better]) == (better, (Lost(worse, rule, reason),))


def test_a_single_candidate_has_no_losers() -> None:
    alone = candidate("pod", obstacle="cali1 is down")
    assert decide([alone]) == (alone, ())


def test_losers_are_listed_the_closest_first() -> None:
    newest, older = candidate("newest", interface=12), candidate("older", interface=7)
    block, down = candidate("block", Rank.BLACKHOLE, None), candidate("down", obstacle="cali3 is down")
    far = candidate("far", Rank.REMOTE_TUNNEL, "tunl0")
    other = candidate("other")
    tables = Tables()
    tables.put_all(by_key([*((KEY, each) for each in (down, block, older, far, newest)), (BESIDE, other)]))
    assert tables.chosen == {KEY: newest, BESIDE: other}
    assert [(each.candidate.origin, each.rule) for each in tables.lost[KEY]] == [
        ("older", "newest interface"),
        ("far", "rank"),
        ("block", "rank"),
        ("down", "can be installed"),
    ]
    assert list(tables.lost) == [KEY]


candidates = st.builds(
    lambda origin, rank, device, obstacle, carrier, interface: candidate(
        origin, rank, device, obstacle=obstacle, carrier=carrier, interface=interface
    ),
    st.sampled_from("abcdef"),
    st.sampled_from(Rank),
    st.sampled_from(["cali1", "eth0", None]),
    st.none() | st.just("cali1 is down"),
    st.none() | st.booleans(),
    st.integers(0, 2),
)
groups = st.lists(candidates, min_size=1, max_size=6, unique_by=lambda each: each.origin)


@given(groups, st.randoms())
def test_the_order_of_candidates_means_nothing(group: list[Candidate], random: Any) -> None:
    shuffled = list(group)
    random.shuffle(shuffled)
    assert decide(shuffled) == decide(group)


@given(groups)
def test_every_candidate_is_chosen_or_lost_once_by_a_rule_of_the_table(group: list[Candidate]) -> None:
    chosen, lost = decide(group)
    assert sorted(each.origin for each in (chosen, *(each.candidate for each in lost))) == sorted(
        each.origin for each in group
    )
    assert {each.rule for each in lost} <= {rule.name for rule in RULES}


@given(groups)
def test_whatever_is_chosen_can_be_installed_if_anything_can(group: list[Candidate]) -> None:
    chosen, _ = decide(group)
    assert chosen.obstacle is None or all(each.obstacle is not None for each in group)
