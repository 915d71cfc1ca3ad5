"""What policy has to know: of this node, and of a peer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from bgp.communities import Community
from bgp.filters import Facts, Filter
from bgp.peering import NextHopMode, PeerSettings
from bgp.types import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What policy has to know of this node.

    Attributes:
        addresses: ours, where peers could send packets back to us.
        accept_within: prefixes of others must lie inside one of these.
        own: what we announce ourselves.
        lends: others may announce single addresses of our blocks, which they have borrowed.
        cluster_id: ours as a route reflector (RFC 4456); None where we are none.
        communities: what our own prefixes carry, by the network that they lie in.
        interfaces: by next hop: the interface by which packets to it leave, where that is known.
        draining: we are about to go, and everybody should use other paths (RFC 8326).
    """

    asn: int
    router_id: IPv4Address
    addresses: frozenset[IPAddress]
    accept_within: tuple[IPNetwork, ...] = ()
    own: frozenset[IPNetwork] = frozenset()
    lends: bool = False
    cluster_id: IPv4Address | None = None
    communities: Mapping[IPNetwork, tuple[Community, ...]] = field(default_factory=dict)
    interfaces: Mapping[IPAddress, str] = field(default_factory=dict)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """What policy has to know of a peer.

    Attributes:
        external: eBGP.
        local_asn: our AS towards it.
        filters: in order, those that it names and nobody has written too.
        extended_next_hop: IPv4 prefixes may come with an IPv6 next hop, both sides having said so (RFC 8950).
    """

    address: IPAddress
    local_asn: int
    external: bool = False
    own_as_allowed: int = 0
    client: bool = False
    next_hop_mode: NextHopMode = "Auto"
    filters: tuple[Filter, ...] = ()
    extended_next_hop: bool = False

    @property
    def asks_for_interface(self) -> bool:
        """Say whether a filter asks by which interface packets to a next hop leave."""
        return any(each.asks_for_interface for each in self.filters)

    def facts(self, interface: str | None, *, learned: bool = True) -> Facts:
        """Return what rules of filters may ask about a path of this peer, or to it."""
        return Facts("eBGP" if self.external else "iBGP", learned, interface)


def peer_facts(
    peer: PeerSettings, own_asn: int, known: Mapping[str, Filter], *, extended_next_hop: bool = False
) -> PeerFacts:
    """Return what policy has to know of the peer of a session."""
    return PeerFacts(
        address=peer.address,
        local_asn=peer.local_asn or own_asn,
        external=peer.external(own_asn),
        own_as_allowed=peer.own_as_allowed,
        client=peer.client,
        next_hop_mode=peer.next_hop_mode,
        filters=tuple(known.get(name) or Filter(name, exists=False) for name in peer.filters),
        extended_next_hop=extended_next_hop,
    )
