"""From Calico-shaped documents (projectcalico.org/v3) to the model: every fault found, none ignored in silence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, ip_address, ip_network
from typing import Any

from felix_py.model import (
    BGPConfiguration,
    BGPPeer,
    BlockAffinity,
    Fault,
    FelixConfiguration,
    Invalid,
    IPAddress,
    IpipMode,
    IPNetwork,
    IPPool,
    Key,
    Node,
    NodeName,
    Resource,
    WorkloadEndpoint,
)

API_VERSION = "projectcalico.org/v3"
MAXIMUM_AS = 4294967295
"""RFC 6793: AS numbers have four octets."""

BLOCK_SIZES = range(20, 33)
"""Prefix lengths that Calico accepts as IPPool.spec.blockSize for IPv4."""

METADATA_IGNORED = {
    "creationTimestamp",
    "resourceVersion",
    "uid",
    "generation",
    "managedFields",
    "annotations",
    "labels",
}
"""Set by API servers and tools; they change nothing here."""


@dataclass(slots=True)
class Reader:
    """Reads the fields of one document, gathering every fault instead of stopping at the first."""

    where: str
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: str, message: str) -> None:
        """Note that the value at `path` cannot be used."""
        self.faults.append(Fault(self.where, path, message))

    def mapping(self, document: Mapping[str, Any], name: str, path: str, *, required: bool = True) -> Mapping[str, Any]:
        """Return a nested mapping, empty where there is none."""
        value = document.get(name)
        if value is None:
            if required:
                self.fault(path, "is missing")
            return {}
        if not isinstance(value, Mapping):
            self.fault(path, f"must be a mapping, not {value!r}")
            return {}
        return value

    def known(self, document: Mapping[str, Any], path: str, supported: set[str]) -> None:
        """Refuse by name each field that is not supported."""
        for name in document:
            if name not in supported:
                listed = ", ".join(sorted(supported))
                self.fault(f"{path}.{name}", f"is not supported; remove it (supported here: {listed})")

    def value(
        self,
        document: Mapping[str, Any],
        name: str,
        path: str,
        parse: Callable[[Any], Any],
        expected: str,
        default: Any = ...,
    ) -> Any:
        """Return the parsed field; on a fault note it and return None."""
        raw = document.get(name)
        if raw is None:
            if default is ...:
                self.fault(f"{path}.{name}", f"is missing; give {expected}")
                return None
            return default
        try:
            return parse(raw)
        except (ValueError, TypeError):
            self.fault(f"{path}.{name}", f"is {raw!r}; give {expected}")
            return None


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError
    return raw


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise TypeError
    return raw


def _within(low: int, high: int) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        number = int(raw)
        if isinstance(raw, bool) or not low <= number <= high:
            raise ValueError
        return number

    return parse


def _network(raw: object) -> IPv4Network:
    return IPv4Network(_text(raw))


def _interface(raw: object) -> IPv4Interface:
    text = _text(raw)
    if "/" not in text:
        raise ValueError
    return IPv4Interface(text)


def _as_number(raw: Any) -> int:
    """Parse 64512 or RFC 5396's dotted form 0.64512."""
    if isinstance(raw, str) and raw.count(".") == 1:
        high, low = (_within(0, 65535)(part) for part in raw.split("."))
        return _within(1, MAXIMUM_AS)((high << 16) + low)
    return _within(1, MAXIMUM_AS)(raw)


def _peer_ip(raw: object) -> tuple[IPAddress, int]:
    """Parse Calico's `address`, `address:port` and `[address]:port`."""
    text = _text(raw)
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, "179"
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        raise ValueError  # noqa: TRY004 - the value is wrong for now, not its type: IPv4 only
    return found, _within(1, 65535)(port)


def _node(reader: Reader, name: str, spec: Mapping[str, Any]) -> Node:
    reader.known(spec, "spec", {"bgp", "addresses", "orchRefs"})
    bgp = reader.mapping(spec, "bgp", "spec.bgp", required=False)
    reader.known(bgp, "spec.bgp", {"ipv4Address", "asNumber"})
    return Node(
        name=NodeName(name),
        address=reader.value(
            bgp, "ipv4Address", "spec.bgp", _interface, "an address with its mask, as 10.0.0.1/24", None
        ),
        as_number=reader.value(bgp, "asNumber", "spec.bgp", _as_number, "an AS number from 1 to 4294967295", None),
    )


