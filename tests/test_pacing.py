"""How soon the loop turns again."""

import pytest

from felix_py.pacing import LONGEST, SHORTEST, Pace


def after(seconds: float, *, news: bool) -> float:
    pace = Pace()
    pace.worked(100.0, 100.0 + seconds, news=news)
    return pace.delay(100.0 + seconds)


def test_after_a_quiet_time_the_next_turn_is_at_once() -> None:
    pace = Pace()
    assert pace.delay(100.0) == 0.0
    pace.worked(100.0, 100.01, news=False)
    assert pace.delay(101.0) == 0.0


@pytest.mark.parametrize(
    ("worked", "news", "rest"),
    [
        pytest.param(0.010, False, 0.090, id="others' doings may take a tenth of a core"),
        pytest.param(0.010, True, 0.010, id="our own news may take half of one"),
        pytest.param(0.00001, False, SHORTEST, id="two turns are never closer than this"),
        pytest.param(5.0, False, LONGEST, id="nothing waits longer than this"),
    ],
)
def test_the_longer_a_turn_took_the_longer_the_rest(worked: float, news: bool, rest: float) -> None:  # noqa: FBT001
    assert after(worked, news=news) == pytest.approx(rest)
