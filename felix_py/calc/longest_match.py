"""The longest match of an address or prefix among many networks, without walking through them."""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

from bgp.spans import Spans, comparable
from felix_py.alike import by_object
from felix_py.model import IPAddress, IPNetwork

Value = TypeVar("Value")

BITS = {4: 32, 6: 128}
"""Of an address, by version of IP."""

ADDRESSES = (IPv4Address, IPv6Address)


class LongestMatch(Generic[Value]):
    """A value for each network; a look-up costs a dict access for each length of prefix that occurs among them.

    Networks of both versions of IP may be among them: what is asked is compared with those of its own.
    """

    def __init__(self, entries: Iterable[tuple[IPNetwork, Value]]) -> None:
        """Take the networks; of two entries for one network the first counts."""
        entries = list(entries)
        tables: dict[int, dict[int, dict[int, Value]]] = {version: {} for version in BITS}
        for network, value in entries:
            tables[network.version].setdefault(network.prefixlen, {}).setdefault(int(network.network_address), value)
        self._tables = {
            version: [(length, _mask(length, BITS[version]), found[length]) for length in sorted(found, reverse=True)]
            for version, found in tables.items()
        }
        self._spans = Spans(network for network, _ in entries)

    def of(self, where: IPAddress | IPNetwork) -> Value | None:
        """Return the value of the smallest network that contains `where`; None outside all of them."""
        number, size = (int(where), where.max_prefixlen) if isinstance(where, ADDRESSES) else (
            int(where.network_address), where.prefixlen)  # fmt: skip
        for length, mask, table in self._tables[where.version]:
            if length <= size and (number & mask) in table:
                return table[number & mask]
        return None

    def of_all(self, prefixes: Sequence[IPNetwork]) -> Iterator[tuple[Value | None, Sequence[IPNetwork]]]:
        """Yield the value of all of the prefixes, piece by piece; a value may come with more than one."""
        if comparable(prefixes):
            yield from ((self.of(piece[0]), piece) for piece in self._spans.pieces(prefixes))
        else:
            yield from by_object(prefixes, [*map(self.of, prefixes)])


def _mask(length: int, bits: int) -> int:
    return (1 << bits) - (1 << bits - length)
