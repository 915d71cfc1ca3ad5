"""The speaker as a route reflector, and what peers are told as things change; time is a number."""

from dataclasses import replace
from ipaddress import IPv4Address

from bgp_builders import A2, B1, HELPED, ME, NODE_AS, TOR, TOR_AS, attributes, network, offered, peer, settings

from bgp import communities
from bgp.filters import Action, AddCommunity, Filter, Rule
from bgp.policy import Reason, Refusal
from bgp.speaker import Speaker
from bgp.speaker_words import Configured, NextHops, RoutesChanged, SpeakerSettings, Tick, WireLost, WireStarted
from bgp.types import (
    Announce,
    AnnounceEndOfRib,
    Attributes,
    EndOfRib,
    GracefulRestart,
    HoldSessions,
    IPAddress,
    OpenReceived,
    PeerDown,
    PeerUp,
    UpdateReceived,
    Withdraw,
)

CLUSTER = IPv4Address("244.0.0.1")
PREFIX = network("10.65.2.0/26")
OWN = network("10.65.0.0/26")
C1, C2 = IPv4Address("172.31.3.1"), IPv4Address("172.31.3.2")
REFLECTOR = settings(
    peer(C1, client=True, kind="rr-client"),
    peer(C2, client=True, kind="rr-client"),
    peer(B1),
    own=(),
    cluster_id=CLUSTER,
)


def up(wanted: SpeakerSettings, restart: GracefulRestart | None = None) -> Speaker:
    """Return a speaker with all sessions up, and everything said."""
    speaker = Speaker(wanted, now=0)
    speaker.on(WireStarted(), now=0)
    for each in wanted.peers:
        speaker.on(OpenReceived(each.address, offered(each.asn, IPv4Address(each.address), restart)), now=1)
        speaker.on(PeerUp(each.address, 90), now=1)
    for each in wanted.peers:
        speaker.on(EndOfRib(each.address), now=1)
    return speaker


def tell(speaker: Speaker, teller: IPAddress, said: Attributes | None = None, now: float = 2) -> tuple[object, ...]:
    return speaker.on(UpdateReceived(teller, (PREFIX,), attributes=said or attributes(str(teller))), now=now)


def reflected(originator: IPv4Address, *clusters: IPv4Address, next_hop: str = "") -> Attributes:
    return attributes(
        next_hop or str(originator), local_preference=100, originator_id=originator, cluster_list=(CLUSTER, *clusters)
    )


# --- whom


def test_what_a_client_says_is_told_to_all_others() -> None:
    effects = tell(up(REFLECTOR), C1)
    assert effects == (RoutesChanged((PREFIX,)), Announce((PREFIX,), (C2, B1), reflected(C1)))


def test_what_a_non_client_says_is_told_to_clients_only() -> None:
    more = replace(REFLECTOR, peers=(*REFLECTOR.peers, peer(A2)))
    assert tell(up(more), B1)[1:] == (Announce((PREFIX,), (C1, C2), reflected(B1)),)


def test_a_node_that_reflects_nothing_passes_nothing_on() -> None:
    speaker = up(settings(peer(B1), peer(A2)))
    assert tell(speaker, B1) == (RoutesChanged((PREFIX,)),)
    assert speaker.exported(A2, PREFIX) is None


def test_why_something_is_not_told_can_be_asked() -> None:
    speaker = up(replace(REFLECTOR, peers=(*REFLECTOR.peers, peer(A2))))
    tell(speaker, B1)
    assert speaker.exported(B1, PREFIX) == Refusal(Reason.TOLD_BY_PEER)
    assert speaker.exported(A2, PREFIX) == Refusal(Reason.NOT_REFLECTED)
    assert speaker.exported(A2, OWN) is None


# --- with what


def test_the_originator_is_named_once_and_our_cluster_comes_first() -> None:
    other = IPv4Address("244.0.0.9")
    said = attributes("172.31.9.9", originator_id=A2, cluster_list=(other,), local_preference=100)
    (announced,) = tell(up(REFLECTOR), C1, said)[1:]
    assert announced == Announce((PREFIX,), (C2, B1), reflected(A2, other, next_hop="172.31.9.9"))


