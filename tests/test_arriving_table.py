"""A table that arrives: what is done for many prefixes at once comes to what would be done for each, whatever fails."""

import errno
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from builders import block, link, node, pool
from fakes import FakeHost, FakeParameters, FakeTunnels
from faulty_wire import Call, Failure, Fault, FaultyWire
from hypothesis import given
from hypothesis import strategies as st
from test_amending import best

from bgp.ipv4_prefix import IPv4Prefix, from_numbers
from bgp.types import IPNetwork
from felix_py import turn
from felix_py.alike import by_object
from felix_py.calc.hearsay import Hearsay
from felix_py.calc.longest_match import LongestMatch
from felix_py.kernel import route_codec
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, Route, RouteKey, plain_keys
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.route_codec import Encoder
from felix_py.kernel.wire import Mode, Verb
from felix_py.knowledge import Knowledge
from felix_py.model import IpipMode, NodeName
from felix_py.state import ClusterState, InSync
from felix_py.turn import Turns

A1 = NodeName("a1")
TABLE = from_numbers([0x0A410000 + number * 64 for number in range(1, 65)], 26)
"""All blocks of 10.65.0.0/20 but the first, which is our own, and one behind it."""

NEIGHBOURS = [best(IPv4Address(text), "one", stale=False, equal=[]) for text in ("172.31.1.12", "172.31.1.13")]
CLUSTER = ClusterState().after_all(
    [
        node("a1", "172.31.1.11/24"),
        pool(cidr="10.65.0.0/16", mode=IpipMode.NEVER),
        block("a1", "10.65.0.0/26"),
        InSync(),
    ]
)

Changes = Sequence[tuple[IPNetwork, Any]]


class Clocked:
    """A node that takes news of BGP turn by turn, in parts from eight prefixes on, or whole."""

    def __init__(self, part: int) -> None:
        self.part, self.now = part, 0.0
        self.host = FakeHost(link("eth0", "172.31.1.11/24"))
        self.wire = FaultyWire(self.host)
        parts = (self.wire, FakeTunnels(self.host), KernelRefused, FakeParameters(self.host), NoPurger())
        self.turns = Turns(Kernel(*parts), A1, lambda: self.now)
        self.heard = Hearsay()
        self.turn()

    def turn(self, changes: Changes = (), *further: Changes) -> turn.Done:
        """Take these changes; the others come one after the other while the kernel has some to write."""
        self.now += 20.0  # whatever was refused is due again
        self.heard = self.heard.after(changes, str)
        self.waiting = list(further)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(turn, "PART", self.part)
            patched.setattr(turn, "TABLE", self.part)
            return self.turns.turn(Knowledge(CLUSTER, self.heard), self._further)

    def _further(self) -> Hearsay | None:
        before = self.heard
        self.heard = before.after(self.waiting.pop(0), str) if self.waiting else before
        return None if self.heard is before else self.heard

    def recovered(self) -> dict[RouteKey, Route]:
        """Return the routes after a few more turns."""
        for _ in range(3):
            self.turn()
        return dict(self.host.routes)


def changes_of(some: Sequence[IPNetwork], said: Any = NEIGHBOURS[0]) -> Changes:
    return [(prefix, said) for prefix in some]


def test_a_table_goes_to_the_kernel_in_parts_and_is_told_as_one() -> None:
    parted, whole = Clocked(8), Clocked(1000)
    done = [each.turn(changes_of(TABLE)) for each in (parted, whole)]
    assert [len(each.report.routes) for each in done] == [64, 64]
    assert [[len(batch.new) for batch in each.report.routes.batches] for each in done] == [[8, 16, 32, 8], [64]]
    assert parted.host.written == whole.host.written
    assert parted.host.routes == whole.host.routes
    assert set(parted.host.routes) >= set(map(RouteKey, TABLE))
    assert parted.turns.states() == whole.turns.states()


FAULTS = {
    "refused": Fault(Call.WRITE, Failure.REFUSED, skip=1, code=errno.ENOMEM),
    "one refused": Fault(Call.WRITE, Failure.REFUSED, only=frozenset({route_codec.identity_of(RouteKey(TABLE[20]))})),
    "broken before": Fault(Call.WRITE, Failure.BROKEN_BEFORE, skip=1),
    "broken halfway": Fault(Call.WRITE, Failure.BROKEN_HALFWAY, skip=1),
    "broken after": Fault(Call.WRITE, Failure.BROKEN_AFTER, skip=1),
    "dead": Fault(Call.WRITE, Failure.DEAD, skip=1),
    "broken in the last part": Fault(Call.WRITE, Failure.BROKEN_HALFWAY, skip=3),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_part_that_fails_is_written_again_and_nothing_else_is_lost(name: str) -> None:
    parted, well = Clocked(8), Clocked(1000)
    fault = replace(FAULTS[name])
    parted.wire.faults.append(fault)
    first = parted.turn(changes_of(TABLE))
    assert fault.met == 1
    assert (first.broken is not None) is (fault.failure is not Failure.REFUSED)
    well.turn(changes_of(TABLE))
    assert parted.recovered() == well.recovered()
    assert not parted.turns.unsettled()


def test_a_route_that_stands_in_the_way_of_a_part_is_found() -> None:
    key = RouteKey(IPv4Network(str(TABLE[20])))
    parted, whole = Clocked(8), Clocked(1000)
    for each in (parted, whole):
        each.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, key, Route(device="eth0", protocol=4))
        each.turn(changes_of(TABLE))
    assert parted.recovered() == whole.recovered()
    assert parted.host.written == whole.host.written


