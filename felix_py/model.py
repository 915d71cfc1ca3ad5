"""The nouns of a cluster: nodes, pools, blocks, endpoints, peers. Values only; nothing here reads or writes."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NewType, TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface

NodeName = NewType("NodeName", str)


class IpipMode(StrEnum):
    """When a pool's traffic between nodes is encapsulated (IPPool.spec.ipipMode)."""

    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Node:
    """One machine that runs the agent.

    Attributes:
        address: the address that BGP and tunnels use, with the mask of its subnet; None while unknown.
        as_number: its own AS; None means the cluster's default.
    """

    name: NodeName
    address: IPv4Interface | None = None
    as_number: int | None = None


@dataclass(frozen=True, slots=True)
class IPPool:
    """A range that pods take their addresses from, and how its traffic travels between nodes."""

    name: str
    cidr: IPv4Network
    ipip_mode: IpipMode = IpipMode.NEVER
    block_size: int = 26
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class BlockAffinity:
    """A block of a pool that belongs to one node."""

    name: str
    node: NodeName
    cidr: IPv4Network


@dataclass(frozen=True, slots=True)
class WorkloadEndpoint:
    """One pod's attachment: an interface on a node and the addresses behind it.

    Attributes:
        name: `namespace/pod` or whatever the orchestrator calls it; what people search for.
        interface: the host side of the veth, `cali` and eleven hex digits.
        networks: host prefixes (/32 and /128), one per address.
    """

    name: str
    node: NodeName
    interface: str
    networks: tuple[IPNetwork, ...]
    pod: str = ""
    container_id: str = ""


@dataclass(frozen=True, slots=True)
class BGPConfiguration:
    """Cluster-wide BGP settings; the resource named `default` counts."""

    name: str = "default"
    as_number: int = 64512
    node_to_node_mesh: bool = True
    listen_port: int = 179
    log_severity: str = "Info"


@dataclass(frozen=True, slots=True)
class BGPPeer:
    """A session with somebody outside the mesh.

    Attributes:
        node: only this node holds the session; None means every node does (a global peer).
        hold_time: seconds offered in the OPEN; ours, Calico has no such field.
    """

    name: str
    peer_ip: IPAddress
    as_number: int
    node: NodeName | None = None
    port: int = 179
    hold_time: int = 90


@dataclass(frozen=True, slots=True)
class FelixConfiguration:
    """How agents program routes; `default` counts for all nodes, `node.NAME` for one of them. None: not said.

    Attributes:
        device_route_source: the source address that this host uses towards its pods.
        remove_external_routes: routes of other programs out of workloads' interfaces go, too; True where nobody says.
        route_sync_disabled: routes are left as they are, neither written nor removed.
    """

    name: str = "default"
    device_route_source: IPv4Address | None = None
    remove_external_routes: bool | None = None
    route_sync_disabled: bool | None = None


Resource: TypeAlias = Node | IPPool | BlockAffinity | WorkloadEndpoint | BGPConfiguration | BGPPeer | FelixConfiguration


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