def test_a_path_that_comes_back_is_refused() -> None:
    speaker = up(REFLECTOR)
    tell(speaker, C1, attributes(str(C1), cluster_list=(CLUSTER,), originator_id=A2))
    tell(speaker, C2, attributes(str(C2), originator_id=ME, cluster_list=(IPv4Address("244.0.0.9"),)))
    assert speaker.loc_rib.best == {}
    tables = (each.adj_rib_in for each in speaker.sessions.values())
    refusals = [table.entries[PREFIX].refusal for table in tables if table.entries]
    assert [each.reason for each in refusals if each] == [Reason.OWN_CLUSTER, Reason.OWN_ORIGINATOR]


# --- when


def test_another_best_path_takes_the_place_of_the_first_and_nothing_is_left_of_that() -> None:
    speaker = up(REFLECTOR)
    tell(speaker, C1)
    # Both are as good: flows are spread over them, and the one of the lower router ID is passed on.
    assert tell(speaker, C2) == (RoutesChanged((PREFIX,)),)
    effects = speaker.on(UpdateReceived(C1, withdrawn=(PREFIX,)), now=3)
    assert effects == (
        RoutesChanged((PREFIX,)),
        Withdraw((PREFIX,), (C2,)),
        Announce((PREFIX,), (C1, B1), reflected(C2)),
    )


def test_a_client_that_dies_is_not_spoken_of_any_more() -> None:
    speaker = up(REFLECTOR)
    tell(speaker, C1)
    effects = speaker.on(PeerDown(C1, "gone", notified=True), now=3)
    assert effects[1:] == (RoutesChanged((PREFIX,)), Withdraw((PREFIX,), (C2, B1)))


def test_a_path_whose_next_hop_cannot_be_reached_is_withdrawn_and_comes_back() -> None:
    speaker = up(REFLECTOR)
    tell(speaker, C1)
    assert speaker.next_hops == {C1}
    lost = speaker.on(NextHops({C1: "eth0 is down"}), now=3)
    assert lost == (RoutesChanged((PREFIX,)), Withdraw((PREFIX,), (C2, B1)))
    assert speaker.on(NextHops({C1: "eth0 has no carrier"}), now=3) == ()
    assert speaker.on(NextHops({}), now=4) == (
        RoutesChanged((PREFIX,)),
        Announce((PREFIX,), (C2, B1), reflected(C1)),
    )


def test_a_path_that_comes_with_a_next_hop_that_cannot_be_reached_is_known_and_told_to_nobody() -> None:
    speaker = up(REFLECTOR)
    speaker.on(NextHops({C1: "eth0 is down"}), now=2)
    assert tell(speaker, C1) == (RoutesChanged((PREFIX,)),)
    assert speaker.exported(B1, PREFIX) is None
    assert speaker.loc_rib.waiting[PREFIX].path.peer == C1


def test_another_path_whose_next_hop_can_be_reached_is_told_in_its_place() -> None:
    speaker = up(REFLECTOR)
    tell(speaker, C1)
    tell(speaker, C2, attributes(str(C2), local_preference=50))
    assert speaker.on(NextHops({C1: "eth0 is down"}), now=3) == (
        RoutesChanged((PREFIX,)),
        Withdraw((PREFIX,), (C2,)),
        Announce((PREFIX,), (C1, B1), replace(reflected(C2), local_preference=50)),
    )


def test_a_filter_that_asks_for_the_interface_gets_to_know_it() -> None:
    only_eth1 = Filter("eth1", import_v4=(Rule(Action.ACCEPT, interface="eth1"), Rule(Action.REJECT)))
    wanted = settings(peer(C1, filters=("eth1",)), peer(B1), filters={"eth1": only_eth1})
    speaker = up(wanted)
    tell(speaker, C1)
    assert (speaker.loc_rib.best, speaker.next_hops) == ({}, {C1}), "refused, and asked for all the same"
    assert speaker.on(NextHops({}, {C1: "eth1"}), now=3) == (RoutesChanged((PREFIX,)),)
    assert speaker.on(NextHops({}, {C1: "eth1", B1: "eth0"}), now=3) == ()
    assert RoutesChanged((PREFIX,)) in speaker.on(NextHops({}, {C1: "eth0"}), now=4)
    assert (speaker.loc_rib.best, speaker.next_hops) == ({}, {C1})
    speaker.on(UpdateReceived(C1, withdrawn=(PREFIX,)), now=5)
    tell(speaker, C1, attributes("172.31.9.9"))
    assert speaker.next_hops == {IPv4Address("172.31.9.9")}, "nothing is left of what was said before"


