"""The signals to end, for commands that clean up after themselves: they interrupt only where that is allowed.

Python raises the exception of a signal between any two instructions: right after a lock was taken, before the block
that gives it back is entered, or at the first line of the cleaning up. So a command is `deferring` as a whole, the
long part that its own cleaning up surrounds is `allowed` to be interrupted, and short steps in that part are `held`.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN_SECONDS = 0.001
"""Until an interruption that Python could not pass on comes again."""


class Interrupted(KeyboardInterrupt):
    """A signal ended a command that cleans up after itself; it names the signal."""


class _Noted:
    """How many blocks want no interruption now, the signal that came first, and whether it waits to be passed on."""

    depth = 0
    first: signal.Signals | None = None
    waits = False


@contextmanager
def deferring() -> Iterator[None]:
    """Note the first signal to end, for the blocks that are `allowed` to be interrupted, and ignore all others.

    One that comes when no such block follows any more is not heard: what it should have ended is at its end.
    """
    untold, depth = sys.unraisablehook, _Noted.depth
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGALRM)}
    _Noted.depth, _Noted.first, _Noted.waits = depth + 1, None, False
    try:
        sys.unraisablehook = _lost(untold)
        signal.signal(signal.SIGALRM, _again)
        for number in ENDING:
            signal.signal(number, _note)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = untold
        for number, handler in before.items():
            signal.signal(number, handler)
        _Noted.depth, _Noted.first, _Noted.waits = depth, None, False


def _note(number: int, frame: FrameType | None) -> None:
    """Take the first signal to end, and no other."""
    if _Noted.first is None:
        _Noted.first = signal.Signals(number)
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        _again(number, frame)


def _again(_: int, __: FrameType | None) -> None:
    """Interrupt, or wait until that can be borne."""
    if _Noted.first is None:
        return  # somebody else's alarm
    _Noted.waits = True
    _pass_on()


def _lost(untold: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a hook for what cannot be raised: an interruption comes again, others are told as before."""

    def lost(unraisable: Any) -> None:
        # In a finalizer, or right after a fork (a hook of logging), nobody can be told: it would never end.
        if isinstance(unraisable.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            untold(unraisable)

    return lost


@contextmanager
def allowed() -> Iterator[None]:
    """Let the signal that is or was noted interrupt this block. Whoever calls cleans up, and surrounds it with that.

    Raises:
        Interrupted: anywhere in the block, once at most; at its beginning where the signal came before.
    """
    depth, _Noted.depth = _Noted.depth, 0
    try:
        _pass_on()
        yield
    finally:
        _Noted.depth = depth


@contextmanager
def held() -> Iterator[None]:
    """Hold the interruption back until the end of a short block that cannot bear one in its middle.

    A socket that is half made, or a thread that is in another namespace, is such a middle.

    Raises:
        Interrupted: at the end, when a signal came meanwhile and the block itself has not failed.
    """
    _Noted.depth += 1
    try:
        yield
    finally:
        _Noted.depth -= 1
    _pass_on()


def _pass_on() -> None:
    """Raise what waits, unless a block wants no interruption now."""
    if _Noted.waits and not _Noted.depth and _Noted.first is not None:
        _Noted.waits = False
        raise Interrupted(_Noted.first.name)
