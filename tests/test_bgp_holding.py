"""Who the wire holds sessions with changes while it still speaks of those of before."""

from dataclasses import replace

from bgp_builders import A2, B1, peer, settings
from bgp_talks import MESH, announce, best_peer, come_up, started

from bgp.speaker_words import (
    Configured,
    SessionDown,
    SessionUp,
    WireConfigured,
)
from bgp.types import (
    PeerDown,
    SessionState,
)


def test_the_last_words_of_a_peer_are_not_taken_for_those_of_who_has_its_address_now() -> None:
    speaker = started()
    come_up(speaker)
    speaker.on(Configured(settings(peer(B1, 64999, "b1"))), now=3)
    speaker.on(Configured(settings(peer(B1, 64998, "b1"))), now=3)
    for _ in ("the start", "one AS", "another AS"):  # the wire takes one order after the other
        assert come_up(speaker, now=3) == ()
        announce(speaker)
        assert speaker.on(PeerDown(B1, "peer removed from the settings"), now=3) == ()
        assert (speaker.sessions[B1].state, speaker.sessions[B1].last_error) == (SessionState.CONNECT, None)
        speaker.on(WireConfigured(), now=3)
    assert SessionUp(peer(B1, 64998, "b1")) in come_up(speaker, now=4)
    announce(speaker)
    assert best_peer(speaker) == (B1, False)


def test_a_change_of_settings_does_not_make_a_peer_another_one() -> None:
    speaker = started()
    come_up(speaker)
    more = settings(peer(B1, name="b1", hold_time=9), peer(A2))
    speaker.on(Configured(more), now=3)
    down = speaker.on(PeerDown(B1, "settings changed"), now=3)  # ExaBGP makes the session anew
    assert SessionDown(more.peers[0], "settings changed", 0) in down
    assert SessionUp(more.peers[0]) in come_up(speaker, now=3)


def test_who_comes_back_is_heard_from_when_the_wire_has_it_again() -> None:
    speaker = started()
    come_up(speaker)
    speaker.on(Configured(replace(MESH, peers=())), now=3)
    speaker.on(Configured(MESH), now=3)
    for _ in ("the start", "taken out", "put in"):
        assert come_up(speaker, now=3) == ()
        speaker.on(WireConfigured(), now=3)
    assert SessionUp(MESH.peers[0]) in come_up(speaker, now=3)
