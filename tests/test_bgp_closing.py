"""Sessions that we take down: too many prefixes, and people who want it; time is a number."""

from dataclasses import replace

import pytest
from bgp_builders import A2, B1, HELPED, attributes, network, offered, peer, settings

from bgp.peering import PrefixLimit
from bgp.speaker import DECONFIGURED, RESET, SHUTDOWN, TOO_MANY_PREFIXES, Speaker, reachable
from bgp.speaker_words import (
    Configured,
    Effect,
    Enabled,
    ManyPrefixes,
    RefreshAsked,
    ResetAsked,
    RoutesChanged,
    SessionDown,
    SpeakerSettings,
    Tick,
    WireConfigured,
    WireLost,
    WireStarted,
    parted,
)
from bgp.types import (
    Announce,
    Family,
    HoldSessions,
    Notification,
    NotificationSent,
    OpenReceived,
    PeerDown,
    PeerUp,
    Refresh,
    SessionState,
    Teardown,
    UpdateReceived,
)

OWN = network("10.65.0.0/26")
BLOCKS = tuple(network("10.65.0.0/16").subnets(new_prefix=26))[4:]
TO_NODES = attributes(None, local_preference=100)
LIMITED = peer(B1, prefix_limit=PrefixLimit(10, warning=80))
TWO = settings(LIMITED, peer(A2))


def up(wanted: SpeakerSettings = TWO) -> Speaker:
    speaker = Speaker(wanted, now=0)
    speaker.on(WireStarted(), now=0)
    come_up(speaker, now=1)
    return speaker


def disabled(wanted: SpeakerSettings = TWO, message: str = "") -> SpeakerSettings:
    """Return settings whose first peer is disabled."""
    return replace(wanted, peers=(replace(wanted.peers[0], disabled=message), *wanted.peers[1:]))


def come_up(speaker: Speaker, now: float) -> tuple[Effect, ...]:
    speaker.on(OpenReceived(B1, offered(restart=HELPED)), now=now)
    return speaker.on(PeerUp(B1, 90), now=now)


def tell(speaker: Speaker, first: int, last: int, now: float = 2) -> tuple[Effect, ...]:
    """Have B1 tell some blocks, from the first up to the last, which is not among them."""
    return speaker.on(UpdateReceived(B1, BLOCKS[first:last], attributes=attributes(str(B1))), now=now)


def held(speaker: Speaker) -> list[str]:
    return [str(each.address) for each in reachable(speaker.in_force)]


# --- too many prefixes


def test_nearly_too_many_prefixes_are_said_once_until_there_are_fewer() -> None:
    speaker = up()
    assert not any(isinstance(effect, ManyPrefixes) for effect in tell(speaker, 0, 7))
    assert tell(speaker, 7, 8)[0] == ManyPrefixes(LIMITED, 8, LIMITED.prefix_limit or PrefixLimit(0))
    assert tell(speaker, 8, 9) == (RoutesChanged((BLOCKS[8],)),)
    speaker.on(UpdateReceived(B1, withdrawn=BLOCKS[5:9]), now=3)
    assert isinstance(tell(speaker, 5, 9)[0], ManyPrefixes)


def test_as_many_as_allowed_are_allowed() -> None:
    speaker = up()
    tell(speaker, 0, 10)
    assert speaker.sessions[B1].established


def test_too_many_prefixes_end_the_session_and_nothing_of_them_is_kept() -> None:
    speaker = up()
    tell(speaker, 0, 10)
    effects = tell(speaker, 10, 11)
    sentence = "the peer told 11 prefixes, and maxPrefixes allows 10; `felixctl bgp enable 172.31.2.11` tries again"
    assert effects[:2] == (SessionDown(LIMITED, sentence), HoldSessions((Teardown(B1, TOO_MANY_PREFIXES),)))
    assert speaker.loc_rib.best == {}
    session = speaker.sessions[B1]
    assert (session.state, session.last_error, session.adj_rib_in.entries) == (SessionState.IDLE, sentence, {})
    assert held(speaker) == ["172.31.1.12"]


def test_refused_prefixes_count_too() -> None:
    speaker = up(replace(TWO, accept_within=()))
    effects = tell(speaker, 0, 11)
    assert HoldSessions((Teardown(B1, TOO_MANY_PREFIXES),)) in effects


