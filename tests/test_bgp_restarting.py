"""Graceful restart and route refresh, family by family; time is a number."""

from dataclasses import replace

import pytest
from bgp_builders import B1, HELPED, attributes, network, offered, peer, settings

from bgp import waiting
from bgp.speaker import Speaker
from bgp.speaker_words import RoutesChanged, SessionDown, Tick, WireLost, WireStarted
from bgp.types import (
    EndOfRib,
    Family,
    GracefulRestart,
    IPNetwork,
    OpenReceived,
    PeerDown,
    PeerUp,
    RefreshHeard,
    RefreshStage,
    UpdateReceived,
)

FOUR, OTHER, SIX = network("10.65.2.0/26"), network("10.65.3.0/26"), network("fd00:65::/64")
V4, V6 = Family.IPV4_UNICAST, Family.IPV6_UNICAST
BOTH = settings(peer(B1, families=(V4, V6)), accept_within=(network("10.65.0.0/16"), network("fd00:65::/48")), own=())
KEEPS_BOTH = GracefulRestart(120, families={V4: True, V6: True})


def come_up(speaker: Speaker, restart: GracefulRestart | None, now: float) -> None:
    speaker.on(OpenReceived(B1, offered(restart=restart)), now=now)
    speaker.on(PeerUp(B1, 90), now=now)


def up(restart: GracefulRestart | None = KEEPS_BOTH) -> Speaker:
    speaker = Speaker(BOTH, now=0)
    speaker.on(WireStarted(), now=0)
    come_up(speaker, restart, now=1)
    tell(speaker, FOUR, SIX)
    return speaker


def tell(speaker: Speaker, *prefixes: IPNetwork, now: float = 2) -> None:
    for prefix in prefixes:
        said = attributes() if prefix.version == 4 else replace(attributes(), next_hop=network("fd00::9/128")[0])
        speaker.on(UpdateReceived(B1, (prefix,), attributes=said), now=now)


def kept(speaker: Speaker) -> dict[IPNetwork, bool]:
    """Return what is in the Loc-RIB, and whether it is stale."""
    return {prefix: best.path.stale for prefix, best in speaker.loc_rib.best.items()}


# --- family by family


def test_only_families_that_the_peer_asks_for_are_kept() -> None:
    speaker = up(HELPED)
    down = speaker.on(PeerDown(B1, "connection lost"), now=10)
    assert down[0] == SessionDown(BOTH.peers[0], "connection lost", kept=1)
    assert kept(speaker) == {FOUR: True}


def test_only_families_that_went_on_forwarding_are_kept_when_the_peer_is_back() -> None:
    speaker = up()
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    assert kept(speaker) == {FOUR: True, SIX: True}
    come_up(speaker, GracefulRestart(120, families={V4: True, V6: False}), now=11)
    assert kept(speaker) == {FOUR: True}


@pytest.mark.parametrize(
    "restart",
    [
        pytest.param(None, id="without the capability"),
        pytest.param(GracefulRestart(120), id="with the capability for no family"),
        pytest.param(GracefulRestart(120, families={V6: True}), id="with the capability for the other family"),
    ],
)
def test_a_peer_that_comes_back_without_asking_for_it_is_not_helped_any_more(restart: GracefulRestart | None) -> None:
    speaker = up(HELPED)
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    come_up(speaker, restart, now=11)
    assert FOUR not in kept(speaker)


def test_end_of_rib_sweeps_its_own_family() -> None:
    speaker = up()
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    come_up(speaker, KEEPS_BOTH, now=11)
    speaker.on(EndOfRib(B1, V6), now=12)
    assert kept(speaker) == {FOUR: True}
    assert speaker.deadline() == 71
    assert not speaker.sessions[B1].end_of_rib
    speaker.on(EndOfRib(B1, V4), now=13)
    assert kept(speaker) == {}
    assert speaker.deadline() is None
    assert speaker.sessions[B1].end_of_rib


def test_a_peer_that_speaks_one_family_ends_with_that() -> None:
    speaker = Speaker(BOTH, now=0)
    come_up(speaker, HELPED, now=1)
    speaker.on(EndOfRib(B1, V4), now=2)
    assert speaker.converged(3)


# --- again and again


def test_what_was_stale_already_is_not_kept_through_the_next_restart() -> None:
    speaker = up()
    tell(speaker, OTHER)
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    come_up(speaker, KEEPS_BOTH, now=11)
    tell(speaker, FOUR)
    speaker.on(PeerDown(B1, "connection lost"), now=12)
    # RFC 4724 section 4.2: a route that was marked as stale before must be deleted.
    assert kept(speaker) == {FOUR: True}
    assert speaker.deadline() == 132


