"""What is in force after a look at all resources: faults and contradictions cost nothing that worked before."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from felix_py import contradictions
from felix_py.contradictions import Placed
from felix_py.model import Fault, Key
from felix_py.state import Absent, Event, Present


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at all resources.

    Attributes:
        good: resources that are valid by themselves.
        faults: what is wrong with the others.
        unreadable: files that are no YAML at all; what they gave last stays in force.
        faulty: resources that were named but cannot be used; their last good version stays in force.
    """

    good: Placed = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    unreadable: frozenset[str] = frozenset()
    faulty: frozenset[Key] = frozenset()


def settle(before: Placed, reading: Reading) -> tuple[Placed, tuple[Fault, ...]]:
    """Return what is in force after this reading, and what is wrong in it.

    Half-written YAML, a typing error or a contradiction must not cost a route: the last good version of what cannot
    be used stays in force, and what was in force before wins over news that contradict it.
    """
    kept = {key: placed for key, placed in before.items() if placed[0] in reading.unreadable or key in reading.faulty}
    now = {**kept, **reading.good}
    faults: dict[Key, Fault] = {}
    while losers := dict(contradictions.find(now, before)):
        faults |= losers
        for key in losers:
            if key in before and before[key][1] != now[key][1]:
                now[key] = before[key]
            else:
                del now[key]
    return now, (*reading.faults, *faults.values())


def news(before: Placed, now: Placed) -> Iterator[Event]:
    """Yield what has changed of what is in force."""
    for key, (_, value) in now.items():
        if key not in before or before[key][1] != value:
            yield Present(key, value)
    for key in before:
        if key not in now:
            yield Absent(key)
