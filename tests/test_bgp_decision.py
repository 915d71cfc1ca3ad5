from ipaddress import IPv4Address
from itertools import permutations

import pytest
from bgp_builders import A2, B1, TOR, attributes, network, path, peer, settings, told
from hypothesis import given
from hypothesis import strategies as st

from bgp import path_report
from bgp.decision import MERITS, MOST_PATHS, RULES, best, prefer
from bgp.rib import AdjRibIn, LocRib
from bgp.speaker import Speaker
from bgp.types import Origin, Path, PeerUp, UpdateReceived


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        pytest.param(
            path("10.0.0.9", 1, 2, local_preference=200),
            path("10.0.0.1", 1),
            "local preference: 200 is better than 100",
            id="a higher local preference beats a shorter path; none counts as 100",
        ),
        pytest.param(
            path("10.0.0.9", 1, origin=Origin.INCOMPLETE),
            path("10.0.0.1", 1, 2),
            "AS path length: 1 is better than 2",
            id="a shorter AS path beats a better origin",
        ),
        pytest.param(
            path("10.0.0.9", 1, frozenset({2, 3, 4}), origin=Origin.IGP),
            path("10.0.0.1", 1, 2, origin=Origin.EGP),
            "origin: IGP is better than EGP",
            id="an AS set counts as one",
        ),
        pytest.param(
            path("10.0.0.9", 1, med=10),
            path("10.0.0.1", 1, med=20, external=True),
            "MED: 10 is better than 20",
            id="a lower MED of the same neighbouring AS",
        ),
        pytest.param(
            path("10.0.0.9", 1, med=20, external=True),
            path("10.0.0.1", 2, med=10),
            "eBGP over iBGP: eBGP is better than iBGP",
            id="MEDs of different neighbouring AS are not compared",
        ),
        pytest.param(
            path("10.0.0.9", 1, med=0, external=True),
            path("10.0.0.1", 1),
            "eBGP over iBGP: eBGP is better than iBGP",
            id="no MED counts as 0",
        ),
        pytest.param(
            path("10.0.0.9"),
            path("10.0.0.1", stale=True),
            "fresh over stale: fresh is better than stale",
            id="a stale path steps aside for an equal one",
        ),
        pytest.param(
            path("10.0.0.9", stale=True, local_preference=200),
            path("10.0.0.1"),
            "local preference: 200 is better than 100",
            id="a stale path stays if it is better otherwise",
        ),
        pytest.param(
            path("10.0.0.9", router_id=IPv4Address("1.1.1.1")),
            path("10.0.0.1", router_id=IPv4Address("2.2.2.2")),
            "router ID: 1.1.1.1 is better than 2.2.2.2",
            id="a lower router ID",
        ),
        pytest.param(
            path("10.0.0.9", router_id=IPv4Address("9.9.9.9"), originator_id=IPv4Address("1.1.1.1")),
            path("10.0.0.1", router_id=IPv4Address("2.2.2.2")),
            "router ID: 1.1.1.1 is better than 2.2.2.2",
            id="the originator ID stands for the router ID",
        ),
        pytest.param(
            path("10.0.0.9", originator_id=IPv4Address("1.1.1.1"), cluster_list=(IPv4Address("5.5.5.5"),)),
            path("10.0.0.1", originator_id=IPv4Address("1.1.1.1"), cluster_list=(IPv4Address("5.5.5.5"),) * 2),
            "cluster list length: 1 is better than 2",
            id="fewer reflections",
        ),
        pytest.param(
            path("10.0.0.2", router_id=IPv4Address("1.1.1.1")),
            path("10.0.0.10", router_id=IPv4Address("1.1.1.1")),
            "peer address: 10.0.0.2 is better than 10.0.0.10",
            id="the lower peer address, as a number",
        ),
    ],
)
def test_prefer(better: Path, worse: Path, reason: str) -> None:
    assert prefer(better, worse) == (better, reason)
    assert prefer(worse, better) == (better, reason)


def test_no_candidate_has_no_best() -> None:
    assert best([]) is None


