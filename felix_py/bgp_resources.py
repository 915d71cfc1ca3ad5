"""BGP's kinds from Calico-shaped documents to the model: Node, BGPConfiguration, BGPPeer."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from bgp import communities
from bgp.communities import Community
from bgp.peering import NextHopMode, PrefixLimit
from bgp.types import Family
from felix_py.bgp_filter_resources import bgp_filter
from felix_py.fields import (
    AS_NUMBER,
    TRUTH,
    Explained,
    Reader,
    absolute_path,
    as_number,
    boolean,
    ipv4_address,
    ipv4_interface,
    ipv6_interface,
    mac,
    one_of,
    seconds,
    selector,
    text,
    within,
)
from felix_py.model import BGPConfiguration, BGPPeer, IPAddress, IPNetwork, Node, NodeName

__all__ = ["bgp_filter", "configuration", "node", "peer"]

HOLD_TIME = "seconds from 3 to 65535, as 9 or 9s"
"""RFC 4271 section 4.2; 0, which would mean that silence is no fault, is not offered."""

KEEPALIVE = "a duration of whole seconds from 1s to 21845s"
"""The longest is a third of the longest hold time."""

RESTART_TIME = "a duration of whole seconds from 1s to 4095s"
"""RFC 4724 section 3: the field has 12 bits."""

SELECTOR = "a selector, as rack == 'a'"

MAC = "the hardware address of one interface, as 66:0a:1b:2c:3d:4e"

NODE_NAME = "the name of a node"

KEY = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,253}", re.ASCII)
"""A name that is also the name of a file: what Kubernetes allows for Secrets and their keys."""


def node(reader: Reader, name: str, spec: Mapping[str, Any]) -> Node:
    """Read a Node."""
    reader.known(spec, "spec", {"bgp", "addresses", "orchRefs", "vxlanTunnelMACAddr", "vxlanTunnelMACAddrV6"})
    bgp = reader.mapping(spec, "bgp", "spec.bgp", required=False)
    reader.known(bgp, "spec.bgp", {"ipv4Address", "ipv6Address", "asNumber", "routeReflectorClusterID"})
    labels = {
        label: value
        for label in reader.labels
        if (value := reader.value(reader.labels, label, "metadata.labels", _label, "a text, in quotes", "")) is not None
    }
    v4, v6 = "an address with its mask, as 10.0.0.1/24", "an address with its mask, as fd00::1/64"
    identity = "a cluster ID, as 244.0.0.1"
    return Node(
        name=NodeName(name),
        address=reader.value(bgp, "ipv4Address", "spec.bgp", ipv4_interface, v4, None),
        as_number=reader.value(bgp, "asNumber", "spec.bgp", as_number, AS_NUMBER, None),
        address6=reader.value(bgp, "ipv6Address", "spec.bgp", ipv6_interface, v6, None),
        cluster_id=reader.value(bgp, "routeReflectorClusterID", "spec.bgp", ipv4_address, identity, None),
        labels=labels,
        vxlan_mac=reader.value(spec, "vxlanTunnelMACAddr", "spec", mac, MAC, None),
        vxlan_mac6=reader.value(spec, "vxlanTunnelMACAddrV6", "spec", mac, MAC, None),
    )


def configuration(reader: Reader, name: str, spec: Mapping[str, Any]) -> BGPConfiguration:
    """Read a BGPConfiguration."""
    reader.known(
        spec,
        "spec",
        {
            "asNumber", "bindMode", "communities", "holdTime", "listenPort", "logSeverityScreen",
            "nodeMeshMaxRestartTime", "nodeMeshPassword", "nodeMeshPasswordFile", "nodeToNodeMeshEnabled",
            "prefixAdvertisements",
        },
    )  # fmt: skip
    if name != "default":
        reader.fault("metadata.name", f"is {name!r}; only the BGPConfiguration named default is used")
    port, bind = "a port from 1 to 65535", "None (every address of the host) or NodeIP"
    return BGPConfiguration(
        name=name,
        as_number=reader.value(spec, "asNumber", "spec", as_number, AS_NUMBER, 64512),
        node_to_node_mesh=reader.value(spec, "nodeToNodeMeshEnabled", "spec", boolean, TRUTH, True),  # noqa: FBT003
        listen_port=reader.value(spec, "listenPort", "spec", within(1, 65535), port, 179),
        log_severity=reader.value(spec, "logSeverityScreen", "spec", text, "a severity, as Info", "Info"),
        listen_everywhere=reader.value(spec, "bindMode", "spec", one_of("None", "NodeIP"), bind, "None") == "None",
        mesh_password=_password(reader, spec, "nodeMeshPassword"),
        mesh_restart_time=reader.value(spec, "nodeMeshMaxRestartTime", "spec", seconds(1, 4095), RESTART_TIME, None),
        mesh_hold_time=reader.value(spec, "holdTime", "spec", seconds(3, 65535), HOLD_TIME, 90),
        communities=_advertisements(reader, spec),
    )


def _advertisements(reader: Reader, spec: Mapping[str, Any]) -> Mapping[IPNetwork, tuple[Community, ...]]:
    """Return the communities of each network; in the document they may be named."""
    named: dict[str, Community] = {}
    for path, entry in reader.mappings(spec, "communities", "spec", "a list of names and values"):
        reader.known(entry, path, {"name", "value"})
        name = reader.value(entry, "name", path, text, "a name, as rack-a")
        value = reader.value(entry, "value", path, _community, COMMUNITY)
        if name is not None and value is not None:
            named[name] = value

    def community(raw: object) -> Community:
        if text(raw) in named:
            return named[text(raw)]
        try:
            return _community(raw)
        except ValueError as error:
            known = ", ".join(sorted(named)) or "none"
            raise Explained(f"neither a community, as 64512:100, nor named in spec.communities ({known})") from error

    found: dict[IPNetwork, tuple[Community, ...]] = {}
    for path, entry in reader.mappings(spec, "prefixAdvertisements", "spec", "a list of networks and communities"):
        reader.known(entry, path, {"cidr", "communities"})
        network = reader.value(entry, "cidr", path, _network, "a network without host bits, as 10.65.0.0/16")
        tags = reader.items(entry, "communities", path, community, "a community, as 64512:100")
        if network is not None:
            found[network] = tuple(dict.fromkeys(found.get(network, ()) + tags))
    return found


def _label(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


COMMUNITY = "a community, as 64512:100 or 64512:100:7"


def _community(raw: object) -> Community:
    return communities.parse(text(raw))


def _network(raw: object) -> IPv4Network | IPv6Network:
    return ip_network(text(raw))


# --- BGPPeer

PEER_FIELDS = {
    "addressFamilies", "asNumber", "filters", "holdTime", "keepOriginalNextHop", "keepaliveTime", "localASNumber",
    "maxPrefixes", "maxRestartTime", "nextHopMode", "node", "nodeSelector", "numAllowedLocalASNumbers", "password",
    "passwordFile", "peerIP", "peerSelector", "reversePeering", "sourceAddress", "ttlSecurity",
}  # fmt: skip

EXCLUSIVE = (
    ("node", "nodeSelector"),
    ("peerIP", "peerSelector"),
    ("peerSelector", "asNumber"),
    ("nextHopMode", "keepOriginalNextHop"),
)
"""Pairs of which only one may be given; Calico's."""

