"""What the speaker shows of its sessions to people and to metrics: frozen values with wall-clock times."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address

from bgp import policy_report
from bgp.faults import Fault
from bgp.peering import PeerSettings
from bgp.policy_report import TermReport
from bgp.rib import Told
from bgp.session import Session
from bgp.speaker import Speaker
from bgp.types import FAMILY, Endpoint, Family, IPAddress, MessagesCounted, Notification, Open, SessionState
from bgp.wall_clock import Clock


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of a session's state."""

    at: datetime
    state: SessionState
    cause: str


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """What one family of a session comes to.

    Attributes:
        stale: paths kept although the session is gone, or not said again since it is back.
        stale_until: when they are forgotten unless the peer says them again; None while there are none.
        end_of_rib: the peer has told everything of it.
        kept_by_us: we keep its paths if the peer restarts, since it asks for it (RFC 4724).
        preserved: the peer says that it has forwarded packets all the while it restarted (F bit).
    """

    family: Family
    received: int
    accepted: int
    rejected: int
    advertised: int
    stale: int
    stale_until: datetime | None
    end_of_rib: bool
    kept_by_us: bool
    preserved: bool


@dataclass(frozen=True, slots=True)
class PeerReport:
    """Everything about one session.

    Attributes:
        since: when the state was reached.
        uptime: how long the session is established; None while it is not.
        families: what each comes to, the first of the settings first.
        fault, fault_at: why it is not up, or what went wrong last, and when.
        hold_time: what both sides agreed on; None before the first OPEN.
        keepalive: seconds between our KEEPALIVE messages.
        dialled: we opened the connection.
        restart: the state of graceful restart, in words.
        sent, received_messages: messages by kind since the session is up.
    """

    settings: PeerSettings
    state: SessionState
    since: datetime
    uptime: timedelta | None
    families: tuple[FamilyReport, ...]
    fault: Fault | None
    fault_at: datetime | None
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
    notification_sent: Notification | None
    notification_received: Notification | None
    flaps: int
    malformed: int
    history: tuple[StateChange, ...]

    @property
    def received(self) -> int:
        """Paths that the peer has told, of all families."""
        return sum(each.received for each in self.families)

    @property
    def accepted(self) -> int:
        """Those that import policy takes."""
        return sum(each.accepted for each in self.families)

    @property
    def rejected(self) -> int:
        """Those that it does not take."""
        return sum(each.rejected for each in self.families)

    @property
    def advertised(self) -> int:
        """Prefixes that the peer is told."""
        return sum(each.advertised for each in self.families)

    @property
    def stale(self) -> int:
        """Paths that are kept for graceful restart."""
        return sum(each.stale for each in self.families)

    @property
    def last_error(self) -> str | None:
        """Why it is not up, or what went wrong last, in a sentence."""
        return self.fault.sentence if self.fault else None

    @property
    def capabilities_in_common(self) -> tuple[str, ...]:
        """What both sides offered."""
        if self.open_sent is None or self.open_received is None:
            return ()
        names = {_name(each) for each in self.open_received.capabilities}
        return tuple(each for each in self.open_sent.capabilities if _name(each) in names)


def peers(speaker: Speaker, clock: Clock, *, counted: bool = True) -> tuple[PeerReport, ...]:
    """Report every session, in the order of the settings.

    Args:
        speaker: that holds them.
        clock: for times.
        counted: with what each family comes to; without, it costs the same however many paths there are.
    """
    sessions = (speaker.sessions[peer.address] for peer in speaker.settings.peers)
    return tuple(_peer(speaker, each, clock, counted=counted) for each in sessions)


def known(speaker: Speaker, counted: MessagesCounted) -> bool:
    """Say whether these counts are no news."""
    session = speaker.sessions.get(counted.peer)
    return session is None or session.messages == counted