def test_a_single_candidate_wins_as_the_only_path() -> None:
    chosen = best([path("10.0.0.1")])
    assert chosen is not None
    assert (chosen.path, chosen.rule, chosen.reason, chosen.beaten) == (path("10.0.0.1"), "only path", "only path", ())


def test_every_loser_is_told_its_rule_the_closest_first() -> None:
    winner = path("10.0.0.1", 1)
    long, older = path("10.0.0.2", 1, 2), path("10.0.0.3", 1)
    chosen = best([long, older, winner])
    assert chosen is not None
    assert chosen.path == winner
    assert [(each.path, each.rule) for each in chosen.beaten] == [(older, "router ID"), (long, "AS path length")]
    assert chosen.rule == "router ID"


def test_med_does_not_depend_on_the_order() -> None:
    # The classic three: compared in pairs, each order gives another winner.
    one = path("10.0.0.1", 1, med=1, router_id=IPv4Address("3.3.3.3"))
    two = path("10.0.0.2", 2, med=0, router_id=IPv4Address("2.2.2.2"))
    three = path("10.0.0.3", 1, med=0, router_id=IPv4Address("4.4.4.4"))
    winners = {chosen.path for order in permutations((one, two, three)) if (chosen := best(order))}
    assert winners == {two}


numbers = st.integers(0, 2)
paths = st.builds(
    lambda peer, hops, preference, med, origin, external, stale, router: path(
        f"10.0.0.{peer}",
        *hops,
        local_preference=preference,
        med=med,
        origin=Origin(origin),
        external=external,
        stale=stale,
        router_id=IPv4Address(router),
    ),
    st.integers(1, 6),
    st.lists(numbers, max_size=2),
    st.none() | st.sampled_from([100, 200]),
    st.none() | numbers,
    numbers,
    st.booleans(),
    st.booleans(),
    numbers,
)


@given(st.lists(paths, min_size=1, max_size=6, unique_by=lambda each: each.peer), st.randoms())
def test_the_order_of_candidates_means_nothing(candidates: list[Path], random: object) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert best(candidates) == best(shuffled)


@given(st.lists(paths, min_size=1, max_size=6, unique_by=lambda each: each.peer))
def test_every_candidate_is_the_winner_or_beaten_once(candidates: list[Path]) -> None:
    chosen = best(candidates)
    assert chosen is not None
    assert sorted([chosen.path, *(each.path for each in chosen.beaten)], key=lambda each: each.peer) == sorted(
        candidates, key=lambda each: each.peer
    )
    assert {each.rule for each in chosen.beaten} <= {rule.name for rule in RULES}


@given(st.lists(paths, min_size=2, max_size=6, unique_by=lambda each: each.peer))
def test_without_a_loser_the_winner_stays(candidates: list[Path]) -> None:
    chosen = best(candidates)
    assert chosen is not None
    loser = chosen.beaten[-1].path
    med_counts = chosen.beaten[-1].rule == "MED"
    again = best([each for each in candidates if each != loser])
    assert again is not None
    # A MED's loser may have been what kept a third path out; every other rule compares all with all.
    assert again.path == chosen.path or med_counts


# --- several equal paths


def equal(*candidates: Path) -> list[str]:
    chosen = best(candidates)
    assert chosen is not None
    return [str(each.attributes.next_hop) for each in (chosen.path, *chosen.equal)]


