"""The nouns of a cluster: nodes, pools, blocks, endpoints, peers. Values only; nothing here reads or writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NewType, TypeAlias

from bgp.communities import Community
from bgp.filters import Filter
from bgp.peering import HOLD_TIME, NextHopMode, PrefixLimit
from bgp.types import Family
from felix_py.selectors import Selector

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface

NodeName = NewType("NodeName", str)


def lies_in(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Say whether a network lies in another one; one of another version of IP never does."""
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


class TunnelMode(StrEnum):
    """When a pool's traffic between nodes is encapsulated (IPPool.spec.ipipMode and vxlanMode)."""

    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"
    NEVER = "Never"


IpipMode: TypeAlias = TunnelMode
VxlanMode: TypeAlias = TunnelMode


@dataclass(frozen=True, slots=True)
class Node:
    """One machine that runs the agent.

    Attributes:
        address: the address that BGP and tunnels use, with the mask of its subnet; None while unknown.
        as_number: its own AS; None means the cluster's default.
        address6: the same for IPv6; None where the node has none.
        cluster_id: it is a route reflector of this cluster (RFC 4456), and takes no part in the mesh.
        labels: what selectors ask about.
        vxlan_mac, vxlan_mac6: the hardware addresses of its VXLAN devices where somebody has written them down.
    """

    name: NodeName
    address: IPv4Interface | None = None
    as_number: int | None = None
    address6: IPv6Interface | None = None
    cluster_id: IPv4Address | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    vxlan_mac: str | None = None
    vxlan_mac6: str | None = None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Return where sessions with it go, IPv4 first."""
        return tuple(each.ip for each in (self.address, self.address6) if each is not None)


class Use(StrEnum):
    """What the addresses of a pool may be given to (IPPool.spec.allowedUses)."""

    WORKLOAD = "Workload"
    TUNNEL = "Tunnel"


@dataclass(frozen=True, slots=True)
class IPPool:
    """A range that pods take their addresses from, and how its traffic travels between nodes; IPv6 never in IPIP.

    Attributes:
        vxlan_mode: of it and `ipip_mode` at least one is Never.
        nat_outgoing: connections of its pods out of all pools come from the node's address.
        node_selector: only nodes that it selects take addresses from here; None selects all of them.
        namespace_selector: only pods in namespaces that it selects have them; None selects all of them.
        uses: what its addresses may be given to.
    """

    name: str
    cidr: IPNetwork
    ipip_mode: IpipMode = IpipMode.NEVER
    block_size: int = 26
    disabled: bool = False
    nat_outgoing: bool = False
    vxlan_mode: VxlanMode = VxlanMode.NEVER
    node_selector: Selector | None = None
    namespace_selector: Selector | None = None
    uses: frozenset[Use] = frozenset(Use)


class Claim(StrEnum):
    """How far a node's claim to a block is (BlockAffinity.spec.state); only a confirmed one counts for routes."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    ENDING = "pendingDeletion"


@dataclass(frozen=True, slots=True)
class BlockAffinity:
    """A block of a pool that belongs to one node, or is about to, or was."""

    name: str
    node: NodeName
    cidr: IPNetwork
    claim: Claim = Claim.CONFIRMED

    @property
    def confirmed(self) -> bool:
        """Say whether the node holds the block, so that it may announce it."""
        return self.claim is Claim.CONFIRMED


@dataclass(frozen=True, slots=True)
class IPReservation:
    """Addresses that nobody is given unless they are asked for by name."""

    name: str
    cidrs: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class IPAMConfiguration:
    """How blocks and addresses are given out; the resource named `default` counts.

    Attributes:
        strict_affinity: no node borrows an address of another node's block.
        max_blocks: of each version of IP, that a node claims.
        claims_blocks: nodes claim blocks by themselves; otherwise they have those that somebody wrote down.
        cooldown: seconds until an address that was given back may be given again.
    """

    name: str = "default"
    strict_affinity: bool = False
    max_blocks: int = 20
    claims_blocks: bool = True
    cooldown: int = 0


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace of pods, with the labels that `namespaceSelector` asks about."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class WorkloadEndpoint:
    """One pod's attachment: an interface on a node and the addresses behind it.

    Attributes:
        name: `namespace/pod` or whatever the orchestrator calls it; what people search for.
        interface: the host side of the veth, `cali` and eleven hex digits.
        networks: host prefixes (/32 and /128), one per address.
        netns: path of the pod's network namespace; empty where nobody said, and then its own end is none of ours.
        inside: the pod's end of the veth.
    """

    name: str
    node: NodeName
    interface: str
    networks: tuple[IPNetwork, ...]
    pod: str = ""
    container_id: str = ""
    netns: str = ""
    inside: str = ""


