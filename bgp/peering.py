"""Which sessions a node holds: a full mesh with the other nodes, and the peers that somebody asked for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bgp.types import IPAddress

HOLD_TIME = 90
"""Seconds; the suggested value of RFC 4271 section 10."""

PORT = 179
"""TCP port of BGP (RFC 4271 section 8.2.1)."""

Kind: TypeAlias = Literal["mesh", "global", "node"]
"""Why a session is held: with every node, with every node's peer, or with a peer of this node only."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """One session that we want.

    Attributes:
        hold_time: seconds offered in our OPEN.
        port: where the peer listens.
        passive: we wait for the peer to dial.
    """

    address: IPAddress
    asn: int
    name: str
    kind: Kind
    hold_time: int = HOLD_TIME
    port: int = PORT
    passive: bool = False


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
    return tuple(sorted((meshed | asked).values(), key=lambda peer: (peer.address.version, int(peer.address))))


def waits(own: IPAddress, other: IPAddress) -> bool:
    """Say whether we leave it to the other node to dial.

    Where both dial, both connections collide, and two ExaBGPs have been seen to drop both up to 160 times in a row.
    Calico lets the higher address dial too.
    """
    return (own.version, int(own)) < (other.version, int(other))
