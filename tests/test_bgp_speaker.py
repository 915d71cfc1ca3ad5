"""The speaker as a machine: what it is told, what it wants said, which routes change; time is a number."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from bgp_builders import A2, B1, HELPED, ME, NODE_AS, TOR, TOR_AS, attributes, network, offered, peer, settings
from bgp_talks import MESH, announce, best_peer, come_up, started

from bgp.faults import BAD_PEER_AS
from bgp.peering import PeerSettings
from bgp.speaker import DECONFIGURED, Speaker
from bgp.speaker_words import (
    Configured,
    PathsRefused,
    RoutesChanged,
    SessionDown,
    SessionUp,
    Tick,
    WireLost,
    WireStarted,
)
from bgp.types import (
    Announce,
    AnnounceEndOfRib,
    ConnectFailed,
    DialFailure,
    EndOfRib,
    GracefulRestart,
    HoldSessions,
    Notification,
    NotificationReceived,
    NotificationSent,
    OpenReceived,
    OpenSent,
    PeerDown,
    PeerUp,
    SessionState,
    StateChanged,
    Teardown,
    UpdateReceived,
    Withdraw,
)

OWN = network("10.65.0.0/26")
PREFIX = network("10.65.2.0/26")
TO_NODES = attributes(None, local_preference=100)
TO_TOR = TO_STRANGER = attributes(None, NODE_AS)


# --- the wire


def test_a_wire_that_starts_is_told_everything() -> None:
    speaker = Speaker(MESH, now=0)
    assert speaker.on(WireStarted(), now=0) == (HoldSessions(), Announce((OWN,), (), TO_NODES))


def test_nothing_is_said_while_there_is_no_wire() -> None:
    speaker = Speaker(MESH, now=0)
    changed = replace(MESH, peers=(), announcements=frozenset())
    assert speaker.on(Configured(changed), now=0) == ()


def test_end_of_rib_is_said_as_soon_as_a_session_is_up() -> None:
    assert come_up(started()) == (SessionUp(MESH.peers[0]), AnnounceEndOfRib(B1))


def test_a_peer_that_nobody_knows_is_passed_over() -> None:
    assert started().on(PeerUp(A2), now=1) == ()


# --- settings


def test_the_same_settings_again_say_nothing() -> None:
    assert started().on(Configured(MESH), now=1) == ()


def test_a_new_prefix_is_announced_and_no_session_touched() -> None:
    wider = settings(peer(B1, name="b1"), own=("10.65.0.0/26", "10.65.7.0/26"))
    assert started().on(Configured(wider), now=1) == (Announce((network("10.65.7.0/26"),), (), TO_NODES),)


def test_a_prefix_that_is_not_ours_any_more_is_withdrawn() -> None:
    assert started().on(Configured(replace(MESH, announcements=frozenset())), now=1) == (Withdraw((OWN,)),)


def test_a_new_peer_is_told_what_others_have_been_told() -> None:
    more = replace(MESH, peers=(*MESH.peers, peer(TOR, TOR_AS)))
    assert started().on(Configured(more), now=1) == (HoldSessions(), Announce((OWN,), (TOR,), TO_TOR))


def test_a_removed_peer_takes_its_paths_along() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    effects = speaker.on(Configured(replace(MESH, peers=())), now=3)
    assert effects == (HoldSessions((Teardown(B1, DECONFIGURED),)), RoutesChanged((PREFIX,)))
    assert speaker.loc_rib.contests == {}
    assert speaker.sessions == {}


def test_another_as_is_another_peer() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    effects = speaker.on(Configured(settings(peer(B1, 64999, "b1"))), now=3)
    goodbye = HoldSessions((Teardown(B1, DECONFIGURED),))
    assert effects == (goodbye, RoutesChanged((PREFIX,)), Announce((OWN,), (), TO_STRANGER))
    assert not speaker.sessions[B1].established


def test_another_hold_time_keeps_what_the_peer_said() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    effects = speaker.on(Configured(settings(peer(B1, name="b1", hold_time=9))), now=3)
    # ExaBGP may have forgotten what it was to tell a neighbour that it makes anew.
    assert effects == (HoldSessions(), Announce((OWN,), (), TO_NODES))
    assert best_peer(speaker) == (B1, False)


def test_a_smaller_pool_refuses_what_was_accepted() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    effects = speaker.on(Configured(replace(MESH, accept_within=(network("10.66.0.0/16"),))), now=3)
    assert [type(effect) for effect in effects] == [PathsRefused, RoutesChanged]
    assert best_peer(speaker) is None
    speaker.on(Configured(MESH), now=4)
    assert best_peer(speaker) == (B1, False)


def test_a_peer_of_another_ip_version_is_explained() -> None:
    six = IPv6Address("fd00::1")
    speaker = started(settings(PeerSettings(six, NODE_AS, "six", "node")))
    assert speaker.sessions[six].last_error == "fd00::1 is IPv6, and this node's address 172.31.1.11 is IPv4"
    assert speaker.sessions[six].state is SessionState.IDLE
    wider = replace(speaker.settings, announcements=frozenset({OWN, PREFIX}))
    assert speaker.on(Configured(wider), now=1) == ()


# --- paths


def test_the_best_path_follows_what_peers_say() -> None:
    speaker = started(settings(peer(B1, name="b1"), peer(TOR, TOR_AS, "tor")))
    come_up(speaker)
    come_up(speaker, TOR)
    told = UpdateReceived(TOR, (PREFIX,), attributes=attributes("172.31.1.1", TOR_AS, 65001))
    (change,) = speaker.on(told, now=2)
    assert isinstance(change, RoutesChanged)
    assert best_peer(speaker) == (TOR, False)
    announce(speaker)
    assert best_peer(speaker) == (B1, False)
    speaker.on(UpdateReceived(B1, withdrawn=(PREFIX,)), now=3)
    assert best_peer(speaker) == (TOR, False)


def test_a_refused_path_is_reported_and_no_route() -> None:
    speaker = started()
    come_up(speaker)
    effects = speaker.on(UpdateReceived(B1, (network("0.0.0.0/0"),), attributes=attributes()), now=2)
    (refused,) = effects
    assert isinstance(refused, PathsRefused)
    assert str(refused.refusal) == "default route"
    assert speaker.loc_rib.best == {}


def test_a_path_of_another_as_is_external() -> None:
    speaker = started(settings(peer(TOR, TOR_AS)))
    come_up(speaker, TOR)
    announce(speaker, TOR)
    assert speaker.loc_rib.best[PREFIX].path.external


# --- graceful restart


def test_a_lost_connection_keeps_the_paths_for_the_peers_restart_time() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    effects = speaker.on(PeerDown(B1, "connection lost"), now=10)
    assert effects[0] == SessionDown(MESH.peers[0], "connection lost", kept=1)
    assert best_peer(speaker) == (B1, True)
    assert speaker.deadline() == 130
    assert speaker.on(Tick(), now=129) == ()
    assert speaker.on(Tick(), now=130) == (RoutesChanged((PREFIX,)),)
    assert speaker.deadline() is None


@pytest.mark.parametrize(
    ("restart", "notified"),
    [
        pytest.param(HELPED, True, id="after a NOTIFICATION"),
        pytest.param(None, False, id="of a peer without graceful restart"),
        pytest.param(GracefulRestart(120), False, id="of a peer that only helps others"),
    ],
)
def test_nothing_is_kept(restart: GracefulRestart | None, *, notified: bool) -> None:
    speaker = started()
    come_up(speaker, restart=restart)
    announce(speaker)
    effects = speaker.on(PeerDown(B1, "gone", notified=notified), now=10)
    assert effects == (SessionDown(MESH.peers[0], "gone"), RoutesChanged((PREFIX,)))
    assert speaker.deadline() is None


def test_end_of_rib_sweeps_what_was_not_said_again() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    announce(speaker, prefix="10.65.3.0/26")
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    come_up(speaker, now=11)
    assert best_peer(speaker) == (B1, True)
    announce(speaker)
    assert best_peer(speaker) == (B1, False)
    assert speaker.on(EndOfRib(B1), now=12) == (RoutesChanged((network("10.65.3.0/26"),)),)


def test_a_peer_that_is_back_and_never_says_end_of_rib_is_swept_after_a_minute() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    come_up(speaker, now=20)
    assert speaker.deadline() == 80
    assert speaker.on(Tick(), now=80) == (RoutesChanged((PREFIX,)),)


def test_a_peer_that_lost_its_forwarding_state_is_not_trusted_with_it() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    effects = come_up(speaker, now=11, restart=GracefulRestart(120, families={"ipv4 unicast": False}))
    assert RoutesChanged((PREFIX,)) in effects


def test_our_own_death_keeps_everything_whatever_peers_can_do() -> None:
    speaker = started()
    come_up(speaker, restart=None)
    announce(speaker)
    speaker.on(WireLost("killed"), now=10)
    assert best_peer(speaker) == (B1, True)
    assert speaker.deadline() == 130
    assert speaker.sessions[B1].state is SessionState.IDLE
    speaker.on(WireStarted(), now=11)
    come_up(speaker, now=12, restart=None)
    assert best_peer(speaker) == (B1, True)
    announce(speaker)
    assert best_peer(speaker) == (B1, False)


def test_dying_again_before_peers_are_back_does_not_keep_paths_longer() -> None:
    speaker = started()
    come_up(speaker)
    announce(speaker)
    speaker.on(WireLost("killed"), now=10)
    speaker.on(WireStarted(), now=11)
    speaker.on(WireLost("killed"), now=100)
    assert speaker.deadline() == 130


# --- convergence


def test_without_peers_there_is_nothing_to_wait_for() -> None:
    assert Speaker(settings(), now=0).converged(0)


def test_converged_when_every_peer_has_said_end_of_rib() -> None:
    speaker = started(settings(peer(B1), peer(A2)))
    come_up(speaker)
    come_up(speaker, A2)
    speaker.on(EndOfRib(B1), now=2)
    assert not speaker.converged(3)
    speaker.on(EndOfRib(A2), now=3)
    assert speaker.converged(3)
    speaker.on(PeerDown(A2, "connection lost"), now=4)
    assert speaker.converged(4)


def test_paths_are_chosen_from_when_every_peer_that_does_not_wait_for_us_has_spoken() -> None:
    speaker = started(settings(peer(B1), peer(A2)))
    come_up(speaker)
    speaker.on(EndOfRib(B1), now=2)
    assert not speaker.selecting(3)
    come_up(speaker, A2, restart=replace(HELPED, restarted=True))
    assert speaker.selecting(3), "it has just started too, and waits for us"
    assert not speaker.converged(3)


def test_paths_are_chosen_from_after_ten_seconds_whoever_is_missing() -> None:
    speaker = started()
    assert not speaker.selecting(9.9)
    assert speaker.selecting(10)


def test_converged_after_the_restart_time_whoever_is_missing() -> None:
    speaker = started()
    assert not speaker.converged(119)
    assert speaker.converged(120)


def test_a_peer_that_says_no_end_of_rib_has_five_seconds() -> None:
    speaker = started()
    come_up(speaker, restart=None)
    assert not speaker.converged(5)
    assert speaker.converged(6)


# --- what people are told


def test_a_wrong_as_that_we_find_is_said_with_both_numbers() -> None:
    speaker = started(settings(peer(TOR, TOR_AS)))
    speaker.on(OpenReceived(TOR, offered(64999)), now=1)
    speaker.on(NotificationSent(TOR, Notification(*BAD_PEER_AS)), now=1)
    speaker.on(PeerDown(TOR, "we said OPEN Message Error: Bad Peer AS", notified=True), now=1)
    assert speaker.sessions[TOR].last_error == ("OPEN Message Error: Bad Peer AS: peer says AS 64999, configured 64500")


def test_a_wrong_as_that_the_peer_finds_is_said_with_ours() -> None:
    speaker = started(settings(peer(TOR, TOR_AS)))
    speaker.on(OpenSent(TOR, offered(NODE_AS)), now=1)
    speaker.on(NotificationReceived(TOR, Notification(*BAD_PEER_AS)), now=1)
    assert speaker.sessions[TOR].last_error == (
        "peer said OPEN Message Error: Bad Peer AS: the peer expects another AS than ours, 64512"
    )


def test_a_connection_that_fails_is_said_and_no_change_of_state() -> None:
    speaker = started()
    speaker.on(ConnectFailed(B1, DialFailure.OTHER, "Permission denied"), now=1)
    assert speaker.sessions[B1].last_error == "cannot connect to 172.31.2.11 port 179: Permission denied"
    assert [change.cause for change in speaker.sessions[B1].history] == ["started"]


def test_the_history_has_the_last_twenty_changes_with_their_causes() -> None:
    speaker = started()
    for second in range(30):
        come_up(speaker, now=second)
        speaker.on(PeerDown(B1, "connection lost"), now=second + 0.5)
    history = speaker.sessions[B1].history
    assert len(history) == 20
    assert (history[-1].at, history[-1].state, history[-1].cause) == (29.5, SessionState.CONNECT, "connection lost")
    assert speaker.sessions[B1].flaps == 30


def test_a_waiting_session_is_active_and_a_dialling_one_connects() -> None:
    speaker = started(settings(peer(B1, passive=True), peer(A2)))
    assert (speaker.sessions[B1].state, speaker.sessions[A2].state) == (SessionState.ACTIVE, SessionState.CONNECT)
    speaker.on(StateChanged(A2, SessionState.OPEN_SENT), now=1)
    assert speaker.sessions[A2].state is SessionState.OPEN_SENT
    speaker.on(PeerDown(A2, "connection lost"), now=2)
    assert speaker.sessions[A2].last_error == (
        "connection lost in state OpenSent: the peer hung up before its OPEN; it may have no session with us"
    )


def test_an_address_of_ours_is_no_next_hop() -> None:
    speaker = started()
    come_up(speaker)
    told = UpdateReceived(B1, (PREFIX,), attributes=attributes(str(ME)))
    assert [type(effect) for effect in speaker.on(told, now=2)] == [PathsRefused]
