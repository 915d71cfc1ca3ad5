"""A BGP speaker without sockets: settings and what peers say go in, what to tell them and new best paths come out.

Sources: RFC 4271 (BGP-4), 4456 (route reflection), 4724 (graceful restart), 4486 and 9003 (how sessions are closed),
7313 (enhanced route refresh), 8326 (graceful shutdown).
"""

from collections.abc import Iterable, Iterator, Mapping

from bgp import exporting, importing, keeping, limits, waiting
from bgp.decision import BestPath
from bgp.drops import PacketsDropped
from bgp.exporting import Export, Share
from bgp.holding import Holding
from bgp.keeping import RESTART_TIME
from bgp.peering import PeerSettings
from bgp.policy import Accepted, Refusal
from bgp.rib import LocRib
from bgp.session import Closed, Session
from bgp.session_policies import Policies
from bgp.speaker_words import (
    Configured,
    Effect,
    Enabled,
    Event,
    NextHops,
    OfPeer,
    PathsRefused,
    RefreshAsked,
    ResetAsked,
    RoutesChanged,
    SessionDown,
    SessionUp,
    SpeakerSettings,
    Tick,
    WireConfigured,
    WireLost,
    WireStarted,
    hindered,
    obstacle,
    reachable,
    reflection,
    told_to_the_wire,
)
from bgp.types import (
    AnnounceEndOfRib,
    EndOfRib,
    Heard,
    IPAddress,
    IPNetwork,
    PeerDown,
    PeerUp,
    Refresh,
    RefreshHeard,
    Said,
    SessionState,
    Teardown,
    UpdateReceived,
)

TOO_MANY_PREFIXES, SHUTDOWN, DECONFIGURED, RESET = 1, 2, 3, 4
"""Subcodes of Cease (RFC 4486 section 4)."""

__all__ = ["RESTART_TIME", "BestPath", "Speaker", "SpeakerSettings", "obstacle", "reachable"]


