"""What holds for a speaker whatever happens to it, in whatever order."""

import gc
import sys
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from bgp_builders import A2, B1, HELPED, TOR, TOR_AS, attributes, network, offered, peer, settings
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from bgp import decision, exabgp_codec
from bgp.decision import BestPath
from bgp.exporting import Export
from bgp.filters import Action, AddCommunity, Filter, Rule
from bgp.moved import Moved
from bgp.peering import PrefixLimit
from bgp.session_policies import Policies
from bgp.speaker import Speaker
from bgp.speaker_words import (
    Configured,
    Effect,
    Enabled,
    Event,
    NextHops,
    RoutesChanged,
    SpeakerSettings,
    Tick,
    WireConfigured,
    WireLost,
    WireStarted,
    reachable,
)
from bgp.types import (
    Announce,
    Attributes,
    EndOfRib,
    Family,
    HoldSessions,
    IPAddress,
    IPNetwork,
    OpenReceived,
    PeerDown,
    PeerUp,
    RefreshHeard,
    RefreshStage,
    UpdateReceived,
    Withdraw,
)

CLIENT = IPv4Address("172.31.3.1")
PREFIXES = (*network("10.65.0.0/24").subnets(new_prefix=26), network("10.66.0.0/26"))
TAG = Filter("tag", export_v4=(Rule(Action.ACCEPT, operations=(AddCommunity((64512, 9)),)),))
PEERS = (
    peer(CLIENT, client=True, kind="rr-client"),
    peer(A2, client=True, kind="rr-client", prefix_limit=PrefixLimit(3, restart=5)),
    peer(B1),
    peer(TOR, TOR_AS, kind="global"),
)
PLAIN = settings(*PEERS, filters={"tag": TAG})
SETTINGS = (
    PLAIN,
    replace(PLAIN, cluster_id=IPv4Address("244.0.0.1")),
    replace(PLAIN, cluster_id=IPv4Address("244.0.0.1"), peers=PEERS[:2], accept_within=(PREFIXES[1],)),
    replace(PLAIN, peers=(replace(PEERS[0], client=False, hold_time=9), *PEERS[1:])),
    replace(PLAIN, peers=(*PEERS[:3], replace(PEERS[3], filters=("tag",)))),
    replace(PLAIN, draining=True, announcements=frozenset(PREFIXES[:2])),
    replace(PLAIN, announcements=frozenset(PREFIXES[:2])),
    replace(PLAIN, peers=(replace(PEERS[0], disabled=""), *PEERS[1:])),
    replace(PLAIN, leaving=True, cluster_id=IPv4Address("244.0.0.1")),
    replace(PLAIN, announcements=frozenset(PREFIXES[3:]), communities={PREFIXES[4]: ((1, 2),)}),
)
ADDRESSES = tuple(each.address for each in PEERS)

addresses = st.sampled_from(ADDRESSES)
said = st.builds(
    lambda hop, med, preference: attributes(str(hop), 64500, med=med, local_preference=preference),
    addresses,
    st.sampled_from([None, 5]),
    st.sampled_from([None, 200]),
)
some_prefixes = st.lists(st.sampled_from(PREFIXES), unique=True, max_size=3).map(tuple)
updates = st.builds(UpdateReceived, addresses, some_prefixes, some_prefixes, said)
events: st.SearchStrategy[tuple[Event, ...]] = st.one_of(
    updates.map(lambda each: (each,)),
    updates.map(lambda each: (each,)),
    addresses.map(lambda each: (OpenReceived(each, offered(router_id=each, restart=HELPED)), PeerUp(each, 90))),
    st.builds(PeerDown, addresses, st.just("gone"), st.booleans()).map(lambda each: (each,)),
    addresses.map(lambda each: (EndOfRib(each),)),
    st.builds(RefreshHeard, addresses, st.just(Family.IPV4_UNICAST), st.sampled_from(RefreshStage)).map(lambda e: (e,)),
    st.sampled_from(SETTINGS).map(lambda each: (Configured(each),)),
    st.sampled_from([(WireStarted(),), (WireConfigured(),), (WireLost("killed"),), (Tick(),)]),
    st.sets(addresses).map(lambda each: (NextHops(dict.fromkeys(each, "eth0 is down")),)),
    addresses.map(lambda each: (Enabled(each),)),
)
histories = st.lists(events, max_size=40).map(lambda each: [event for some in each for event in some])