def test_what_the_peer_still_says_is_not_listened_to() -> None:
    speaker = up()
    tell(speaker, 0, 11)
    assert tell(speaker, 20, 25) == ()
    assert speaker.on(PeerUp(B1, 90), now=3) == ()
    speaker.on(NotificationSent(B1, Notification(6, TOO_MANY_PREFIXES)), now=3)
    assert speaker.on(PeerDown(B1, "we said Cease", notified=True), now=3) == ()
    assert speaker.sessions[B1].state is SessionState.IDLE
    assert "maxPrefixes allows 10" in str(speaker.sessions[B1].last_error)


def test_without_a_restart_time_it_stays_down_until_it_is_enabled() -> None:
    speaker = up()
    tell(speaker, 0, 11)
    assert speaker.deadline() is None
    assert speaker.on(Enabled(B1), now=9) == (HoldSessions(), Announce((OWN,), (B1,), TO_NODES))
    assert held(speaker) == ["172.31.2.11", "172.31.1.12"]
    for _ in ("the start", "taken down", "enabled"):
        speaker.on(WireConfigured(), now=10)
    come_up(speaker, now=10)
    tell(speaker, 0, 10)
    assert len(speaker.loc_rib.best) == 10


def test_with_a_restart_time_it_is_tried_again_then() -> None:
    limited = replace(LIMITED, prefix_limit=PrefixLimit(10, restart=30))
    speaker = up(replace(TWO, peers=(limited, TWO.peers[1])))
    tell(speaker, 0, 11)
    assert speaker.deadline() == 32
    assert speaker.on(Tick(), now=31) == ()
    assert speaker.on(Tick(), now=32) == (HoldSessions(), Announce((OWN,), (B1,), TO_NODES))
    assert speaker.sessions[B1].state is SessionState.CONNECT
    assert speaker.sessions[B1].last_error is None


def test_two_that_are_tried_again_at_once_are_one_order_to_the_wire() -> None:
    limited = replace(LIMITED, prefix_limit=PrefixLimit(10, restart=30))
    speaker = up(replace(TWO, peers=(limited, replace(limited, address=A2))))
    speaker.on(OpenReceived(A2, offered()), now=2)
    speaker.on(PeerUp(A2, 90), now=2)
    for each in (B1, A2):
        speaker.on(UpdateReceived(each, BLOCKS[:11], attributes=attributes(str(each))), now=2)
    assert held(speaker) == []
    effects = speaker.on(Tick(), now=32)
    assert [each for each in effects if isinstance(each, HoldSessions)] == [HoldSessions()]
    assert held(speaker) == ["172.31.2.11", "172.31.1.12"]


def test_a_limit_may_be_lifted_while_the_session_is_up_and_does_not_touch_it() -> None:
    speaker = up()
    wider = replace(LIMITED, prefix_limit=PrefixLimit(1000))
    assert speaker.on(Configured(replace(TWO, peers=(wider, TWO.peers[1]))), now=3) == ()
    tell(speaker, 0, 100)
    assert speaker.sessions[B1].established


# --- people


def test_a_disabled_session_says_goodbye_and_stays_down() -> None:
    speaker = up()
    tell(speaker, 0, 1)
    effects = speaker.on(Configured(disabled(message="a new switch")), now=3)
    sentence = "administratively down; `felixctl bgp enable 172.31.2.11` brings it back"
    assert effects == (
        SessionDown(replace(LIMITED, disabled="a new switch"), sentence),
        HoldSessions((Teardown(B1, SHUTDOWN, "a new switch"),)),
        RoutesChanged(BLOCKS[:1]),
    )
    assert speaker.sessions[B1].last_error == sentence
    assert held(speaker) == ["172.31.1.12"]


def test_a_disabled_session_stays_down_whatever_is_configured_and_however_often_the_wire_starts() -> None:
    speaker = up()
    speaker.on(Configured(disabled()), now=3)
    less = replace(TWO, announcements=frozenset())
    assert not any(isinstance(each, HoldSessions) for each in speaker.on(Configured(disabled(less)), now=4))
    speaker.on(WireLost("killed"), now=5)
    speaker.on(WireStarted(), now=6)
    assert held(speaker) == ["172.31.1.12"]
    assert speaker.sessions[B1].state is SessionState.IDLE


