"""Times of day of moments: the same at each question, until somebody sets the clock."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from bgp.wall_clock import WallClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MOMENT = 100.0


class Clocks:
    """Two clocks that go on by what each reading costs, never twice the same; `ahead` is how the wall's is set."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self._passed = 0.0
        self._costs: Iterator[int] = count(1)

    def steady(self) -> float:
        self._passed += next(self._costs) / 1000
        return MOMENT + self._passed

    def wall(self) -> datetime:
        self._passed += next(self._costs) / 1000
        return NOON + timedelta(seconds=self._passed) + self.ahead


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def made(clocks: Clocks) -> WallClock:
    return WallClock(clocks.steady, clocks.wall)


def test_a_moment_has_one_time_of_day_however_long_a_reading_takes(made: WallClock) -> None:
    assert len({made.at(MOMENT) for _ in range(300)}) == 1


def test_it_is_the_right_one(made: WallClock) -> None:
    assert abs(made.at(MOMENT) - NOON) < timedelta(milliseconds=10)


@pytest.mark.parametrize(
    "ahead", [timedelta(hours=-3), timedelta(seconds=-2), timedelta(seconds=2), timedelta(days=400)]
)
def test_a_clock_that_is_set_shows_in_all_times_of_day(made: WallClock, clocks: Clocks, ahead: timedelta) -> None:
    before = made.at(MOMENT)
    clocks.ahead = ahead
    assert abs(made.at(MOMENT) - before - ahead) < timedelta(milliseconds=20)
    assert made.at(MOMENT) == made.at(MOMENT)


def test_a_clock_that_is_slewed_is_followed_when_it_is_a_second_off(made: WallClock, clocks: Clocks) -> None:
    seen = []
    for _ in range(25):
        clocks.ahead += timedelta(milliseconds=100)
        seen.append(made.at(MOMENT))
    assert 2 <= len(set(seen)) <= 3
    read = made.read()
    assert abs(read.wall - NOON - timedelta(seconds=read.now - MOMENT) - clocks.ahead) <= timedelta(seconds=1.1)
