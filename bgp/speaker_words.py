"""What a speaker is told besides what it hears on the wire, and what it wants done besides what is to be said there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from bgp.communities import Community
from bgp.drops import PacketsDropped
from bgp.filters import Filter
from bgp.peering import PeerSettings, PrefixLimit
from bgp.policy import Refusal
from bgp.types import Heard, IPAddress, IPNetwork, Said


@dataclass(frozen=True, slots=True)
class SpeakerSettings:
    """What a node does in BGP.

    Attributes:
        announcements: our own prefixes; they are told to every peer.
        accept_within: prefixes of others must lie inside one of these.
        lends: single addresses of our own prefixes may be others', who have borrowed them.
        local_address6: our end of sessions over IPv6; None where this node has none.
        listen_on: where connections are taken; none: at our own addresses only.
        cluster_id: ours as a route reflector (RFC 4456); None where we are none.
        communities: what our own prefixes carry, by the network that they lie in.
        filters: those that peers name, by name.
        draining: we are about to go: everything that we say ranks last, and says so (RFC 8326).
        leaving: we go: nothing is announced any more, and the sessions stay until our process ends, with a Cease.
        farewell: what the other side's people are told when it does (RFC 9003).
    """

    local_address: IPv4Address
    router_id: IPv4Address
    asn: int
    listen_port: int
    peers: tuple[PeerSettings, ...]
    announcements: frozenset[IPNetwork]
    accept_within: tuple[IPNetwork, ...]
    local_address6: IPv6Address | None = None
    listen_on: tuple[IPAddress, ...] = ()
    cluster_id: IPv4Address | None = None
    communities: Mapping[IPNetwork, tuple[Community, ...]] = field(default_factory=dict)
    filters: Mapping[str, Filter] = field(default_factory=dict)
    lends: bool = False
    draining: bool = False
    leaving: bool = False
    farewell: str = ""


def reachable(settings: SpeakerSettings) -> tuple[PeerSettings, ...]:
    """Return the peers that a session can be held with."""
    return tuple(peer for peer in settings.peers if obstacle(settings, peer) is None)


def obstacle(settings: SpeakerSettings, peer: PeerSettings) -> str | None:
    """Say in one sentence why no session with a peer is held although it is wanted; None where it is."""
    if peer.disabled is not None:
        return f"administratively down; `felixctl bgp enable {peer.address}` brings it back"
    if peer.obstacle is None and peer.address.version == 6 and settings.local_address6 is None:  # noqa: PLR2004 - IPv6
        return f"{peer.address} is IPv6, and this node's address {settings.local_address} is IPv4"
    return peer.obstacle


def hindered(settings: SpeakerSettings, obstacles: Mapping[IPAddress, str]) -> SpeakerSettings:
    """Return the settings with something standing against some of the peers."""
    peers = (
        replace(peer, obstacle=obstacles[peer.address]) if peer.address in obstacles else peer
        for peer in settings.peers
    )
    return replace(settings, peers=tuple(peers))


def parted(settings: SpeakerSettings) -> SpeakerSettings:
    """Return the settings with every session disabled, so that peers know that we do not come back soon."""
    return replace(settings, peers=tuple(replace(peer, disabled=settings.farewell) for peer in settings.peers))


def reflection(settings: SpeakerSettings) -> tuple[object, ...]:
    """Return what decides about what is passed on besides the policy of the one who is told."""
    return settings.leaving, settings.cluster_id, tuple(peer.address for peer in settings.peers if peer.client)


def identity(settings: SpeakerSettings) -> tuple[object, ...]:
    """Return what makes the process on the wire: with another one of these it has to be started anew."""
    addresses = (settings.local_address, settings.local_address6, settings.listen_on)
    return *addresses, settings.listen_port, settings.asn, settings.router_id


def told_to_the_wire(peer: PeerSettings) -> PeerSettings:
    """Return what of a peer's settings makes its session; a change of all else leaves it alone."""
    return replace(
        peer,
        name="",
        kind="mesh",
        own_as_allowed=0,
        next_hop_mode="Auto",
        prefix_limit=None,
        client=False,
        filters=(),
        why="",
    )


# --- what happens to the speaker, besides what is heard on the wire


@dataclass(frozen=True, slots=True)
class Configured:
    """Somebody wants the speaker to be like this from now on."""

    settings: SpeakerSettings


@dataclass(frozen=True, slots=True)
class WireStarted:
    """The process that holds the sessions runs and knows nothing."""


@dataclass(frozen=True, slots=True)
class WireConfigured:
    """That process has taken the next `HoldSessions`; what it says of peers is about those from now on."""


@dataclass(frozen=True, slots=True)
class WireLost:
    """The process that held the sessions is gone, and they with it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; see `Speaker.deadline`."""


@dataclass(frozen=True, slots=True)
class NextHops:
    """What the kernel knows of next hops; see `Speaker.next_hops` for those that matter.

    Attributes:
        obstacles: those to which packets cannot be sent now, with the reason; all others can be reached.
        interfaces: by which interface packets to them leave, where that is known.
    """

    obstacles: Mapping[IPAddress, str]
    interfaces: Mapping[IPAddress, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Enabled:
    """Somebody wants a session again that was taken down for too many prefixes."""

    peer: IPAddress


@dataclass(frozen=True, slots=True)
class ResetAsked:
    """Somebody wants a session to be closed and opened again.

    Attributes:
        message: for the people on the other side (RFC 9003).
    """

    peer: IPAddress
    message: str = ""


@dataclass(frozen=True, slots=True)
class RefreshAsked:
    """Somebody wants a peer to tell everything again."""

    peer: IPAddress


OfPeer: TypeAlias = Heard | Enabled | ResetAsked | RefreshAsked
"""What happens to one session."""

Event: TypeAlias = Configured | WireStarted | WireConfigured | WireLost | Tick | NextHops | PacketsDropped | OfPeer


# --- what the speaker wants done, besides what is to be said on the wire


@dataclass(frozen=True, slots=True)
class RoutesChanged:
    """Packets to these prefixes take another way now, or none; the Loc-RIB knows which. All changes of one event."""

    prefixes: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class PathsRefused:
    """The import policy does not want what a peer says of these prefixes, all for the same reason."""

    peer: IPAddress
    prefixes: tuple[IPNetwork, ...]
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


@dataclass(frozen=True, slots=True)
class ManyPrefixes:
    """A peer tells nearly as many prefixes as it may, or more; said once, until they have become fewer again."""

    peer: PeerSettings
    prefixes: int
    limit: PrefixLimit


Effect: TypeAlias = Said | RoutesChanged | PathsRefused | SessionUp | SessionDown | ManyPrefixes