FAMILIES = {"IPv4": Family.IPV4_UNICAST, "IPv6": Family.IPV6_UNICAST}


def peer(reader: Reader, name: str, spec: Mapping[str, Any]) -> BGPPeer:
    """Read a BGPPeer."""
    reader.known(spec, "spec", PEER_FIELDS)
    for first, second in EXCLUSIVE:
        if spec.get(first) is not None and spec.get(second) not in (None, False):
            reader.fault(f"spec.{second}", f"cannot be given together with spec.{first}; remove one of the two")
    address, port = _far_end(reader, spec)
    hold_time, keepalive = _timers(reader, spec)
    by_address = spec.get("peerSelector") is None
    whole = "a whole number from 0 to 255"
    return BGPPeer(
        name=name,
        peer_ip=address,
        as_number=reader.value(spec, "asNumber", "spec", as_number, AS_NUMBER, ... if by_address else None),
        node=reader.value(spec, "node", "spec", text, f"{NODE_NAME}, or leave it out for all", None),
        port=port,
        hold_time=hold_time,
        node_selector=reader.value(spec, "nodeSelector", "spec", selector, SELECTOR, None),
        peer_selector=reader.value(spec, "peerSelector", "spec", selector, SELECTOR, None),
        local_as_number=reader.value(spec, "localASNumber", "spec", as_number, AS_NUMBER, None),
        own_as_allowed=reader.value(spec, "numAllowedLocalASNumbers", "spec", within(0, 255), whole, 0),
        any_source=_choice(reader, spec, "sourceAddress", "UseNodeIP", "None") == "None",
        next_hop_mode=_next_hop_mode(reader, spec),
        ttl_hops=reader.value(spec, "ttlSecurity", "spec", within(1, 255), "hops from 1 (on the wire) to 255", None),
        password=_password(reader, spec, "password"),
        keepalive=keepalive,
        restart_time=reader.value(spec, "maxRestartTime", "spec", seconds(1, 4095), RESTART_TIME, None),
        prefix_limit=_prefix_limit(reader, spec),
        filters=reader.items(spec, "filters", "spec", text, "the name of a BGPFilter"),
        reverse=_choice(reader, spec, "reversePeering", "Auto", "Manual") == "Auto",
        families=reader.items(spec, "addressFamilies", "spec", _family, "IPv4 or IPv6"),
    )


