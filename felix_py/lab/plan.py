"""How a lab is built: which namespaces, and the steps in each. Pure: a Topology in, steps out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

from felix_py.lab.topology import LabNode, Machine, Router, Topology
from felix_py.model import IPAddress, IPInterface, IPNetwork

UPLINK = "eth0"
"""The interface of a node or host towards its network, and of a pod towards its node."""

SWITCH = "switch"
"""The bridge inside a network's namespace; its ports are named after the machines that they lead to."""

DEFAULT_ROUTE, DEFAULT_ROUTE6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class Bridge:
    """Make a switch that forwards at once and asks nobody about trees or groups."""

    device: str


@dataclass(frozen=True, slots=True)
class Cable:
    """Plug a machine in: a veth with one end in the switch here, the other end in the machine's namespace."""

    port: str
    interface: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Set:
    """Set an interface up or down."""

    device: str
    up: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """Give an interface an address."""

    device: str
    address: IPInterface


@dataclass(frozen=True, slots=True)
class Route:
    """Route a destination through a gateway."""

    destination: IPNetwork
    gateway: IPAddress


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Remove a route."""

    destination: IPNetwork


Step: TypeAlias = Bridge | Cable | Set | Address | Route | NoRoute
Scripts: TypeAlias = Mapping[str, tuple[Step, ...]]
"""Steps, by the name of the machine or network in whose namespace they are done."""


def namespace(lab: str, name: str) -> str:
    """Return the network namespace of a machine, network or pod, as `ip netns` shows it.

    A lab's name has no hyphen, so that no two labs can mean the same namespace.
    """
    return f"felix-{lab}-{name}"


def namespaces(lab: str, topology: Topology) -> tuple[str, ...]:
    """Return every namespace of a lab."""
    return tuple(namespace(lab, name) for name in topology.names)


def switches(topology: Topology) -> Scripts:
    """Return how each network becomes a bridge that forwards at once."""
    return {network.name: (Bridge(SWITCH), Set(SWITCH), Set("lo")) for network in topology.networks}


def cables(lab: str, topology: Topology) -> Scripts:
    """Return how the machines are plugged in: run in each network's namespace, once all namespaces exist."""
    steps: dict[str, list[Step]] = {network.name: [] for network in topology.networks}
    for network, machine, interface in _plugs(topology):
        steps[network].append(Cable(machine, interface, namespace(lab, machine)))
    return {network: tuple(several) for network, several in steps.items()}


def _plugs(topology: Topology) -> Iterator[tuple[str, str, str]]:
    """Yield each cable: network, machine, and the interface at the machine's end."""
    for router in topology.routers:
        for network in router.addresses:
            yield network, router.name, network
    for machine in topology.machines:
        yield machine.network, machine.name, UPLINK


def machines(topology: Topology) -> Scripts:
    """Return how each machine gets its addresses and routes; run in its namespace, once it is plugged in."""
    scripts = {router.name: tuple(_router(router)) for router in topology.routers}
    for machine in topology.machines:
        scripts[machine.name] = (Set("lo"), *uplink(topology, machine))
    return scripts


def _router(router: Router) -> Iterator[Step]:
    yield Set("lo")
    for network, address in router.addresses.items():
        yield Address(network, address)
        if network in router.addresses6:
            yield Address(network, router.addresses6[network])
        yield Set(network)


def uplink(topology: Topology, machine: Machine) -> Iterator[Step]:
    """Yield what gives a node, host or route reflector its addresses and its routes beyond its network."""
    yield Address(UPLINK, machine.address)
    if machine.address6 is not None:
        yield Address(UPLINK, machine.address6)
    yield Set(UPLINK)
    gateway, gateway6 = topology.gateway(machine.network), topology.gateway6(machine.network)
    if not isinstance(machine, LabNode) or machine.default_route:
        yield from [Route(DEFAULT_ROUTE, gateway)] if gateway else []
        yield from [Route(DEFAULT_ROUTE6, gateway6)] if gateway6 and machine.address6 else []
        return
    for network in topology.networks:
        if network.name != machine.network:
            yield from [Route(network.cidr, gateway)] if gateway else []
            yield from [Route(network.cidr6, gateway6)] if network.cidr6 and gateway6 and machine.address6 else []


ROUTER_PARAMETERS: Mapping[str, str] = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
"""What makes a namespace a router, whatever the host has set for itself: files in /proc/sys."""

ROUTER_PARAMETERS6: Mapping[str, str] = {"net/ipv6/conf/all/forwarding": "1"}
"""And one of IPv6."""


def router_parameters(router: Router) -> Iterator[tuple[str, str]]:
    """Yield what makes a router's namespace one: files in /proc/sys, and what to write there."""
    yield from ROUTER_PARAMETERS.items()
    if router.addresses6:
        yield from ROUTER_PARAMETERS6.items()
