from bgp_builders import B1, TOR, network, path

from bgp.policy import Reason, Refusal
from bgp.rib import AdjRibIn, AdjRibOut, LocRib

PREFIX = network("10.65.2.0/26")
OTHER = network("10.65.3.0/26")
REFUSED = Refusal(Reason.OUTSIDE)


def test_a_path_that_is_said_twice_changes_nothing() -> None:
    table = AdjRibIn()
    assert table.learn(path("172.31.2.11"), None) == {PREFIX}
    assert table.learn(path("172.31.2.11"), None) == set()


def test_a_refused_path_is_kept_and_does_not_compete() -> None:
    table = AdjRibIn()
    table.learn(path("172.31.2.11"), REFUSED)
    assert table.entries[PREFIX].refusal == REFUSED
    assert table.accepted(PREFIX) is None
    assert table.refused == 1


def test_withdrawing_what_was_never_said_changes_nothing() -> None:
    assert AdjRibIn().withdraw([PREFIX]) == set()


def test_what_is_said_again_is_not_swept() -> None:
    table = AdjRibIn()
    table.learn(path("172.31.2.11"), None)
    table.learn(path("172.31.2.11", prefix="10.65.3.0/26"), None)
    assert table.mark_stale() == {PREFIX, OTHER}
    assert table.stale == 2
    assert table.learn(path("172.31.2.11"), None) == {PREFIX}
    assert table.sweep() == {OTHER}
    assert set(table.entries) == {PREFIX}
    assert table.stale == 0


def test_a_new_policy_is_asked_about_everything() -> None:
    table = AdjRibIn()
    table.learn(path("172.31.2.11"), None)
    table.learn(path("172.31.2.11", prefix="10.65.3.0/26"), REFUSED)
    assert table.judge(lambda each: REFUSED if each.prefix == PREFIX else None) == {PREFIX, OTHER}
    assert table.judge(lambda each: REFUSED if each.prefix == PREFIX else None) == set()
    assert table.accepted(OTHER) is not None


def test_the_best_path_changes_only_when_it_does() -> None:
    one, two, loc_rib = AdjRibIn(), AdjRibIn(), LocRib()
    tables = {B1: one, TOR: two}
    two.learn(path("172.31.1.1", 64500, external=True), None)
    changed, best = loc_rib.select(PREFIX, tables)
    assert changed
    assert best is not None
    assert best.path.peer == TOR
    assert loc_rib.select(PREFIX, tables) == (False, best)
    one.learn(path("172.31.2.11"), None)
    changed, best = loc_rib.select(PREFIX, tables)
    assert best is not None
    assert (changed, best.path.peer, best.rule) == (True, B1, "AS path length")
    one.clear()
    two.clear()
    assert loc_rib.select(PREFIX, tables) == (True, None)
    assert loc_rib.best == {}


def test_what_a_peer_was_told_is_the_difference_to_what_it_should_be_told() -> None:
    table = AdjRibOut(frozenset({PREFIX}))
    assert table.become(frozenset({OTHER})) == (frozenset({OTHER}), frozenset({PREFIX}))
    assert table.become(frozenset({OTHER})) == (frozenset(), frozenset())
