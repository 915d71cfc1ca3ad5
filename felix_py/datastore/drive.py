"""Carries the protocols of `claims` out on a datastore."""

from collections.abc import Callable

from felix_py.claims import TRIES, Conflict, Found, Protocol, Read, Result
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
                done = _read(step, swaps) if isinstance(step, Read) else swaps.swap(step.key, step.value, step.revision)
            except Conflict as late:
                step = protocol.throw(late)
            else:
                step = protocol.send(done)
    except StopIteration as end:
        result: Result = end.value
        return result


def _read(step: Read, swaps: Swaps) -> Found | None:
    return (swaps.known(step.key) if step.recent else None) or swaps.read(step.key)


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
