"""The signals to end, for commands that clean up after themselves: taken once, at a moment that can bear it."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN_SECONDS = 0.001
"""Until an interruption that Python could not pass on comes again."""


class Interrupted(KeyboardInterrupt):
    """A signal ended a command that cleans up after itself; it names the signal."""


class _Held:
    """How many blocks want no interruption now, and the signal that came meanwhile."""

    depth = 0
    came: int | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first signal to end into Interrupted and ignore all others: cleaning up is not interrupted."""
    first: list[int] = []
    untold = sys.unraisablehook

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        first.append(number)
        again(number, None)

    def again(_: int, __: FrameType | None) -> None:
        if not first:
            return  # somebody else's alarm
        if _Held.depth:
            _Held.came = first[0]
        else:
            raise Interrupted(signal.Signals(first[0]).name)

    def lost(unraisable: "sys.UnraisableHookArgs") -> None:
        # In a finalizer, or right after a fork (a hook of logging), nobody can be told: it would never end.
        if isinstance(unraisable.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            untold(unraisable)

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, again)
    sys.unraisablehook = lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = untold
        _Held.came = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Hold the interruption back until the end of a short block that cannot bear one in its middle.

    A socket that is half made, or a thread that is in another namespace, is such a middle.

    Raises:
        Interrupted: at the end, when a signal came meanwhile and the block itself has not failed.
    """
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
    if not _Held.depth and _Held.came is not None:
        number, _Held.came = _Held.came, None
        raise Interrupted(signal.Signals(number).name)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore the signals to end for a while."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    coming, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if coming:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
