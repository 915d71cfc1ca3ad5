"""Which of many networks of one IP version contains a prefix, without walking through them."""

from collections.abc import Iterable, Iterator
from typing import Generic, Literal, TypeAlias, TypeVar

from bgp.types import IPNetwork

Value = TypeVar("Value")

Version: TypeAlias = Literal[4, 6]

BITS: dict[Version, int] = {4: 32, 6: 128}
"""By IP version: bits of an address."""


class PrefixTable(Generic[Value]):
    """A value for each network; a question costs a look-up for each length of prefix that occurs among them.

    Prefixes are asked for as two numbers, so that who asks several tables takes them out of the object only once.
    """

    __slots__ = ("_lengths", "_longest", "_supernets")

    def __init__(self, version: Version, entries: Iterable[tuple[IPNetwork, Value]]) -> None:
        """Take the entries of one IP version, and pass over the others; of two for one network the last counts."""
        bits = BITS[version]
        tables: dict[int, dict[int, Value]] = {}
        for network, value in entries:
            if network.version == version:
                tables.setdefault(network.prefixlen, {})[int(network.network_address)] = value
        masks = {length: (1 << bits) - (1 << bits - length) for length in range(bits + 1)}
        self._lengths = [(length, masks[length], tables[length]) for length in sorted(tables, reverse=True)]
        self._longest = max(tables, default=0)
        self._supernets = {
            (number & masks[shorter], shorter)
            for length, table in tables.items()
            for number in table
            for shorter in range(length)
        }

    def containing(self, number: int, length: int) -> Value | None:
        """Return the value of the smallest network that contains the prefix or is the same; None outside all."""
        for shortest, mask, table in self._lengths:
            if shortest <= length and (number & mask) in table:
                return table[number & mask]
        return None

    def all_containing(self, number: int, length: int) -> Iterator[Value]:
        """Yield the values of all networks that contain the prefix or are the same, the smallest first."""
        for shortest, mask, table in self._lengths:
            if shortest <= length and (number & mask) in table:
                yield table[number & mask]

    def reaches_into(self, number: int, length: int) -> bool:
        """Say whether the prefix is larger than one of the networks and contains it."""
        return length < self._longest and (number, length) in self._supernets