def test_a_client_that_becomes_none_is_told_what_others_are() -> None:
    speaker = up(REFLECTOR)
    tell(speaker, B1)
    plain = replace(REFLECTOR, peers=(peer(C1), *REFLECTOR.peers[1:]))
    assert speaker.on(Configured(plain), now=3) == (Withdraw((PREFIX,), (C1,)),)


def test_a_new_peer_of_a_reflector_is_told_what_there_is() -> None:
    speaker = up(REFLECTOR)
    tell(speaker, C1)
    more = replace(REFLECTOR, peers=(*REFLECTOR.peers, peer(A2)))
    assert speaker.on(Configured(more), now=3) == (HoldSessions(), Announce((PREFIX,), (A2,), reflected(C1)))


def test_a_wire_that_starts_again_is_told_what_is_kept_before_anybody_is_up() -> None:
    speaker = up(REFLECTOR, HELPED)
    tell(speaker, C1)
    speaker.on(WireLost("killed"), now=3)
    assert speaker.on(WireStarted(), now=4) == (HoldSessions(), Announce((PREFIX,), (C2, B1), reflected(C1)))


# --- End-of-RIB


def test_a_reflector_that_starts_says_end_of_rib_when_everybody_has_told_everything() -> None:
    speaker = Speaker(REFLECTOR, now=0)
    speaker.on(WireStarted(), now=0)
    for address in (C1, C2, B1):
        speaker.on(OpenReceived(address, offered(restart=HELPED)), now=1)
        assert AnnounceEndOfRib(address) not in speaker.on(PeerUp(address, 90), now=1)
    speaker.on(EndOfRib(C1), now=2)
    speaker.on(EndOfRib(C2), now=2)
    assert speaker.on(EndOfRib(B1), now=3) == (AnnounceEndOfRib(C1), AnnounceEndOfRib(C2), AnnounceEndOfRib(B1))


def test_a_reflector_does_not_wait_for_one_that_has_just_started_too() -> None:
    two = replace(REFLECTOR, peers=REFLECTOR.peers[:2])
    speaker = Speaker(two, now=0)
    speaker.on(WireStarted(), now=0)
    for address, restarted in ((C1, True), (C2, False)):
        capability = replace(HELPED, restarted=restarted)
        speaker.on(OpenReceived(address, offered(restart=capability)), now=1)
        speaker.on(PeerUp(address, 90), now=1)
    assert speaker.on(EndOfRib(C2), now=2) == (AnnounceEndOfRib(C1), AnnounceEndOfRib(C2))


def test_a_reflector_waits_for_a_missing_peer_no_longer_than_a_minute() -> None:
    speaker = Speaker(REFLECTOR, now=0)
    speaker.on(WireStarted(), now=0)
    speaker.on(OpenReceived(C1, offered(restart=HELPED)), now=1)
    speaker.on(PeerUp(C1, 90), now=1)
    speaker.on(EndOfRib(C1), now=2)
    assert speaker.deadline() == 60
    assert speaker.on(Tick(), now=59) == ()
    assert speaker.on(Tick(), now=60) == (AnnounceEndOfRib(C1),)


def test_a_reflector_waits_five_seconds_for_a_peer_that_says_no_end_of_rib() -> None:
    one = replace(REFLECTOR, peers=REFLECTOR.peers[:1])
    speaker = Speaker(one, now=0)
    speaker.on(WireStarted(), now=0)
    speaker.on(OpenReceived(C1, offered()), now=1)
    speaker.on(PeerUp(C1, 90), now=1)
    assert speaker.deadline() == 6
    assert speaker.on(Tick(), now=6) == (AnnounceEndOfRib(C1),)
    assert speaker.deadline() is None