def _pool(reader: Reader, name: str, spec: Mapping[str, Any]) -> IPPool:
    reader.known(
        spec, "spec", {"cidr", "ipipMode", "vxlanMode", "blockSize", "disabled", "natOutgoing", "nodeSelector"}
    )
    cidr = reader.value(spec, "cidr", "spec", _network, "an IPv4 network without host bits, as 10.65.0.0/16")
    size = reader.value(spec, "blockSize", "spec", _within(20, 32), "a prefix length from 20 to 32", 26)
    if cidr is not None and size is not None and size < cidr.prefixlen:
        reader.fault("spec.blockSize", f"is {size}, larger than the pool {cidr}; give at least {cidr.prefixlen}")
    for name_, idle in (("vxlanMode", "Never"), ("natOutgoing", False), ("nodeSelector", "all()")):
        if spec.get(name_, idle) != idle:
            reader.fault(f"spec.{name_}", f"is {spec[name_]!r}, which is not supported; remove it or give {idle!r}")
    return IPPool(
        name=name,
        cidr=cidr,
        ipip_mode=reader.value(spec, "ipipMode", "spec", IpipMode, "Always, CrossSubnet or Never", IpipMode.NEVER),
        block_size=size,
        disabled=reader.value(spec, "disabled", "spec", _boolean, "true or false", False),  # noqa: FBT003 - a default
    )


def _affinity(reader: Reader, name: str, spec: Mapping[str, Any]) -> BlockAffinity:
    reader.known(spec, "spec", {"cidr", "node", "state", "deleted"})
    if spec.get("state", "confirmed") != "confirmed":
        reader.fault("spec.state", f"is {spec['state']!r}; only confirmed affinities are used")
    return BlockAffinity(
        name=name,
        node=NodeName(reader.value(spec, "node", "spec", _text, "the name of a node") or ""),
        cidr=reader.value(spec, "cidr", "spec", _network, "an IPv4 network, as 10.65.1.0/26"),
    )


def _endpoint(reader: Reader, name: str, spec: Mapping[str, Any]) -> WorkloadEndpoint:
    reader.known(
        spec,
        "spec",
        {"node", "interfaceName", "ipNetworks", "pod", "containerID", "orchestrator", "workload", "endpoint"},
    )
    networks = spec.get("ipNetworks")
    if not isinstance(networks, list) or not networks:
        reader.fault("spec.ipNetworks", f"is {networks!r}; give a list of host prefixes, as [10.65.0.5/32]")
        networks = []
    parsed = [
        reader.value(
            {"item": item},
            "item",
            f"spec.ipNetworks[{position}]",
            _host_prefix,
            "a host prefix, as 10.65.0.5/32 or fd00::5/128",
        )
        for position, item in enumerate(networks)
    ]
    return WorkloadEndpoint(
        name=name,
        node=NodeName(reader.value(spec, "node", "spec", _text, "the name of a node") or ""),
        interface=reader.value(spec, "interfaceName", "spec", _device, "an interface name of 1 to 15 characters"),
        networks=tuple(network for network in parsed if network is not None),
        pod=reader.value(spec, "pod", "spec", _text, "a pod's name", ""),
        container_id=reader.value(spec, "containerID", "spec", _text, "a container ID", ""),
    )


def _host_prefix(raw: object) -> IPNetwork:
    network = ip_network(_text(raw))
    if network.prefixlen != network.max_prefixlen:
        raise ValueError
    return network


def _device(raw: object) -> str:
    text = _text(raw)
    if len(text) > 15 or "/" in text or any(map(str.isspace, text)):  # noqa: PLR2004 - IFNAMSIZ less the final zero
        raise ValueError
    return text


def _configuration(reader: Reader, name: str, spec: Mapping[str, Any]) -> BGPConfiguration:
    reader.known(spec, "spec", {"asNumber", "nodeToNodeMeshEnabled", "listenPort", "logSeverityScreen"})
    if name != "default":
        reader.fault("metadata.name", f"is {name!r}; only the BGPConfiguration named default is used")
    return BGPConfiguration(
        name=name,
        as_number=reader.value(spec, "asNumber", "spec", _as_number, "an AS number from 1 to 4294967295", 64512),
        node_to_node_mesh=reader.value(spec, "nodeToNodeMeshEnabled", "spec", _boolean, "true or false", True),  # noqa: FBT003
        listen_port=reader.value(spec, "listenPort", "spec", _within(1, 65535), "a port from 1 to 65535", 179),
        log_severity=reader.value(spec, "logSeverityScreen", "spec", _text, "a severity, as Info", "Info"),
    )