class Speaker:
    """The state of one speaker. `on` is the only way to change it, and says what has to be done about it."""

    def __init__(self, settings: SpeakerSettings, now: float) -> None:
        self.settings = settings
        self.started = now
        self.sessions: dict[IPAddress, Session] = {}
        self.loc_rib = LocRib()
        self._interfaces: Mapping[IPAddress, str] = {}
        self._policies = Policies(settings, {})
        self._wire = False  # whether somebody is there to be told things
        self._moved: list[IPNetwork] = []  # what this event has changed in the Loc-RIB
        self._own: set[IPNetwork] = set()  # and among our own prefixes
        self._untold: dict[IPAddress, Share] = {}  # what peers have to be told although no route has changed
        self._passes_on = False  # whether any peer could be told what others tell
        self._owed: set[IPAddress] = set()  # peers that are up, and wait for our End-of-RIB
        for peer in settings.peers:
            self.sessions[peer.address] = self._new_session(peer, now)
        self._holding = Holding(self._wanted())
        self._passes_on = any(session.export_policy.passes_on for session in self.sessions.values())

    # --- questions

    def deadline(self) -> float | None:
        """Return when a Tick is due next; None while nothing waits for time to pass."""
        return waiting.deadline(self.sessions.values(), self.started, end_of_rib_due=bool(self._owed))

    def converged(self, now: float) -> bool:
        """Say whether a prefix without a path has none: every peer has said everything, or had the time to."""
        return waiting.converged(self.sessions.values(), self.started, now)

    def selecting(self, now: float) -> bool:
        """Say whether best paths are worth acting upon: who may say better has spoken, or had the time."""
        return waiting.selecting(self.sessions.values(), self.started, now)

    @property
    def in_force(self) -> SpeakerSettings:
        """The settings as the wire should have them: sessions that were closed have an obstacle."""
        closed = {address: each.closed.sentence for address, each in self.sessions.items() if each.closed}
        return hindered(self.settings, closed) if closed else self.settings

    @property
    def next_hops(self) -> frozenset[IPAddress]:
        """The next hops of which it matters whether they can be reached, and how; `NextHops` says so."""
        return importing.next_hops(self.loc_rib, self.sessions.values())

    def exported(self, peer: IPAddress, prefix: IPNetwork) -> Accepted | Refusal | None:
        """Say with which attributes a peer is told a prefix, or why it is not; None where there is nothing to tell."""
        return Export(self.settings, self.loc_rib).why(self.sessions[peer], prefix)

    # --- events

    def on(self, event: Event, *, now: float) -> tuple[Effect, ...]:
        """Take note of what happened, and return what is to be done, in this order."""
        effects = [*self._happened(event, now), *self._consequences()]
        sessions = self.sessions.values()
        if self._owed and (not self._passes_on or waiting.ready_to_end(sessions, self.started, now)):
            effects += [AnnounceEndOfRib(address) for address in self.sessions if address in self._owed]
            self._owed.clear()
        return tuple(effects)

    def _happened(self, event: Event, now: float) -> Iterator[Effect]:  # noqa: PLR0911 - one for each kind of event
        match event:
            case Configured(settings):
                return self._configured(settings, now)
            case WireStarted():
                return self._wire_started(now)
            case WireConfigured():
                self._holding.taken()
                return iter(())
            case WireLost(reason):
                return self._wire_lost(reason, now)
            case Tick():
                return self._tick(now)
            case NextHops(obstacles, interfaces):
                return self._next_hops(obstacles, interfaces)
            case PacketsDropped(counts):
                for each in self.sessions.values():
                    each.drop(counts, now)
                return iter(())
            case _:
                session = self.sessions.get(event.peer)
                # A peer that has just been removed may still have a word on its way.
                return self._of_session(session, event, now) if session else iter(())

    def _of_session(self, session: Session, event: OfPeer, now: float) -> Iterator[Effect]:
        match event:
            case Enabled():
                self._reopen(session, "enabled", now)
                return self._hold()
            case ResetAsked(peer, message):
                return iter((Teardown(peer, RESET, message),) if session.established else ())
            case RefreshAsked(peer):
                return iter([Refresh(peer, each) for each in session.settings.carried if session.established])
            case _:
                return self._heard(session, event, now)

    def _consequences(self) -> Iterator[Effect]:
        """Say which routes have changed, and tell peers what follows from it."""
        moved, self._moved = self._moved, []
        own, self._own = self._own, set()
        if moved:
            yield RoutesChanged(tuple(moved))
        if self._wire and (self._untold or own or (moved and self._passes_on)):
            untold, self._untold = self._untold, {}
            sessions = [self.sessions[address] for address in self._holding.held]
            told = exporting.differences(sessions, Export(self.settings, self.loc_rib), moved, own, untold)
            yield from exporting.said(told, self._holding.held)

    # --- settings

    def _configured(self, settings: SpeakerSettings, now: float) -> Iterator[Effect]:
        before, self.settings = self.settings, settings
        self._policies = Policies(settings, self._interfaces)
        yield from self._agree_sessions(now)
        yield from self._hold()
        self._own = set(before.announcements ^ settings.announcements)
        yield from self._renew_policies(whole=reflection(before) != reflection(settings))

    def _agree_sessions(self, now: float) -> Iterator[Effect]:
        """Make one session for each peer, and drop all others with what they said."""
        wanted = {peer.address: peer for peer in self.settings.peers}
        for address, session in tuple(self.sessions.items()):
            # Another AS is another peer, whatever its address.
            if address not in wanted or wanted[address].asn != session.settings.asn:
                self._part(session)
        for address, peer in wanted.items():
            if address not in self.sessions:
                self.sessions[address] = self._new_session(peer, now)
                continue
            session = self.sessions[address]
            session.settings = peer
            before, session.obstacle = session.obstacle, obstacle(self.settings, peer)
            if session.obstacle is not None:
                subcode = DECONFIGURED if peer.disabled is None else SHUTDOWN
                yield from self._take_down(session, subcode, session.obstacle, now, peer.disabled or "")
            elif before is not None:
                self._rest(session, "nothing stands against it any more", now)

    def _part(self, session: Session) -> None:
        """Forget a peer."""
        address = session.settings.address
        self._holding.part(address, Teardown(address, DECONFIGURED) if session.established else None)
        del self.sessions[address]
        self._owed.discard(address)
        self._follow(session, session.adj_rib_in.clear())

    def _new_session(self, peer: PeerSettings, now: float) -> Session:
        session = Session(peer, *self._policies.new(peer), obstacle=obstacle(self.settings, peer), since=now)
        if session.obstacle is not None:
            session.forgive(now)
        elif self._wire:
            session.move(session.resting, "added to the settings", now)
        return session

    def _hold(self) -> Iterator[Said]:
        """Have the wire hold exactly the sessions that are wanted now; say nothing where it does already."""
        before, held = self._holding.held, self._wanted()
        for address in before.keys() - held.keys():
            if address in self.sessions:
                self.sessions[address].adj_rib_out.told.clear()
        for address in held:
            if held[address] != before.get(address):
                self._untold[address] = Share.EVERYTHING
        yield from (order for order in self._holding.change(held) if self._wire)

    def _renew_policies(self, *, whole: bool) -> Iterator[Effect]:
        """Judge and tell anew wherever policy has changed; nobody has to say anything again."""
        for session in self.sessions.values():
            inward, outward = self._policies.renew(session)
            if inward:
                changed = session.adj_rib_in.judge(session.import_policy.weigh)
                self._follow(session, changed)
                yield from importing.refusals(session, changed)
            if outward or whole:
                self._untold.setdefault(session.settings.address, Share.DIFFERENCE)
        self._passes_on = any(session.export_policy.passes_on for session in self.sessions.values())

    def _next_hops(self, obstacles: Mapping[IPAddress, str], interfaces: Mapping[IPAddress, str]) -> Iterator[Effect]:
        self._moved += self.loc_rib.reach(obstacles)
        if interfaces != self._interfaces:
            self._interfaces = dict(interfaces)
            self._policies = Policies(self.settings, self._interfaces)
            yield from self._renew_policies(whole=False)

    # --- the wire

    def _wire_started(self, now: float) -> Iterator[Effect]:
        """Say everything from the beginning; the announcements are there before any session is up."""
        self._wire = True
        held = self._wanted()
        for address in held:
            session = self.sessions[address]
            session.move(session.resting, "started", now)
        self._untold = dict.fromkeys(held, Share.EVERYTHING)
        yield self._holding.begin(held)

    def _wire_lost(self, reason: str, now: float) -> Iterator[Effect]:
        """Keep every path for as long as we asked our peers to: it is us who restart (RFC 4724 section 4.1)."""
        self._wire = False
        self._untold.clear()
        self._owed.clear()
        for session in self.sessions.values():
            session.adj_rib_out.told.clear()
            session.restarting = True
            until = now + (session.settings.restart_time or RESTART_TIME)
            yield from self._down(session, reason, now, until=until, state=SessionState.IDLE)

    def _tick(self, now: float) -> Iterator[Effect]:
        for session in self.sessions.values():
            self._follow(session, keeping.due(session, now))
            session.complete = session.complete or (session.silent and session.said_everything(now))
            if session.closed and session.closed.until is not None and session.closed.until <= now:
                self._reopen(session, "tried again", now)
        yield from self._hold()

    # --- sessions that we take down

    def _close(self, session: Session, why: Closed, subcode: int, now: float) -> Iterator[Effect]:
        """Take a session down, and out of what the wire holds, until it is opened again."""
        session.closed = why
        yield from self._take_down(session, subcode, why.sentence, now)
        yield from self._hold()

    def _take_down(
        self, session: Session, subcode: int, reason: str, now: float, message: str = ""
    ) -> Iterator[Effect]:
        if session.established:
            self._holding.part(session.settings.address, session.teardown(subcode, message))
        session.forgive(now)
        yield from self._down(session, reason, now, until=None, notified=True)
        self._follow(session, keeping.lost(session, None, by_us=False))

    def _reopen(self, session: Session, cause: str, now: float) -> None:
        if session.closed:
            session.closed, session.warned = None, False
            self._rest(session, cause, now)

    def _rest(self, session: Session, cause: str, now: float) -> None:
        """Let a session wait to be connected again after something stood against it."""
        session.forgive(now)
        if self._wire:
            session.move(session.resting, cause, now)

    # --- what peers say

    def _heard(self, session: Session, event: Heard, now: float) -> Iterator[Effect]:
        if self._holding.is_of_before(event.peer):
            return  # the last words of who had this address before
        if session.why_not is not None and isinstance(event, UpdateReceived | EndOfRib | RefreshHeard | PeerUp):
            return  # its last words, after we have closed
        match event:
            case UpdateReceived():
                yield from self._update(session, event, now)
            case EndOfRib(_, family):
                self._follow(session, keeping.ended(session, family))
            case RefreshHeard(_, family, stage):
                self._follow(session, keeping.refreshed(session, family, stage, now))
            case PeerUp():
                yield from self._up(session, event, now)
            case PeerDown(_, reason, notified):
                until = None if notified or not session.helper_time else now + session.helper_time
                yield from self._down(session, reason, now, until=until, notified=notified)
            case _:
                session.take_note(event, now)

    def _up(self, session: Session, event: PeerUp, now: float) -> Iterator[Effect]:
        if session.established:  # a new connection is there before we heard that the old one is gone
            until = now + session.helper_time if session.helper_time else None
            yield from self._down(session, "the peer connected anew", now, until=until)
        restarted, session.restarting = session.restarting, False
        session.move(SessionState.ESTABLISHED, "session established", now)
        session.hold_time, session.dialled = event.hold_time, event.dialled
        session.local, session.remote = event.local, event.remote
        session.told.clear()
        self._policies.renew(session)
        yield SessionUp(session.settings)
        if self._wire:
            self._owed.add(session.settings.address)
        self._follow(session, keeping.back(session, now, by_us=restarted))

    def _down(
        self,
        session: Session,
        reason: str,
        now: float,
        *,
        until: float | None,
        notified: bool = False,
        state: SessionState | None = None,
    ) -> Iterator[Effect]:
        """Take note that a session is down; keep its paths as stale until then, or forget them at once."""
        was_up, before = session.established, session.state
        session.move(state or session.resting, reason, now)
        if not notified:
            session.hung_up(reason, before, now)
        if not was_up:
            return
        session.flaps += 1
        session.warned = False
        self._owed.discard(session.settings.address)
        changed = keeping.lost(session, until, by_us=session.restarting)
        yield SessionDown(session.settings, reason, len(session.adj_rib_in.entries))
        self._follow(session, changed)

    def _update(self, session: Session, event: UpdateReceived, now: float) -> Iterator[Effect]:
        table, external = session.adj_rib_in, session.settings.external(self.settings.asn)
        withdrawn = table.withdraw(event.withdrawn)
        if event.attributes is not None:
            for told, prefixes in importing.judged(session, event.announced, event.attributes, external=external):
                learned = table.learn(prefixes, told)
                self._moved += self.loc_rib.learn(table, learned, told)
                if told.refusal is not None and learned:
                    yield PathsRefused(event.peer, tuple(learned), told.refusal)
            keeping.said_again(session, event.announced)
        self._follow(session, withdrawn)  # last: what was announced again at once may be what it was
        if session.settings.prefix_limit is None:
            return
        if warned := limits.warning(session):
            yield warned
        if excess := limits.excess(session, now):
            yield from self._close(session, excess, TOO_MANY_PREFIXES, now)

    # --- helpers

    def _wanted(self) -> dict[IPAddress, PeerSettings]:
        """Return the sessions that the wire should hold, as far as it is told of them."""
        return {peer.address: told_to_the_wire(peer) for peer in reachable(self.in_force)}

    def _follow(self, session: Session, prefixes: Iterable[IPNetwork]) -> None:
        """Choose anew for prefixes of which a peer says something else now."""
        self._moved += self.loc_rib.follow(session.settings.address, session.adj_rib_in, prefixes)
