"""Quarrels: some repairs at once, then a pace; an endless storm delays, but never for ever; quiet is noticed."""

from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel.damping import CEILING, HALF_LIFE, NEGLIGIBLE, REUSE, SUPPRESS, Damping

ROUTE = b"10.65.1.0/26"


def disturbed(damping: Damping, times: int, now: float) -> list[bool]:
    return [damping.disturbed(ROUTE, now, port=4711) for _ in range(times)]


def test_eight_disturbances_are_repaired_at_once_and_the_ninth_is_too_many() -> None:
    damping = Damping()
    assert disturbed(damping, 8, 100.0) == [False] * 8
    assert damping.due(ROUTE, 100.0) == 100.0
    assert disturbed(damping, 2, 100.0) == [True, False], "it is said once"
    assert damping.due(ROUTE, 100.0) > 100.0
    assert damping.suppressed == (ROUTE,)
    assert damping.quarrels[ROUTE].disturbances == 10
    assert damping.quarrels[ROUTE].port == 4711


def test_slow_disturbances_are_never_held_back() -> None:
    damping = Damping()
    assert not any(damping.disturbed(ROUTE, now * 1.0) for now in range(100))


def test_a_storm_that_goes_on_does_not_put_the_repair_off() -> None:
    damping = Damping()
    disturbed(damping, 9, 0.0)
    due = damping.due(ROUTE, 0.0)
    assert 4.0 < due < 5.0
    disturbed(damping, 100, 2.0)
    assert damping.due(ROUTE, 2.0) == due


def test_after_a_repair_the_next_wait_begins_anew() -> None:
    damping = Damping()
    disturbed(damping, 9, 0.0)
    due = damping.due(ROUTE, 0.0)
    damping.repaired(ROUTE)
    damping.disturbed(ROUTE, due)
    assert due < damping.due(ROUTE, due) < due + HALF_LIFE


def test_quiet_ends_it_and_is_told_only_of_what_had_been_held_back() -> None:
    damping = Damping()
    disturbed(damping, 20, 0.0)
    damping.disturbed(b"another", 0.0)
    assert damping.calm(1.0) == ()
    (end,) = damping.ends()
    assert 18.0 < end < 21.0
    assert damping.calm(end) == (ROUTE,)
    assert damping.quarrels == {}


@given(st.lists(st.floats(0, 10), max_size=60))
def test_the_wait_is_bounded_whatever_happens(gaps: list[float]) -> None:
    damping, now = Damping(), 0.0
    for gap in gaps:
        now += gap
        damping.disturbed(ROUTE, now)
        assert damping.due(ROUTE, now) - now <= 2 * HALF_LIFE + 0.001
        assert damping.quarrels[ROUTE].penalty <= CEILING
    assert NEGLIGIBLE < REUSE < SUPPRESS < CEILING
