"""Which of many prefixes lie within networks, without looking at each: in their order, a network is a span."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from bgp.ipv4_prefix import IPv4Prefix
from bgp.types import IPNetwork

IPV4 = 4
"""The version of IP whose prefixes are compared so quickly that this is worth it."""


def comparable(prefixes: Sequence[IPNetwork]) -> TypeGuard[Sequence[IPv4Prefix]]:
    """Say whether there are prefixes here, and C can compare them all."""
    return set(map(type, prefixes)) == {IPv4Prefix}


class Spans:
    """IPv4 networks, as the spans that what lies within them has among all prefixes in order.

    A prefix lies within a network if and only if it stands between the network itself and its last single address.
    """

    __slots__ = ("_spans",)

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        """Take the networks; those of IPv6 are passed over, and one within another adds nothing."""
        spans: list[tuple[IPv4Prefix, IPv4Prefix]] = []
        for network in sorted(IPv4Prefix(each) for each in networks if each.version == IPV4):
            if not spans or network > spans[-1][1]:
                spans.append((network, IPv4Prefix((network.broadcast_address, network.max_prefixlen))))
        self._spans = spans

    def split(self, prefixes: Sequence[IPv4Prefix]) -> tuple[Sequence[IPv4Prefix], Sequence[IPv4Prefix]]:
        """Return the prefixes within one of the networks, and the others."""
        if not prefixes:
            return (), ()
        lowest, highest = min(prefixes), max(prefixes)
        near = [span for span in self._spans if span[0] <= highest and lowest <= span[1]]
        if not near:
            return (), prefixes
        if len(near) == 1 and near[0][0] <= lowest and highest <= near[0][1]:
            return prefixes, ()
        inside: list[IPv4Prefix] = []
        outside: list[IPv4Prefix] = []
        ordered, at = sorted(prefixes), 0
        for first, last in near:
            start = bisect_left(ordered, first, at)
            outside += ordered[at:start]
            at = bisect_right(ordered, last, start)
            inside += ordered[start:at]
        return inside, outside + ordered[at:]