class Wire:
    """What ExaBGP holds to be said to each neighbour, at its worst: it forgets what it may forget.

    Attributes:
        held: each neighbour as its configuration has it.
        orders: how many it has not taken yet.
    """

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.runs = False
        self.orders = 0
        self.held: dict[IPAddress, str] = {}
        self.told: dict[IPAddress, dict[IPNetwork, Attributes]] = {}

    def takes(self, event: Event, effects: Iterable[Effect]) -> None:
        if isinstance(event, WireStarted | WireLost):
            self.runs, self.held, self.told = isinstance(event, WireStarted), {}, {}
            self.orders = 0
        self.orders -= isinstance(event, WireConfigured)
        for effect in effects:
            match effect:
                case HoldSessions():
                    self.orders += 1
                    wanted = configured(self.speaker)
                    same = {each for each in wanted if self.held.get(each) == wanted[each]}
                    self.held = wanted
                    self.told = {each: self.told[each] if each in same else {} for each in wanted}
                case Announce(prefixes, peers, what):
                    for each in peers or self.told:
                        self.told[each].update(dict.fromkeys(prefixes, what))
                case Withdraw(prefixes, peers):
                    for each in peers or self.told:
                        for prefix in prefixes:
                            self.told[each].pop(prefix, None)


def configured(speaker: Speaker) -> dict[IPAddress, str]:
    """Return what ExaBGP should be configured to hold."""
    in_force = speaker.in_force
    return {each.address: exabgp_codec.configuration(replace(in_force, peers=(each,))) for each in reachable(in_force)}


def lived(history: list[Event], *, wanted: SpeakerSettings = PLAIN) -> tuple[Speaker, Wire]:
    """Return a speaker to which all this happened, a second after each other, and the wire that heard of it."""
    speaker = Speaker(wanted, now=0)
    wire = Wire(speaker)
    for now, event in enumerate([WireStarted(), *history]):
        if (isinstance(event, WireStarted) and wire.runs) or (isinstance(event, WireConfigured) and not wire.orders):
            continue
        wire.takes(event, speaker.on(event, now=now))
    return speaker, wire


# --- tables are functions of what they are made of


@examples(400)
@given(histories)
def test_what_peers_are_told_depends_on_the_loc_rib_and_the_settings_only(history: list[Event]) -> None:
    speaker, wire = lived(history)
    policies = Policies(speaker.settings, {})
    for each in speaker.sessions.values():
        each.import_policy, each.export_policy = policies.new(each.settings)
    export = Export(speaker.settings, speaker.loc_rib)
    held = reachable(speaker.in_force) if wire.runs else ()
    wanted = {each.address: export.wanted(speaker.sessions[each.address]) for each in held}
    assert wire.told == wanted
    tables = {address: session.adj_rib_out.told for address, session in speaker.sessions.items()}
    assert tables == {address: {} for address in speaker.sessions} | wanted


@examples(400)
@given(histories)
def test_the_wire_holds_the_sessions_that_are_wanted(history: list[Event]) -> None:
    speaker, wire = lived(history)
    assert wire.held == (configured(speaker) if wire.runs else {})


