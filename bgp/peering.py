"""Sessions as a node wants them: one value for each, and the full mesh as the simplest set of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from bgp.types import Family, IPAddress

HOLD_TIME = 90
"""Seconds; the suggested value of RFC 4271 section 10."""

PORT = 179
"""TCP port of BGP (RFC 4271 section 8.2.1)."""

Kind: TypeAlias = Literal["mesh", "global", "node", "reverse", "rr-client"]
"""Why a session is held: with every node, with every node's peer, with a peer of this node only, because the other side
asked for it, or because the other side is our client and we its route reflector."""

NextHopMode: TypeAlias = Literal["Auto", "Self", "Keep"]
"""What the next hop is in what we pass on: Calico's words; Auto is ourselves to eBGP and what it was to iBGP."""

OWN_FAMILY = {4: Family.IPV4_UNICAST, 6: Family.IPV6_UNICAST}
"""What a session over each version of IP carries where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class PrefixLimit:
    """How much a peer may tell.

    Attributes:
        maximum: prefixes, accepted or not, beyond which the session is taken down.
        warning: per cent of it from which on it is said.
        restart: seconds after which the session is tried again; None: when somebody says so.
    """

    maximum: int
    warning: int = 75
    restart: float | None = None


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """One session that we want.

    Attributes:
        hold_time: seconds offered in our OPEN.
        port: where the peer listens.
        passive: we wait for the peer to dial.
        local_asn: our AS towards this peer; None is the node's own.
        own_as_allowed: how often our own AS may stand in the AS path of what the peer tells (RFC 4271 section 9.1.2).
        source: our address of the session; None is the node's own, or with `any_source` whatever the kernel chooses.
        ttl_hops: the peer is at most this many hops away, 1 for a neighbour on the wire, and packets that come from
            farther are dropped (GTSM, RFC 5082); None drops nothing.
        password: of TCP MD5 (RFC 2385); never shown.
        keepalive: seconds between our KEEPALIVEs; None is a third of the hold time, which is also the most.
        restart_time: seconds that we ask the peer to keep our paths; None is the default.
        prefix_limit: prefixes beyond which the session is taken down; None is no limit.
        client: we reflect routes to it and from it (RFC 4456).
        filters: names of BGPFilters, in order.
        families: what it carries; none: the family of its address.
        why: which resource asks for it, in a sentence.
        obstacle: why it is not held although it is wanted, in a sentence; None where it is.
        disabled: people want it down for now: what they tell the other side's people (RFC 9003), which may be nothing;
            None where they do not.
    """

    address: IPAddress
    asn: int
    name: str
    kind: Kind
    hold_time: int = HOLD_TIME
    port: int = PORT
    passive: bool = False
    local_asn: int | None = None
    own_as_allowed: int = 0
    source: IPAddress | None = None
    any_source: bool = False
    next_hop_mode: NextHopMode = "Auto"
    ttl_hops: int | None = None
    password: str | None = field(default=None, repr=False)
    keepalive: int | None = None
    restart_time: int | None = None
    prefix_limit: PrefixLimit | None = None
    client: bool = False
    filters: tuple[str, ...] = ()
    families: tuple[Family, ...] = ()
    why: str = ""
    obstacle: str | None = None
    disabled: str | None = None

    @property
    def carried(self) -> tuple[Family, ...]:
        """What kinds of prefixes the session carries."""
        return self.families or (OWN_FAMILY[self.address.version],)

    def external(self, own_asn: int) -> bool:
        """Say whether it is eBGP: the two sides are of different ASes (RFC 4271 section 1.1)."""
        return self.asn != (self.local_asn or own_asn)


@dataclass(frozen=True, slots=True)
class MeshNode:
    """A node of the mesh, this one or another."""

    name: str
    address: IPAddress
    asn: int


def sessions(
    own: MeshNode, mesh: Iterable[MeshNode], explicit: Iterable[PeerSettings], *, port: int = PORT
) -> tuple[PeerSettings, ...]:
    """Return every session of `own`, by address.

    Args:
        own: this node.
        mesh: all nodes, or none where there is no mesh; this one is passed over.
        explicit: peers that were asked for; one with a node's address replaces the session of the mesh.
        port: where the nodes listen.
    """
    meshed = {
        node.address: PeerSettings(
            node.address, node.asn, node.name, "mesh", port=port, passive=waits(own.address, node.address)
        )
        for node in mesh
        if node.address != own.address
    }
    asked = {peer.address: peer for peer in explicit if peer.address != own.address}
    return in_order((meshed | asked).values())


def in_order(peers: Iterable[PeerSettings]) -> tuple[PeerSettings, ...]:
    """Return sessions by address, as a number, IPv4 first."""
    return tuple(sorted(peers, key=lambda peer: (peer.address.version, int(peer.address))))


def waits(own: IPAddress, other: IPAddress) -> bool:
    """Say whether we leave it to the other node to dial.

    Where both dial, both connections collide, and two ExaBGPs have been seen to drop both up to 160 times in a row.
    Calico lets the higher address dial too.
    """
    return (own.version, int(own)) < (other.version, int(other))
