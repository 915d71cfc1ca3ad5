"""Keys whose values are one object, put together: what is done about the object is then done once for all of them."""

from collections.abc import Collection, Iterable
from itertools import groupby
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def by_object(keys: Iterable[Key], values: Collection[Value]) -> Iterable[tuple[Value, list[Key]]]:
    """Return each object among the values with the keys that have it; equal ones are not put together.

    Args:
        keys: in the order of their values.
        values: many of them, one after the other, are often the same object.
    """
    keys, values = list(keys), list(values)
    numbers = [*map(id, values)]
    if numbers and numbers.count(numbers[0]) == len(numbers):  # a table that arrives
        return ((values[0], keys),)
    groups: dict[int, tuple[Value, list[Key]]] = {}
    start = 0
    for number, run in groupby(numbers):
        stop = start + len(list(run))
        groups.setdefault(number, (values[start], []))[1].extend(keys[start:stop])
        start = stop
    return groups.values()