def test_our_own_deaths_in_a_row_keep_everything_and_the_peer_is_believed_when_it_is_back() -> None:
    speaker = up()
    for second in range(10, 30):
        speaker.on(WireLost("killed"), now=second)
        assert kept(speaker) == {FOUR: True, SIX: True}
        speaker.on(WireStarted(), now=second)
        come_up(speaker, KEEPS_BOTH, now=second)
    tell(speaker, FOUR)
    speaker.on(EndOfRib(B1, V4), now=31)
    speaker.on(EndOfRib(B1, V6), now=31)
    assert kept(speaker) == {FOUR: False}


def test_a_new_connection_before_the_old_one_is_known_to_be_gone_is_a_restart() -> None:
    speaker = up()
    come_up(speaker, KEEPS_BOTH, now=10)
    assert kept(speaker) == {FOUR: True, SIX: True}
    assert speaker.sessions[B1].flaps == 1
    speaker.on(EndOfRib(B1, V4), now=11)
    assert kept(speaker) == {SIX: True}


def test_the_peer_may_stay_away_no_longer_than_it_said_itself() -> None:
    speaker = up(GracefulRestart(7, families={V4: True, V6: True}))
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    assert speaker.deadline() == 17
    changed = speaker.on(Tick(), now=17)
    assert changed == (RoutesChanged((FOUR, SIX)),)
    assert speaker.loc_rib.contests == {}


# --- route refresh


def hear(speaker: Speaker, stage: RefreshStage, now: float, family: Family = V4) -> tuple[object, ...]:
    return speaker.on(RefreshHeard(B1, family, stage), now=now)


def test_what_is_not_told_again_between_the_beginning_and_the_end_is_forgotten() -> None:
    speaker = up()
    tell(speaker, OTHER)
    assert hear(speaker, RefreshStage.BEGIN, 10) == ()
    tell(speaker, FOUR, now=11)
    assert kept(speaker) == {FOUR: False, OTHER: False, SIX: False}, "packets flow on meanwhile"
    assert hear(speaker, RefreshStage.END, 12) == (RoutesChanged((OTHER,)),)
    assert kept(speaker) == {FOUR: False, SIX: False}


def test_what_is_told_for_the_first_time_during_a_refresh_stays() -> None:
    speaker = up()
    hear(speaker, RefreshStage.BEGIN, 10)
    tell(speaker, FOUR, OTHER, now=11)
    assert hear(speaker, RefreshStage.END, 12) == ()
    assert set(kept(speaker)) == {FOUR, OTHER, SIX}


def test_a_refresh_that_begins_again_begins_again() -> None:
    speaker = up()
    hear(speaker, RefreshStage.BEGIN, 10)
    tell(speaker, FOUR, now=11)
    hear(speaker, RefreshStage.BEGIN, 12)
    assert hear(speaker, RefreshStage.END, 13) == (RoutesChanged((FOUR,)),)


def test_an_end_without_a_beginning_means_nothing() -> None:
    assert hear(up(), RefreshStage.END, 10) == ()


def test_a_refresh_that_never_ends_is_over_after_five_minutes() -> None:
    speaker = up()
    hear(speaker, RefreshStage.BEGIN, 10, V6)
    assert speaker.deadline() == 310
    assert speaker.on(Tick(), now=310) == (RoutesChanged((SIX,)),)
    assert speaker.deadline() is None


def test_a_session_that_ends_during_a_refresh_takes_it_along() -> None:
    speaker = up()
    hear(speaker, RefreshStage.BEGIN, 10)
    speaker.on(PeerDown(B1, "connection lost"), now=11)
    come_up(speaker, KEEPS_BOTH, now=12)
    assert hear(speaker, RefreshStage.END, 13) == ()
    assert kept(speaker) == {FOUR: True, SIX: True}


def test_that_the_peer_asks_us_is_answered_by_the_wire() -> None:
    assert hear(up(), RefreshStage.REQUEST, 10) == ()


# --- when a node's network is there


def test_what_was_said_in_a_session_that_ended_is_not_known_any_more() -> None:
    speaker = up()

    def arrived(now: float) -> bool:
        return waiting.arrived(speaker.sessions.values(), since=now - 1, now=now)

    assert not arrived(2)
    speaker.on(EndOfRib(B1, V4), now=3)
    speaker.on(EndOfRib(B1, V6), now=3)
    assert arrived(3)
    speaker.on(PeerDown(B1, "connection lost"), now=10)
    assert not arrived(11)
    come_up(speaker, KEEPS_BOTH, now=12)
    assert not arrived(12)
    speaker.on(EndOfRib(B1, V4), now=13)
    speaker.on(EndOfRib(B1, V6), now=13)
    assert arrived(13)
