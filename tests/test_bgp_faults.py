"""Why a session is not up: every line of the tables, to the letter, and what outlives what."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from bgp_builders import A2, B1, NODE_AS, TOR, TOR_AS, offered, peer, settings

from bgp import drops, faults
from bgp.drops import Drop, PacketsDropped
from bgp.faults import Cause, Fault
from bgp.session import Session
from bgp.speaker import Speaker
from bgp.speaker_words import Configured, WireStarted
from bgp.types import (
    ConnectFailed,
    DialFailure,
    Notification,
    NotificationReceived,
    PeerDown,
    PeerUp,
    SessionState,
    StateChanged,
)

PLAIN = peer(B1)
SIGNED = peer(B1, password="secret")  # noqa: S106 - no password of anything
NEAR = peer(B1, ttl_hops=1)
WHERE = "172.31.2.11 port 179"


@pytest.mark.parametrize(
    ("wanted", "failure", "dropped", "cause", "sentence"),
    [
        pytest.param(
            PLAIN,
            DialFailure.REFUSED,
            {},
            Cause.REFUSED,
            f"{WHERE} refuses the connection: nothing listens there, or a firewall rejects it; "
            "see whether BGP runs there",
            id="refused",
        ),
        pytest.param(
            PLAIN,
            DialFailure.NO_ROUTE,
            {},
            Cause.NO_ROUTE,
            "no route to 172.31.2.11: the kernel knows no way there; see `ip route get 172.31.2.11`",
            id="no route",
        ),
        pytest.param(
            PLAIN,
            DialFailure.UNREACHABLE,
            {},
            Cause.NO_ROUTE,
            "no route to 172.31.2.11: nobody on the wire answers for it, or a router on the way gives it up",
            id="nobody on the wire",
        ),
        pytest.param(
            PLAIN,
            DialFailure.NO_ANSWER,
            {Drop.WRONG_SIGNATURE: 3, Drop.LOW_TTL: 3},
            Cause.NO_ANSWER,
            f"no answer from {WHERE}: it is down, or packets to that port are dropped on the way",
            id="silence, and drops that cannot be this peer's",
        ),
        pytest.param(
            PLAIN,
            DialFailure.NO_ANSWER,
            {Drop.SIGNED: 1},
            Cause.MD5,
            f"no answer from {WHERE}: the peer has a TCP MD5 password, it seems, and here none is set: "
            "this host has dropped 1 packet with a signature",
            id="the peer signs",
        ),
        pytest.param(
            SIGNED,
            DialFailure.NO_ANSWER,
            {Drop.WRONG_SIGNATURE: 4, Drop.UNSIGNED: 2},
            Cause.MD5,
            f"no answer from {WHERE}: the TCP MD5 passwords of the two sides differ, it seems: "
            "this host has dropped 4 packets with a wrong signature",
            id="another password",
        ),
        pytest.param(
            SIGNED,
            DialFailure.NO_ANSWER,
            {Drop.UNSIGNED: 2, Drop.SIGNED: 9},
            Cause.MD5,
            f"no answer from {WHERE}: the peer has no TCP MD5 password, it seems, and here one is set: "
            "this host has dropped 2 packets without a signature",
            id="the peer does not sign",
        ),
        pytest.param(
            SIGNED,
            DialFailure.NO_ANSWER,
            {},
            Cause.MD5,
            f"no answer from {WHERE}: a TCP MD5 password is set here, and the peer may have another one, or none",
            id="a password, and no evidence",
        ),
        pytest.param(
            NEAR,
            DialFailure.NO_ANSWER,
            {Drop.LOW_TTL: 2},
            Cause.TTL,
            f"no answer from {WHERE}: the peer is farther away than ttlSecurity 1 allows, or does not send with "
            "TTL 255: this host has dropped 2 packets with a lower TTL",
            id="too far",
        ),
        pytest.param(
            NEAR,
            DialFailure.NO_ANSWER,
            {},
            Cause.TTL,
            f"no answer from {WHERE}: ttlSecurity 1 is set here: the peer must do the same, and be no farther away",
            id="TTL security, and no evidence",
        ),
        pytest.param(
            PLAIN,
            DialFailure.OTHER,
            {},
            Cause.OTHER,
            f"cannot connect to {WHERE}: Permission denied",
            id="what nobody thought of",
        ),
    ],
)
def test_connections_that_were_not_made(
    wanted: Any, failure: DialFailure, dropped: dict[Drop, int], cause: Cause, sentence: str
) -> None:
    assert faults.unconnected(wanted, ConnectFailed(B1, failure, "Permission denied"), dropped) == Fault(
        cause, sentence
    )


def test_a_peer_that_should_dial() -> None:
    assert faults.not_dialled(PLAIN, 7.4, {}) == Fault(
        Cause.NOT_DIALLED,
        "the peer has not connected for 7 s: it is the peer that dials, since its address is higher or it was asked "
        "to; see whether BGP runs there",
    )
    assert faults.not_dialled(SIGNED, 7.4, {Drop.UNSIGNED: 1}).cause is Cause.MD5


def test_a_peer_that_is_connected_and_silent_has_the_right_password() -> None:
    assert faults.not_opened(SIGNED, 6, {}) == Fault(
        Cause.NO_ANSWER,
        f"connected to {WHERE}, and its OPEN has not come for 6 s: the peer hangs, or what it sends is dropped "
        "on the way",
    )
    assert faults.not_opened(NEAR, 6, {Drop.LOW_TTL: 5}).cause is Cause.TTL


@pytest.mark.parametrize(
    ("said", "cause", "sentence"),
    [
        pytest.param(
            Notification(2, 2),
            Cause.AS_MISMATCH,
            "OPEN Message Error: Bad Peer AS: peer says AS 64999, configured 64500",
            id="another AS",
        ),
        pytest.param(
            Notification(2, 3),
            Cause.ROUTER_ID,
            "OPEN Message Error: Bad BGP Identifier: the peer has our own, 172.31.2.11; "
            "every router needs one of its own",
            id="our router ID",
        ),
        pytest.param(
            Notification(4, 0),
            Cause.HOLD_TIMER,
            "Hold Timer Expired: nothing came from the peer for 9 s",
            id="silence",
        ),
        pytest.param(Notification(6, 7), Cause.COLLISION, "Cease: Connection Collision Resolution", id="collision"),
        pytest.param(Notification(6, 2), Cause.NOTIFICATION, "Cease: Administrative Shutdown", id="our own shutdown"),
        pytest.param(
            Notification(1, 1), Cause.NOTIFICATION, "Message Header Error: Connection Not Synchronized", id="rubbish"
        ),
    ],
)
def test_what_we_found_wrong(said: Notification, cause: Cause, sentence: str) -> None:
    ours, theirs = offered(NODE_AS, B1), offered(64999, B1)
    assert faults.we_said(peer(TOR, TOR_AS), said, ours, theirs, 9) == Fault(cause, sentence)


@pytest.mark.parametrize(
    ("said", "cause", "sentence"),
    [
        pytest.param(
            Notification(2, 2),
            Cause.AS_MISMATCH,
            "peer said OPEN Message Error: Bad Peer AS: the peer expects another AS than ours, 64512",
            id="another AS",
        ),
        pytest.param(
            Notification(2, 3),
            Cause.ROUTER_ID,
            "peer said OPEN Message Error: Bad BGP Identifier: it does not take ours, 172.31.2.11, "
            "which may be its own",
            id="our router ID",
        ),
        pytest.param(
            Notification(4, 0),
            Cause.HOLD_TIMER,
            "peer said Hold Timer Expired: nothing came from us for its hold time",
            id="our silence",
        ),
        pytest.param(
            Notification(6, 1),
            Cause.MAX_PREFIXES,
            "peer said Cease: Maximum Number of Prefixes Reached",
            id="too many of ours",
        ),
        pytest.param(
            Notification(6, 2, "bye"), Cause.SHUT_BY_PEER, 'peer said Cease: Administrative Shutdown: "bye"', id="shut"
        ),
        pytest.param(
            Notification(6, 7), Cause.COLLISION, "peer said Cease: Connection Collision Resolution", id="collision"
        ),
    ],
)
def test_what_the_peer_found_wrong(said: Notification, cause: Cause, sentence: str) -> None:
    assert faults.peer_said(said, offered()) == Fault(cause, sentence)


@pytest.mark.parametrize(
    ("reason", "before", "cause"),
    [
        pytest.param("connection lost", SessionState.ESTABLISHED, Cause.LOST, id="a session"),
        pytest.param("connection lost", SessionState.OPEN_SENT, Cause.CLOSED, id="before its OPEN"),
        pytest.param("connection lost", SessionState.OPEN_CONFIRM, Cause.LOST, id="after its OPEN"),
        pytest.param(
            "both sides dialled; the other connection stays", SessionState.OPEN_SENT, Cause.COLLISION, id="collision"
        ),
    ],
)
def test_connections_that_ended(reason: str, before: SessionState, cause: Cause) -> None:
    assert faults.ended(reason, before).cause is cause


# --- over time


def started(*peers: Any) -> Speaker:
    speaker = Speaker(settings(*peers), now=0)
    speaker.on(WireStarted(), now=0)
    return speaker


def session_of(speaker: Speaker, address: IPv4Address) -> Session:
    return speaker.sessions[address]


def cause(speaker: Speaker, address: IPv4Address, now: float) -> Cause | None:
    found = session_of(speaker, address).present_fault(now)
    return found[0].cause if found else None


def test_a_peer_that_hangs_up_after_its_notification_does_not_hide_it() -> None:
    speaker = started(peer(TOR, TOR_AS))
    speaker.on(StateChanged(TOR, SessionState.OPEN_SENT), now=1)
    speaker.on(NotificationReceived(TOR, Notification(2, 2)), now=1)
    speaker.on(PeerDown(TOR, "peer said", notified=True), now=1)
    speaker.on(StateChanged(TOR, SessionState.OPEN_SENT), now=2)
    speaker.on(PeerDown(TOR, "connection lost"), now=2)
    assert cause(speaker, TOR, 2) is Cause.AS_MISMATCH
    speaker.on(ConnectFailed(TOR, DialFailure.REFUSED), now=3)
    assert cause(speaker, TOR, 3) is Cause.REFUSED


def test_after_a_session_it_is_news_that_the_peer_hangs_up() -> None:
    speaker = started(peer(TOR, TOR_AS))
    speaker.on(NotificationReceived(TOR, Notification(2, 2)), now=1)
    speaker.on(PeerUp(TOR, 90), now=5)
    speaker.on(PeerDown(TOR, "connection lost"), now=9)
    speaker.on(StateChanged(TOR, SessionState.OPEN_SENT), now=10)
    speaker.on(PeerDown(TOR, "connection lost"), now=10)
    assert cause(speaker, TOR, 10) is Cause.CLOSED


def test_a_peer_that_was_shut_down_and_refuses_connections_was_shut_down() -> None:
    speaker = started(peer(TOR, TOR_AS))
    speaker.on(NotificationReceived(TOR, Notification(6, 2)), now=1)
    speaker.on(ConnectFailed(TOR, DialFailure.REFUSED), now=2)
    assert cause(speaker, TOR, 2) is Cause.SHUT_BY_PEER
    speaker.on(ConnectFailed(TOR, DialFailure.UNREACHABLE), now=3)
    assert cause(speaker, TOR, 3) is Cause.NO_ROUTE


def test_waiting_is_worth_a_word_after_five_seconds() -> None:
    speaker = started(peer(B1, passive=True), peer(A2))
    assert cause(speaker, B1, 4.9) is None
    assert cause(speaker, B1, 5) is Cause.NOT_DIALLED
    assert cause(speaker, A2, 60) is None, "whoever dials hears what comes of it"
    speaker.on(StateChanged(A2, SessionState.OPEN_SENT), now=60)
    assert cause(speaker, A2, 64) is None
    assert cause(speaker, A2, 65) is Cause.NO_ANSWER


def test_dropped_packets_speak_for_a_minute_and_only_while_there_is_no_session() -> None:
    speaker = started(peer(B1, passive=True, password="secret"), peer(A2, passive=True))  # noqa: S106 - of nothing
    speaker.on(PeerUp(A2, 90), now=1)
    speaker.on(PacketsDropped({Drop.WRONG_SIGNATURE: 2}), now=10)
    speaker.on(PacketsDropped({Drop.WRONG_SIGNATURE: 3}), now=11)
    found = session_of(speaker, B1).present_fault(12)
    assert found is not None
    assert "5 packets with a wrong signature" in found[0].sentence
    assert session_of(speaker, A2).dropped == {}
    later = session_of(speaker, B1).present_fault(72)
    assert later is not None
    assert "a TCP MD5 password is set here, and the peer may have another one" in later[0].sentence


def test_what_people_did_outlives_all_else() -> None:
    enabled = peer(TOR, TOR_AS)
    speaker, disabled = started(enabled), replace(enabled, disabled="")
    speaker.on(Configured(settings(disabled)), now=1)
    speaker.on(ConnectFailed(TOR, DialFailure.REFUSED), now=2)
    assert cause(speaker, TOR, 20) is Cause.DISABLED
    speaker.on(Configured(settings(disabled, peer(B1))), now=21)
    found = session_of(speaker, TOR).present_fault(22)
    assert found is not None
    assert found[1] == 1, "when it was disabled, not when something else was set"
    speaker.on(Configured(settings(enabled)), now=23)
    assert cause(speaker, TOR, 23) is None


# --- what the kernel counts

NETSTAT = """\
TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPOther
TcpExt: 7 1 0 12 3
IpExt: InNoRoutes
IpExt: 5
"""


def test_the_counters_of_the_kernel() -> None:
    now = drops.counted(NETSTAT)
    assert now == {Drop.WRONG_SIGNATURE: 12, Drop.UNSIGNED: 1, Drop.SIGNED: 0, Drop.LOW_TTL: 0}
    before = {Drop.WRONG_SIGNATURE: 10, Drop.UNSIGNED: 1}
    assert drops.since(before, now) == {Drop.WRONG_SIGNATURE: 2}
    assert drops.counted("") == dict.fromkeys(Drop, 0)
