"""How traffic to a remote prefix travels: straight to its next hop, or inside a tunnel; and why."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from felix_py.calc.longest_match import LongestMatch
from felix_py.model import IPAddress, IPInterface, IPPool, TunnelMode
from ipip import tunnel
from vxlan.tunnel import DEVICES


class Encapsulation(StrEnum):
    """What a remote prefix's packets are wrapped in."""

    NONE = "none"
    IPIP = "ipip"
    VXLAN = "vxlan"


@dataclass(frozen=True, slots=True)
class Choice:
    """An encapsulation and the sentence that explains it."""

    encapsulation: Encapsulation
    why: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a pool asks for: which tunnel, when, and in which field it says so."""

    tunnel: Encapsulation
    mode: TunnelMode
    field: str


def by_range(pools: Iterable[IPPool]) -> LongestMatch[IPPool]:
    """Return what finds the pool that a prefix lies in; should pools overlap, the smallest."""
    return LongestMatch((pool.cidr, pool) for pool in sorted(pools, key=lambda pool: pool.name))


def asked(pool: IPPool) -> Asked:
    """Return what a pool asks for; at most one of its modes is not Never."""
    if pool.vxlan_mode is not TunnelMode.NEVER:
        return Asked(Encapsulation.VXLAN, pool.vxlan_mode, "vxlanMode")
    return Asked(Encapsulation.IPIP, pool.ipip_mode, "ipipMode")


def device(pool: IPPool) -> str | None:
    """Return the tunnel device that a pool may need, None where it never does; there is one before the first route."""
    wish = asked(pool)
    if wish.mode is TunnelMode.NEVER:
        return None
    return DEVICES[pool.cidr.version] if wish.tunnel is Encapsulation.VXLAN else tunnel.DEVICE


def _always(pool: IPPool, wish: Asked, _next_hop: IPAddress, _address: IPInterface | None) -> Choice:
    return Choice(wish.tunnel, f"pool {pool.name} says {wish.field} Always")


def _never(pool: IPPool, wish: Asked, _next_hop: IPAddress, _address: IPInterface | None) -> Choice:
    return Choice(Encapsulation.NONE, f"pool {pool.name} says {wish.field} Never")


def _cross_subnet(pool: IPPool, wish: Asked, next_hop: IPAddress, address: IPInterface | None) -> Choice:
    subnet = address.network if address is not None else "none"
    # Each side judges by its own mask, as Felix does: a /32 node address has no neighbours and always encapsulates.
    if address is not None and next_hop in address.network:
        sentence = f"pool {pool.name} says CrossSubnet and next hop {next_hop} is in this node's subnet {subnet}"
        return Choice(Encapsulation.NONE, sentence)
    sentence = f"pool {pool.name} says CrossSubnet and next hop {next_hop} is outside this node's subnet {subnet}"
    return Choice(wish.tunnel, sentence)


MODES: dict[TunnelMode, Callable[[IPPool, Asked, IPAddress, IPInterface | None], Choice]] = {
    TunnelMode.ALWAYS: _always,
    TunnelMode.NEVER: _never,
    TunnelMode.CROSS_SUBNET: _cross_subnet,
}

TITLES = {Encapsulation.IPIP: "IP in IP", Encapsulation.VXLAN: "VXLAN"}


def choose(pool: IPPool, next_hop: IPAddress, address: IPInterface | None) -> Choice:
    """Choose the encapsulation towards `next_hop`, seen from the node at `address`.

    Towards an address of the other version of IP there is none. The outer header of IP in IP is IPv4 (RFC 2003), and a
    VXLAN device of ours is of one version, outside as inside; so an IPv4 prefix whose next hop is IPv6 (RFC 8950) goes
    straight, whatever its pool says.
    """
    wish = asked(pool)
    if wish.mode is TunnelMode.NEVER or next_hop.version == pool.cidr.version:
        return MODES[wish.mode](pool, wish, next_hop, address)
    sentence = (
        f"pool {pool.name} says {wish.mode}, but {TITLES[wish.tunnel]} does not lead to an IPv{next_hop.version} next "
        f"hop, as {next_hop} is"
    )
    return Choice(Encapsulation.NONE, sentence)
