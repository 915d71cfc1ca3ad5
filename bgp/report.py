"""What the speaker shows to people and to metrics: sessions and paths as frozen values with wall-clock times."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address

from bgp.decision import ONLY_PATH
from bgp.notification import words
from bgp.peering import PeerSettings
from bgp.rib import Told, in_order
from bgp.session import Session
from bgp.speaker import Speaker
from bgp.types import Attributes, Endpoint, IPAddress, IPNetwork, Open, SessionState


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of a session's state."""

    at: datetime
    state: SessionState
    cause: str


@dataclass(frozen=True, slots=True)
class PeerReport:
    """Everything about one session.

    Attributes:
        since: when the state was reached.
        uptime: how long the session is established; None while it is not.
        stale: paths kept although the session is gone.
        hold_time: what both sides agreed on; None before the first OPEN.
        keepalive: seconds between KEEPALIVE messages, a third of the hold time.
        dialled: we opened the connection.
        restart: the state of graceful restart, in words.
        sent, received_messages: messages by kind since the session is up.
    """

    settings: PeerSettings
    state: SessionState
    since: datetime
    uptime: timedelta | None
    received: int
    accepted: int
    rejected: int
    advertised: int
    stale: int
    last_error: str | None
    hold_time: int | None
    keepalive: int | None
    open_sent: Open | None
    open_received: Open | None
    local_router_id: IPv4Address
    remote_router_id: IPv4Address | None
    local: Endpoint | None
    remote: Endpoint | None
    dialled: bool | None
    restart: str
    end_of_rib: bool
    sent: Mapping[str, int]
    received_messages: Mapping[str, int]
    notification_sent: str | None
    notification_received: str | None
    flaps: int
    history: tuple[StateChange, ...]

    @property
    def capabilities_in_common(self) -> tuple[str, ...]:
        """What both sides offered."""
        if self.open_sent is None or self.open_received is None:
            return ()
        names = {_name(each) for each in self.open_received.capabilities}
        return tuple(each for each in self.open_sent.capabilities if _name(each) in names)


@dataclass(frozen=True, slots=True)
class RouteReport:
    """One path of an Adj-RIB-In.

    Attributes:
        attributes: as import policy leaves them.
        received: as the peer told them.
        decided_by: the rule of a filter, or the reason of a refusal, that decided; empty where nothing had to be.
        accepted: by the import policy.
        refusal: the policy's reason against it.
        best: it is the path of the Loc-RIB.
        equal: it is as good as that one, and takes its share of the flows.
        eligible: it is accepted, and its next hop can be reached.
        rule: which rule made it the best, or which one it lost by; None for a refused path.
        why: the same with the values that were compared.
    """

    prefix: IPNetwork
    peer: IPAddress
    peer_name: str
    attributes: Attributes
    received: Attributes
    external: bool
    router_id: IPv4Address
    accepted: bool
    refusal: str | None
    decided_by: str
    best: bool
    equal: bool
    eligible: bool
    rule: str | None
    why: str | None
    stale: bool


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns the speaker's times into those of the wall."""

    now: float
    wall: datetime

    def at(self, time: float) -> datetime:
        """Return the wall-clock time of a moment on the speaker's clock."""
        return self.wall - timedelta(seconds=self.now - time)


def peers(speaker: Speaker, clock: Clock) -> tuple[PeerReport, ...]:
    """Report every session, in the order of the settings."""
    return tuple(_peer(speaker, speaker.sessions[peer.address], clock) for peer in speaker.settings.peers)


def routes(speaker: Speaker, peer: IPAddress | None = None) -> tuple[RouteReport, ...]:
    """Report what peers said, or one of them, by prefix."""
    sessions = [each for each in speaker.sessions.values() if peer in (None, each.settings.address)]
    found = (_route(speaker, session, prefix) for session in sessions for prefix in session.adj_rib_in.entries)
    return tuple(sorted(found, key=lambda route: (in_order(route.prefix), not route.best, str(route.peer))))


