"""Why a session is not up: a cause with a stable name, and one sentence with the values and what to look at.

What nobody tells us is suspected, by tables that are read from top to bottom: a peer that stays silent may have another
TCP MD5 password, since a kernel drops what is signed otherwise without an answer (RFC 2385 section 2.0), or may be
farther away than `ttlSecurity` allows (RFC 5082). What our own kernel has dropped is the evidence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from bgp.drops import Drop
from bgp.notification import words
from bgp.peering import PeerSettings
from bgp.types import ConnectFailed, DialFailure, Notification, Open, SessionState

BAD_PEER_AS, BAD_IDENTIFIER, HOLD_TIMER_EXPIRED = (2, 2), (2, 3), (4, 0)
"""Codes and subcodes of NOTIFICATIONs (RFC 4271 section 4.5)."""


class Cause(StrEnum):
    """Why a session is not up, or what went wrong last, as programs read it."""

    DISABLED = "disabled"
    MAX_PREFIXES = "maxPrefixes"
    NOT_HELD = "notHeld"
    REFUSED = "refused"
    NO_ROUTE = "noRoute"
    NO_ANSWER = "noAnswer"
    NOT_DIALLED = "notDialled"
    MD5 = "md5"
    TTL = "ttl"
    CLOSED = "closedByPeer"
    AS_MISMATCH = "asMismatch"
    ROUTER_ID = "routerID"
    COLLISION = "collision"
    HOLD_TIMER = "holdTimer"
    SHUT_BY_PEER = "shutByPeer"
    NOTIFICATION = "notification"
    LOST = "connectionLost"
    MALFORMED = "malformedUpdate"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, for programs and for people."""

    cause: Cause
    sentence: str

    def outlives(self, other: "Fault") -> bool:
        """Say whether the other one only follows from this one: who has said goodbye is not there for a while."""
        if self.cause is Cause.SHUT_BY_PEER:
            return other.cause in (Cause.CLOSED, Cause.REFUSED)
        return other.cause is Cause.CLOSED and self.cause in SPOKEN


SPOKEN = frozenset(
    {
        Cause.AS_MISMATCH,
        Cause.ROUTER_ID,
        Cause.COLLISION,
        Cause.SHUT_BY_PEER,
        Cause.NOTIFICATION,
        Cause.MAX_PREFIXES,
        Cause.HOLD_TIMER,
    }
)
"""What a NOTIFICATION has said, and what tells more than that the peer hangs up."""


# --- no connection


class Silence(NamedTuple):
    """A peer that says nothing.

    Attributes:
        dropped: packets of BGP connections that our kernel has dropped lately, by why.
    """

    peer: PeerSettings
    dropped: Mapping[Drop, int]

    @property
    def signed(self) -> bool:
        """Whether we sign, and want signatures."""
        return self.peer.password is not None


class Suspicion(NamedTuple):
    """One line of a table: the cause if it applies, and how its sentence ends."""

    cause: Cause
    applies: Callable[[Silence], object]
    words: Callable[[Silence], str]


EVIDENT = (
    Suspicion(
        Cause.MD5,
        lambda it: it.signed and it.dropped.get(Drop.WRONG_SIGNATURE),
        lambda it: (
            "the TCP MD5 passwords of the two sides differ, it seems: this host has dropped "
            f"{_packets(it.dropped[Drop.WRONG_SIGNATURE])} with a wrong signature"
        ),
    ),
    Suspicion(
        Cause.MD5,
        lambda it: it.signed and it.dropped.get(Drop.UNSIGNED),
        lambda it: (
            "the peer has no TCP MD5 password, it seems, and here one is set: this host has dropped "
            f"{_packets(it.dropped[Drop.UNSIGNED])} without a signature"
        ),
    ),
    Suspicion(
        Cause.MD5,
        lambda it: not it.signed and it.dropped.get(Drop.SIGNED),
        lambda it: (
            "the peer has a TCP MD5 password, it seems, and here none is set: this host has dropped "
            f"{_packets(it.dropped[Drop.SIGNED])} with a signature"
        ),
    ),
    Suspicion(
        Cause.TTL,
        lambda it: it.peer.ttl_hops is not None and it.dropped.get(Drop.LOW_TTL),
        lambda it: (
            f"the peer is farther away than ttlSecurity {it.peer.ttl_hops} allows, or does not send with TTL 255: "
            f"this host has dropped {_packets(it.dropped[Drop.LOW_TTL])} with a lower TTL"
        ),
    ),
)
"""What a silence means, by what our kernel has dropped; the first that applies is said."""

SUSPECTED = (
    Suspicion(
        Cause.MD5,
        lambda it: it.signed,
        lambda _: "a TCP MD5 password is set here, and the peer may have another one, or none",
    ),
    Suspicion(
        Cause.TTL,
        lambda it: it.peer.ttl_hops is not None,
        lambda it: f"ttlSecurity {it.peer.ttl_hops} is set here: the peer must do the same, and be no farther away",
    ),
)
"""What it may mean, by how the session is configured; likewise."""

DIAL = {
    DialFailure.REFUSED: (
        Cause.REFUSED,
        "{where} refuses the connection: nothing listens there, or a firewall rejects it; see whether BGP runs there",
    ),
    DialFailure.NO_ROUTE: (
        Cause.NO_ROUTE,
        "no route to {address}: the kernel knows no way there; see `ip route get {address}`",
    ),
    DialFailure.UNREACHABLE: (
        Cause.NO_ROUTE,
        "no route to {address}: nobody on the wire answers for it, or a router on the way gives it up",
    ),
}
"""What the kernel says at once, and what it means."""


