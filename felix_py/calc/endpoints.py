"""The kernel parameters that each pod's veth needs, kept and not only set once."""

from collections.abc import Iterable, Iterator, Mapping

from felix_py.calc.mtu import MINIMUM6
from felix_py.kernel.objects import IPV6, Link, PodLink
from felix_py.model import WorkloadEndpoint

WORKLOAD: Mapping[str, str] = {
    "net/ipv4/conf/{device}/route_localnet": "1",  # services of the host that pods reach by DNAT to 127/8
    "net/ipv4/neigh/{device}/proxy_delay": "0",  # otherwise the first ARP answer waits up to 0.8 s
    "net/ipv4/conf/{device}/proxy_arp": "1",  # the host answers for 169.254.1.1 without owning it
    "net/ipv4/conf/{device}/forwarding": "1",
    "net/ipv4/conf/{device}/rp_filter": "1",  # a pod sends only from addresses that are routed to it (RFC 3704, strict)
    "net/ipv6/conf/{device}/accept_ra": "0",  # a pod must not teach the host a route
}
"""Parameters of the host side of a veth, path below /proc/sys to value."""

WORKLOAD6: Mapping[str, str] = {
    "net/ipv6/conf/{device}/disable_ipv6": "0",
    "net/ipv6/conf/{device}/accept_dad": "0",  # nobody else is on this wire; the pod's gateway must answer at once
    "net/ipv6/conf/{device}/forwarding": "1",
}
"""And those of a pod with an IPv6 address. No proxy NDP: its gateway is the veth's own link-local address."""

HOST: Mapping[str, str] = {"net/ipv4/ip_forward": "1"}
"""Parameters of the node: without forwarding it routes for nobody."""

HOST6: Mapping[str, str] = {"net/ipv6/conf/all/forwarding": "1"}
"""And where it routes IPv6. Such a host takes router advertisements only on interfaces with accept_ra 2."""

OBJECTS: Mapping[str, str] = {"net/ipv4/nexthop_compat_mode": "0"}
"""With next-hop objects: one that changes is told once, and not again for each of the routes through it."""


def sysctls(
    endpoints: Iterable[WorkloadEndpoint], links: Mapping[str, Link], *, objects: bool = False, ipv6: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield path and value of every parameter that should hold; devices that do not exist have none.

    Args:
        endpoints: the pods of this node.
        links: the interfaces of this host by name.
        objects: routes go through next-hop objects.
        ipv6: this host routes IPv6.
    """
    yield from HOST.items()
    if ipv6:
        yield from HOST6.items()
    if objects:
        yield from OBJECTS.items()
    for endpoint in endpoints:
        if endpoint.interface in links:
            has_ipv6 = any(network.version == IPV6 for network in endpoint.networks)
            yield from of_workload(endpoint.interface, ipv6=has_ipv6)


def of_workload(device: str, *, ipv6: bool) -> Iterator[tuple[str, str]]:
    """Yield path and value of every parameter of one pod's host side."""
    for path, value in (*WORKLOAD.items(), *(WORKLOAD6.items() if ipv6 else ())):
        yield path.format(device=device), value


def pod_links(
    endpoints: Iterable[WorkloadEndpoint], links: Mapping[str, Link], mtu: int
) -> Iterator[tuple[str, PodLink]]:
    """Yield what the veths of pods should take, of those that exist and whose namespace is known.

    Args:
        endpoints: the pods of this node.
        links: the interfaces of this host by name.
        mtu: bytes that a pod's packet may have.
    """
    for endpoint in endpoints:
        if endpoint.interface in links and endpoint.netns:
            # IPv6 is not encapsulated, and an interface that takes less loses its IPv6 addresses.
            least = MINIMUM6 if any(network.version == IPV6 for network in endpoint.networks) else 0
            yield endpoint.interface, PodLink(endpoint.netns, endpoint.inside, max(mtu, least))