@examples(400)
@given(histories)
def test_the_loc_rib_depends_on_what_peers_said_and_on_next_hops_only(history: list[Event]) -> None:
    speaker, _ = lived(history)
    obstacles = speaker.loc_rib.obstacles
    expected: dict[IPNetwork, BestPath] = {}
    waiting: dict[IPNetwork, BestPath] = {}
    next_hops = set()
    for prefix in PREFIXES:
        told = (each.adj_rib_in.accepted(prefix) for each in speaker.sessions.values())
        accepted = [each for each in told if each]
        next_hops |= {each.attributes.next_hop for each in accepted}
        best = decision.best(each for each in accepted if each.attributes.next_hop not in obstacles)
        if best:
            expected[prefix] = best
        elif otherwise := decision.best(accepted):
            waiting[prefix] = otherwise
    assert speaker.loc_rib.best == expected
    assert speaker.loc_rib.waiting == waiting
    assert speaker.next_hops == next_hops


@given(histories)
def test_what_policy_says_depends_on_the_settings_only(history: list[Event]) -> None:
    speaker, _ = lived(history)
    policies = Policies(speaker.settings, {})
    for session in speaker.sessions.values():
        policy, _ = policies.new(session.settings)
        for prefix, told in session.adj_rib_in.entries.items():
            assert told == told.judged(policy.weigh(prefix, told.received))


@given(histories)
def test_every_change_of_a_route_is_said_and_nothing_else(history: list[Event]) -> None:
    speaker = Speaker(PLAIN, now=0)

    def ways() -> dict[IPNetwork, tuple[object, ...]]:
        tables = speaker.loc_rib.waiting, speaker.loc_rib.best
        return {
            prefix: (table is tables[0], best.path, best.equal) for table in tables for prefix, best in table.items()
        }

    for now, event in enumerate(history):
        before = ways()
        effects = speaker.on(event, now=now)
        after = ways()
        differ = {prefix for prefix in PREFIXES if before.get(prefix) != after.get(prefix)}
        said = {prefix for effect in effects if isinstance(effect, RoutesChanged) for prefix in effect.prefixes}
        # What goes and comes within one event may be said too.
        assert differ <= said
        assert isinstance(event, UpdateReceived | PeerUp | PeerDown | Configured) or said == differ


@given(st.lists(st.tuples(events, st.booleans()), max_size=30))
def test_what_has_moved_comes_to_all_that_there_is_whenever_it_is_asked_for(
    history: list[tuple[tuple[Event, ...], bool]],
) -> None:
    speaker, moved = Speaker(PLAIN, now=0), Moved()
    assert moved.taken(speaker.loc_rib) is None, "at first nobody knows"
    followed: dict[IPNetwork, BestPath | None] = {}
    for now, (some, asked) in enumerate([*history, ((), True)]):
        for event in some:
            for effect in speaker.on(event, now=now):
                if isinstance(effect, RoutesChanged):
                    moved.note(effect.prefixes)
        if asked:
            followed |= dict(moved.taken(speaker.loc_rib) or ())
            known = {prefix: (best.path, best.equal) for prefix, best in followed.items() if best is not None}
            tables = {**speaker.loc_rib.waiting, **speaker.loc_rib.best}
            assert known == {prefix: (best.path, best.equal) for prefix, best in tables.items()}


# --- order


def in_turn(speaker: Speaker, by_peer: dict[IPAddress, list[UpdateReceived]], turns: Iterable[IPAddress]) -> None:
    waiting = {address: list(those) for address, those in by_peer.items()}
    for address in turns:
        if waiting[address]:
            speaker.on(waiting[address].pop(0), now=2)
    for those in waiting.values():
        for each in those:
            speaker.on(each, now=3)


@given(st.lists(updates, max_size=20), st.lists(addresses, max_size=20), st.lists(addresses, max_size=20))
def test_what_is_best_does_not_depend_on_who_spoke_first(
    told: list[UpdateReceived], some_turns: list[IPAddress], other_turns: list[IPAddress]
) -> None:
    by_peer = {address: [each for each in told if each.peer == address] for address in ADDRESSES}
    unlimited = replace(PLAIN, peers=tuple(replace(each, prefix_limit=None) for each in PEERS))
    one, other = Speaker(unlimited, now=0), Speaker(unlimited, now=0)
    in_turn(one, by_peer, some_turns)
    in_turn(other, by_peer, other_turns)
    assert one.loc_rib.best == other.loc_rib.best