def unconnected(peer: PeerSettings, failed: ConnectFailed, dropped: Mapping[Drop, int]) -> Fault:
    """Say why a connection that we began was not made."""
    if failed.failure in DIAL:
        cause, sentence = DIAL[failed.failure]
        return Fault(cause, sentence.format(where=_where(peer), address=peer.address))
    if failed.failure is DialFailure.NO_ANSWER:
        otherwise = "it is down, or packets to that port are dropped on the way"
        fact = f"no answer from {_where(peer)}"
        return _suspected(Silence(peer, dropped), EVIDENT + SUSPECTED, fact, Fault(Cause.NO_ANSWER, otherwise))
    return Fault(Cause.OTHER, f"cannot connect to {_where(peer)}: {failed.reason}")


def not_dialled(peer: PeerSettings, seconds: float, dropped: Mapping[Drop, int]) -> Fault:
    """Say why a peer that we wait for has not connected."""
    otherwise = "it is the peer that dials, since its address is higher or it was asked to; see whether BGP runs there"
    silence = f"the peer has not connected for {seconds:.0f} s"
    return _suspected(Silence(peer, dropped), EVIDENT + SUSPECTED, silence, Fault(Cause.NOT_DIALLED, otherwise))


def not_opened(peer: PeerSettings, seconds: float, dropped: Mapping[Drop, int]) -> Fault:
    """Say why a peer that is connected says nothing."""
    # The passwords are the same, or there would be no connection.
    fact = f"connected to {_where(peer)}, and its OPEN has not come for {seconds:.0f} s"
    otherwise = "the peer hangs, or what it sends is dropped on the way"
    return _suspected(Silence(peer, dropped), EVIDENT + SUSPECTED[1:], fact, Fault(Cause.NO_ANSWER, otherwise))


def _suspected(silence: Silence, table: tuple[Suspicion, ...], fact: str, otherwise: Fault) -> Fault:
    for each in table:
        if each.applies(silence):
            return Fault(each.cause, f"{fact}: {each.words(silence)}")
    return Fault(otherwise.cause, f"{fact}: {otherwise.sentence}")


def _where(peer: PeerSettings) -> str:
    return f"{peer.address} port {peer.port}"


def _packets(count: int) -> str:
    return f"{count} packet{'' if count == 1 else 's'}"


# --- a connection that ended

CLOSING = {
    BAD_PEER_AS: Cause.AS_MISMATCH,
    BAD_IDENTIFIER: Cause.ROUTER_ID,
    HOLD_TIMER_EXPIRED: Cause.HOLD_TIMER,
    (6, 1): Cause.MAX_PREFIXES,
    (6, 2): Cause.SHUT_BY_PEER,
    (6, 3): Cause.SHUT_BY_PEER,
    (6, 7): Cause.COLLISION,
}
"""What NOTIFICATIONs are a cause of their own; all others are NOTIFICATION."""


def _cause(notification: Notification) -> Cause:
    return CLOSING.get((notification.code, notification.subcode), Cause.NOTIFICATION)


def we_said(
    peer: PeerSettings, notification: Notification, ours: Open | None, theirs: Open | None, hold_time: int | None
) -> Fault:
    """Say what we found wrong when we closed.

    Args:
        peer: what was configured.
        notification: that we sent.
        ours: the OPEN that we sent.
        theirs: the OPEN that came.
        hold_time: that both agreed on, in seconds.
    """
    cause, plain = _cause(notification), words(notification)
    if cause is Cause.AS_MISMATCH and theirs is not None:
        plain += f": peer says AS {theirs.asn}, configured {peer.asn}"
    elif cause is Cause.ROUTER_ID and theirs is not None and ours is not None and theirs.router_id == ours.router_id:
        plain += f": the peer has our own, {ours.router_id}; every router needs one of its own"
    elif cause is Cause.ROUTER_ID and theirs is not None:
        plain += f": the peer says {theirs.router_id}"
    elif cause is Cause.HOLD_TIMER and hold_time is not None:
        plain += f": nothing came from the peer for {hold_time} s"
    elif cause is Cause.SHUT_BY_PEER:
        cause = Cause.NOTIFICATION
    return Fault(cause, plain)


def peer_said(notification: Notification, ours: Open | None) -> Fault:
    """Say what the peer found wrong when it closed.

    Args:
        notification: that came.
        ours: the OPEN that we sent.
    """
    cause, plain = _cause(notification), f"peer said {words(notification)}"
    if cause is Cause.AS_MISMATCH and ours is not None:
        plain += f": the peer expects another AS than ours, {ours.asn}"
    elif cause is Cause.ROUTER_ID and ours is not None:
        plain += f": it does not take ours, {ours.router_id}, which may be its own"
    elif cause is Cause.HOLD_TIMER:
        plain += ": nothing came from us for its hold time"
    return Fault(cause, plain)


def ended(reason: str, before: SessionState) -> Fault:
    """Say how a connection ended that no NOTIFICATION closed.

    Args:
        reason: in words.
        before: the state of the session until then.
    """
    if before is SessionState.ESTABLISHED:
        return Fault(Cause.LOST, reason)
    sentence = f"{reason} in state {before}"
    if "both sides dialled" in reason:
        return Fault(Cause.COLLISION, sentence)
    if before is SessionState.OPEN_SENT:
        return Fault(Cause.CLOSED, f"{sentence}: the peer hung up before its OPEN; it may have no session with us")
    return Fault(Cause.LOST, sentence)
