"""From Calico-shaped documents (projectcalico.org/v3) to the model: every fault found, none ignored in silence."""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Network, ip_network
from typing import Any

from felix_py import bgp_resources, ipam_resources
from felix_py.fields import (
    TRUTH,
    Reader,
    boolean,
    ipv4_address,
    ipv6_address,
    network,
    one_of,
    text,
    within,
)
from felix_py.model import (
    Fault,
    FelixConfiguration,
    Invalid,
    IpipMode,
    IPNetwork,
    IPPool,
    Key,
    NodeName,
    Resource,
    VxlanMode,
    WorkloadEndpoint,
)
from ipip import tunnel
from vxlan.tunnel import MINIMUM_MTU

API_VERSION = "projectcalico.org/v3"
EXTERNAL = "an address, or a network of at most 4,096, as 192.0.2.7 or 192.0.2.0/24"
EXTERNAL_BITS = 12
"""Host bits of a network in externalNodesList: not every tunnel driver knows of networks, so each address is listed."""

MAXIMUM_VNI = (1 << 24) - 1
"""RFC 7348 section 5: a VXLAN network identifier has 24 bits."""

VNI = f"a VXLAN network identifier from 1 to {MAXIMUM_VNI}"

BLOCK_SIZES = {4: (20, 32, 26), 6: (116, 128, 122)}
"""By version of IP: the shortest and the longest prefix that Calico takes as IPPool.spec.blockSize, and its default."""

LARGEST_MTU = 65515
"""Bytes of an inner packet: what an IPv4 packet holds (RFC 791 section 3.1), less the outer header."""

TUNNEL_MTU = f"bytes from {tunnel.MINIMUM_MTU} to {LARGEST_MTU}, or 0 to have it follow the uplinks"
TUNNEL_MTU6 = f"bytes from {MINIMUM_MTU[6]} to {LARGEST_MTU}, or 0 to have it follow the uplinks"
PATTERN = "a regular expression, as ^(eth|bond)[0-9]+$"

DEVICE = re.compile(r"""[^\s/"*,\\]{1,15}""")
"""Names of interfaces: what the kernel takes (IFNAMSIZ less the final zero), and nftables can write."""

SELECTORS = ("nodeSelector", "namespaceSelector")

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


def _pool(reader: Reader, name: str, spec: Mapping[str, Any]) -> IPPool:
    reader.known(
        spec,
        "spec",
        {
            "allowedUses", "assignmentMode", "blockSize", "cidr", "disableBGPExport", "disabled", "ipipMode",
            "natOutgoing", "vxlanMode", *SELECTORS,
        },
    )  # fmt: skip
    # Calico writes both into every pool; that is taken where it asks for nothing.
    reader.value(
        spec, "assignmentMode", "spec", one_of("Automatic"), "Automatic, the only mode that is supported", None
    )
    reader.value(
        spec, "disableBGPExport", "spec", _false, "false; what is not to be announced, a BGPFilter rejects", None
    )
    expected = "a network without host bits, as 10.65.0.0/16 or fd65::/48"
    cidr = reader.value(spec, "cidr", "spec", network, expected)
    low, high, usual = BLOCK_SIZES[cidr.version if cidr else 4]
    size = reader.value(spec, "blockSize", "spec", within(low, high), f"a prefix length from {low} to {high}", usual)
    if cidr is not None and size is not None and size < cidr.prefixlen:
        reader.fault("spec.blockSize", f"is {size}, larger than the pool {cidr}; give at least {cidr.prefixlen}")
    if cidr is not None and (cidr.is_link_local or cidr.is_multicast):
        reader.fault("spec.cidr", f"is {cidr}, whose addresses are not routed; give a range of unicast addresses")
    mode = reader.value(spec, "ipipMode", "spec", IpipMode, "Always, CrossSubnet or Never", IpipMode.NEVER)
    if isinstance(cidr, IPv6Network) and mode not in (None, IpipMode.NEVER):
        reader.fault("spec.ipipMode", f"is {mode}, and IP in IP does not carry IPv6 ({cidr}); give Never")
    wrapped = reader.value(spec, "vxlanMode", "spec", VxlanMode, "Always, CrossSubnet or Never", VxlanMode.NEVER)
    if {mode, wrapped}.isdisjoint({None, VxlanMode.NEVER}):
        reader.fault("spec.vxlanMode", f"is {wrapped} while spec.ipipMode is {mode}; give Never for one of the two")
    return IPPool(
        name=name,
        cidr=cidr,
        ipip_mode=mode,
        block_size=size,
        disabled=reader.value(spec, "disabled", "spec", boolean, TRUTH, False),  # noqa: FBT003 - a default
        nat_outgoing=reader.value(spec, "natOutgoing", "spec", boolean, TRUTH, False),  # noqa: FBT003 - same
        vxlan_mode=wrapped,
        node_selector=ipam_resources.pool_selector(reader, spec, "nodeSelector"),
        namespace_selector=ipam_resources.pool_selector(reader, spec, "namespaceSelector"),
        uses=ipam_resources.uses(reader, spec),
    )


def _false(raw: object) -> bool:
    if boolean(raw):
        raise ValueError
    return False


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
        node=NodeName(reader.value(spec, "node", "spec", text, "the name of a node") or ""),
        interface=reader.value(spec, "interfaceName", "spec", _device, "an interface name, as cali0123456789a"),
        networks=tuple(network for network in parsed if network is not None),
        pod=reader.value(spec, "pod", "spec", text, "a pod's name", ""),
        container_id=reader.value(spec, "containerID", "spec", text, "a container ID", ""),
    )


