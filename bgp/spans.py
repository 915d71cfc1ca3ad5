"""Which of many prefixes lie within networks, without looking at each: in their order, a network is a span."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeGuard

from bgp.ipv4_prefix import IPv4Prefix
from bgp.types import IPNetwork

WORTH_SORTING = 8
"""Prefixes from which on it pays to ask what holds for many of them before asking of each."""

IPV4 = 4
"""The version of IP whose prefixes are compared so quickly that this is worth it."""


def comparable(prefixes: Sequence[IPNetwork]) -> TypeGuard[Sequence[IPv4Prefix]]:
    """Say whether there are several prefixes here, and C can compare them all."""
    return len(prefixes) >= WORTH_SORTING and set(map(type, prefixes)) == {IPv4Prefix}


class Spans:
    """Networks of IPv4, as the spans that what lies within them has among all prefixes in order.

    A prefix lies within a network if and only if it stands between the network itself and its last single address. So
    prefixes between which no span begins or ends lie within the same networks, all of them.
    """

    __slots__ = ("_spans",)

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        """Take the networks; those of IPv6 are passed over."""
        firsts = [IPv4Prefix(each) for each in networks if each.version == IPV4]
        self._spans = [(each, IPv4Prefix((each.broadcast_address, each.max_prefixlen))) for each in firsts]

    def pieces(self, prefixes: Sequence[IPv4Prefix]) -> Iterator[Sequence[IPv4Prefix]]:
        """Yield the prefixes in pieces; all of a piece lie within the same networks."""
        if not prefixes:
            return
        lowest, highest = min(prefixes), max(prefixes)
        begin = [first for first, _ in self._spans if lowest < first <= highest]
        end = [last for _, last in self._spans if lowest <= last < highest]
        if not begin and not end:
            yield prefixes
            return
        ordered = sorted(prefixes)
        cuts = {bisect_left(ordered, each) for each in begin} | {bisect_right(ordered, each) for each in end}
        for start, stop in pairwise(sorted({0, *cuts, len(ordered)})):
            yield ordered[start:stop]
