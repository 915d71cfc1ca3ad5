"""How a lab is built: which namespaces, and what `ip` does in each. Pure: a Topology in, lines of `ip -batch` out."""

from collections.abc import Iterator, Mapping

from felix_py.lab.topology import Host, Machine, Router, Topology

UPLINK = "eth0"
"""The interface of a node or host towards its network, and of a pod towards its node."""

SWITCH = "switch"
"""The bridge inside a network's namespace; its ports are named after the machines that they lead to."""

Scripts = Mapping[str, tuple[str, ...]]
"""Lines for `ip -batch`, by the name of the machine or network in whose namespace they are run."""


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
    return {
        network.name: (
            f"link add {SWITCH} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {SWITCH} up",
            "link set lo up",
        )
        for network in topology.networks
    }


def cables(lab: str, topology: Topology) -> Scripts:
    """Return how the machines are plugged in: run in each network's namespace, once all namespaces exist."""
    lines: dict[str, list[str]] = {network.name: [] for network in topology.networks}
    for network, machine, interface in _plugs(topology):
        lines[network] += [
            f"link add {machine} type veth peer name {interface} netns {namespace(lab, machine)}",
            f"link set {machine} master {SWITCH} up",
        ]
    return {network: tuple(several) for network, several in lines.items()}


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
        scripts[machine.name] = ("link set lo up", *uplink(topology, machine))
    return scripts


def _router(router: Router) -> Iterator[str]:
    yield "link set lo up"
    for network, address in router.addresses.items():
        yield f"addr add {address} broadcast + dev {network}"
        yield f"link set {network} up"


def uplink(topology: Topology, machine: Machine) -> Iterator[str]:
    """Yield what gives a node or host its address and its routes beyond its network."""
    yield f"addr replace {machine.address} broadcast + dev {UPLINK}"
    yield f"link set {UPLINK} up"
    gateway = topology.gateway(machine.network)
    if gateway is None:
        return
    if isinstance(machine, Host) or machine.default_route:
        yield f"route replace default via {gateway}"
        return
    for network in topology.networks:
        if network.name != machine.network:
            yield f"route replace {network.cidr} via {gateway}"


ROUTER_PARAMETERS: Mapping[str, str] = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
"""What makes a namespace a router, whatever the host has set for itself: files in /proc/sys."""
