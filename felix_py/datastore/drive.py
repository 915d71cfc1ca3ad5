"""Carries the protocols of `claims` out on a datastore."""

from collections.abc import Callable
from typing import Any

from felix_py.claims import TRIES, Conflict, Protocol, Read, Result, Step
from felix_py.datastore.api import Swaps


def drive(protocol: Protocol[Result], swaps: Swaps) -> Result:
    """Do what a protocol asks for, to its end.

    Raises:
        Conflict: where the protocol leaves it to its caller.
        Damaged, OSError: as `Swaps` does.
    """
    try:
        step = next(protocol)
        while True:
            try:
                done = _done(step, swaps)
            except Conflict as late:
                step = protocol.throw(late)
            else:
                step = protocol.send(done)
    except StopIteration as end:
        result: Result = end.value
        return result


def _done(step: Step, swaps: Swaps) -> Any:
    if isinstance(step, Read):
        # A pod waits for it: from an API server this costs as much as the swap that follows.
        return (swaps.known(step.key) if step.remembered else None) or swaps.read(step.key)
    return swaps.swap(step.key, step.value, step.revision)


def persevere(protocol: Callable[[], Protocol[Result]], swaps: Swaps) -> Result:
    """Do what a protocol asks for, from its beginning again where a swap came too late.

    Raises:
        Conflict: when that happened again and again.
        Damaged, OSError: as `Swaps` does.
    """
    for _ in range(TRIES - 1):
        try:
            return drive(protocol(), swaps)
        except Conflict:
            continue
    return drive(protocol(), swaps)
