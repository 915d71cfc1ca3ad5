"""What one turn of the loop does in the kernel's thread: turn, log it, and look at what the loop has to know."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from felix_py.kernel.engine import Standing
from felix_py.kernel.objects import RouteKey
from felix_py.picture import Picture
from felix_py.telling import sentences, tell
from felix_py.turn import Done, Knowledge, Turns


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
    turns: Turns, knowledge: Knowledge, keys: list[RouteKey], known: tuple[str, ...], *, resync: bool, hold: bool
) -> tuple[Done, Told]:
    """Turn, log what was done, and look at the routes that somebody waits for; runs in the kernel's thread."""
    kernel, began = turns.kernel, time.thread_time()
    if resync:
        kernel.must_read("resync")
    done = turns.turn(knowledge, hold=hold)
    repairs = tell(done, kernel.routes, known)
    picture = Picture(done.wish, kernel.have, kernel.links, sentences(done.report, kernel.routes))
    standings = {key: turns.standing(key) for key in keys}
    states, refusal = turns.states(), turns.refusal()
    return done, Told(picture, repairs, states, refusal, standings, time.thread_time() - began)
