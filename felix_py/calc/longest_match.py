"""The longest match of an IPv4 address or prefix among many networks, without walking through them."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Generic, TypeVar

Value = TypeVar("Value")

BITS = 32
"""Of an IPv4 address."""


class LongestMatch(Generic[Value]):
    """A value for each network; a look-up costs a dict access for each length of prefix that occurs among them."""

    def __init__(self, entries: Iterable[tuple[IPv4Network, Value]]) -> None:
        """Take the networks; of two entries for one network the first counts."""
        tables: dict[int, dict[int, Value]] = {}
        for network, value in entries:
            tables.setdefault(network.prefixlen, {}).setdefault(int(network.network_address), value)
        self._tables = [
            (length, (1 << BITS) - (1 << BITS - length), tables[length]) for length in sorted(tables, reverse=True)
        ]

    def of(self, where: IPv4Address | IPv4Network) -> Value | None:
        """Return the value of the smallest network that contains `where`; None outside all of them."""
        number, size = (int(where), BITS) if isinstance(where, IPv4Address) else (
            int(where.network_address), where.prefixlen)  # fmt: skip
        for length, mask, table in self._tables:
            if length <= size and (number & mask) in table:
                return table[number & mask]
        return None
