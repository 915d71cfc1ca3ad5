"""A lab as a value: networks, routers, nodes with their pods, hosts, and what the nodes have in common."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, TypeAlias

from felix_py.model import BGPConfiguration, IPAddress, IPNetwork, IPPool, NodeName


@dataclass(frozen=True, slots=True)
class Network:
    """A layer 2 segment: one switch."""

    name: str
    cidr: IPv4Network
    cidr6: IPv6Network | None = None

    @property
    def cidrs(self) -> tuple[IPNetwork, ...]:
        """Its subnets, IPv4 first."""
        return (self.cidr, *((self.cidr6,) if self.cidr6 else ()))


@dataclass(frozen=True, slots=True)
class Router:
    """A machine that speaks BGP and forwards between the networks that it has an address in, by network name.

    Attributes:
        daemon: `bird` or `frr`.
    """

    name: str
    as_number: int
    addresses: Mapping[str, IPv4Interface]
    announce_default: bool = False
    addresses6: Mapping[str, IPv6Interface] = field(default_factory=dict)
    daemon: str = "bird"

    def ends(self, network: str) -> tuple[IPAddress, ...]:
        """Return its addresses in a network, IPv4 first."""
        return tuple(each[network].ip for each in (self.addresses, self.addresses6) if network in each)


@dataclass(frozen=True, slots=True)
class LabNode:
    """A machine that runs felix-agent."""

    name: NodeName
    network: str
    address: IPv4Interface
    blocks: tuple[IPNetwork, ...] = ()
    pods: int = 0
    as_number: int | None = None
    default_route: bool = True
    address6: IPv6Interface | None = None

    @property
    def ends(self) -> tuple[IPAddress, ...]:
        """Its addresses, IPv4 first."""
        return tuple(each.ip for each in (self.address, self.address6) if each is not None)

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
    address6: IPv6Interface | None = None

    @property
    def ends(self) -> tuple[IPAddress, ...]:
        """Its addresses, IPv4 first."""
        return tuple(each.ip for each in (self.address, self.address6) if each is not None)


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
    address6: IPv6Interface | None = None

    @property
    def ends(self) -> tuple[IPAddress, ...]:
        """Its addresses, IPv4 first."""
        return tuple(each.ip for each in (self.address, self.address6) if each is not None)


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

    def gateway6(self, network: str) -> IPv6Address | None:
        """Return the IPv6 address of a network's first router that has one; None where there is none."""
        return next((router.addresses6[network].ip for router in self.routers if network in router.addresses6), None)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP that are spoken here."""
        return (4, 6) if any(machine.address6 for machine in self.machines) else (4,)

    @property
    def speaks_bgp(self) -> bool:
        """Whether the nodes hold BGP sessions: not where the agents' settings say `bgp: Disabled`."""
        return str(self.agent.get("bgp", "Enabled")).lower() != "disabled"

    def between_routers(self, router: Router) -> Iterator[tuple[Router, str]]:
        """Yield the other routers that a router holds sessions with, and the network of each: one without nodes."""
        with_nodes = {node.network for node in self.nodes}
        for network in router.addresses:
            if network not in with_nodes:
                yield from ((each, network) for each in self.routers if each != router and network in each.addresses)

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
    def routing(self) -> tuple[Router | Reflector, ...]:
        """The machines that run a routing daemon which is not ours."""
        return (*self.routers, *self.reflectors)

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
