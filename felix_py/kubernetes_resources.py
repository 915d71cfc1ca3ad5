"""From objects of a Kubernetes API server to the model: nodes by their annotations, the others as in a folder."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from typing import Any

from felix_py.fields import (
    AS_NUMBER,
    Reader,
    as_number,
    ipv4_address,
    ipv4_interface,
    ipv6_interface,
    mac,
    network,
)
from felix_py.model import (
    BlockAffinity,
    Fault,
    Invalid,
    IPAddress,
    IpipMode,
    IPNetwork,
    IPPool,
    Key,
    Node,
    NodeName,
    Resource,
)
from felix_py.resources import API_VERSION, BLOCK_SIZES, parse

WHERE = "kubernetes"
"""What stands before faults, in the place of a file."""

GROUP, VERSION = API_VERSION.split("/")

PREFIX = "projectcalico.org/"
IPV4, IPV6, AS = PREFIX + "IPv4Address", PREFIX + "IPv6Address", PREFIX + "ASNumber"
CLUSTER_ID = PREFIX + "RouteReflectorClusterID"
VXLAN_MAC, VXLAN_MAC6 = PREFIX + "VXLANTunnelMACAddr", PREFIX + "VXLANV6TunnelMACAddr"
"""Annotations of Nodes; Calico's words."""

DETECTED = {IPV4: "felix-py/detected-ipv4", IPV6: "felix-py/detected-ipv6"}
"""By annotation, the one that says what an agent wrote there itself: what somebody else wrote there stays."""

POD_CIDRS = "pod-cidrs"
"""How names of pools and affinities begin that stand for Node.spec.podCIDRs."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A kind that is followed at the API server.

    Attributes:
        kind: as users write it.
        path: of its collection.
        right: what RBAC calls it.
    """

    kind: str
    path: str
    right: str


def _custom(kind: str, plural: str) -> Followed:
    return Followed(kind, f"/apis/{API_VERSION}/{plural}", f"{plural}.{GROUP}")


FOLLOWED = (
    Followed("Node", "/api/v1/nodes", "nodes"),
    Followed("Namespace", "/api/v1/namespaces", "namespaces"),
    _custom("IPPool", "ippools"),
    _custom("BlockAffinity", "blockaffinities"),
    _custom("BGPConfiguration", "bgpconfigurations"),
    _custom("BGPPeer", "bgppeers"),
    _custom("BGPFilter", "bgpfilters"),
    _custom("FelixConfiguration", "felixconfigurations"),
    _custom("IPReservation", "ipreservations"),
    _custom("IPAMConfiguration", "ipamconfigurations"),
)
"""Pods are not among them: what is routed to a node's pods stands in its blocks, and is known before the API server
knows that the pod runs."""

STORED = {each.kind: each for each in (_custom("IPAMBlock", "ipamblocks"), _custom("BlockAffinity", "blockaffinities"))}
"""Kinds that nodes change themselves."""


@dataclass(frozen=True, slots=True)
class OwnNode:
    """What an agent has to know of its own Node.

    Attributes:
        annotations: those of ours and of Calico.
        internal: the addresses by which kubelet says that it is reached.
        available: it is said that its network is up.
        uid: of the object; a Node that was made anew has another one.
    """

    annotations: Mapping[str, str]
    internal: tuple[IPAddress, ...]
    available: bool = False
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Understood:
    """A resource that can be used.

    Attributes:
        pod_cidrs: of a Node: what Kubernetes gave it for its pods.
    """

    value: Resource
    pod_cidrs: tuple[IPNetwork, ...] = ()


def own_node(document: Mapping[str, Any]) -> OwnNode:
    """Read what an agent has to know of its own Node; what is no address there is none."""
    noted = document["metadata"].get("annotations") or {}
    ours = {name: value for name, value in noted.items() if name.startswith((PREFIX, "felix-py/"))}
    status = document.get("status") or {}
    up = {"type": "NetworkUnavailable", "status": "False"}.items()
    available = any(up <= each.items() for each in status.get("conditions") or ())
    found: list[IPAddress] = []
    for each in status.get("addresses") or ():
        if each.get("type") == "InternalIP":
            with suppress(ValueError):
                found.append(ip_address(each.get("address", "")))
    return OwnNode(ours, tuple(found), available, document["metadata"].get("uid", ""))


def key_of(kind: str, document: Mapping[str, Any]) -> Key:
    """Return which resource an object is."""
    return Key(kind, document["metadata"]["name"])


def understand(kind: str, document: Mapping[str, Any]) -> Understood:
    """Turn an object of the API server into a resource.

    Raises:
        Invalid: with every fault of the object, each naming kind, name and field.
    """
    if kind == "Node":
        return _node(document)
    metadata = document["metadata"]
    mine = {name: metadata[name] for name in ("name", "labels") if metadata.get(name)}
    version = "v1" if kind == "Namespace" else API_VERSION
    spec = {name: value for name, value in (document.get("spec") or {}).items() if value is not None}
    shaped = {"apiVersion": version, "kind": kind, "metadata": mine, "spec": spec}
    return Understood(parse(shaped, WHERE)[1])


def _node(document: Mapping[str, Any]) -> Understood:
    metadata, spec = document["metadata"], document.get("spec") or {}
    name = metadata["name"]
    reader = Reader(f"{WHERE}: Node {name}")
    noted, path = metadata.get("annotations") or {}, "metadata.annotations"
    v4, v6 = "an address with its mask, as 10.0.0.1/24", "an address with its mask, as fd00::1/64"
    hardware = "the hardware address of one interface, as 66:0a:1b:2c:3d:4e"
    node = Node(
        name=NodeName(name),
        address=reader.value(noted, IPV4, path, ipv4_interface, v4, None),
        as_number=reader.value(noted, AS, path, as_number, AS_NUMBER, None),
        address6=reader.value(noted, IPV6, path, ipv6_interface, v6, None),
        cluster_id=reader.value(noted, CLUSTER_ID, path, ipv4_address, "a cluster ID, as 244.0.0.1", None),
        labels=metadata.get("labels") or {},
        vxlan_mac=reader.value(noted, VXLAN_MAC, path, mac, hardware, None),
        vxlan_mac6=reader.value(noted, VXLAN_MAC6, path, mac, hardware, None),
    )
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    networks = reader.items({"podCIDRs": cidrs}, "podCIDRs", "spec", network, "a network, as 10.244.1.0/24")
    if reader.faults:
        raise Invalid(*reader.faults)
    return Understood(node, networks)


def pod_cidr_resources(cidrs: Mapping[NodeName, tuple[IPNetwork, ...]]) -> dict[Key, tuple[str, Resource]]:
    """Return pools and affinities that say what Kubernetes says by Node.spec.podCIDRs; where no IPPool exists.

    The pools cover exactly these networks, neighbours together, so that nobody claims anything else.

    Args:
        cidrs: what each node has.
    """
    found: dict[Key, tuple[str, Resource]] = {}
    given = [each for several in cidrs.values() for each in several]
    v4 = collapse_addresses(each for each in given if isinstance(each, IPv4Network))
    v6 = collapse_addresses(each for each in given if isinstance(each, IPv6Network))
    pools = [IPPool(_named(each), each, IpipMode.CROSS_SUBNET, _size(each), nat_outgoing=True) for each in v4]
    pools += [IPPool(_named(each), each, block_size=_size(each), nat_outgoing=True) for each in v6]
    found.update((Key("IPPool", pool.name), (WHERE, pool)) for pool in pools)
    for node, several in cidrs.items():
        for cidr in several:
            affinity = BlockAffinity(f"{_named(cidr)}-{node}", node, cidr)
            found[Key("BlockAffinity", affinity.name)] = WHERE, affinity
    return found


def _size(cidr: IPNetwork) -> int:
    return max(cidr.prefixlen, BLOCK_SIZES[cidr.version][-1])


def _named(cidr: IPNetwork) -> str:
    return f"{POD_CIDRS}-{str(cidr).translate(str.maketrans('.:/', '---'))}"


def fault(kind: str, sentence: str) -> Fault:
    """Return a fault of a kind as a whole."""
    return Fault(f"{WHERE}: {kind}", "", sentence)
