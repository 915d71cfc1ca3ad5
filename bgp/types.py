"""The nouns of BGP as this package uses them: paths, their attributes, and what speaker and wire say to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

UNKNOWN_ROUTER = IPv4Address(0)
"""The BGP identifier of a peer whose OPEN has not been seen; no router may have it (RFC 6286)."""

AsHop: TypeAlias = int | frozenset[int]
"""One step of an AS path: an AS number, or an AS_SET, which counts as one (RFC 4271 section 9.1.2.2 a)."""


class Family(StrEnum):
    """What kind of prefixes a session carries (RFC 4760)."""

    IPV4_UNICAST = "ipv4 unicast"
    IPV6_UNICAST = "ipv6 unicast"


FAMILY = {4: Family.IPV4_UNICAST, 6: Family.IPV6_UNICAST}
"""What kind of prefix one of each version of IP is."""


class SessionState(StrEnum):
    """The states of a session (RFC 4271 section 8.2.2)."""

    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"


class Origin(IntEnum):
    """Where a path came from; the lower is preferred (RFC 4271 section 9.1.2.2 b)."""

    IGP = 0
    EGP = 1
    INCOMPLETE = 2


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a path says of itself.

    Attributes:
        next_hop: None where the UPDATE carried none that can be read.
        as_path: nearest AS first; confederation segments are left out.
        local_preference: None on eBGP, where it does not travel.
        med: None where it was not sent, which ranks as 0.
        extended_communities: eight octets each, as they came (RFC 4360).
        aggregator: AS and router that aggregated it.
        unrecognized: what must be passed on although we do not know it (RFC 4271 section 5): flags, code and value of
            optional transitive attributes.
    """

    next_hop: IPAddress | None
    origin: Origin = Origin.IGP
    as_path: tuple[AsHop, ...] = ()
    local_preference: int | None = None
    med: int | None = None
    communities: tuple[tuple[int, int], ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    originator_id: IPv4Address | None = None
    cluster_list: tuple[IPv4Address, ...] = ()
    extended_communities: tuple[bytes, ...] = ()
    atomic_aggregate: bool = False
    aggregator: tuple[int, IPv4Address] | None = None
    unrecognized: tuple[tuple[int, int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """A way to a prefix, as one peer told it.

    Attributes:
        peer: the address of who told us.
        external: heard over eBGP.
        router_id: the peer's BGP identifier, from its OPEN.
        stale: its session is gone, and graceful restart keeps it (RFC 4724).
    """

    prefix: IPNetwork
    peer: IPAddress
    attributes: Attributes
    external: bool = False
    router_id: IPv4Address = UNKNOWN_ROUTER
    stale: bool = False


@dataclass(frozen=True, slots=True)
class GracefulRestart:
    """The graceful restart capability of an OPEN (RFC 4724 section 3).

    Attributes:
        time: seconds that its sender may take to come back.
        restarted: the sender has just restarted (R bit).
        families: those whose paths it asks us to keep; True where it kept forwarding (F bit).
    """

    time: int
    restarted: bool = False
    families: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Open:
    """What one side offered.

    Attributes:
        capabilities: in words, for people.
    """

    asn: int
    hold_time: int
    router_id: IPv4Address
    capabilities: tuple[str, ...] = ()
    graceful_restart: GracefulRestart | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """Why a side closed the session (RFC 4271 section 4.5).

    Attributes:
        text: what came in the data field, if it is for people.
        data: what came there otherwise, in hexadecimal digits.
    """

    code: int
    subcode: int
    text: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a TCP connection."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"  # noqa: PLR2004 - the version of IP


# --- what the wire tells the speaker


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session of a peer moved on, below Established."""

    peer: IPAddress
    state: SessionState


class DialFailure(StrEnum):
    """What came of an attempt to connect."""

    REFUSED = "refused"
    NO_ROUTE = "no route"
    UNREACHABLE = "unreachable"
    NO_ANSWER = "no answer"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """A connection to a peer could not be made, or nobody has answered for a while; it is tried again.

    Attributes:
        reason: the kernel's words, where there are some.
    """

    peer: IPAddress
    failure: DialFailure
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OpenSent:
    """We offered this."""

    peer: IPAddress
    open: Open


@dataclass(frozen=True, slots=True)
class OpenReceived:
    """A peer offered this."""

    peer: IPAddress
    open: Open


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A session is established.

    Attributes:
        hold_time: what the two sides agreed on.
        dialled: we opened the connection; None where the wire cannot tell.
    """

    peer: IPAddress
    hold_time: int | None = None
    local: Endpoint | None = None
    remote: Endpoint | None = None
    dialled: bool | None = None


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A session, or an attempt at one, has ended.

    Attributes:
        notified: a NOTIFICATION was sent or received, so nothing of the peer may be kept.
    """

    peer: IPAddress
    reason: str
    notified: bool = False


@dataclass(frozen=True, slots=True)
class NotificationSent:
    """We told the peer why we close."""

    peer: IPAddress
    notification: Notification


@dataclass(frozen=True, slots=True)
class NotificationReceived:
    """The peer told us why it closes."""

    peer: IPAddress
    notification: Notification


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    """A peer announced prefixes, withdrew some, or both.

    Attributes:
        attributes: those of `announced`; None where only prefixes are withdrawn.
    """

    peer: IPAddress
    announced: tuple[IPNetwork, ...] = ()
    withdrawn: tuple[IPNetwork, ...] = ()
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class EndOfRib:
    """A peer has said all that it had to say after coming up (RFC 4724 section 2)."""

    peer: IPAddress
    family: Family = Family.IPV4_UNICAST


class RefreshStage(StrEnum):
    """What a ROUTE-REFRESH message says (RFC 2918, and RFC 7313 section 3.2)."""

    REQUEST = "query"
    BEGIN = "begin"
    END = "end"


@dataclass(frozen=True, slots=True)
class RefreshHeard:
    """A peer asks to be told everything again, or begins or ends to tell everything again."""

    peer: IPAddress
    family: Family
    stage: RefreshStage


@dataclass(frozen=True, slots=True)
class UpdateFaulty:
    """An UPDATE of a peer was malformed, and this was done about it (RFC 7606)."""

    peer: IPAddress
    sentence: str


@dataclass(frozen=True, slots=True)
class MessagesCounted:
    """How many messages of each kind a session has sent and received since it is up."""

    peer: IPAddress
    sent: Mapping[str, int]
    received: Mapping[str, int]


Heard: TypeAlias = (
    StateChanged
    | ConnectFailed
    | OpenSent
    | OpenReceived
    | PeerUp
    | PeerDown
    | NotificationSent
    | NotificationReceived
    | UpdateReceived
    | EndOfRib
    | RefreshHeard
    | UpdateFaulty
    | MessagesCounted
)
"""What the wire tells the speaker."""


# --- what the speaker tells the wire


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce prefixes with these attributes.

    Attributes:
        peers: to whom; none: to all.
        attributes: as the peer is to see them; a next hop of None is ourselves.
    """

    prefixes: tuple[IPNetwork, ...]
    peers: tuple[IPAddress, ...] = ()
    attributes: Attributes = Attributes(next_hop=None)


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Withdraw prefixes that we announced.

    Attributes:
        peers: from whom; none: from all.
    """

    prefixes: tuple[IPNetwork, ...]
    peers: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class AnnounceEndOfRib:
    """Say that everything has been said, of every family that the session carries."""

    peer: IPAddress


@dataclass(frozen=True, slots=True)
class Teardown:
    """Close the session with a Cease; the peer is dialled again.

    Attributes:
        subcode: of Cease (RFC 4486).
        message: for the people on the other side, at most 255 octets (RFC 9003); only with subcodes 2 and 4.
    """

    peer: IPAddress
    subcode: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class HoldSessions:
    """Hold exactly the sessions of the settings; those that are not touched by a change stay up.

    Attributes:
        partings: how to close those that end with it; not before, or a peer could connect in between.
    """

    partings: tuple[Teardown, ...] = ()


@dataclass(frozen=True, slots=True)
class Refresh:
    """Ask the peer to tell everything again (RFC 2918)."""

    peer: IPAddress
    family: Family = Family.IPV4_UNICAST


Said: TypeAlias = Announce | Withdraw | AnnounceEndOfRib | HoldSessions | Teardown | Refresh
"""What the speaker tells the wire."""