@dataclass(frozen=True, slots=True)
class BGPConfiguration:
    """Cluster-wide BGP settings; the resource named `default` counts.

    Attributes:
        listen_everywhere: at every address of the host, and not at the node's only.
        mesh_password: where the password of the mesh's sessions is; see `Secret`.
        mesh_restart_time: seconds that the nodes of the mesh keep each other's paths; None is the default.
        mesh_hold_time: seconds offered in the OPENs of the mesh; ours, Calico has no such field.
        communities: what our own prefixes inside a network carry.
    """

    name: str = "default"
    as_number: int = 64512
    node_to_node_mesh: bool = True
    listen_port: int = 179
    log_severity: str = "Info"
    listen_everywhere: bool = True
    mesh_password: str | None = None
    mesh_restart_time: int | None = None
    mesh_hold_time: int = HOLD_TIME
    communities: Mapping[IPNetwork, tuple[Community, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class BGPPeer:
    """Sessions besides those of the mesh: of which nodes, and with whom. See `bgp.peering.PeerSettings` for the rest.

    Attributes:
        peer_ip: with whom; None where `peer_selector` says it.
        as_number: of whoever has that address.
        node: only this node holds the session; None means every node that `node_selector` selects, or all.
        port: where the peer listens; None is a node's own port, and 179 of others.
        hold_time: seconds offered in the OPEN; None is three times the keepalive time, or the default.
        peer_selector: with every node that it selects.
        password: where it is; see `Secret`.
        reverse: nodes that it names as peers hold the session too, without being asked.
        families: what it carries; none: the family of the address.
    """

    name: str
    peer_ip: IPAddress | None
    as_number: int | None = None
    node: NodeName | None = None
    port: int | None = None
    hold_time: int | None = None
    node_selector: Selector | None = None
    peer_selector: Selector | None = None
    local_as_number: int | None = None
    own_as_allowed: int = 0
    any_source: bool = False
    next_hop_mode: NextHopMode = "Auto"
    ttl_hops: int | None = None
    password: str | None = None
    keepalive: int | None = None
    restart_time: int | None = None
    prefix_limit: PrefixLimit | None = None
    filters: tuple[str, ...] = ()
    reverse: bool = True
    families: tuple[Family, ...] = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """A password as it was found where a resource says that it is.

    Attributes:
        name: NAME/KEY in the directory of secrets, or the absolute path of a file.
        value: never shown; None where it cannot be used.
        problem: why it cannot be used and what to do, in a sentence without the password.
    """

    name: str
    value: str | None = field(default=None, repr=False)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FelixConfiguration:
    """How agents program routes; `default` counts for all nodes, `node.NAME` for one of them. None: not said.

    Attributes:
        device_route_source, device_route_source6: the source addresses that this host uses towards its pods.
        remove_external_routes: routes of other programs out of workloads' interfaces go, too; True where nobody says.
        route_sync_disabled: routes are left as they are, neither written nor removed.
        external_nodes: networks that may send through the tunnel although no Node is there.
        ipip_mtu, vxlan_mtu, vxlan_mtu6: bytes of an inner packet of IP in IP, of VXLAN over IPv4, and over IPv6; 0 has
            it follow the uplinks.
        mtu_pattern: a regular expression for the names of the interfaces whose MTU counts.
        vxlan_vni, vxlan_port: network identifier and UDP port of VXLAN, the same on all nodes.
        program_cluster_routes: routes to other nodes' blocks come from the datastore, whatever BGP says.
    """

    name: str = "default"
    device_route_source: IPv4Address | None = None
    remove_external_routes: bool | None = None
    route_sync_disabled: bool | None = None
    device_route_source6: IPv6Address | None = None
    external_nodes: tuple[IPNetwork, ...] | None = None
    ipip_mtu: int | None = None
    mtu_pattern: str | None = None
    vxlan_vni: int | None = None
    vxlan_port: int | None = None
    vxlan_mtu: int | None = None
    vxlan_mtu6: int | None = None
    program_cluster_routes: bool | None = None


BGPFilter: TypeAlias = Filter

Resource: TypeAlias = (
    Node
    | IPPool
    | BlockAffinity
    | WorkloadEndpoint
    | BGPConfiguration
    | BGPPeer
    | BGPFilter
    | FelixConfiguration
    | IPReservation
    | IPAMConfiguration
    | Namespace
    | Secret
)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which resource: its kind and its name, as users write them."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in what the user gave us, with where it stands and what to do."""

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class Invalid(Exception):  # noqa: N818 - named for what the caller does with it: report, and treat as absent
    """Input that cannot be used; carries every fault found, so that one message names them all."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults
