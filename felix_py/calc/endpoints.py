"""The kernel parameters that each pod's veth needs, kept and not only set once."""

from collections.abc import Iterable, Iterator, Mapping

from felix_py.kernel.objects import Link

WORKLOAD: Mapping[str, str] = {
    "net/ipv4/conf/{device}/route_localnet": "1",  # services of the host that pods reach by DNAT to 127/8
    "net/ipv4/neigh/{device}/proxy_delay": "0",  # otherwise the first ARP answer waits up to 0.8 s
    "net/ipv4/conf/{device}/proxy_arp": "1",  # the host answers for 169.254.1.1 without owning it
    "net/ipv4/conf/{device}/forwarding": "1",
    "net/ipv4/conf/{device}/rp_filter": "1",  # a pod sends only from addresses that are routed to it (RFC 3704, strict)
    "net/ipv6/conf/{device}/accept_ra": "0",  # a pod must not teach the host a route
}
"""Parameters of the host side of a veth, path below /proc/sys to value."""

HOST: Mapping[str, str] = {"net/ipv4/ip_forward": "1"}
"""Parameters of the node: without forwarding it routes for nobody."""


OBJECTS: Mapping[str, str] = {"net/ipv4/nexthop_compat_mode": "0"}
"""With next-hop objects: one that changes is told once, and not again for each of the routes through it."""


def sysctls(devices: Iterable[str], links: Mapping[str, Link], *, objects: bool = False) -> Iterator[tuple[str, str]]:
    """Yield path and value of every parameter that should hold; devices that do not exist have none."""
    yield from HOST.items()
    if objects:
        yield from OBJECTS.items()
    for device in devices:
        if device in links:
            for path, value in WORKLOAD.items():
                yield path.format(device=device), value
