"""When the BGP process is asked whether it lives, when it is taken for stuck, and when the next one is started."""

import pytest

from bgp.supervision import HEALTHY, RESPAWN_LAST, Questions, Respawns, ping_interval


@pytest.mark.parametrize(
    ("hold_times", "seconds"),
    [
        pytest.param([], 5.0, id="no session is up"),
        pytest.param([90], 5.0, id="a long hold time asks for no more"),
        pytest.param([90, 3, 30], 0.25, id="the shortest counts"),
        pytest.param([0, 9], 0.75, id="no hold time asks for nothing"),
    ],
)
def test_how_often_is_asked(hold_times: list[int], seconds: float) -> None:
    assert ping_interval(hold_times) == pytest.approx(seconds)


def asked(questions: Questions, hold_time: int, start: float, end: float) -> float | None:
    """Look every 0.1 s; return when the process was taken for stuck."""
    for tenth in range(round(start * 10), round(end * 10)):
        if questions.due([hold_time], tenth / 10) and questions.stuck():
            return tenth / 10
    return None


@pytest.mark.parametrize(("hold_time", "latest"), [(3, 1.3), (9, 3.5), (90, 25)])
def test_a_silent_process_is_found_before_a_peer_forgets_us(hold_time: int, latest: float) -> None:
    found = asked(Questions(), hold_time, 0, 100)
    assert found is not None
    assert found <= latest


def test_a_process_of_which_anything_is_heard_lives() -> None:
    questions = Questions()
    for second in range(100):
        assert asked(questions, 3, second, second + 0.9) is None
        questions.unanswered = 0


def test_while_we_stand_still_nobody_was_asked() -> None:
    questions = Questions()
    assert questions.due([3], 0)
    assert questions.due([3], 1000)
    assert not questions.stuck()


def test_counts_are_not_asked_for_with_every_question() -> None:
    questions = Questions()
    assert [questions.counting(now) for now in (0, 0.3, 4.9, 5.0, 5.3, 10.1)] == [True, False, False, True, False, True]


def test_the_pause_doubles_while_nothing_gets_better() -> None:
    respawns = Respawns()
    pauses = [respawns.after(1, settled=False, on_purpose=False) for _ in range(9)]
    assert pauses == pytest.approx([0.1, 0.3, 0.7, 1.5, 3.1, 6.3, RESPAWN_LAST, RESPAWN_LAST, RESPAWN_LAST])
    assert respawns.count == 9


@pytest.mark.parametrize(
    ("lived", "settled"),
    [pytest.param(1, True, id="it had told everything"), pytest.param(HEALTHY + 1, False, id="it lived for long")],
)
def test_a_process_that_did_its_work_is_no_reason_to_wait(lived: float, settled: bool) -> None:  # noqa: FBT001 - a column
    respawns = Respawns()
    for _ in range(5):
        respawns.after(1, settled=False, on_purpose=False)
    assert respawns.after(lived, settled=settled, on_purpose=False) == pytest.approx(0.1)


def test_one_that_we_ended_ourselves_is_followed_at_once() -> None:
    respawns = Respawns()
    respawns.after(1, settled=False, on_purpose=False)
    assert respawns.after(1, settled=False, on_purpose=True) == 0
    assert respawns.count == 1
