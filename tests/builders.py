"""Scenarios as words: short constructors for the resources that tests talk about."""

from ipaddress import IPv4Interface, IPv6Interface, ip_network

from felix_py.kernel.objects import Link
from felix_py.model import BlockAffinity, IpipMode, IPPool, Key, Node, NodeName, VxlanMode, WorkloadEndpoint
from felix_py.state import ClusterState, Event, InSync, Present


def node(name: str, address: str, address6: str | None = None) -> Present:
    six = IPv6Interface(address6) if address6 else None
    return Present(Key("Node", name), Node(NodeName(name), IPv4Interface(address), address6=six))


def pool(
    cidr: str = "10.65.0.0/16", mode: IpipMode = IpipMode.CROSS_SUBNET, *, name: str = "default", size: int = 26
) -> Present:
    return Present(Key("IPPool", name), IPPool(name, ip_network(cidr), mode, size))


def vxlan_pool(
    cidr: str = "10.65.0.0/16", mode: VxlanMode = VxlanMode.CROSS_SUBNET, *, name: str = "default"
) -> Present:
    network = ip_network(cidr)
    size = 26 if network.version == 4 else 122
    return Present(Key("IPPool", name), IPPool(name, network, block_size=size, vxlan_mode=mode))


def block(name: str, cidr: str) -> Present:
    key = f"{name}-{cidr.replace('/', '-')}"
    return Present(Key("BlockAffinity", key), BlockAffinity(key, NodeName(name), ip_network(cidr)))


def pod(name: str, on: str, interface: str, *addresses: str) -> Present:
    endpoint = WorkloadEndpoint(name, NodeName(on), interface, tuple(map(ip_network, addresses)))
    return Present(Key("WorkloadEndpoint", name), endpoint)


def link(name: str, *addresses: str, up: bool = True, mtu: int = 1500) -> Link:
    return Link(name, index=len(name), mtu=mtu, up=up, running=up, addresses=frozenset(addresses))


def links(*several: Link) -> dict[str, Link]:
    return {each.name: each for each in several}


def with_blocks(on: str, *blocks: str) -> ClusterState:
    """Return a cluster in which a node has these blocks by hand, each of them all that there is of its pool."""
    return ClusterState().after_all(
        event
        for number, cidr in enumerate(blocks)
        for event in (
            pool(cidr, IpipMode.NEVER, name=f"pool-{number}", size=ip_network(cidr).prefixlen),
            block(on, cidr),
        )
    )


TWO_RACKS: tuple[Event, ...] = (
    node("a1", "172.31.1.11/24"),
    node("a2", "172.31.1.12/24"),
    node("b1", "172.31.2.11/24"),
    pool(),
    block("a1", "10.65.0.0/26"),
    block("a2", "10.65.1.0/26"),
    block("b1", "10.65.2.0/26"),
    pod("default/web-0", "a1", "cali0000000web0", "10.65.0.5/32"),
    InSync(),
)