def _host_prefix(raw: object) -> IPNetwork:
    network = ip_network(text(raw))
    if network.prefixlen != network.max_prefixlen:
        raise ValueError
    return network


def _device(raw: object) -> str:
    name = text(raw)
    if not DEVICE.fullmatch(name):
        raise ValueError
    return name


def _external(raw: object) -> IPNetwork:
    found = network(raw)
    if found.max_prefixlen - found.prefixlen > EXTERNAL_BITS:
        raise ValueError
    return found


def _tunnel_mtu(raw: object, least: int = tunnel.MINIMUM_MTU) -> int:
    found = within(0, LARGEST_MTU)(raw)
    if found and found < least:
        raise ValueError
    return found


def _tunnel_mtu6(raw: object) -> int:
    return _tunnel_mtu(raw, MINIMUM_MTU[6])


def _pattern(raw: object) -> str:
    found = text(raw)
    try:
        re.compile(found)
    except re.error as error:
        raise ValueError from error
    return found


def _felix(reader: Reader, name: str, spec: Mapping[str, Any]) -> FelixConfiguration:
    reader.known(
        spec,
        "spec",
        {
            "deviceRouteSourceAddress", "deviceRouteSourceAddressIPv6", "externalNodesList", "ipipMTU",
            "mtuIfacePattern", "programClusterRoutes", "removeExternalRoutes", "routeSyncDisabled", "vxlanMTU",
            "vxlanMTUV6", "vxlanPort", "vxlanVNI",
        },
    )  # fmt: skip
    if name != "default" and not name.startswith("node."):
        reader.fault("metadata.name", f"is {name!r}; give default, or node. and the name of a node")
    address, address6 = "an IPv4 address, as 172.31.1.11", "an IPv6 address, as fd31:1::11"
    return FelixConfiguration(
        name=name,
        device_route_source=reader.value(spec, "deviceRouteSourceAddress", "spec", ipv4_address, address, None),
        remove_external_routes=reader.value(spec, "removeExternalRoutes", "spec", boolean, TRUTH, None),
        route_sync_disabled=reader.value(spec, "routeSyncDisabled", "spec", boolean, TRUTH, None),
        device_route_source6=reader.value(spec, "deviceRouteSourceAddressIPv6", "spec", ipv6_address, address6, None),
        external_nodes=reader.items(spec, "externalNodesList", "spec", _external, EXTERNAL)
        if spec.get("externalNodesList") is not None
        else None,
        ipip_mtu=reader.value(spec, "ipipMTU", "spec", _tunnel_mtu, TUNNEL_MTU, None),
        mtu_pattern=reader.value(spec, "mtuIfacePattern", "spec", _pattern, PATTERN, None),
        vxlan_vni=reader.value(spec, "vxlanVNI", "spec", within(1, MAXIMUM_VNI), VNI, None),
        vxlan_port=reader.value(spec, "vxlanPort", "spec", within(1, 65535), "a UDP port from 1 to 65535", None),
        vxlan_mtu=reader.value(spec, "vxlanMTU", "spec", _tunnel_mtu, TUNNEL_MTU, None),
        vxlan_mtu6=reader.value(spec, "vxlanMTUV6", "spec", _tunnel_mtu6, TUNNEL_MTU6, None),
        program_cluster_routes=reader.value(
            spec, "programClusterRoutes", "spec", _enabled, "Enabled or Disabled", None
        ),
    )


def _enabled(raw: object) -> bool:
    return one_of("Enabled", "Disabled")(raw) == "Enabled"


KINDS: Mapping[str, Callable[[Reader, str, Mapping[str, Any]], Resource]] = {
    "Node": bgp_resources.node,
    "IPPool": _pool,
    "BlockAffinity": ipam_resources.affinity,
    "WorkloadEndpoint": _endpoint,
    "BGPConfiguration": bgp_resources.configuration,
    "BGPPeer": bgp_resources.peer,
    "BGPFilter": bgp_resources.bgp_filter,
    "FelixConfiguration": _felix,
    "IPReservation": ipam_resources.reservation,
    "IPAMConfiguration": ipam_resources.configuration,
    "Namespace": ipam_resources.namespace,
}


VERSIONS = {"Namespace": ("v1",), "BlockAffinity": (API_VERSION, ipam_resources.CRD_VERSION)}
"""What may stand as apiVersion of kinds that are not Calico's, or that Calico keeps elsewhere; first what is said."""

MAY_BE_EMPTY = ("BGPConfiguration", "FelixConfiguration", "BGPFilter", "IPAMConfiguration", "Namespace")
"""Kinds of which an empty `spec` means something: the defaults, or no rule."""


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
    versions = VERSIONS.get(kind, (API_VERSION,))
    if document.get("apiVersion") not in versions:
        reader.fault("apiVersion", f"is {document.get('apiVersion')!r}; give {versions[0]}")
    reader.known(document, "document", {"apiVersion", "kind", "metadata", "spec", "status"})
    reader.known(metadata, "metadata", {"name", "namespace"} | METADATA_IGNORED)
    reader.labels = reader.mapping(metadata, "labels", "metadata.labels", required=False)
    spec = reader.mapping(document, "spec", "spec", required=kind not in MAY_BE_EMPTY)
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
