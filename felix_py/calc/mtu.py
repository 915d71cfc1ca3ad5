"""How large a packet may be: what carries traffic between nodes, less what the worst encapsulation in use adds."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from felix_py.calc.encap import Encapsulation, asked
from felix_py.calc.next_hops import View, Ways
from felix_py.kernel.objects import Link
from felix_py.kernel.ownership import is_workload_device
from felix_py.model import FelixConfiguration, IPPool, Node, TunnelMode
from ipip import tunnel
from vxlan import tunnel as vxlan


class Mtu(NamedTuple):
    """Bytes of an IP packet, and the sentence that says where the number comes from."""

    value: int
    why: str


class Wrapping(NamedTuple):
    """What one way to travel takes of a packet.

    Attributes:
        version: of IP, in the pool.
        added: bytes of everything that comes around a packet.
        least: bytes of a packet that it carries whatever the underlay takes.
        field: of FelixConfiguration, that overrides what is detected; 0 and none at all stand for detection.
    """

    encapsulation: Encapsulation
    version: int
    added: int
    least: int
    field: str
    configured: Callable[[FelixConfiguration], int | None]


WRAPPINGS = (
    Wrapping(Encapsulation.IPIP, 4, tunnel.OVERHEAD, tunnel.MINIMUM_MTU, "ipipMTU", lambda felix: felix.ipip_mtu),
    Wrapping(
        Encapsulation.VXLAN, 4, vxlan.OVERHEAD[4], vxlan.MINIMUM_MTU[4], "vxlanMTU", lambda felix: felix.vxlan_mtu
    ),
    Wrapping(
        Encapsulation.VXLAN, 6, vxlan.OVERHEAD[6], vxlan.MINIMUM_MTU[6], "vxlanMTUV6", lambda felix: felix.vxlan_mtu6
    ),
)
"""Every tunnel that a pool may ask for."""

MINIMUM6 = 1280
"""Bytes that every link with IPv6 has to take (RFC 8200 section 5); below, the kernel takes IPv6 off an interface."""

UNKNOWN = Mtu(1500, "no interface leads to other nodes, so that of Ethernet")
"""For a host whose uplinks are not there yet."""

LOOPBACK = "lo"
"""A node's address may be there; packets are not."""


def of_host(view: View, ways: Ways, nodes: Iterable[Node], pattern: str | None = None) -> Mtu:
    """Return what the interfaces that carry node traffic take, all of them.

    Args:
        view: this node and its interfaces.
        ways: the routes of the underlay to other nodes.
        nodes: all nodes.
        pattern: a regular expression that names the interfaces instead (mtuIfacePattern).
    """
    found = dict(_matching(view.links, pattern) if pattern else _leading(view, ways, nodes))
    if not found:
        return UNKNOWN
    device = min(found, key=lambda name: (found[name], name))
    others = sorted(found.keys() - {device})
    beside = f", the smallest beside {', '.join(others)}" if others else ""
    cause = f"whose names fit mtuIfacePattern {pattern}" if pattern else "that lead to other nodes"
    return Mtu(found[device], f"{device}{beside}, of the interfaces {cause}, takes {found[device]}")


def _matching(links: Mapping[str, Link], pattern: str) -> Iterator[tuple[str, int]]:
    wanted = re.compile(pattern)
    for name, link in links.items():
        if link.up and wanted.search(name) and not _ours(name):
            yield name, link.mtu


def _leading(view: View, ways: Ways, nodes: Iterable[Node]) -> Iterator[tuple[str, int]]:
    """Yield each interface by which other nodes are reached, or where no other node is known might be."""
    others = [address for node in nodes if node.name != view.me.name for address in node.addresses]
    leading = {device for address in others for device in ways.interfaces(address)}
    own = {name for name in (view.uplink, view.uplink6) if name is not None}
    for names in (leading, own):
        found = [view.links[name] for name in names if name in view.links and not _ours(name)]
        if found:
            yield from ((link.name, link.mtu) for link in found)
            return


def _ours(name: str) -> bool:
    """Say whether packets that leave by an interface are not on their way to another node yet, or never."""
    return name in (LOOPBACK, tunnel.DEVICE, *vxlan.DEVICES.values()) or is_workload_device(name)


def of_tunnel(encapsulation: Encapsulation, host: Mtu, felix: FelixConfiguration, version: int = 4) -> Mtu:
    """Return the bytes that an inner packet may have.

    Raises:
        StopIteration: when there is no such tunnel.
    """
    return _inside(next(each for each in WRAPPINGS if each[:2] == (encapsulation, version)), host, felix)


def of_pods(pools: Iterable[IPPool], host: Mtu, felix: FelixConfiguration) -> Mtu:
    """Return the bytes that a pod's packet may have whichever way it takes: the least of all that pools may use."""
    found: list[Mtu] = []
    for pool in pools:
        wish = asked(pool)
        if wish.mode is not TunnelMode.ALWAYS:
            found.append(host)
        if wish.mode is not TunnelMode.NEVER:
            found.append(of_tunnel(wish.tunnel, host, felix, pool.cidr.version))
    return min(found, key=lambda mtu: mtu.value, default=host)


def _inside(wrapping: Wrapping, host: Mtu, felix: FelixConfiguration) -> Mtu:
    if value := wrapping.configured(felix):
        return Mtu(value, f"FelixConfiguration says {wrapping.field} {value}")
    left = max(host.value - wrapping.added, wrapping.least)
    return Mtu(left, f"{host.why}, less {wrapping.added} for {wrapping.encapsulation}")