@given(histories, addresses, said)
def test_what_is_announced_and_withdrawn_leaves_no_trace(
    history: list[Event], teller: IPAddress, what: Attributes
) -> None:
    speaker, wire = lived(history)
    fresh = network("10.65.9.0/26")
    best, told = dict(speaker.loc_rib.best), {each: dict(those) for each, those in wire.told.items()}
    for event in (UpdateReceived(teller, (fresh,), attributes=what), UpdateReceived(teller, withdrawn=(fresh,))):
        wire.takes(event, speaker.on(event, now=100))
    if teller not in speaker.sessions or speaker.sessions[teller].why_not is None:
        assert speaker.loc_rib.best == best
        assert wire.told == told


# --- nothing is left behind


@given(histories)
def test_nothing_is_left_of_peers_that_are_gone(history: list[Event]) -> None:
    speaker, _ = lived([*history, Configured(replace(PLAIN, peers=()))])
    assert speaker.sessions == {}
    assert (speaker.loc_rib.best, speaker.loc_rib.contests) == ({}, {})
    assert speaker.deadline() is None


def blocks_after(speaker: Speaker, rounds: Iterable[Iterable[Event]]) -> int:
    """Return how many blocks of memory are allocated after all this has happened."""
    for now, events_of_round in enumerate(rounds):
        for event in events_of_round:
            speaker.on(event, now=1000 + now)
    gc.collect()
    return sys.getallocatedblocks()


@pytest.fixture
def reflector() -> Speaker:
    speaker, _ = lived(
        [event for each in ADDRESSES for event in (OpenReceived(each, offered(router_id=each)), PeerUp(each, 90))],
        wanted=replace(SETTINGS[1], peers=tuple(replace(each, prefix_limit=None) for each in PEERS)),
    )
    return speaker


@pytest.mark.slow
def test_a_peer_that_flaps_a_hundred_times_leaks_nothing(reflector: Speaker) -> None:
    told = tuple(network("10.65.0.0/16").subnets(new_prefix=21))
    up = OpenReceived(B1, offered(restart=HELPED)), PeerUp(B1, 90)
    flap = (*up, UpdateReceived(B1, told, attributes=attributes()), PeerDown(B1, "connection lost"))
    blocks_after(reflector, [flap] * 200)  # histories are full by now, and free lists have settled
    counts = [blocks_after(reflector, [flap] * 100) for _ in range(4)]
    # The count is the process's: another thread may add to one interval, but only a leak adds to every one.
    assert min(after - before for before, after in pairwise(counts)) < 100, counts  # not one for each flap


@pytest.mark.slow
def test_twenty_thousand_updates_leave_memory_flat() -> None:
    prefixes = tuple(network("10.65.0.0/16").subnets(new_prefix=26))[4:504]
    speaker, _ = lived([event for each in (TOR, B1) for event in (OpenReceived(each, offered()), PeerUp(each, 90))])

    def churn(rounds: int) -> Iterable[Iterable[Event]]:
        """Have two peers tell 500 prefixes each, always with attributes of their own, and withdraw half of them."""
        for number in range(rounds):
            for teller in (TOR, B1):
                for index, prefix in enumerate(prefixes):
                    said = attributes(str(teller), 64500, med=number * 500 + index)
                    yield (UpdateReceived(teller, (prefix,), attributes=said),)
                yield (UpdateReceived(teller, withdrawn=prefixes[number % 2 :: 2]),)

    before = blocks_after(speaker, churn(5))
    after = blocks_after(speaker, churn(10))
    assert len(speaker.loc_rib.best) == 500 - 250
    assert after - before < 1000  # not one for each of the ten thousand
