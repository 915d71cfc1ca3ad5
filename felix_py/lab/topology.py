"""A lab as a value: networks, routers, nodes with their pods, hosts, and what the nodes have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, TypeAlias

from felix_py.model import BGPConfiguration, IPPool, NodeName


@dataclass(frozen=True, slots=True)
class Network:
    """A layer 2 segment: one switch."""

    name: str
    cidr: IPv4Network


@dataclass(frozen=True, slots=True)
class Router:
    """A machine that runs BIRD and forwards between the networks that it has an address in, by network name."""

    name: str
    as_number: int
    addresses: Mapping[str, IPv4Interface]
    announce_default: bool = False


@dataclass(frozen=True, slots=True)
class LabNode:
    """A machine that runs felix-agent."""

    name: NodeName
    network: str
    address: IPv4Interface
    blocks: tuple[IPv4Network, ...] = ()
    pods: int = 0
    as_number: int | None = None
    default_route: bool = True

    @property
    def pod_names(self) -> tuple[str, ...]:
        """The names of its pods, as a1-pod1."""
        return tuple(f"{self.name}-pod{number}" for number in range(1, self.pods + 1))


@dataclass(frozen=True, slots=True)
class Host:
    """A plain machine."""

    name: str
    network: str
    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class Reflector:
    """A route reflector (RFC 4456): a machine beside the traffic, with which every node holds a session.

    Attributes:
        daemon: `bird` or `frr`.
        config: path of its configuration, seen from the topology's file.
    """

    name: str
    network: str
    address: IPv4Interface
    daemon: str
    config: str


Machine: TypeAlias = LabNode | Host | Reflector
"""What hangs on one network by one interface."""

Thing: TypeAlias = Network | Router | Machine


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab; what stands first in the file stands first here.

    Attributes:
        agent: settings of every agent, as in felix.yaml.
    """

    networks: tuple[Network, ...]
    routers: tuple[Router, ...]
    nodes: tuple[LabNode, ...]
    hosts: tuple[Host, ...]
    pools: tuple[IPPool, ...]
    bgp: BGPConfiguration
    agent: Mapping[str, Any] = field(default_factory=dict)
    reflectors: tuple[Reflector, ...] = ()

    def gateway(self, network: str) -> IPv4Address | None:
        """Return the address of a network's first router; None where there is no router."""
        return next((router.addresses[network].ip for router in self.routers if network in router.addresses), None)

    def node(self, name: str) -> LabNode | None:
        """Return the node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def reflector(self, name: str) -> Reflector | None:
        """Return the route reflector of that name."""
        return next((reflector for reflector in self.reflectors if reflector.name == name), None)

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Nodes, hosts and route reflectors."""
        return (*self.nodes, *self.hosts, *self.reflectors)

    @property
    def with_daemon(self) -> tuple[str, ...]:
        """The names of the machines that run a daemon, which a supervisor keeps running."""
        machines: tuple[Thing, ...] = (*self.nodes, *self.routers, *self.reflectors)
        return tuple(machine.name for machine in machines)

    @property
    def pods(self) -> dict[str, LabNode]:
        """Every pod's name with its node."""
        return {pod: node for node in self.nodes for pod in node.pod_names}

    @property
    def names(self) -> tuple[str, ...]:
        """Every name in the lab: machines, networks, pods."""
        things: tuple[Thing, ...] = (*self.networks, *self.routers, *self.machines)
        return (*(thing.name for thing in things), *self.pods)
