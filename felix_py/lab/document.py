"""A lab's description, from the document that users write to one frozen Topology: every fault found, none guessed."""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, TypeAlias

from felix_py import config, resources
from felix_py.fields import MAXIMUM_AS, Reader
from felix_py.lab.topology import Host, LabNode, Network, Reflector, Router, Thing, Topology
from felix_py.model import BGPConfiguration, Fault, Invalid, IPPool, NodeName, Resource

NAME = re.compile(r"[a-z][a-z0-9-]{0,13}[a-z0-9]|[a-z]")
"""Names become interface names, which have at most 15 characters (IFNAMSIZ in linux/if.h), and host names."""

MAXIMUM_PODS = 250
"""Per node; a lab lives on one machine, and so do all its namespaces."""


def parse(document: object, where: str) -> Topology:
    """Turn what a YAML parser made of a file into a Topology.

    Raises:
        Invalid: with every fault, each with its path, its value and what to write instead.
    """
    reader = Reader(where)
    if not isinstance(document, Mapping):
        raise Invalid(Fault(where, "", f"holds {document!r}; describe a lab as deploy/lab/two-racks.yaml does"))
    reader.known(document, "topology", {"networks", "routers", "reflectors", "nodes", "hosts", "cluster", "agent"})
    networks = tuple(_networks(reader, document))
    # A network that is named but faulty is no reason to complain about those who live in it.
    cidrs: Cidrs = dict.fromkeys(map(str, reader.mapping(document, "networks", "networks", required=False)))
    cidrs |= {network.name: network.cidr for network in networks}
    pools, bgp = _cluster(reader, document)
    topology = Topology(
        networks=networks,
        routers=tuple(_routers(reader, document, cidrs)),
        nodes=tuple(_nodes(reader, document, cidrs)),
        hosts=tuple(_hosts(reader, document, cidrs)),
        pools=pools,
        bgp=bgp,
        agent=_agent(reader, document),
        reflectors=tuple(_reflectors(reader, document, cidrs)),
    )
    for section, check in CHECKS:
        if section and any(fault.path.startswith(section) for fault in reader.faults):
            continue  # complaints about what rests on a faulty section would only repeat its fault
        reader.faults.extend(Fault(where, path, message) for path, message in check(topology))
    if reader.faults:
        raise Invalid(*reader.faults)
    return topology


# --- the parts of the document

Cidrs: TypeAlias = dict[str, IPv4Network | None]
"""The subnet of each network by its name; None where it could not be read."""

Entries: TypeAlias = Iterator[tuple[str, str, Mapping[str, Any]]]


def _networks(reader: Reader, document: Mapping[str, Any]) -> Iterator[Network]:
    listed = reader.mapping(document, "networks", "networks")
    for name in listed:
        cidr = reader.value(listed, name, "networks", _network, "a subnet without host bits, as 172.31.1.0/24")
        if _named(reader, name, f"networks.{name}") and cidr is not None:
            yield Network(name, cidr)