# --- what else changes what peers are told


MIXED = settings(peer(B1), peer(A2), peer(TOR, TOR_AS, kind="global"))
TO_NODES, TO_TOR = attributes(None, local_preference=100), attributes(None, NODE_AS)


def test_peers_that_are_told_the_same_are_told_it_at_once() -> None:
    speaker = Speaker(MIXED, now=0)
    assert speaker.on(WireStarted(), now=0) == (
        HoldSessions(),
        Announce((OWN,), (B1, A2), TO_NODES),
        Announce((OWN,), (TOR,), TO_TOR),
    )


def test_communities_of_our_prefixes_change_live() -> None:
    tags = {network("10.65.0.0/24"): ((64512, 7), (64512, 1, 2))}
    tagged = {"communities": ((64512, 7),), "large_communities": ((64512, 1, 2),)}
    assert up(MIXED).on(Configured(replace(MIXED, communities=tags)), now=3) == (
        Announce((OWN,), (B1, A2), attributes(None, local_preference=100, **tagged)),
        Announce((OWN,), (TOR,), attributes(None, NODE_AS, **tagged)),
    )


def test_draining_says_so_and_leaving_withdraws_and_no_session_is_touched() -> None:
    speaker = up(MIXED)
    tag = (communities.GRACEFUL_SHUTDOWN,)
    assert speaker.on(Configured(replace(MIXED, draining=True)), now=3) == (
        Announce((OWN,), (B1, A2), attributes(None, local_preference=0, communities=tag)),
        Announce((OWN,), (TOR,), attributes(None, NODE_AS, communities=tag)),
    )
    assert speaker.on(Configured(replace(MIXED, draining=True, leaving=True)), now=4) == (Withdraw((OWN,)),)
    assert speaker.on(Configured(MIXED), now=5) == (
        Announce((OWN,), (B1, A2), TO_NODES),
        Announce((OWN,), (TOR,), TO_TOR),
    )


def test_a_filter_changes_what_one_peer_is_told_and_no_session_is_touched() -> None:
    tag = Filter("tag", export_v4=(Rule(Action.ACCEPT, operations=(AddCommunity((64512, 9)),)),))
    named = replace(MIXED.peers[2], filters=("tag",))
    filtered = replace(MIXED, peers=(*MIXED.peers[:2], named), filters={"tag": tag})
    speaker = up(MIXED)
    effects = speaker.on(Configured(filtered), now=3)
    assert effects == (Announce((OWN,), (TOR,), attributes(None, NODE_AS, communities=((64512, 9),))),)
    reject = Filter("tag", export_v4=(Rule(Action.REJECT),))
    assert speaker.on(Configured(replace(filtered, filters={"tag": reject})), now=4) == (Withdraw((OWN,), (TOR,)),)


def test_a_filter_changes_what_is_taken_from_a_peer_without_asking_it_again() -> None:
    speaker = up(MIXED)
    tell(speaker, B1)
    none = Filter("none", import_v4=(Rule(Action.REJECT),))
    named = replace(MIXED.peers[0], filters=("none",))
    effects = speaker.on(Configured(replace(MIXED, peers=(named, *MIXED.peers[1:]), filters={"none": none})), now=3)
    assert effects[-1] == RoutesChanged((PREFIX,))
    assert speaker.loc_rib.best == {}
    assert speaker.on(Configured(MIXED), now=4) == (RoutesChanged((PREFIX,)),)


def test_each_family_is_told_where_it_is_carried() -> None:
    six = network("fd00:65::/64")
    both = replace(MIXED, peers=(peer(B1),), announcements=frozenset({OWN, six}))
    assert Speaker(both, now=0).on(WireStarted(), now=0)[1:] == (Announce((OWN,), (), TO_NODES),)
    from_both = replace(both, peers=(peer(B1, families=("ipv4 unicast", "ipv6 unicast")),))
    assert Speaker(from_both, now=0).on(WireStarted(), now=0)[1:] == (Announce((OWN, six), (), TO_NODES),)
