"""One session as the speaker sees it: where it stands, how it came there, what each side said, and what is kept."""

from collections import deque
from dataclasses import dataclass, field

from bgp.notification import words
from bgp.peering import PeerSettings
from bgp.rib import AdjRibIn, AdjRibOut
from bgp.types import (
    ConnectFailed,
    Endpoint,
    Family,
    Heard,
    MessagesCounted,
    Notification,
    NotificationReceived,
    NotificationSent,
    Open,
    OpenReceived,
    OpenSent,
    SessionState,
    StateChanged,
)

HISTORY = 20
"""State changes that are kept of each session; enough for a day of a bad link, and a screen of a terminal."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of state: when (on the caller's clock), to what, and why."""

    at: float
    state: SessionState
    cause: str


@dataclass(slots=True)
class Session:
    """Everything about one peer.

    Attributes:
        keep_until: when stale paths are swept if the peer has not confirmed them; None while there are none.
        end_of_rib: the peer has said End-of-RIB since the session is up.
        complete: it has, at least once since the start; or it cannot, and was up long enough.
        restarting: the session ended because our own process did, so it is us whom the peer waits for.
    """

    settings: PeerSettings
    state: SessionState = SessionState.IDLE
    since: float = 0.0
    end_of_rib: bool = False
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
    history: deque[Change] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def established(self) -> bool:
        """Whether routes can be exchanged now."""
        return self.state is SessionState.ESTABLISHED

    @property
    def resting(self) -> SessionState:
        """The state in which the session waits to be connected (RFC 4271 section 8.2.2)."""
        return SessionState.ACTIVE if self.settings.passive else SessionState.CONNECT

    @property
    def kept_forwarding(self) -> bool:
        """Whether a peer that came back says that it forwarded packets meanwhile (F bit, RFC 4724 section 3)."""
        offered = self.open_received.graceful_restart if self.open_received else None
        return offered is not None and offered.families.get(Family.IPV4_UNICAST, False)

    @property
    def helper_time(self) -> int:
        """Seconds that the peer asked us to keep its paths when it restarts; 0 where it did not."""
        offered = self.open_received.graceful_restart if self.open_received else None
        # Without a family the peer only says that it can help others (RFC 4724 section 3).
        return offered.time if offered and offered.families else 0

    @property
    def says_end_of_rib(self) -> bool:
        """Whether the peer will say End-of-RIB: whoever has the capability does (RFC 4724 section 3)."""
        return self.open_received is not None and self.open_received.graceful_restart is not None

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
            case MessagesCounted():
                self.messages = event

    def blame(self, sentence: str) -> None:
        """Remember what went wrong last."""
        self.last_error = sentence

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
