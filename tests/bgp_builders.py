"""Words for tests of the BGP part: paths, peers and settings, short enough to be read in one line."""

from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any

from bgp.peering import Kind, PeerSettings
from bgp.policy import Refusal
from bgp.rib import Told
from bgp.speaker import SpeakerSettings
from bgp.types import AsHop, Attributes, GracefulRestart, Open, Path

ME = IPv4Address("172.31.1.11")
A2 = IPv4Address("172.31.1.12")
B1 = IPv4Address("172.31.2.11")
TOR = IPv4Address("172.31.1.1")
NODE_AS, TOR_AS = 64512, 64500


def network(text: str) -> Any:
    return ip_network(text)


def attributes(next_hop: str | None = "172.31.2.11", *as_path: AsHop, **others: Any) -> Attributes:
    return Attributes(IPv4Address(next_hop) if next_hop else None, as_path=as_path, **others)


def path(peer: str, *as_path: AsHop, prefix: str = "10.65.2.0/26", **others: Any) -> Path:
    """Return a path; what is no field of Path becomes an attribute of it."""
    own = {name: others.pop(name) for name in ("external", "router_id", "stale") if name in others}
    own.setdefault("router_id", IPv4Address(peer))
    next_hop = others.pop("next_hop", peer)
    return Path(IPv4Network(prefix), IPv4Address(peer), attributes(next_hop, *as_path, **others), **own)


def told(teller: IPv4Address, *as_path: AsHop, refusal: Refusal | None = None, **others: Any) -> Told:
    """Return what a peer says of any prefix; what is no field of Told becomes an attribute of it."""
    own = {name: others.pop(name) for name in ("external", "router_id", "stale", "rule") if name in others}
    own.setdefault("router_id", teller)
    said = attributes(others.pop("next_hop", str(teller)), *as_path, **others)
    return Told(teller, said, said, refusal, **own)


def peer(address: IPv4Address, asn: int = NODE_AS, name: str = "", kind: Kind = "mesh", **others: Any) -> PeerSettings:
    return PeerSettings(address, asn, name or str(address), kind, **others)


def settings(*peers: PeerSettings, own: tuple[str, ...] = ("10.65.0.0/26",), **others: Any) -> SpeakerSettings:
    values: dict[str, Any] = {
        "local_address": ME,
        "router_id": ME,
        "asn": NODE_AS,
        "listen_port": 179,
        "peers": peers,
        "announcements": frozenset(map(IPv4Network, own)),
        "accept_within": (IPv4Network("10.65.0.0/16"),),
    }
    return SpeakerSettings(**(values | others))


def offered(asn: int = NODE_AS, router_id: IPv4Address = B1, restart: GracefulRestart | None = None) -> Open:
    return Open(asn, 90, router_id, ("multiprotocol (ipv4/unicast)",), restart)


HELPED = GracefulRestart(120, families={"ipv4 unicast": True})
"""The capability of a peer that asks to be bridged over, and keeps forwarding meanwhile."""