@pytest.mark.parametrize(
    ("others", "next_hops"),
    [
        pytest.param([], ["10.0.0.1"], id="one path alone"),
        pytest.param([path("10.0.0.3", 1), path("10.0.0.2", 2)], ["10.0.0.1", "10.0.0.2", "10.0.0.3"], id="three"),
        pytest.param([path("10.0.0.2", 1, local_preference=90)], ["10.0.0.1"], id="a lower local preference"),
        pytest.param([path("10.0.0.2", 1, 2)], ["10.0.0.1"], id="a longer AS path"),
        pytest.param([path("10.0.0.2", 1, origin=Origin.EGP)], ["10.0.0.1"], id="a worse origin"),
        pytest.param([path("10.0.0.2", 1, med=5)], ["10.0.0.1"], id="a higher MED of the same neighbouring AS"),
        pytest.param([path("10.0.0.2", 2, med=5)], ["10.0.0.1", "10.0.0.2"], id="a MED of another AS is not compared"),
        pytest.param([path("10.0.0.2", 1, stale=True)], ["10.0.0.1"], id="a stale path"),
        pytest.param(
            [path("10.0.0.2", 1, next_hop="10.0.0.1")], ["10.0.0.1"], id="the same next hop from another peer"
        ),
        pytest.param(
            [path("10.0.0.2", 1, next_hop="10.0.0.9"), path("10.0.0.3", 1, next_hop="10.0.0.9")],
            ["10.0.0.1", "10.0.0.9"],
            id="one next hop from two reflectors counts once",
        ),
        pytest.param([path("10.0.0.2", 1, next_hop=None)], ["10.0.0.1"], id="no next hop"),
        pytest.param([path("10.0.0.2", 1, external=True)], ["10.0.0.2"], id="eBGP is never spread with iBGP"),
    ],
)
def test_paths_that_are_as_good_as_the_best(others: list[Path], next_hops: list[str]) -> None:
    assert equal(path("10.0.0.1", 1), *others) == next_hops


def test_of_stale_paths_only_the_best_is_used() -> None:
    assert equal(path("10.0.0.1", stale=True), path("10.0.0.2", stale=True)) == ["10.0.0.1"]


def test_no_more_paths_than_the_bound_and_of_those_the_closest() -> None:
    many = [path(f"10.0.0.{number}") for number in range(20, 0, -1)]
    assert equal(*many) == [f"10.0.0.{number}" for number in range(1, MOST_PATHS + 1)]


@given(st.lists(paths, min_size=1, max_size=6, unique_by=lambda each: each.peer))
def test_equal_paths_are_equal_by_every_rule_of_merit(candidates: list[Path]) -> None:
    chosen = best(candidates)
    assert chosen is not None
    together = (chosen.path, *chosen.equal)
    assert len({each.attributes.next_hop for each in together}) == len(together)
    for rule in MERITS:
        for each in chosen.equal:
            same_group = rule.among(each) == rule.among(chosen.path)
            assert rule.rank(each) == rule.rank(chosen.path) or not same_group
    assert {each.external for each in together} == {chosen.path.external}


@given(st.lists(paths, min_size=2, max_size=6, unique_by=lambda each: each.peer))
def test_an_equal_path_takes_over_when_the_best_is_withdrawn(candidates: list[Path]) -> None:
    chosen = best(candidates)
    assert chosen is not None
    without = best([each for each in candidates if each != chosen.path])
    # What the best one kept out by its MED may come back, and win; nothing else may.
    if without is not None and chosen.equal and not any(each.rule == "MED" for each in chosen.beaten):
        assert without.path == chosen.equal[0] or without.path.attributes.next_hop == chosen.path.attributes.next_hop


def test_an_equal_path_that_comes_or_goes_is_a_change_of_the_loc_rib() -> None:
    prefix, loc_rib = network("10.65.2.0/26"), LocRib()
    one, two = AdjRibIn(), AdjRibIn()
    assert loc_rib.follow(A2, one, one.learn([prefix], told(A2))) == [prefix]
    assert loc_rib.follow(B1, two, two.learn([prefix], told(B1))) == [prefix]
    assert [str(each.peer) for each in loc_rib.best[prefix].equal] == ["172.31.2.11"]
    assert loc_rib.follow(B1, two, two.mark_stale()) == [prefix]
    assert loc_rib.best[prefix].equal == ()


def test_a_path_that_takes_its_share_is_reported_as_equal() -> None:
    speaker = Speaker(settings(peer(A2), peer(B1), peer(TOR)), now=0)
    for address, hops in ((A2, ()), (B1, ()), (TOR, (1,))):
        speaker.on(PeerUp(address), now=1)
        update = UpdateReceived(address, (network("10.65.9.0/26"),), (), attributes(str(address), *hops))
        speaker.on(update, now=2)
    # No OPEN was seen, so all have the same router ID and the address decides.
    assert [(str(each.peer), each.best, each.equal) for each in path_report.routes(speaker)] == [
        ("172.31.1.12", True, False),
        ("172.31.1.1", False, False),
        ("172.31.2.11", False, True),
    ]