def policies(speaker: Speaker, peer: IPAddress) -> tuple[tuple[TermReport, ...], tuple[TermReport, ...]]:
    """Report the terms of a session's import and export policy, each with its hits; nothing of no session."""
    session = speaker.sessions.get(peer)
    return ((), ()) if session is None else (policy_report.imported(session), policy_report.exported(speaker, session))


def _peer(speaker: Speaker, session: Session, clock: Clock, *, counted: bool) -> PeerReport:
    messages = session.messages if session.established else None
    since, fault = clock.at(session.since), session.present_fault(clock.now)
    return PeerReport(
        settings=session.settings,
        state=session.state,
        since=since,
        uptime=clock.wall - since if session.established else None,
        families=tuple(_families(session, clock)) if counted else (),
        fault=fault[0] if fault else None,
        fault_at=clock.at(fault[1]) if fault else None,
        hold_time=session.hold_time,
        keepalive=_keepalive(session),
        open_sent=session.open_sent,
        open_received=session.open_received,
        local_router_id=speaker.settings.router_id,
        remote_router_id=session.open_received.router_id if session.open_received else None,
        local=session.local,
        remote=session.remote,
        dialled=session.dialled,
        restart=_restart(session, clock.now),
        end_of_rib=session.end_of_rib,
        sent=dict(messages.sent) if messages else {},
        received_messages=dict(messages.received) if messages else {},
        notification_sent=session.notification_sent,
        notification_received=session.notification_received,
        flaps=session.flaps,
        malformed=session.malformed,
        history=tuple(StateChange(clock.at(each.at), each.state, each.cause) for each in session.history),
    )


def _keepalive(session: Session) -> int | None:
    """Return the seconds between our KEEPALIVEs: as configured, and a third of the hold time at most."""
    if session.hold_time is None:
        return None
    return min(session.hold_time // 3, session.settings.keepalive or session.hold_time // 3)


def _restart(session: Session, now: float) -> str:
    if session.keep_until is not None:
        return f"{session.adj_rib_in.stale} paths kept for {max(0, session.keep_until - now):.0f} s more"
    if session.open_received is None:
        return "unknown"
    if not session.says_end_of_rib:
        return "not supported by the peer"
    time = session.helper_time
    return f"the peer's paths are kept for {time} s if it restarts" if time else "the peer helps, and asks for no help"


def _families(session: Session, clock: Clock) -> Iterator[FamilyReport]:
    counts: dict[Family, Counter[str]] = {family: Counter() for family in session.settings.carried}
    for family, told, count in _told(session):
        kinds = counts.setdefault(family, Counter())
        kinds["received"] += count
        kinds["rejected"] += count if told.refusal is not None else 0
        kinds["stale"] += count if told.stale else 0
    out = session.adj_rib_out.told if session.established else {}
    only = session.settings.carried[0] if len(session.settings.carried) == 1 else None
    advertised = {only: len(out)} if only else Counter(FAMILY[prefix.version] for prefix in out)
    until = clock.at(session.keep_until) if session.keep_until is not None else None
    for family, kinds in counts.items():
        yield FamilyReport(
            family=family,
            received=kinds["received"],
            accepted=kinds["received"] - kinds["rejected"],
            rejected=kinds["rejected"],
            advertised=advertised.get(family, 0),
            stale=kinds["stale"],
            stale_until=until if kinds["stale"] else None,
            end_of_rib=family in session.ended,
            kept_by_us=family in session.restartable,
            preserved=family in session.kept_forwarding,
        )


def _told(session: Session) -> Iterator[tuple[Family, Told, int]]:
    """Yield what a peer says, each with of how many prefixes of a family."""
    carried = session.settings.carried
    if len(carried) == 1:
        for told, count in policy_report.groups(session).values():
            yield carried[0], told, count
        return
    for prefix, told in session.adj_rib_in.entries.items():
        yield FAMILY[prefix.version], told, 1


def _name(capability: str) -> str:
    """Return a capability without the values in brackets."""
    return capability.partition(" (")[0]