def _family(raw: object) -> Family:
    return FAMILIES[one_of(*FAMILIES)(raw)]


def _choice(reader: Reader, spec: Mapping[str, Any], name: str, *choices: str) -> str:
    """Return one of some words; the first is the default."""
    return str(reader.value(spec, name, "spec", one_of(*choices), " or ".join(choices), choices[0]))


def _far_end(reader: Reader, spec: Mapping[str, Any]) -> tuple[IPAddress | None, int | None]:
    if spec.get("peerSelector") is not None:
        return None, None
    expected = "an address, as 172.31.1.1, 172.31.1.1:179 or [fd00::1]:179; or give spec.peerSelector to select nodes"
    return reader.value(spec, "peerIP", "spec", _address_and_port, expected) or (None, None)


def _address_and_port(raw: object) -> tuple[IPAddress, int | None]:
    """Parse Calico's `address`, `address:port`, `[address]` and `[address]:port`."""
    written, port = text(raw), ""
    if written.startswith("["):
        written, bracket, port = written[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError
        port = port[1:] if port else ""
    elif written.count(":") == 1:
        written, _, port = written.partition(":")
        port = port or "none"
    found = ip_address(written)
    if found.is_link_local:
        raise Explained("link-local peers are not supported; give an address that is the same on every link")
    if found.is_unspecified or found.is_multicast:
        raise Explained("this is not the address of a host; give the peer's")
    return found, within(1, 65535)(port) if port else None


def _timers(reader: Reader, spec: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return hold time and keepalive time; a keepalive has to come three times before the hold time ends."""
    hold_time = reader.value(spec, "holdTime", "spec", seconds(3, 65535), HOLD_TIME, None)
    keepalive = reader.value(spec, "keepaliveTime", "spec", seconds(1, 21845), KEEPALIVE, None)
    if hold_time is not None and keepalive is not None and 3 * keepalive > hold_time:
        sentence = (
            f"is {keepalive} s; give at most a third of spec.holdTime ({hold_time} s), which is {hold_time // 3} s"
        )
        reader.fault("spec.keepaliveTime", sentence)
    return hold_time, keepalive


def _next_hop_mode(reader: Reader, spec: Mapping[str, Any]) -> NextHopMode:
    mode: NextHopMode = reader.value(
        spec, "nextHopMode", "spec", one_of("Auto", "Self", "Keep"), "Auto, Self or Keep", "Auto"
    )
    # Deprecated in Calico in favour of nextHopMode: Keep.
    keep = reader.value(spec, "keepOriginalNextHop", "spec", boolean, TRUTH, False)  # noqa: FBT003 - a default
    return "Keep" if keep else mode


def _prefix_limit(reader: Reader, spec: Mapping[str, Any]) -> PrefixLimit | None:
    if spec.get("maxPrefixes") is None:
        return None
    limit, path = reader.mapping(spec, "maxPrefixes", "spec.maxPrefixes"), "spec.maxPrefixes"
    reader.known(limit, path, {"maximum", "warning", "restart"})
    many = "a number of prefixes from 1 to 10000000"
    return PrefixLimit(
        maximum=reader.value(limit, "maximum", path, within(1, 10_000_000), many),
        warning=reader.value(limit, "warning", path, within(1, 100), "per cent of the maximum, from 1 to 100", 75),
        restart=reader.value(limit, "restart", path, seconds(1, 86400), "a duration from 1s to 24h", None),
    )


def _password(reader: Reader, spec: Mapping[str, Any], name: str) -> str | None:
    """Return where a password is: NAME/KEY of a Secret, or the path of a file. No password stands in a resource."""
    path = f"spec.{name}"
    file = reader.value(
        spec, f"{name}File", "spec", absolute_path, "an absolute path, as /etc/felix/tor-1.password", None
    )
    if spec.get(name) is None:
        return str(file) if file is not None else None
    if file is not None:
        reader.fault(f"{path}File", f"cannot be given together with {path}; remove one of the two")
    if not isinstance(spec[name], Mapping):
        # What stands there may be the password itself: it must not come into a message.
        reader.fault(path, "must be a mapping with secretKeyRef; put the password into a file, not into the resource")
        return None
    outer = spec[name]
    reader.known(outer, path, {"secretKeyRef"})
    reference = reader.mapping(outer, "secretKeyRef", f"{path}.secretKeyRef")
    reader.known(reference, f"{path}.secretKeyRef", {"name", "key", "optional"})
    if not reference:
        return None
    parts = [
        reader.value(reference, part, f"{path}.secretKeyRef", _file_name, f"the {what}, of letters, digits and ._-")
        for part, what in (("name", "name of a Secret"), ("key", "key in the Secret"))
    ]
    return None if None in parts else "/".join(parts)


def _file_name(raw: object) -> str:
    if not KEY.fullmatch(text(raw)):
        raise ValueError
    return text(raw)
