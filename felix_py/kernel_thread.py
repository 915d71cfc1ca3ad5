"""What one turn of the loop does in the kernel's thread: turn, log it, and look at what the loop has to know."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from felix_py.calc.hearsay import Hearsay
from felix_py.kernel.engine import Standing
from felix_py.kernel.objects import RouteKey
from felix_py.knowledge import Done, Knowledge
from felix_py.picture import Picture
from felix_py.telling import sentences, tell
from felix_py.turn import Turns

PATIENCE = 1.0
"""Seconds that the loop may take to answer; it may have ended, and then nobody does."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Told:
    """What the kernel's thread says after a turn, made there because nothing changes meanwhile.

    Attributes:
        busy: seconds of a core that all of it took.
    """

    picture: Picture
    repairs: Counter[str]
    states: Mapping[str, int]
    refusal: str | None
    standings: Mapping[RouteKey, Standing]
    busy: float


def turned(
    turns: Turns,
    knowledge: Knowledge,
    keys: list[RouteKey],
    known: tuple[str, ...],
    further: Callable[[], Hearsay | None],
    *,
    resync: bool,
    hold: bool,
) -> tuple[Done, Told]:
    """Turn, log what was done, and look at the routes that somebody waits for; runs in the kernel's thread.

    Args:
        turns: of this node.
        knowledge: as `Turns.turn` has it.
        keys: the routes that somebody waits for.
        known: problems of the turn before, which are not told again.
        further: as `Turns.turn` has it.
        resync: read everything back first.
        hold: as `Turns.turn` has it.
    """
    kernel, began = turns.kernel, time.thread_time()
    if resync:
        kernel.must_read("resync")
    done = turns.turn(knowledge, further, hold=hold)
    repairs = tell(done, kernel.routes, known)
    picture = Picture(done.wish, kernel.have, kernel.links, sentences(done.report, kernel.routes))
    standings = {key: turns.standing(key) for key in keys}
    states, refusal = turns.states(), turns.refusal()
    return done, Told(picture, repairs, states, refusal, standings, time.thread_time() - began)


def asked(loop: asyncio.AbstractEventLoop, question: Callable[[], Result]) -> Result | None:
    """Have the loop answer a question of the kernel's thread; None where it has ended, and nobody answers any more.

    A question that was not answered in time is taken back: what the loop would say then, nobody would hear.
    """
    answer: Future[Result] = Future()

    def tell() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(question())
        except Exception as error:  # noqa: BLE001 - whoever asked is to hear it
            answer.set_exception(error)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        return None
    with contextlib.suppress(TimeoutError):
        return answer.result(PATIENCE)
    # Where it is just being answered, that is worth the wait.
    return None if answer.cancel() else answer.result()
