"""Which kernel parameters have to be read again: of a pod there are six and more, and nearly always none."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache


def parameters(
    want: Mapping[str, str],
    have: Mapping[str, str],
    stale: Collection[str],
    known: Mapping[str, Mapping[str, str]],
    read: Callable[[Iterable[str]], dict[str, str]],
) -> Mapping[str, str]:
    """Return the wanted parameters as they are, by path below /proc/sys; those that do not exist are left out.

    Args:
        want: what they should be.
        have: what they were at the last look.
        stale: words of paths to which something has happened since, as the names of interfaces.
        known: parameters of interfaces of which it is known without a look.
        read: reads some of them.
    """
    stale = {*stale}
    found = have
    if stale or not have.keys() <= want.keys():
        found = {path: value for path, value in have.items() if path in want and stale.isdisjoint(_words(path))}
    told = {path: value for each in known.values() for path, value in each.items() if path in want}
    if told:
        found = {**found, **told}
    unknown = [path for path in want if path not in found] if len(found) < len(want) else []
    return {**found, **read(unknown)} if unknown else found


@lru_cache(maxsize=1 << 14)
def _words(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))
