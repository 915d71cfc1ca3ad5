"""One session as the speaker sees it: where it stands, how it came there, what each side said, and what is kept."""

from collections import deque
from dataclasses import dataclass, field

from bgp.export_policy import ExportPolicy
from bgp.notification import words
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
    UpdateFaulty,
)

HISTORY = 20
"""State changes that are kept of each session; enough for a day of a bad link, and a screen of a terminal."""


SILENT_WAIT = 5.0
"""Seconds after which a peer without graceful restart, which says no End-of-RIB, is taken to have said everything."""


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
    """

    sentence: str
    until: float | None = None


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
    last_error: str | None = None
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
        self.history.append(Change(now, state, cause))

    def take_note(self, event: Heard, now: float) -> None:
        """Remember what changes no route."""
        match event:
            case StateChanged(_, state):
                self.move(state, CAUSES.get(state, ""), now)
            case ConnectFailed(_, reason):
                self.blame(reason)
            case OpenSent(_, offered):
                self.open_sent = offered
            case OpenReceived(_, offered):
                self.open_received = offered
            case NotificationSent(_, notification):
                self.sent(notification)
            case NotificationReceived(_, notification):
                self.received(notification)
            case UpdateFaulty(_, sentence):
                self.malformed += 1
                self.blame(sentence)
            case MessagesCounted():
                self.messages = event

    def blame(self, sentence: str) -> None:
        """Remember what went wrong last; why there is to be no session outlives what follows from it."""
        self.last_error = self.why_not or sentence

    def sent(self, notification: Notification) -> None:
        """Take note of our own NOTIFICATION, in the words of what we found wrong."""
        self.notification_sent = notification
        self.blame(self._found_wrong(notification) or words(notification))

    def received(self, notification: Notification) -> None:
        """Take note of the peer's NOTIFICATION."""
        self.notification_received = notification
        sentence = f"peer said {words(notification)}"
        if (notification.code, notification.subcode) == BAD_PEER_AS and self.open_sent:
            sentence += f": the peer expects another AS than ours, {self.open_sent.asn}"
        self.blame(sentence)

    def _found_wrong(self, notification: Notification) -> str | None:
        wrong_as = (notification.code, notification.subcode) == BAD_PEER_AS
        if not wrong_as or self.open_received is None:
            return None
        plain = words(Notification(*BAD_PEER_AS))
        return f"{plain}: peer says AS {self.open_received.asn}, configured {self.settings.asn}"


CAUSES = {SessionState.OPEN_SENT: "connected, OPEN sent", SessionState.OPEN_CONFIRM: "the peer's OPEN accepted"}
"""What leads to the states between a connection and a session (RFC 4271 section 8.2.2)."""

BAD_PEER_AS = (2, 2)
"""Code and subcode of the NOTIFICATION for an AS that is not the configured one (RFC 4271 section 6.2)."""
