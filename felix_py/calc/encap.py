"""How traffic to a remote prefix travels: straight to its next hop, or inside a tunnel; and why."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from felix_py.calc.longest_match import LongestMatch
from felix_py.model import IpipMode, IPPool


class Encapsulation(StrEnum):
    """What a remote prefix's packets are wrapped in."""

    NONE = "none"
    IPIP = "ipip"


@dataclass(frozen=True, slots=True)
class Choice:
    """An encapsulation and the sentence that explains it."""

    encapsulation: Encapsulation
    why: str


def by_range(pools: Iterable[IPPool]) -> LongestMatch[IPPool]:
    """Return what finds the pool that a prefix lies in; should pools overlap, the smallest."""
    return LongestMatch((pool.cidr, pool) for pool in sorted(pools, key=lambda pool: pool.name))


def _always(pool: IPPool, _next_hop: IPv4Address, _subnet: IPv4Network) -> Choice:
    return Choice(Encapsulation.IPIP, f"pool {pool.name} says ipipMode Always")


def _never(pool: IPPool, _next_hop: IPv4Address, _subnet: IPv4Network) -> Choice:
    return Choice(Encapsulation.NONE, f"pool {pool.name} says ipipMode Never")


def _cross_subnet(pool: IPPool, next_hop: IPv4Address, subnet: IPv4Network) -> Choice:
    # Each side judges by its own mask, as Felix does: a /32 node address has no neighbours and always encapsulates.
    if next_hop in subnet:
        sentence = f"pool {pool.name} says CrossSubnet and next hop {next_hop} is in this node's subnet {subnet}"
        return Choice(Encapsulation.NONE, sentence)
    sentence = f"pool {pool.name} says CrossSubnet and next hop {next_hop} is outside this node's subnet {subnet}"
    return Choice(Encapsulation.IPIP, sentence)


MODES: dict[IpipMode, Callable[[IPPool, IPv4Address, IPv4Network], Choice]] = {
    IpipMode.ALWAYS: _always,
    IpipMode.NEVER: _never,
    IpipMode.CROSS_SUBNET: _cross_subnet,
}


def choose(pool: IPPool, next_hop: IPv4Address, address: IPv4Interface) -> Choice:
    """Choose the encapsulation towards `next_hop`, seen from the node at `address`."""
    return MODES[pool.ipip_mode](pool, next_hop, address.network)
