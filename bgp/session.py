"""One session as the speaker sees it: where it stands, how it came there, what each side said, and what is kept."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from bgp import faults
from bgp.drops import Drop
from bgp.export_policy import ExportPolicy
from bgp.faults import Cause, Fault
from bgp.notification import CEASE
from bgp.peering import PeerSettings
from bgp.policy import Accepted, ImportPolicy
from bgp.rib import AdjRibIn, AdjRibOut, Told
from bgp.types import (
    ConnectFailed,
    Endpoint,
    Family,
    Heard,
    IPAddress,
    IPNetwork,
    MessagesCounted,
    Notification,
    NotificationReceived,
    NotificationSent,
    Open,
    OpenReceived,
    OpenSent,
    SessionState,
    StateChanged,
    Teardown,
    UpdateFaulty,
)

HISTORY = 20
"""State changes that are kept of each session; enough for a day of a bad link, and a screen of a terminal."""


SILENT_WAIT = 5.0
"""Seconds after which a peer without graceful restart, which says no End-of-RIB, is taken to have said everything."""

DIAL_WAIT = 5.0
"""Seconds after which it is worth a word that a peer has not dialled us, or not said its OPEN."""

EVIDENCE = 60.0
"""Seconds for which packets that our kernel dropped say something of a session; peers dial oftener."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of state: when (on the caller's clock), to what, and why."""

    at: float
    state: SessionState
    cause: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a session is down that could be up.

    Attributes:
        sentence: the reason, and what brings it back.
        until: when it is tried again; None: when somebody says so.
        cause: the same for programs.
    """

    sentence: str
    until: float | None
    cause: Cause


@dataclass(slots=True)
class Unconfirmed:
    """What a peer has not said again since it began to tell everything of a family again (RFC 7313).

    Attributes:
        until: when it is forgotten if the peer never says that this was all.
    """

    prefixes: set[IPNetwork]
    until: float


@dataclass(slots=True)
class Session:
    """Everything about one peer.

    Attributes:
        import_policy, export_policy: what is made of what it says, and what it is told.
        obstacle: why there can be none as things are, in a sentence.
        closed: why there is none although there could be; somebody or something of ours took it down.
        keep_until: when stale paths are swept if the peer has not confirmed them; None while there are none.
        ended: families of which the peer has said End-of-RIB since the session is up.
        complete: it has of all, at least once since the start.
        restarting: the session ended because our own process did, so it is us whom the peer waits for.
        unconfirmed: while it tells everything again: by family, what it has not told yet.
        warned: that it tells nearly too many prefixes has been said.
        fault: what went wrong last, and `fault_at` when.
        up_at: when the session was established last.
        dropped: what our kernel has dropped while there was no session: how many packets, and when the last.
        told: what it says, by what policy made of it, so that what it says alike stays one object.
        next_hops: that it has named since it last said nothing, those of refused paths among them.
    """

    settings: PeerSettings
    import_policy: ImportPolicy
    export_policy: ExportPolicy
    obstacle: str | None = None
    closed: Closed | None = None
    state: SessionState = SessionState.IDLE
    since: float = 0.0
    ended: set[Family] = field(default_factory=set)
    complete: bool = False
    restarting: bool = False
    keep_until: float | None = None
    open_sent: Open | None = None
    open_received: Open | None = None
    hold_time: int | None = None
    local: Endpoint | None = None
    remote: Endpoint | None = None
    dialled: bool | None = None
    notification_sent: Notification | None = None
    notification_received: Notification | None = None
    fault: Fault | None = None
    fault_at: float | None = None
    up_at: float | None = None
    dropped: dict[Drop, tuple[int, float]] = field(default_factory=dict)
    messages: MessagesCounted | None = None
    flaps: int = 0
    adj_rib_in: AdjRibIn = field(default_factory=AdjRibIn)
    adj_rib_out: AdjRibOut = field(default_factory=AdjRibOut)
    unconfirmed: dict[Family, Unconfirmed] = field(default_factory=dict)
    warned: bool = False
    told: dict[int, tuple[Accepted, Told]] = field(default_factory=dict)
    next_hops: set[IPAddress] = field(default_factory=set)
    malformed: int = 0
    history: deque[Change] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def established(self) -> bool:
        """Whether routes can be exchanged now."""
        return self.state is SessionState.ESTABLISHED

    @property
    def why_not(self) -> str | None:
        """Why no session is wanted now, in a sentence; None where one is."""
        return self.closed.sentence if self.closed else self.obstacle

    @property
    def resting(self) -> SessionState:
        """The state in which the session waits to be connected (RFC 4271 section 8.2.2)."""
        if self.why_not is not None:
            return SessionState.IDLE
        return SessionState.ACTIVE if self.settings.passive else SessionState.CONNECT

    @property
    def helper_time(self) -> int:
        """Seconds that the peer asked us to keep its paths when it restarts; 0 where it did not."""
        offered = self.open_received.graceful_restart if self.open_received else None
        # Without a family the peer only says that it can help others (RFC 4724 section 3).
        return offered.time if offered and offered.families else 0

    @property
    def restartable(self) -> frozenset[Family]:
        """The families whose paths the peer asks us to keep while it restarts (RFC 4724 section 3)."""
        offered = self.open_received.graceful_restart if self.open_received else None
        return frozenset(each for each in Family if offered and each in offered.families)

    @property
    def kept_forwarding(self) -> frozenset[Family]:
        """The families of which a peer that came back says that it forwarded packets meanwhile (F bit)."""
        offered = self.open_received.graceful_restart if self.open_received else None
        return frozenset(each for each in Family if offered and offered.families.get(each, False))

    @property
    def end_of_rib(self) -> bool:
        """Whether the peer has said End-of-RIB of everything that the session carries."""
        carried = frozenset(self.settings.carried)
        # A family that the peer does not speak never ends.
        return bool(self.ended) and self.ended >= ((carried & self.restartable) or carried)

    @property
    def says_end_of_rib(self) -> bool:
        """Whether the peer will say End-of-RIB: whoever has the capability does (RFC 4724 section 3)."""
        return self.open_received is not None and self.open_received.graceful_restart is not None

    @property
    def silent(self) -> bool:
        """Whether the session is up, and the peer will not say when it has told everything."""
        return self.established and not self.says_end_of_rib

    @property
    def new(self) -> bool:
        """Whether the peer says that it has just started, and waits for what others tell (R bit, RFC 4724)."""
        offered = self.open_received.graceful_restart if self.open_received else None
        return self.established and offered is not None and offered.restarted

    def said_everything(self, now: float) -> bool:
        """Say whether the peer has said everything that it will say for now."""
        waited = self.silent and now - self.since >= SILENT_WAIT
        return self.complete or self.why_not is not None or waited

    def heard_of(self, next_hop: IPAddress | None) -> None:
        """Remember a next hop that the peer names."""
        if not self.adj_rib_in.entries:
            self.next_hops.clear()
        if next_hop is not None:
            self.next_hops.add(next_hop)

    def move(self, state: SessionState, cause: str, now: float) -> None:
        """Take a state; one that is taken again is no change."""
        if state is self.state:
            return
        self.state, self.since = state, now
        if state is SessionState.OPEN_SENT:  # a connection is there: nothing is dropped
            self.dropped.clear()
        if state is SessionState.ESTABLISHED:
            self.up_at = now
        self.history.append(Change(now, state, cause))

    def take_note(self, event: Heard, now: float) -> None:
        """Remember what changes no route."""
        match event:
            case StateChanged(_, state):
                self.move(state, CAUSES.get(state, ""), now)
            case ConnectFailed():
                self.blame(faults.unconnected(self.settings, event, self._evidence(now)), now)
            case OpenSent(_, offered):
                self.open_sent = offered
            case OpenReceived(_, offered):
                self.open_received = offered
            case NotificationSent(_, notification):
                self.sent(notification, now)
            case NotificationReceived(_, notification):
                self.received(notification, now)
            case UpdateFaulty(_, sentence):
                self.malformed += 1
                self.blame(Fault(Cause.MALFORMED, sentence), now)
            case MessagesCounted():
                self.messages = event

    def blame(self, fault: Fault, now: float) -> None:
        """Remember what went wrong last; why there is to be no session outlives what follows from it."""
        if self.why_not is not None:
            self.forgive(now)
            return
        if self.fault is not None and self._is_recent and self.fault.outlives(fault):
            return
        self.fault, self.fault_at = fault, now

    def hung_up(self, reason: str, before: SessionState, now: float) -> None:
        """Take note that a connection, if there was one, has ended without a NOTIFICATION."""
        if before not in (SessionState.IDLE, self.resting):
            self.blame(faults.ended(reason, before), now)

    @property
    def _is_recent(self) -> bool:
        """Whether there was no session since what went wrong last."""
        return self.up_at is None or (self.fault_at is not None and self.fault_at >= self.up_at)

    def forgive(self, now: float) -> None:
        """Forget what went wrong; but for what stands against a session still."""
        before, self.fault = self.fault, None
        if self.closed is not None:
            self.fault = Fault(self.closed.cause, self.closed.sentence)
        elif self.obstacle is not None:
            cause = Cause.NOT_HELD if self.settings.disabled is None else Cause.DISABLED
            self.fault = Fault(cause, self.obstacle)
        if self.fault is None:
            self.fault_at = None
        elif self.fault != before:  # what stands against it still is no news when settings of something else change
            self.fault_at = now

    @property
    def last_error(self) -> str | None:
        """What went wrong last, in a sentence."""
        return self.fault.sentence if self.fault else None

    def present_fault(self, now: float) -> tuple[Fault, float] | None:
        """Return why there is no session now, or what went wrong last, and when; None where nothing did."""
        known = None if self.fault is None or self.fault_at is None else (self.fault, self.fault_at)
        waited = now - self.since
        if waited < DIAL_WAIT or self.why_not is not None:
            return known
        dropped = self._evidence(now)
        if self.state is SessionState.OPEN_SENT:
            return faults.not_opened(self.settings, waited, dropped), self.since + DIAL_WAIT
        # What was said when the last session ended tells more than that no other one came, unless packets are dropped.
        if self.state is SessionState.ACTIVE and (known is None or dropped):
            return faults.not_dialled(self.settings, waited, dropped), self.since + DIAL_WAIT
        return known

    def drop(self, counts: Mapping[Drop, int], now: float) -> None:
        """Take note of packets that our kernel has dropped: perhaps they were the peer's."""
        for drop, count in counts.items():
            if not self.established:
                self.dropped[drop] = self.dropped.get(drop, (0, now))[0] + count, now

    def _evidence(self, now: float) -> dict[Drop, int]:
        return {drop: count for drop, (count, at) in self.dropped.items() if now - at <= EVIDENCE}

    def teardown(self, subcode: int, message: str) -> Teardown:
        """Take note that we close the session with a Cease, which the wire may not find the time to tell; say it."""
        self.notification_sent = Notification(CEASE, subcode, message)
        return Teardown(self.settings.address, subcode, message)

    def sent(self, notification: Notification, now: float) -> None:
        """Take note of our own NOTIFICATION, in the words of what we found wrong."""
        self.notification_sent = notification
        opens = self.open_sent, self.open_received
        self.blame(faults.we_said(self.settings, notification, *opens, self.hold_time), now)

    def received(self, notification: Notification, now: float) -> None:
        """Take note of the peer's NOTIFICATION."""
        self.notification_received = notification
        self.blame(faults.peer_said(notification, self.open_sent), now)


CAUSES = {SessionState.OPEN_SENT: "connected, OPEN sent", SessionState.OPEN_CONFIRM: "the peer's OPEN accepted"}
"""What leads to the states between a connection and a session (RFC 4271 section 8.2.2)."""