def advertised(speaker: Speaker, peer: IPAddress) -> tuple[IPNetwork, ...]:
    """Report what one peer has been told; nothing while its session is down."""
    session = speaker.sessions.get(peer)
    return tuple(sorted(session.adj_rib_out.told, key=in_order)) if session and session.established else ()


def _peer(speaker: Speaker, session: Session, clock: Clock) -> PeerReport:
    table, counted = session.adj_rib_in, session.messages if session.established else None
    since = clock.at(session.since)
    return PeerReport(
        settings=session.settings,
        state=session.state,
        since=since,
        uptime=clock.wall - since if session.established else None,
        received=len(table.entries),
        accepted=len(table.entries) - table.refused,
        rejected=table.refused,
        advertised=len(session.adj_rib_out.told) if session.established else 0,
        stale=table.stale,
        last_error=session.last_error,
        hold_time=session.hold_time,
        keepalive=session.hold_time // 3 if session.hold_time is not None else None,
        open_sent=session.open_sent,
        open_received=session.open_received,
        local_router_id=speaker.settings.router_id,
        remote_router_id=session.open_received.router_id if session.open_received else None,
        local=session.local,
        remote=session.remote,
        dialled=session.dialled,
        restart=_restart(session, clock.now),
        end_of_rib=session.end_of_rib,
        sent=dict(counted.sent) if counted else {},
        received_messages=dict(counted.received) if counted else {},
        notification_sent=words(session.notification_sent) if session.notification_sent else None,
        notification_received=words(session.notification_received) if session.notification_received else None,
        flaps=session.flaps,
        history=tuple(StateChange(clock.at(each.at), each.state, each.cause) for each in session.history),
    )


def _restart(session: Session, now: float) -> str:
    if session.keep_until is not None:
        return f"{session.adj_rib_in.stale} paths kept for {max(0, session.keep_until - now):.0f} s more"
    if session.open_received is None:
        return "unknown"
    if not session.says_end_of_rib:
        return "not supported by the peer"
    time = session.helper_time
    return f"the peer's paths are kept for {time} s if it restarts" if time else "the peer helps, and asks for no help"


def _route(speaker: Speaker, session: Session, prefix: IPNetwork) -> RouteReport:
    told, best = session.adj_rib_in.entries[prefix], speaker.loc_rib.best.get(prefix)
    is_best = best is not None and told.refusal is None and best.path == told
    lost = next((each for each in best.beaten if each.path == told), None) if best else None
    verdict = best if is_best else lost
    unreachable = _unreachable(speaker, told)
    rule, why = (verdict.rule, verdict.reason) if verdict else (NEXT_HOP if unreachable else None, unreachable)
    if is_best and rule == ONLY_PATH and len(speaker.loc_rib.contests[prefix].paths) > 1:
        rule, why = NEXT_HOP, f"{NEXT_HOP}: only this one's can be reached"
    return RouteReport(
        prefix=prefix,
        peer=told.peer,
        peer_name=session.settings.name,
        attributes=told.attributes,
        received=told.received,
        external=told.external,
        router_id=told.router_id,
        accepted=told.refusal is None,
        refusal=str(told.refusal) if told.refusal else None,
        decided_by=told.decided_by,
        best=is_best,
        equal=best is not None and told.refusal is None and told in best.equal,
        eligible=told.refusal is None and unreachable is None,
        rule=rule,
        why=why,
        stale=told.stale,
    )


def _unreachable(speaker: Speaker, told: Told) -> str | None:
    """Say why packets cannot be sent by an accepted path; None where they can."""
    next_hop = told.attributes.next_hop
    if told.refusal is not None or next_hop is None or next_hop not in speaker.loc_rib.obstacles:
        return None
    return f"{NEXT_HOP}: {next_hop} cannot be reached: {speaker.loc_rib.obstacles[next_hop]}"


NEXT_HOP = "next hop"
"""The rule that a path loses by which leads nowhere (RFC 4271 section 9.1.2)."""


def _name(capability: str) -> str:
    """Return a capability without the values in brackets."""
    return capability.partition(" (")[0]