said = st.sampled_from([*NEIGHBOURS, None])
batches = st.lists(st.tuples(st.integers(0, 63), st.integers(1, 64), said), min_size=1, max_size=3)


@given(st.lists(batches, max_size=4))
def test_parts_come_to_what_the_whole_comes_to(history: list[list[tuple[int, int, Any]]]) -> None:
    parted, whole = Clocked(8), Clocked(1000)
    for batch in history:
        news = [change for at, count, what in batch for change in changes_of(TABLE[at : at + count], what)]
        for each in (parted, whole):
            each.turn(news)
        assert parted.host.routes == whole.host.routes
        assert parted.turns.wish == whole.turns.wish
        assert parted.turns.states() == whole.turns.states()


def test_what_comes_while_a_table_is_written_is_written_in_the_same_turn() -> None:
    node = Clocked(8)
    done = node.turn(*(changes_of(TABLE[at : at + 8]) for at in range(0, 64, 8)))
    assert [len(batch.new) for batch in done.report.routes.batches] == [8] * 8
    assert node.host.routes.keys() >= set(map(RouteKey, TABLE))


def test_a_turn_asks_for_no_more_when_something_else_than_an_addition_is_due() -> None:
    node, gone, more = Clocked(8), changes_of(TABLE[:1], None), changes_of(TABLE[32:])
    node.turn(changes_of(TABLE[:32]), gone, more)
    assert node.waiting == [more]
    assert RouteKey(TABLE[0]) not in node.host.routes, "it was on its way when it was taken back"


def test_a_turn_asks_for_no_more_after_a_while() -> None:
    node = Clocked(8)
    node.turns = Turns(node.turns.kernel, A1, lambda: node.now)
    node.turn()

    def late() -> Hearsay | None:
        node.now += turn.LONGEST / 2
        return Clocked._further(node)

    node._further = late  # type: ignore[method-assign]
    node.turn(*(changes_of(TABLE[at : at + 8]) for at in range(0, 64, 8)))
    assert len(node.waiting) == 5, "two were asked for before it was over"


@given(st.lists(batches, min_size=1, max_size=4))
def test_news_while_a_table_is_written_come_to_what_they_would_turn_by_turn(
    history: list[list[tuple[int, int, Any]]],
) -> None:
    at_once, one_by_one = Clocked(8), Clocked(1000)
    news = [
        [change for at, count, what in batch for change in changes_of(TABLE[at : at + count], what)]
        for batch in history
    ]
    at_once.turn(*news)
    while at_once.waiting:
        at_once.turn(at_once.waiting[0], *at_once.waiting[1:])
    for each in news:
        one_by_one.turn(each)
    assert at_once.host.routes == one_by_one.host.routes
    assert at_once.turns.wish == one_by_one.turns.wish
    assert at_once.turns.states() == one_by_one.turns.states()


@given(st.lists(st.tuples(st.integers(0, 30), said), max_size=9), st.integers(1, 20))
def test_parts_hold_all_of_the_news_and_none_too_many(groups: list[tuple[int, Any]], size: int) -> None:
    news = tuple((what, TABLE[:count]) for count, what in groups)
    parts = Hearsay(news=news).parts(size)
    flat = [(what, prefix) for part in parts for what, prefixes in part for prefix in prefixes]
    assert flat == [(what, prefix) for what, prefixes in news for prefix in prefixes]
    lengths = [sum(len(prefixes) for _, prefixes in part) for part in parts]
    assert lengths[:-1] == [size << number for number in range(len(lengths) - 1)]
    assert lengths[-1] <= size << len(lengths) - 1


# --- many at once, and each alone

narrow = st.builds(
    lambda number, length: IPv4Prefix((0x0A410000 + (number << 4), length), strict=False),
    st.integers(0, 63),
    st.integers(20, 32) | st.just(0),
)
several = st.lists(narrow, max_size=30)


@given(st.lists(narrow, max_size=4, unique=True), several)
def test_the_longest_match_of_many_is_that_of_each(networks: list[IPv4Prefix], some: list[IPv4Prefix]) -> None:
    table = LongestMatch([(network, str(network)) for network in networks])
    found = [(prefix, value) for value, prefixes in table.of_all(some) for prefix in prefixes]
    assert sorted(found, key=lambda each: each[0]) == [(prefix, table.of(prefix)) for prefix in sorted(some)]


@given(several)
def test_the_keys_of_many_are_those_of_each(some: list[IPv4Prefix]) -> None:
    keys = [*plain_keys(some)]
    assert keys == [*map(RouteKey, some)]
    assert [type(key) for key in keys] == [RouteKey] * len(some)


@given(several, st.sampled_from([0, 7]), st.booleans())
def test_the_bytes_of_many_are_those_of_each(some: list[IPv4Prefix], metric: int, mixed: bool) -> None:  # noqa: FBT001 - given
    route = Route(via=IPv4Address("172.31.1.12"), device="eth0")
    keys = [RouteKey(prefix, metric=metric if mixed and number % 2 else 0) for number, prefix in enumerate(some)]
    encoder = Encoder({"eth0": 2})
    named = encoder.named(route, dict.fromkeys(keys))
    assert named == {route_codec.identity_of(key): encoder(key, route) for key in keys}
    assert all(route_codec.identity(body) == name for name, body in named.items())


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(NEIGHBOURS)), max_size=20))
def test_what_is_alike_is_put_together(pairs: list[tuple[int, Any]]) -> None:
    groups = [*by_object([key for key, _ in pairs], [value for _, value in pairs])]
    assert {id(value): keys for value, keys in groups} == {
        id(value): [key for key, other in pairs if other is value] for _, value in pairs
    }
