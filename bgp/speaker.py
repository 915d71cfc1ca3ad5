"""A BGP speaker without sockets: settings and what peers say go in, what to tell them and new best paths come out.

Sources: RFC 4271 (BGP-4), 4456 (route reflection, as a client), 4724 (graceful restart), 7606 (by the wire's parser).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

from bgp.decision import BestPath
from bgp.peering import PeerSettings
from bgp.policy import ImportPolicy, Refusal
from bgp.rib import AdjRibIn, AdjRibOut, LocRib
from bgp.session import Session
from bgp.types import (
    UNKNOWN_ROUTER,
    Announce,
    AnnounceEndOfRib,
    EndOfRib,
    Heard,
    HoldSessions,
    IPAddress,
    Path,
    PeerDown,
    PeerUp,
    Said,
    SessionState,
    UpdateReceived,
    Withdraw,
)

__all__ = ["RESTART_TIME", "BestPath", "Effect", "Speaker", "SpeakerSettings"]

RESTART_TIME = 120
"""Seconds that we ask peers to keep our paths while we restart, and keep theirs; BIRD's and Calico's value."""

END_OF_RIB_WAIT = 60.0
"""Seconds after a session is back until what the peer has not said again is swept, if it never says End-of-RIB."""

SILENT_WAIT = 5.0
"""Seconds after which a peer without graceful restart, which says no End-of-RIB, is taken to have said everything."""


@dataclass(frozen=True, slots=True)
class SpeakerSettings:
    """What a node does in BGP.

    Attributes:
        announcements: our own prefixes; nothing else is ever announced.
        accept_within: prefixes of others must lie inside one of these.
    """

    local_address: IPv4Address
    router_id: IPv4Address
    asn: int
    listen_port: int
    peers: tuple[PeerSettings, ...]
    announcements: frozenset[IPv4Network]
    accept_within: tuple[IPv4Network, ...]


# --- what happens to the speaker, besides what is heard on the wire


@dataclass(frozen=True, slots=True)
class Configured:
    """Somebody wants the speaker to be like this from now on."""

    settings: SpeakerSettings


@dataclass(frozen=True, slots=True)
class WireStarted:
    """The process that holds the sessions runs and knows nothing."""


@dataclass(frozen=True, slots=True)
class WireLost:
    """The process that held the sessions is gone, and they with it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; see `Speaker.deadline`."""


Event: TypeAlias = Heard | Configured | WireStarted | WireLost | Tick


# --- what the speaker wants done, besides what is to be said on the wire


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """The Loc-RIB has another best path to a prefix now, or none."""

    prefix: IPv4Network
    best: BestPath | None


@dataclass(frozen=True, slots=True)
class PathRefused:
    """The import policy does not want a path."""

    path: Path
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class SessionUp:
    """A session is established."""

    peer: PeerSettings


@dataclass(frozen=True, slots=True)
class SessionDown:
    """An established session is gone.

    Attributes:
        kept: how many paths stay for a while although it is gone (graceful restart).
    """

    peer: PeerSettings
    reason: str
    kept: int = 0


Effect: TypeAlias = Said | RouteChanged | PathRefused | SessionUp | SessionDown


class Speaker:
    """The state of one speaker. `on` is the only way to change it, and says what has to be done about it."""

    def __init__(self, settings: SpeakerSettings, now: float) -> None:
        self.settings = settings
        self.started = now
        self.sessions: dict[IPAddress, Session] = {}
        self.loc_rib = LocRib()
        self._policy = _policy(settings)
        self._wire = False  # whether somebody is there to be told things
        self._agree_sessions(now)

    # --- questions

    def deadline(self) -> float | None:
        """Return when a Tick is due next; None while nothing waits for time to pass."""
        return min((each.keep_until for each in self.sessions.values() if each.keep_until is not None), default=None)

    def converged(self, now: float) -> bool:
        """Say whether a prefix without a path has none: every peer has said everything, or had the time to."""
        return now - self.started >= RESTART_TIME or all(
            each.complete or _silent_long_enough(each, now) for each in self.sessions.values()
        )

    @property
    def adj_ribs_in(self) -> Mapping[IPAddress, AdjRibIn]:
        """What each peer said."""
        return {address: session.adj_rib_in for address, session in self.sessions.items()}

    # --- events

    def on(self, event: Event, *, now: float) -> tuple[Effect, ...]:
        """Take note of what happened, and return what is to be done, in this order."""
        match event:
            case Configured(settings):
                return tuple(self._configured(settings, now))
            case WireStarted():
                return tuple(self._wire_started(now))
            case WireLost(reason):
                return tuple(self._wire_lost(reason, now))
            case Tick():
                return tuple(self._tick(now))
            case _:
                session = self.sessions.get(event.peer)
                # A peer that has just been removed may still have a word on its way.
                return tuple(self._heard(session, event, now)) if session else ()

    def _configured(self, settings: SpeakerSettings, now: float) -> Iterator[Effect]:
        before, self.settings = self.settings, settings
        self._policy = _policy(settings)
        added, changed = self._agree_sessions(now)
        if before.peers != settings.peers:
            yield from self._say(HoldSessions())
        yield from self._select(changed)
        yield from self._announce(before.announcements, added)
        yield from self._judge()

    def _agree_sessions(self, now: float) -> tuple[set[IPAddress], set[IPv4Network]]:
        """Make one session for each peer; return the added ones, and the prefixes that removed ones told."""
        wanted = {peer.address: peer for peer in self.settings.peers}
        lost: set[IPv4Network] = set()
        for address, session in tuple(self.sessions.items()):
            # Another AS is another peer, whatever its address.
            if address not in wanted or wanted[address].asn != session.settings.asn:
                lost |= self.sessions.pop(address).adj_rib_in.clear()
        added = wanted.keys() - self.sessions.keys()
        for address in added:
            self.sessions[address] = self._new_session(wanted[address], now)
        for address, peer in wanted.items():
            self.sessions[address].settings = peer
        return added, lost

    def _new_session(self, peer: PeerSettings, now: float) -> Session:
        session = Session(peer, since=now)
        if peer.address.version != self.settings.local_address.version:
            session.blame(f"{peer.address} is IPv6, and this node's address {self.settings.local_address} is IPv4")
        elif self._wire:
            session.move(session.resting, "added to the settings", now)
        return session

    def _announce(self, before: frozenset[IPv4Network], added: set[IPAddress]) -> Iterator[Effect]:
        """Announce what is new to all, and the rest to new peers; withdraw what is gone."""
        now = self.settings.announcements
        peers = [peer.address for peer in reachable(self.settings)]
        if before - now and peers:
            yield from self._say(Withdraw(tuple(sorted(before - now))))
        if now - before and peers:
            yield from self._say(Announce(tuple(sorted(now - before))))
        if now & before:
            told = tuple(sorted(now & before))
            yield from self._say(*(Announce(told, address) for address in peers if address in added))
        for session in self.sessions.values():
            if session.established:
                session.adj_rib_out.become(now)

    def _judge(self) -> Iterator[Effect]:
        changed: set[IPv4Network] = set()
        for session in self.sessions.values():
            judged = session.adj_rib_in.judge(self._policy.refusal)
            changed |= judged
            yield from _refusals(session.adj_rib_in, judged)
        yield from self._select(changed)

    def _wire_started(self, now: float) -> Iterator[Effect]:
        """Say everything from the beginning; the announcements are ready before any session is up."""
        self._wire = True
        for peer in reachable(self.settings):
            session = self.sessions[peer.address]
            session.move(session.resting, "started", now)
        yield HoldSessions()
        if self.settings.announcements and reachable(self.settings):
            yield Announce(tuple(sorted(self.settings.announcements)))

    def _wire_lost(self, reason: str, now: float) -> Iterator[Effect]:
        """Keep every path for as long as we asked our peers to: it is us who restart (RFC 4724 section 4.1)."""
        self._wire = False
        for session in self.sessions.values():
            session.restarting = True
            yield from self._down(session, reason, now, keep=RESTART_TIME, state=SessionState.IDLE)

    def _tick(self, now: float) -> Iterator[Effect]:
        for session in self.sessions.values():
            if session.keep_until is not None and session.keep_until <= now:
                session.keep_until = None
                yield from self._select(session.adj_rib_in.sweep())

    # --- what peers say

    def _heard(self, session: Session, event: Heard, now: float) -> Iterator[Effect]:
        match event:
            case UpdateReceived():
                yield from self._update(session, event)
            case EndOfRib():
                session.end_of_rib = session.complete = True
                session.keep_until = None
                yield from self._select(session.adj_rib_in.sweep())
            case PeerUp():
                yield from self._up(session, event, now)
            case PeerDown(_, reason, notified):
                keep = 0 if notified else session.helper_time
                yield from self._down(session, reason, now, keep=keep, notified=notified)
            case _:
                session.take_note(event, now)

    def _up(self, session: Session, event: PeerUp, now: float) -> Iterator[Effect]:
        restarted, session.restarting = session.restarting, False
        session.move(SessionState.ESTABLISHED, "session established", now)
        session.hold_time, session.dialled = event.hold_time, event.dialled
        session.local, session.remote = event.local, event.remote
        session.adj_rib_out = AdjRibOut(self.settings.announcements)
        yield SessionUp(session.settings)
        yield from self._say(AnnounceEndOfRib(session.settings.address))
        if session.adj_rib_in.stale:
            if restarted or session.kept_forwarding:
                session.keep_until = now + END_OF_RIB_WAIT
            else:
                # RFC 4724 section 4.2: a peer that lost its forwarding state must not be sent packets for it.
                session.keep_until = None
                yield from self._select(session.adj_rib_in.sweep())

    def _down(
        self,
        session: Session,
        reason: str,
        now: float,
        *,
        keep: float,
        notified: bool = False,
        state: SessionState | None = None,
    ) -> Iterator[Effect]:
        """Take a session down; keep its paths as stale for `keep` seconds, or forget them at once."""
        was_up, before = session.established, session.state
        session.move(state or session.resting, reason, now)
        if not was_up:
            if not notified and before not in (SessionState.IDLE, session.resting):
                session.blame(f"{reason} in state {before}")
            return
        if not notified:
            session.blame(reason)
        session.flaps += 1
        session.end_of_rib = False
        session.adj_rib_out = AdjRibOut()
        changed = session.adj_rib_in.mark_stale()
        if keep and changed:
            session.keep_until = now + keep
        else:
            session.keep_until = None
            changed |= session.adj_rib_in.clear()
        yield SessionDown(session.settings, reason, len(session.adj_rib_in.entries))
        yield from self._select(changed)

    def _update(self, session: Session, event: UpdateReceived) -> Iterator[Effect]:
        changed = session.adj_rib_in.withdraw(event.withdrawn)
        if event.attributes is not None:
            for prefix in event.announced:
                path = Path(
                    prefix,
                    event.peer,
                    event.attributes,
                    external=session.settings.asn != self.settings.asn,
                    router_id=session.open_received.router_id if session.open_received else UNKNOWN_ROUTER,
                )
                changed |= session.adj_rib_in.learn(path, self._policy.refusal(path))
        yield from _refusals(session.adj_rib_in, changed)
        yield from self._select(changed)

    # --- helpers

    def _select(self, prefixes: Iterable[IPv4Network]) -> Iterator[RouteChanged]:
        adj_ribs_in = self.adj_ribs_in
        for prefix in sorted(prefixes):
            changed, best = self.loc_rib.select(prefix, adj_ribs_in)
            if changed:
                yield RouteChanged(prefix, best)

    def _say(self, *said: Said) -> Iterator[Said]:
        """Say something, if there is a wire to say it on; a wire that starts is told everything."""
        if self._wire:
            yield from said


def reachable(settings: SpeakerSettings) -> tuple[PeerSettings, ...]:
    """Return the peers that a session can be held with: of the same IP version as our address."""
    return tuple(peer for peer in settings.peers if peer.address.version == settings.local_address.version)


def _policy(settings: SpeakerSettings) -> ImportPolicy:
    return ImportPolicy(
        settings.asn, settings.router_id, settings.local_address, settings.accept_within, settings.announcements
    )


def _refusals(adj_rib_in: AdjRibIn, prefixes: set[IPv4Network]) -> Iterator[PathRefused]:
    for prefix in sorted(prefixes):
        entry = adj_rib_in.entries.get(prefix)
        if entry and entry.refusal:
            yield PathRefused(entry.path, entry.refusal)


def _silent_long_enough(session: Session, now: float) -> bool:
    return session.established and not session.says_end_of_rib and now - session.since >= SILENT_WAIT