def _felix(reader: Reader, name: str, spec: Mapping[str, Any]) -> FelixConfiguration:
    reader.known(spec, "spec", {"deviceRouteSourceAddress", "removeExternalRoutes", "routeSyncDisabled"})
    if name != "default" and not name.startswith("node."):
        reader.fault("metadata.name", f"is {name!r}; give default, or node. and the name of a node")
    address, truth = "an IPv4 address, as 172.31.1.11", "true or false"
    return FelixConfiguration(
        name=name,
        device_route_source=reader.value(spec, "deviceRouteSourceAddress", "spec", _ipv4_address, address, None),
        remove_external_routes=reader.value(spec, "removeExternalRoutes", "spec", _boolean, truth, None),
        route_sync_disabled=reader.value(spec, "routeSyncDisabled", "spec", _boolean, truth, None),
    )


def _ipv4_address(raw: object) -> IPv4Address:
    return IPv4Address(_text(raw))


def _peer(reader: Reader, name: str, spec: Mapping[str, Any]) -> BGPPeer:
    reader.known(spec, "spec", {"node", "peerIP", "asNumber", "holdTime"})
    address, port = reader.value(
        spec, "peerIP", "spec", _peer_ip, "an IPv4 address, as 172.31.1.1 or 172.31.1.1:179"
    ) or (
        IPv4Address(0),
        0,
    )
    node = reader.value(spec, "node", "spec", _text, "the name of a node, or leave it out for all", None)
    hold_time = reader.value(spec, "holdTime", "spec", _within(3, 65535), "seconds from 3 to 65535", 90)
    return BGPPeer(
        name=name,
        peer_ip=address,
        port=port,
        as_number=reader.value(spec, "asNumber", "spec", _as_number, "an AS number from 1 to 4294967295"),
        node=NodeName(node) if node else None,
        hold_time=hold_time,
    )


KINDS: Mapping[str, Callable[[Reader, str, Mapping[str, Any]], Resource]] = {
    "Node": _node,
    "IPPool": _pool,
    "BlockAffinity": _affinity,
    "WorkloadEndpoint": _endpoint,
    "BGPConfiguration": _configuration,
    "BGPPeer": _peer,
    "FelixConfiguration": _felix,
}


def parse(document: object, where: str) -> tuple[Key, Resource]:
    """Turn one document into its key and value.

    Args:
        document: what a YAML or JSON parser made of it.
        where: the file, for messages.

    Raises:
        Invalid: with every fault of the document, each naming file, kind, name and field.
    """
    reader = Reader(where)
    if not isinstance(document, Mapping):
        raise Invalid(Fault(where, "", f"holds {document!r} where a resource (a mapping) should be"))
    kind, metadata = document.get("kind"), reader.mapping(document, "metadata", "metadata")
    name = metadata.get("name")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Invalid(Fault(where, "kind", f"is {kind!r}, which is unknown; known are {', '.join(KINDS)}"))
    if not isinstance(name, str) or not name:
        raise Invalid(
            *reader.faults, Fault(f"{where}: {kind}", "metadata.name", f"is {name!r}; give the resource a name")
        )
    reader.where = f"{where}: {kind} {name}"
    if document.get("apiVersion") != API_VERSION:
        reader.fault("apiVersion", f"is {document.get('apiVersion')!r}; give {API_VERSION}")
    reader.known(document, "document", {"apiVersion", "kind", "metadata", "spec", "status"})
    reader.known(metadata, "metadata", {"name", "namespace"} | METADATA_IGNORED)
    spec = reader.mapping(document, "spec", "spec", required=kind not in ("BGPConfiguration", "FelixConfiguration"))
    value = KINDS[kind](reader, name, spec)
    if reader.faults:
        raise Invalid(*reader.faults)
    return Key(kind, name), value


def key_of(document: object) -> Key | None:
    """Return which resource a document is about, even if it is faulty; None where it does not say."""
    if not isinstance(document, Mapping) or not isinstance(document.get("metadata"), Mapping):
        return None
    kind, name = document.get("kind"), document["metadata"].get("name")
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(name, str) or not name:
        return None
    return Key(kind, name)
