"""How soon the loop turns again."""

import pytest

from felix_py.pacing import CHURN, CHURN_LONGEST, CHURN_SHARE, CREDIT, LONGEST, SHARE, SHORTEST, Pace


def working(seconds: float, *, news: bool, until: float) -> float:
    """Turn as often as the pace allows until then; return the part of the time that was worked."""
    pace, now, worked = Pace(), 100.0, 0.0
    while now < 100.0 + until:
        pace.worked(seconds, now + seconds, news=news)
        worked += seconds
        now += seconds
        now += pace.delay(now)
    return worked / (now - 100.0)


def test_after_a_quiet_time_the_next_turn_is_at_once() -> None:
    pace = Pace()
    assert pace.delay(100.0) == 0.0
    pace.worked(0.01, 100.01, news=False)
    assert pace.delay(100.01) == pytest.approx(SHORTEST)
    assert pace.delay(100.1) == 0.0


def test_a_burst_is_worked_off_without_rest() -> None:
    pace, now = Pace(), 100.0
    for _ in range(9):
        pace.worked(0.010, now + 0.010, news=False)
        now += 0.010
        assert pace.delay(now) == pytest.approx(SHORTEST)


@pytest.mark.parametrize(
    ("seconds", "news", "share"),
    [
        pytest.param(0.010, False, SHARE, id="others' doings may take a tenth of a core"),
        pytest.param(0.010, True, 0.5, id="our own news may take half of one"),
        pytest.param(0.0001, False, 0.048, id="short turns are never closer than 2 ms"),
    ],
)
def test_in_the_long_run(seconds: float, news: bool, share: float) -> None:  # noqa: FBT001 - a fact of the case
    assert working(seconds, news=news, until=60.0) == pytest.approx(share, rel=0.1)


def test_nothing_waits_longer_than_half_a_second_and_a_storm_is_forgiven() -> None:
    pace = Pace()
    for begin in range(100, 120):
        pace.worked(0.9, begin + 0.9, news=False)
        assert pace.delay(begin + 0.9) == pytest.approx(LONGEST)
    pace.worked(0.0, 121.0, news=False)
    assert pace.delay(121.0) == pytest.approx(SHORTEST)


def test_what_counts_is_the_core_and_not_how_long_a_busy_machine_took() -> None:
    pace = Pace()
    pace.worked(0.1, 101.0, news=False)
    assert pace.delay(101.0) == pytest.approx(SHORTEST)


def test_quiet_is_not_saved_up() -> None:
    pace = Pace()
    pace.worked(0.0, 100.0, news=False)
    pace.worked(2 * CREDIT, 10_000.0 + 2 * CREDIT, news=False)
    assert pace.delay(10_000.0 + 2 * CREDIT) == LONGEST


@pytest.mark.parametrize(
    ("busy", "rest"),
    [(0.001, CHURN), (0.01, 0.01 / CHURN_SHARE), (1.0, CHURN_LONGEST)],
    ids=["short", "long", "longest"],
)
def test_turns_leave_the_core_to_pods_that_come(busy: float, rest: float) -> None:
    pace = Pace()
    pace.worked(busy, 100.0, news=True)
    assert pace.among_pods() == pytest.approx(rest)
