"""A command that is told to end does so at a moment that can bear it."""

import signal
import time

import pytest

from felix_py.lab import interrupts


def test_a_signal_interrupts_at_once_where_that_is_allowed_and_is_named() -> None:
    reached = []

    def work() -> None:
        with interrupts.deferring(), interrupts.allowed():
            signal.raise_signal(signal.SIGTERM)
            reached.append("after")

    with pytest.raises(interrupts.Interrupted, match="SIGTERM"):
        work()
    assert reached == []


def test_one_that_came_before_interrupts_where_it_is_allowed_first() -> None:
    reached = []

    def work() -> None:
        with interrupts.deferring():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)  # the second is ignored: the first is on its way
            reached.append("lock taken")
            try:
                with interrupts.allowed():
                    reached.append("never")
            finally:
                reached.append("lock given back")

    with pytest.raises(interrupts.Interrupted, match="SIGTERM"):
        work()
    assert reached == ["lock taken", "lock given back"]


def test_one_that_comes_while_all_is_cleaned_up_interrupts_nothing() -> None:
    reached = []
    with interrupts.deferring():
        with interrupts.allowed():
            reached.append("work")
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        reached.append("cleaned up")
    with interrupts.deferring(), interrupts.allowed():
        reached.append("the next command")
    assert reached == ["work", "cleaned up", "the next command"]


class Finalized:
    """Has a signal come where Python cannot pass its exception on."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_one_that_python_could_not_pass_on_comes_again() -> None:
    reached = []

    def work() -> None:
        with interrupts.deferring(), interrupts.allowed():
            Finalized()
            reached.append("after")
            time.sleep(5)

    with pytest.raises(interrupts.Interrupted, match="SIGTERM"):
        work()
    assert reached == ["after"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_one_that_comes_again_waits_for_what_is_not_to_be_interrupted() -> None:
    reached = []

    def work() -> None:
        with interrupts.deferring(), interrupts.allowed():
            Finalized()
            with interrupts.held():
                time.sleep(0.02)  # longer than until it comes again
                reached.append("inside")
            reached.append("never")

    def clean_up() -> None:
        with interrupts.deferring():
            with interrupts.allowed():
                Finalized()
            time.sleep(0.02)
            reached.append("cleaned up")

    with pytest.raises(interrupts.Interrupted, match="SIGTERM"):
        work()
    clean_up()
    assert reached == ["inside", "cleaned up"]


def test_an_alarm_of_somebody_else_interrupts_nothing() -> None:
    with interrupts.deferring(), interrupts.allowed():
        signal.raise_signal(signal.SIGALRM)


def test_a_held_block_is_finished_first() -> None:
    reached = []

    def work() -> None:
        with interrupts.deferring(), interrupts.allowed():
            with interrupts.held(), interrupts.held():
                signal.raise_signal(signal.SIGHUP)
                signal.raise_signal(signal.SIGINT)  # the second is ignored: the first is on its way
                reached.append("inside")
            reached.append("after")

    with pytest.raises(interrupts.Interrupted, match="SIGHUP"):
        work()
    assert reached == ["inside"]


def test_a_held_block_that_fails_says_so_itself_and_leaves_no_signal_behind() -> None:
    def work() -> None:
        with interrupts.deferring(), interrupts.allowed(), interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            raise OSError("no device")

    with pytest.raises(OSError, match="no device"):
        work()
    with interrupts.deferring(), interrupts.allowed(), interrupts.held():
        pass


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = [signal.getsignal(each) for each in interrupts.ENDING]
    with interrupts.deferring():
        signal.raise_signal(signal.SIGINT)
        assert [signal.getsignal(each) for each in interrupts.ENDING] == [signal.SIG_IGN] * 3
    assert [signal.getsignal(each) for each in interrupts.ENDING] == before
