"""A lab's description, from the document that users write to one frozen Topology: every fault found, none guessed."""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network
from typing import Any, TypeAlias

from felix_py import config, resources
from felix_py.fields import MAXIMUM_AS, Reader
from felix_py.lab.checks import CHECKS
from felix_py.lab.topology import Host, LabNode, Network, Reflector, Router, Topology
from felix_py.model import BGPConfiguration, Fault, Invalid, IPNetwork, IPPool, NodeName, Resource

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
    named = map(str, reader.mapping(document, "networks", "networks", required=False))
    cidrs: Cidrs = dict.fromkeys(named, (None, None))
    cidrs |= {network.name: (network.cidr, network.cidr6) for network in networks}
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

Cidrs: TypeAlias = dict[str, tuple[IPv4Network | None, IPv6Network | None]]
"""The subnets of each network by its name; None where there is none, or it could not be read."""

Both: TypeAlias = tuple[IPv4Interface, IPv6Interface | None]
"""A machine's addresses in one network."""

Entries: TypeAlias = Iterator[tuple[str, str, Mapping[str, Any]]]


def _networks(reader: Reader, document: Mapping[str, Any]) -> Iterator[Network]:
    listed = reader.mapping(document, "networks", "networks")
    for name in listed:
        cidr, cidr6 = _each_version(reader, listed, name, "networks", NETWORK, NETWORK6)
        if _named(reader, name, f"networks.{name}") and cidr is not None:
            yield Network(name, cidr, cidr6)


def _routers(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[Router]:
    for name, path, spec in _entries(reader, document, "routers", required=False):
        reader.known(spec, path, {"asNumber", "addresses", "announceDefault", "daemon"})
        listed = reader.mapping(spec, "addresses", f"{path}.addresses")
        read = {network: _address(reader, listed, network, f"{path}.addresses", network, cidrs) for network in listed}
        found = {network: both for network, both in read.items() if both is not None}
        yield Router(
            name,
            reader.value(spec, "asNumber", path, _within(1, MAXIMUM_AS), "an AS number, as 64500") or 0,
            {network: address for network, (address, _) in found.items()},
            reader.value(spec, "announceDefault", path, _boolean, "true or false", default=False) or False,
            {network: address6 for network, (_, address6) in found.items() if address6 is not None},
            reader.value(spec, "daemon", path, _daemon, "bird or frr", "bird") or "bird",
        )


def _nodes(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[LabNode]:
    for name, path, spec in _entries(reader, document, "nodes", required=True):
        reader.known(spec, path, {"network", "address", "blocks", "pods", "asNumber", "defaultRoute"})
        network = reader.value(spec, "network", path, _text, "the name of a network") or ""
        both = _address(reader, spec, "address", path, network, cidrs)
        blocks = reader.value(spec, "blocks", path, _network_list, "a list of blocks, as [10.65.0.0/26]", ())
        pods = reader.value(spec, "pods", path, _within(0, MAXIMUM_PODS), f"a number from 0 to {MAXIMUM_PODS}", 0)
        as_number = reader.value(spec, "asNumber", path, _within(1, MAXIMUM_AS), "an AS number, as 64513", None)
        default_route = reader.value(spec, "defaultRoute", path, _boolean, "true or false", default=True)
        if both is not None:
            fields = (blocks or (), pods or 0, as_number, default_route is not False)
            yield LabNode(NodeName(name), network, both[0], *fields, both[1])


def _hosts(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[Host]:
    for name, path, spec in _entries(reader, document, "hosts", required=False):
        reader.known(spec, path, {"network", "address"})
        network = reader.value(spec, "network", path, _text, "the name of a network") or ""
        both = _address(reader, spec, "address", path, network, cidrs)
        if both is not None:
            yield Host(name, network, *both)


def _reflectors(reader: Reader, document: Mapping[str, Any], cidrs: Cidrs) -> Iterator[Reflector]:
    for name, path, spec in _entries(reader, document, "reflectors", required=False):
        reader.known(spec, path, {"network", "address", "daemon", "config"})
        network = reader.value(spec, "network", path, _text, "the name of a network") or ""
        both = _address(reader, spec, "address", path, network, cidrs)
        daemon = reader.value(spec, "daemon", path, _daemon, "bird or frr") or ""
        configuration = reader.value(spec, "config", path, _text, "the path of its configuration, seen from here") or ""
        if both is not None:
            yield Reflector(name, network, both[0], daemon, configuration, both[1])


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
) -> Both | None:
    """Read a machine's address, or one of each version of IP, and give them the masks of their network."""
    address, address6 = _each_version(reader, spec, name, path, ADDRESS, ADDRESS6)
    if network not in cidrs:
        known = ", ".join(cidrs) or "none"
        where = f"{path}.network" if name == "address" else path
        reader.fault(where, f"is {network!r}, which is no network of this file; known are {known}")
        return None
    cidr, cidr6 = cidrs[network]
    if address is None or cidr is None:
        return None
    if address not in cidr or address in (cidr.network_address, cidr.broadcast_address):
        reader.fault(f"{path}.{name}", f"is {address}, no host address of network {network}; give one from {cidr}")
        return None
    interface = IPv4Interface((address, cidr.prefixlen))
    if address6 is None:
        return interface, None
    if cidr6 is None or address6 not in cidr6 or address6 == cidr6.network_address:
        remedy = f"give one from {cidr6}" if cidr6 else f"give the network a subnet of IPv6, as [{cidr}, fd31:1::/64]"
        reader.fault(f"{path}.{name}", f"is {address6}, no host address of network {network}; {remedy}")
        return None
    return interface, IPv6Interface((address6, cidr6.prefixlen))


def _each_version(
    reader: Reader, spec: Mapping[str, Any], name: str, path: str, four: "Wanted", six: "Wanted"
) -> tuple[Any, Any]:
    """Read a value of IPv4, or a list of one of IPv4 and one of IPv6; neither where one of them is faulty."""
    raw = spec.get(name)
    if not isinstance(raw, list):
        return reader.value(spec, name, path, *four), None
    if len(raw) != 2:  # noqa: PLR2004 - versions of IP
        reader.fault(f"{path}.{name}", f"is {raw!r}; give {four[1]}, or a list of that and {six[1]}")
        return None, None
    both = reader.parsed(raw[0], f"{path}.{name}[0]", *four), reader.parsed(raw[1], f"{path}.{name}[1]", *six)
    return (None, None) if None in both else both


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


def _network6(raw: object) -> IPv6Network:
    network = IPv6Network(_text(raw))
    if network.prefixlen > 126:  # noqa: PLR2004 - the lowest address means every router (RFC 4291 section 2.6.1)
        raise ValueError
    return network


def _network_list(raw: object) -> tuple[IPNetwork, ...]:
    if not isinstance(raw, list):
        raise TypeError
    return tuple(ip_network(_text(item)) for item in raw)


Wanted: TypeAlias = tuple[Callable[[Any], Any], str]
"""A parser, and what it expects in words."""

NETWORK: Wanted = (_network, "a subnet without host bits, as 172.31.1.0/24")
NETWORK6: Wanted = (_network6, "a subnet of IPv6, as fd31:1::/64")
ADDRESS: Wanted = (IPv4Address, "an IPv4 address, as 172.31.1.11")
ADDRESS6: Wanted = (IPv6Address, "an IPv6 address, as fd31:1::11")
