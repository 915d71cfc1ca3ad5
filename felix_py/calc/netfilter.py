"""The packet filter of one node: what pods may send, who may send through the tunnel, what is masqueraded.

Drops do not depend on the agent: the table stays when it dies, and what is not in its sets is dropped.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import NamedTuple

from felix_py.kernel import ownership
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.guard import Guard
from felix_py.model import IPAddress, IPNetwork, IPPool, Node, NodeName, WorkloadEndpoint


class TunnelProtocol(NamedTuple):
    """What the outer header of a tunnel's packets says: the IP protocol number, and the UDP port where it is UDP."""

    number: int
    port: int | None = None

    def __str__(self) -> str:
        """Write it as nft matches it."""
        return f"meta l4proto {self.number}" if self.port is None else f"udp dport {self.port}"


IPIP = TunnelProtocol(4)
"""IP in IP (RFC 2003)."""

UDP = 17

VXLAN = TunnelProtocol(UDP, 4789)
"""VXLAN at the port that IANA has assigned to it (RFC 7348 section 5)."""

COMMENT = """\
	comment "kept by felix-agent; changes by others are undone"
"""

OF_PODS = """\
	counter pod-encapsulated {
		comment "packets of pods that are tunnel packets already: dropped"
	}

	counter pod-spoofed {
		comment "packets of pods from addresses that are not theirs: dropped"
	}

	counter interface-unknown {
		comment "packets from and to cali interfaces of no known pod: dropped"
	}

"""
"""Counters that the programs at pods' interfaces have too."""

COUNTERS = """\
	counter tunnel-stranger {
		comment "tunnel packets from addresses of no known node: dropped"
	}

	counter nat-outgoing {
		comment "connections of pods out of all pools: masqueraded"
	}

	counter tunnel-source {
		comment "connections of this host into the tunnel from another address: masqueraded"
	}
"""

SETS_OF_PODS: Mapping[str, tuple[str, str]] = {
    "pods": ("type ifname", "interfaces of this node's pods"),
    "pod-addresses": ("type ifname . ipv4_addr", "what each may send from"),
    "pod-addresses6": ("type ifname . ipv6_addr", "what each may send from"),
}
"""Name: type and purpose, in the order in which the table lists them; those of `SETS` come after them."""

SETS: Mapping[str, tuple[str, str]] = {
    "nodes": ("type ipv4_addr", "the other nodes, which may send through the tunnel"),
    "nodes6": ("type ipv6_addr", "the other nodes, which may send through the tunnel"),
    "external-nodes": ("type ipv4_addr\n\t\tflags interval", "externalNodesList, which may do so too"),
    "external-nodes6": ("type ipv6_addr\n\t\tflags interval", "externalNodesList, which may do so too"),
    "pools": ("type ipv4_addr\n\t\tflags interval", "all pools: traffic between them is never masqueraded"),
    "pools6": ("type ipv6_addr\n\t\tflags interval", "all pools: traffic between them is never masqueraded"),
    "masqueraded": ("type ipv4_addr\n\t\tflags interval", "pools with natOutgoing"),
    "masqueraded6": ("type ipv6_addr\n\t\tflags interval", "pools with natOutgoing"),
}

FROM_POD = """\
		iifname . ip saddr @pod-addresses accept
		iifname . ip6 saddr @pod-addresses6 accept
		iifname != @pods counter name "interface-unknown" drop
		ip6 saddr fe80::/10 accept comment "neighbour discovery; never forwarded"
		ip6 saddr :: accept comment "duplicate address detection; never forwarded"
		counter name "pod-spoofed" drop"""
"""One lookup lets a pod's packet pass; the rest finds out why another one may not."""

PREROUTING = """\
		type filter hook prerouting priority raw; policy accept;
		iifname "cali*" jump from-pod"""

FORWARD = """\
		type filter hook forward priority filter; policy accept;
		oifname "cali*" oifname != @pods counter name "interface-unknown" drop"""

ENCAPSULATED = """\
		ip saddr @nodes accept
		ip saddr @external-nodes accept
		ip6 saddr @nodes6 accept
		ip6 saddr @external-nodes6 accept
		counter name "tunnel-stranger" drop"""

INPUT = "\t\ttype filter hook input priority filter; policy accept;"

POSTROUTING = "\t\ttype nat hook postrouting priority srcnat; policy accept;"

MASQUERADE = """\
		ip saddr @masqueraded ip daddr != @pools counter name "nat-outgoing" masquerade fully-random
		ip6 saddr @masqueraded6 ip6 daddr != @pools6 counter name "nat-outgoing" masquerade fully-random"""

INTO_TUNNEL = (
    '\t\toifname "{device}" fib saddr type local fib saddr . oif type != local '
    'counter name "tunnel-source" masquerade fully-random'
)
"""A process that is bound to the node's own address must be answered through the tunnel, as its packets went."""