def test_disabling_twice_and_enabling_what_is_enabled_changes_nothing() -> None:
    speaker = up()
    speaker.on(Configured(disabled()), now=3)
    assert speaker.on(Configured(disabled()), now=3) == ()
    assert speaker.on(Configured(disabled(message="other words")), now=3) == ()
    assert speaker.on(Configured(TWO), now=4) == (HoldSessions(), Announce((OWN,), (B1,), TO_NODES))
    assert speaker.on(Configured(TWO), now=4) == ()
    assert speaker.on(Enabled(B1), now=4) == ()


def test_who_had_told_too_many_prefixes_and_was_disabled_needs_both_to_be_lifted() -> None:
    speaker = up()
    tell(speaker, 0, 11)
    speaker.on(Configured(disabled()), now=3)
    speaker.on(Configured(TWO), now=4)
    assert held(speaker) == ["172.31.1.12"]
    speaker.on(Enabled(B1), now=5)
    assert held(speaker) == ["172.31.2.11", "172.31.1.12"]


def test_a_session_that_was_disabled_before_the_start_is_never_dialled() -> None:
    speaker = Speaker(disabled(), now=0)
    speaker.on(WireStarted(), now=0)
    assert held(speaker) == ["172.31.1.12"]
    assert "felixctl bgp enable 172.31.2.11" in str(speaker.sessions[B1].last_error)


def test_who_parts_closes_every_session_with_the_same_words() -> None:
    speaker = up()
    speaker.on(PeerUp(A2, 90), now=2)
    gone = parted(replace(TWO, leaving=True, farewell="a new board"))
    goodbyes = Teardown(B1, SHUTDOWN, "a new board"), Teardown(A2, SHUTDOWN, "a new board")
    assert HoldSessions(goodbyes) in speaker.on(Configured(gone), now=3)
    assert held(speaker) == []


def test_a_disabled_session_forgets_what_was_kept_for_a_restart() -> None:
    speaker = up()
    tell(speaker, 0, 1)
    speaker.on(PeerDown(B1, "connection lost"), now=3)
    assert len(speaker.loc_rib.best) == 1
    assert speaker.on(Configured(disabled()), now=4) == (HoldSessions(), RoutesChanged(BLOCKS[:1]))
    assert speaker.deadline() is None


def test_a_disabled_session_is_not_waited_for() -> None:
    speaker = Speaker(settings(peer(B1)), now=0)
    assert not speaker.converged(1)
    speaker.on(Configured(disabled(settings(peer(B1)))), now=0)
    assert speaker.converged(1)


def test_a_reset_closes_the_session_and_leaves_it_to_come_back() -> None:
    speaker = up()
    assert speaker.on(ResetAsked(B1, "once more"), now=3) == (Teardown(B1, RESET, "once more"),)
    assert speaker.on(ResetAsked(A2), now=3) == (), "it is not up"
    assert held(speaker) == ["172.31.2.11", "172.31.1.12"]


def test_a_refresh_asks_for_every_family_that_the_session_carries() -> None:
    speaker = up(settings(peer(B1, families=tuple(Family))))
    assert speaker.on(RefreshAsked(B1), now=3) == (
        Refresh(B1, Family.IPV4_UNICAST),
        Refresh(B1, Family.IPV6_UNICAST),
    )


@pytest.mark.parametrize("command", [Enabled(A2), ResetAsked(A2), RefreshAsked(A2)], ids=str)
def test_a_peer_that_nobody_knows_is_passed_over(command: Enabled | ResetAsked | RefreshAsked) -> None:
    assert up(settings(peer(B1))).on(command, now=3) == ()


def test_an_obstacle_that_comes_takes_the_session_down_and_one_that_goes_brings_it_back() -> None:
    speaker = up()
    tell(speaker, 0, 1)
    missing = "the Secret bgp has no key password"
    hindered = replace(TWO, peers=(replace(LIMITED, obstacle=missing), TWO.peers[1]))
    effects = speaker.on(Configured(hindered), now=3)
    goodbye = Teardown(B1, DECONFIGURED)
    assert effects[:2] == (SessionDown(hindered.peers[0], missing), HoldSessions((goodbye,)))
    assert (speaker.sessions[B1].state, speaker.sessions[B1].last_error) == (SessionState.IDLE, missing)
    speaker.on(Configured(TWO), now=4)
    assert (speaker.sessions[B1].state, speaker.sessions[B1].last_error) == (SessionState.CONNECT, None)