def _routers(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[Router]:
    for name, path, spec in _entries(reader, document, "routers", required=False):
        reader.known(spec, path, {"asNumber", "addresses", "announceDefault"})
        listed = reader.mapping(spec, "addresses", f"{path}.addresses")
        addresses = {
            network: _address(reader, listed, network, f"{path}.addresses", network, cidrs) for network in listed
        }
        yield Router(
            name,
            reader.value(spec, "asNumber", path, _within(1, MAXIMUM_AS), "an AS number, as 64500") or 0,
            {network: address for network, address in addresses.items() if address is not None},
            reader.value(spec, "announceDefault", path, _boolean, "true or false", default=False) or False,
        )


def _nodes(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[LabNode]:
    for name, path, spec in _entries(reader, document, "nodes", required=True):
        reader.known(spec, path, {"network", "address", "blocks", "pods", "asNumber", "defaultRoute"})
        network = reader.value(spec, "network", path, _text, "the name of a network") or ""
        address = _address(reader, spec, "address", path, network, cidrs)
        blocks = reader.value(spec, "blocks", path, _network_list, "a list of blocks, as [10.65.0.0/26]", ())
        pods = reader.value(spec, "pods", path, _within(0, MAXIMUM_PODS), f"a number from 0 to {MAXIMUM_PODS}", 0)
        as_number = reader.value(spec, "asNumber", path, _within(1, MAXIMUM_AS), "an AS number, as 64513", None)
        default_route = reader.value(spec, "defaultRoute", path, _boolean, "true or false", default=True)
        if address is not None:
            yield LabNode(
                NodeName(name), network, address, blocks or (), pods or 0, as_number, default_route is not False
            )


def _hosts(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[Host]:
    for name, path, spec in _entries(reader, document, "hosts", required=False):
        reader.known(spec, path, {"network", "address"})
        network = reader.value(spec, "network", path, _text, "the name of a network") or ""
        address = _address(reader, spec, "address", path, network, cidrs)
        if address is not None:
            yield Host(name, network, address)


def _reflectors(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[Reflector]:
    for name, path, spec in _entries(reader, document, "reflectors", required=False):
        reader.known(spec, path, {"network", "address", "daemon", "config"})
        network = reader.value(spec, "network", path, _text, "the name of a network") or ""
        address = _address(reader, spec, "address", path, network, cidrs)
        daemon = reader.value(spec, "daemon", path, _daemon, "bird or frr") or ""
        configuration = reader.value(spec, "config", path, _text, "the path of its configuration, seen from here") or ""
        if address is not None:
            yield Reflector(name, network, address, daemon, configuration)


def _cluster(reader: Reader, document: Mapping[str, Any]) -> tuple[tuple[IPPool, ...], BGPConfiguration]:
    cluster = reader.mapping(document, "cluster", "cluster", required=False)
    reader.known(cluster, "cluster", {"asNumber", "nodeToNodeMeshEnabled", "ipPools"})
    spec = {name: value for name, value in cluster.items() if name in ("asNumber", "nodeToNodeMeshEnabled")}
    bgp = _calico(reader, "BGPConfiguration", "default", spec, "cluster")
    listed = cluster.get("ipPools", [])
    if not isinstance(listed, list) or not all(isinstance(item, Mapping) for item in listed):
        reader.fault("cluster.ipPools", f"is {listed!r}; give a list of pools, each with name and cidr")
        listed = []
    pools = [
        _calico(reader, "IPPool", item.get("name"), {k: v for k, v in item.items() if k != "name"}, path)
        for item, path in ((item, f"cluster.ipPools[{position}]") for position, item in enumerate(listed))
    ]
    settings = bgp if isinstance(bgp, BGPConfiguration) else BGPConfiguration()
    return tuple(pool for pool in pools if isinstance(pool, IPPool)), settings


def _calico(reader: Reader, kind: str, name: object, spec: Mapping[str, Any], path: str) -> Resource | None:
    """Read a part that is spelled as in Calico by the agent's own rules; faults name our path, not theirs."""
    document = {"apiVersion": resources.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    try:
        return resources.parse(document, reader.where)[1]
    except Invalid as invalid:
        for fault in invalid.faults:
            inner = fault.path.removeprefix("spec").removeprefix("metadata")
            reader.fault(f"{path}{inner}", fault.message)
        return None


def _agent(reader: Reader, document: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = reader.mapping(document, "agent", "agent", required=False)
    own = ("nodeName", "resourceDirectory", "runDirectory", "stateDirectory")
    for name in own:
        if name in settings:
            reader.fault(f"agent.{name}", f"is {settings[name]!r}; remove it, the lab gives every node its own")
    allowed = {name: value for name, value in settings.items() if name not in own}
    try:
        config.load(allowed, {}, where=reader.where, host_name="lab")
    except Invalid as invalid:
        for fault in invalid.faults:
            reader.fault(f"agent.{fault.path}", fault.message)
    return allowed


# --- the values in it


def _entries(reader: Reader, document: Mapping[str, Any], section: str, *, required: bool) -> Entries:
    listed = reader.mapping(document, section, section, required=required)
    for name in listed:
        path = f"{section}.{name}"
        if _named(reader, name, path):
            yield name, path, reader.mapping(listed, name, path)


def _named(reader: Reader, name: object, path: str) -> bool:
    if isinstance(name, str) and NAME.fullmatch(name):
        return True
    reader.fault(path, f"has the name {name!r}; give 1 to 15 of a-z, 0-9 and -, a letter first")
    return False


def _address(
    reader: Reader,
    spec: Mapping[str, Any],
    name: str,
    path: str,
    network: str,
    cidrs: Cidrs,
) -> IPv4Interface | None:
    """Read an address and give it the mask of its network."""
    address = reader.value(spec, name, path, IPv4Address, "an IPv4 address, as 172.31.1.11")
    if network not in cidrs:
        known = ", ".join(cidrs) or "none"
        where = f"{path}.network" if name == "address" else path
        reader.fault(where, f"is {network!r}, which is no network of this file; known are {known}")
        return None
    cidr = cidrs[network]
    if address is None or cidr is None:
        return None
    if address not in cidr or address in (cidr.network_address, cidr.broadcast_address):
        reader.fault(f"{path}.{name}", f"is {address}, no host address of network {network}; give one from {cidr}")
        return None
    return IPv4Interface((address, cidr.prefixlen))


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError
    return raw


def _daemon(raw: object) -> str:
    if raw not in ("bird", "frr"):
        raise ValueError
    return str(raw)


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise TypeError
    return raw


def _within(low: int, high: int) -> Callable[[Any], int]:
    def parse_number(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise ValueError
        return raw

    return parse_number


def _network(raw: object) -> IPv4Network:
    network = IPv4Network(_text(raw))
    if network.prefixlen > 30:  # noqa: PLR2004 - two hosts need 4 addresses: theirs, the network's, the broadcast's
        raise ValueError
    return network


def _network_list(raw: object) -> tuple[IPv4Network, ...]:
    if not isinstance(raw, list):
        raise TypeError
    return tuple(IPv4Network(_text(item)) for item in raw)


# --- what the parts must not do to each other

Complaints: TypeAlias = Iterator[tuple[str, str]]


def _shared_names(topology: Topology) -> Complaints:
    seen: dict[str, str] = {}
    for path, name in _all_names(topology):
        rival = seen.setdefault(name, path)
        if rival != path:
            yield path, f"has the name {name}, which {rival} has already; give each thing a name of its own"


def _all_names(topology: Topology) -> Iterator[tuple[str, str]]:
    sections: Mapping[str, tuple[Thing, ...]] = {
        "networks": topology.networks,
        "routers": topology.routers,
        "nodes": topology.nodes,
        "hosts": topology.hosts,
        "reflectors": topology.reflectors,
    }
    for section, things in sections.items():
        for thing in things:
            yield f"{section}.{thing.name}", thing.name
    for pod, node in topology.pods.items():
        yield f"nodes.{node.name}.pods ({pod})", pod


def _shared_addresses(topology: Topology) -> Complaints:
    seen: dict[IPv4Address, str] = {}
    for path, address in _all_addresses(topology):
        rival = seen.setdefault(address, path)
        if rival != path:
            yield path, f"is {address}, which {rival} has already; give each machine an address of its own"
    networks: list[Network] = []
    for network in topology.networks:
        for other in networks:
            if other.cidr.overlaps(network.cidr):
                sentence = f"is {network.cidr}, which overlaps {other.name} ({other.cidr}); give it a range of its own"
                yield f"networks.{network.name}", sentence
        networks.append(network)


def _all_addresses(topology: Topology) -> Iterator[tuple[str, IPv4Address]]:
    for router in topology.routers:
        for network, address in router.addresses.items():
            yield f"routers.{router.name}.addresses.{network}", address.ip
    for node in topology.nodes:
        yield f"nodes.{node.name}.address", node.address.ip
    for host in topology.hosts:
        yield f"hosts.{host.name}.address", host.address.ip
    for reflector in topology.reflectors:
        yield f"reflectors.{reflector.name}.address", reflector.address.ip


def _blocks(topology: Topology) -> Complaints:
    taken: dict[IPv4Network, str] = {}
    for node in topology.nodes:
        for position, block in enumerate(node.blocks):
            path = f"nodes.{node.name}.blocks[{position}]"
            yield from _block(topology, path, block, taken)
            taken[block] = path
        room = sum(block.num_addresses for block in node.blocks) - 1
        if node.pods > max(room, 0):
            sentence = f"is {node.pods}, and its blocks have room for {max(room, 0)} (one address is the tunnel's)"
            yield f"nodes.{node.name}.pods", f"{sentence}; give the node another block, or fewer pods"


def _block(topology: Topology, path: str, block: IPv4Network, taken: Mapping[IPv4Network, str]) -> Complaints:
    pool = next((pool for pool in topology.pools if block.subnet_of(pool.cidr)), None)
    if pool is None:
        yield path, f"is {block}, which lies in no pool; add one to cluster.ipPools"
    elif block.prefixlen != pool.block_size:
        yield path, f"is {block}, but blocks of pool {pool.name} are /{pool.block_size}; give one of that size"
    rival = next((other for other in taken if other.overlaps(block)), None)
    if rival is not None:
        yield path, f"is {block}, which overlaps {taken[rival]} ({rival}); a block has one node"


def _default_routes(topology: Topology) -> Complaints:
    for node in topology.nodes:
        if not topology.routers or topology.gateway(node.network) is not None:
            continue
        sentence = f"is {node.network}, which has no router; give a router an address there"
        yield f"nodes.{node.name}.network", sentence


CHECKS: tuple[tuple[str | None, Callable[[Topology], Complaints]], ...] = (
    (None, _shared_names),
    (None, _shared_addresses),
    ("cluster", _blocks),
    ("routers", _default_routes),
)
"""Each check of the whole, with the section that must be without faults for it to mean something."""