def table(
    me: NodeName,
    nodes: Iterable[Node],
    external: Iterable[IPNetwork],
    pools: Iterable[IPPool],
    local: Iterable[WorkloadEndpoint],
    tunnels: Mapping[str, TunnelProtocol],
    *,
    of_pods: bool = True,
) -> FilterTable:
    """Return the table that this node should have.

    Args:
        me: this node.
        nodes: all nodes; the others may send through the tunnel.
        external: networks that may do so too.
        pools: all pools, those too from which no new pod gets an address.
        local: the pods of this node.
        tunnels: each tunnel device of this node, with what it carries packets in.
        of_pods: the table guards pods' interfaces; otherwise our programs do, and forwarded packets meet no chain of
            ours but that of masquerading.
    """
    pools, local = tuple(pools), tuple(local)
    rules = "\n\n".join(
        (
            COMMENT + (OF_PODS if of_pods else "") + COUNTERS + "".join(_sets(of_pods=of_pods)).rstrip("\n"),
            *(_pod_chains(tunnels) if of_pods else ()),
            *_tunnel_chains(tunnels),
            *_nat_chain(pools, tunnels),
        )
    )
    named = {
        **(elements_of(local) if of_pods else {}),
        **_by_version("nodes", ((ip.version, str(ip)) for each in nodes if each.name != me for ip in each.addresses)),
        **_by_version("external-nodes", _ranges(external)),
        **_by_version("pools", _ranges(pool.cidr for pool in pools)),
        **_by_version("masqueraded", _ranges(pool.cidr for pool in pools if pool.nat_outgoing)),
    }
    return FilterTable(f"table inet felix {{\n{rules}\n}}\n", {name: each for name, each in named.items() if each})


def admitted(table: FilterTable, pod: WorkloadEndpoint) -> FilterTable:
    """Return a table that knows a pod besides: what `table` would make of a node that has it, too."""
    more, before = elements_of((pod,)), table.elements
    return FilterTable(
        table.rules, {**before, **{name: before.get(name, frozenset()) | each for name, each in more.items() if each}}
    )


def elements_of(local: Iterable[WorkloadEndpoint]) -> dict[str, frozenset[str]]:
    """Return what stands in the sets of a table that guards these pods."""
    local = tuple(local)
    interfaces = frozenset(f'"{each.interface}"' for each in local)
    return {"pods": interfaces, **_by_version("pod-addresses", _addresses(local))}


def guard(local: Iterable[WorkloadEndpoint], links: Iterable[str], tunnels: Mapping[str, TunnelProtocol]) -> Guard:
    """Return what our programs at pods' interfaces should let pass.

    Args:
        local: the pods of this node.
        links: the names of the interfaces that there are.
        tunnels: as for `table`.
    """
    there = {name for name in links if ownership.is_workload_device(name)}
    sources: dict[str, frozenset[IPAddress]] = {}
    for each in local:
        if each.interface in there:
            own = frozenset(network.network_address for network in each.networks)
            sources[each.interface] = sources.get(each.interface, frozenset()) | own
    ports = frozenset(each.port for each in (VXLAN, *tunnels.values()) if each.port is not None)
    return Guard(sources, frozenset(there - sources.keys()), ports)


def _sets(*, of_pods: bool) -> Iterator[str]:
    for name, (kind, purpose) in {**(SETS_OF_PODS if of_pods else {}), **SETS}.items():
        yield f'\n\tset {name} {{\n\t\t{kind}\n\t\tcomment "{purpose}"\n\t}}\n'


def _pod_chains(tunnels: Mapping[str, TunnelProtocol]) -> Iterator[str]:
    yield _chain("from-pod", _from_pod(tunnels))
    yield _chain("prerouting", PREROUTING)
    yield _chain("forward", FORWARD)


def _chain(name: str, lines: str) -> str:
    return f"\tchain {name} {{\n{lines}\n\t}}"


def _from_pod(tunnels: Mapping[str, TunnelProtocol]) -> str:
    # What a pod wraps itself would leave the next node's tunnel with whatever source address the pod likes.
    known = sorted({IPIP, VXLAN, *tunnels.values()}, key=lambda each: (each.number, each.port or 0))
    return "\n".join([*(f'\t\t{each} counter name "pod-encapsulated" drop' for each in known), FROM_POD])


def _tunnel_chains(tunnels: Mapping[str, TunnelProtocol]) -> Iterator[str]:
    if tunnels:
        yield _chain("encapsulated", ENCAPSULATED)
        # Two devices may carry their packets in the same.
        protocols = sorted({*map(str, tunnels.values())})
        yield _chain("input", "\n".join([INPUT, *(f"\t\t{each} jump encapsulated" for each in protocols)]))


def _nat_chain(pools: Iterable[IPPool], tunnels: Mapping[str, TunnelProtocol]) -> Iterator[str]:
    """Yield the chain only where it has rules: with one, the kernel tracks every connection."""
    lines = [MASQUERADE] if any(pool.nat_outgoing for pool in pools) else []
    lines += [INTO_TUNNEL.format(device=device) for device in sorted(tunnels)]
    if lines:
        yield _chain("postrouting", "\n".join([POSTROUTING, *lines]))


def _by_version(name: str, elements: Iterable[tuple[int, str]]) -> dict[str, frozenset[str]]:
    """Sort elements into the set of IPv4 and that of IPv6."""
    all_of_them = tuple(elements)
    return {
        set_name: frozenset(element for version, element in all_of_them if version == of)
        for set_name, of in ((name, 4), (f"{name}6", 6))
    }


def _addresses(local: Iterable[WorkloadEndpoint]) -> Iterator[tuple[int, str]]:
    for each in local:
        for network in each.networks:
            yield network.version, f'"{each.interface}" . {network.network_address}'


def _ranges(networks: Iterable[IPNetwork]) -> Iterator[tuple[int, str]]:
    """Yield networks as an interval set takes them: none in another one, and none that could be joined."""
    several = tuple(networks)
    joined: list[IPNetwork] = [*collapse_addresses(each for each in several if isinstance(each, IPv4Network))]
    joined += collapse_addresses(each for each in several if isinstance(each, IPv6Network))
    for network in joined:
        whole = network.prefixlen == network.max_prefixlen
        yield network.version, str(network.network_address) if whole else str(network)
