"""IPv4 prefixes that are numbers are what ipaddress makes of them, in every way that somebody could notice."""

import copy
import pickle
from ipaddress import IPv4Network, collapse_addresses

from hypothesis import given
from hypothesis import strategies as st

from bgp.ipv4_prefix import IPv4Prefix, from_numbers, taken_apart
from bgp.spans import Spans, comparable

EDGES = st.sampled_from([0, 10 << 24, 10 << 24 | 64, 0xFFFFFFFF])
"""Addresses that different prefixes have in common."""

networks = st.builds(
    lambda number, length: IPv4Network((number, length), strict=False),
    EDGES | st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
narrow = st.builds(
    lambda number, length: IPv4Network((10 << 24 | number << 4, length), strict=False),
    st.integers(0, 63),
    st.integers(22, 32),
)
"""Of 10.0.0.0/22, so that many lie within others."""


@given(networks, networks)
def test_it_compares_and_hashes_as_an_ipv4_network_does(one: IPv4Network, other: IPv4Network) -> None:
    fast, fast_other = IPv4Prefix(one), IPv4Prefix(other)
    for left, right in ((fast, fast_other), (fast, other), (one, fast_other)):
        assert (left == right, left < right, left <= right) == (one == other, one < other, one <= other)
    assert hash(fast) == hash(one)
    assert {one: 1}[fast] == {fast: 1}[one] == 1
    assert fast.subnet_of(other) is one.subnet_of(other)
    assert fast.overlaps(fast_other) is one.overlaps(other)


@given(networks)
def test_it_looks_as_an_ipv4_network_does(network: IPv4Network) -> None:
    fast = IPv4Prefix(str(network))
    assert isinstance(fast, IPv4Network)
    assert (str(fast), repr(fast), f"{fast}", f"{fast!s:>20}") == (
        str(network), repr(network), f"{network}", f"{network!s:>20}",
    )  # fmt: skip
    assert fast
    assert (fast.network_address, fast.netmask, fast.prefixlen) == (
        network.network_address,
        network.netmask,
        network.prefixlen,
    )
    assert [type(each) for each in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)))] == [IPv4Network] * 2  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(fast)) == network  # noqa: S301 - same
    if network.prefixlen < 32:
        assert [*fast.subnets()] == [*network.subnets()]
    assert fast.supernet() == network.supernet()
    assert [*collapse_addresses([fast, fast])] == [network]


@given(st.lists(networks, max_size=20))
def test_what_is_made_and_taken_apart_at_once_is_what_each_alone_is(several: list[IPv4Network]) -> None:
    fast = [prefix for each in several for prefix in from_numbers([int(each.network_address)], each.prefixlen)]
    assert fast == several
    addresses, lengths = taken_apart(fast)
    assert [*addresses] == [each.network_address.packed for each in several]
    assert [*lengths] == [each.prefixlen for each in several]


def test_only_many_of_its_like_are_worth_sorting() -> None:
    several = from_numbers(range(0, 8 << 6, 1 << 6), 26)
    assert comparable(several)
    assert not comparable(several[1:])
    assert not comparable([*several, IPv4Network("10.0.0.0/26")])


@given(st.lists(narrow, max_size=4), st.lists(narrow.map(IPv4Prefix), max_size=20))
def test_all_of_a_piece_lie_within_the_same_networks(within: list[IPv4Network], some: list[IPv4Prefix]) -> None:
    pieces = [*Spans(within).pieces(some)]
    assert sorted(each for piece in pieces for each in piece) == sorted(some)
    for piece in pieces:
        assert len({tuple(each.subnet_of(other) for other in within) for each in piece}) == 1
    assert len(pieces) <= 1 + 2 * len(within)
