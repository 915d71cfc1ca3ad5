"""How traffic to a remote prefix travels: straight to its next hop, or inside a tunnel; and why."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

from felix_py.calc.longest_match import LongestMatch
from felix_py.model import IPAddress, IPInterface, IpipMode, IPPool


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


def _always(pool: IPPool, _next_hop: IPAddress, _address: IPInterface | None) -> Choice:
    return Choice(Encapsulation.IPIP, f"pool {pool.name} says ipipMode Always")


def _never(pool: IPPool, _next_hop: IPAddress, _address: IPInterface | None) -> Choice:
    return Choice(Encapsulation.NONE, f"pool {pool.name} says ipipMode Never")


def _cross_subnet(pool: IPPool, next_hop: IPAddress, address: IPInterface | None) -> Choice:
    subnet = address.network if address is not None else "none"
    # Each side judges by its own mask, as Felix does: a /32 node address has no neighbours and always encapsulates.
    if address is not None and next_hop in address.network:
        sentence = f"pool {pool.name} says CrossSubnet and next hop {next_hop} is in this node's subnet {subnet}"
        return Choice(Encapsulation.NONE, sentence)
    sentence = f"pool {pool.name} says CrossSubnet and next hop {next_hop} is outside this node's subnet {subnet}"
    return Choice(Encapsulation.IPIP, sentence)


MODES: dict[IpipMode, Callable[[IPPool, IPAddress, IPInterface | None], Choice]] = {
    IpipMode.ALWAYS: _always,
    IpipMode.NEVER: _never,
    IpipMode.CROSS_SUBNET: _cross_subnet,
}


def choose(pool: IPPool, next_hop: IPAddress, address: IPInterface | None) -> Choice:
    """Choose the encapsulation towards `next_hop`, seen from the node at `address`.

    Towards an IPv6 address there is none: the outer header of IP in IP is IPv4 (RFC 2003), so that an IPv4 prefix whose
    next hop is IPv6 (RFC 8950) goes straight, whatever its pool says.
    """
    if isinstance(next_hop, IPv4Address) or pool.ipip_mode is IpipMode.NEVER:
        return MODES[pool.ipip_mode](pool, next_hop, address)
    sentence = (
        f"pool {pool.name} says {pool.ipip_mode}, but IP in IP does not lead to an IPv6 next hop, as {next_hop} is"
    )
    return Choice(Encapsulation.NONE, sentence)
