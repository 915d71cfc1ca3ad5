"""The VXLAN devices that a node should have, and the hardware addresses by which nodes know each other's."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from felix_py.calc.next_hops import View
from felix_py.model import FelixConfiguration, IPAddress, Node, NodeName
from felix_py.state import VXLAN_PORT, VXLAN_VNI
from vxlan import tunnel
from vxlan.tunnel import DEVICES, Vxlan


def mac(node: Node, version: int) -> str:
    """Return the hardware address of a node's device: as written down, or worked out from its name."""
    written = node.vxlan_mac if version == 4 else node.vxlan_mac6  # noqa: PLR2004 - IP versions
    return written or tunnel.mac_of(node.name, version)


def macs(nodes: Iterable[Node], me: NodeName) -> Mapping[IPAddress, str]:
    """Return the hardware addresses of the other nodes' devices, by the node's address.

    Of nodes that share one, which only a mistake brings about, the first by name has it, and nobody has ours: a
    forwarding entry leads to one place.
    """
    found: dict[IPAddress, str] = {}
    taken: set[tuple[int, str]] = set()
    for node in sorted(nodes, key=lambda node: (node.name != me, node.name)):
        for address in node.addresses:
            claim = address.version, mac(node, address.version)
            if claim not in taken and node.name != me:
                found[address] = claim[1]
            taken.add(claim)
    return found


def wanted(
    view: View,
    felix: FelixConfiguration,
    devices: Collection[str],
    addresses: Mapping[int, IPAddress | None],
    mtus: Mapping[int, int],
) -> Iterator[Vxlan]:
    """Yield the devices of this node, each with an entry and a neighbour for every other node.

    All nodes are there, those too that are reached without a tunnel now: when that changes, only a route has to.

    Args:
        view: with the hardware addresses of the other nodes.
        felix: identifier and port.
        devices: the names of those that pools may need.
        addresses: the devices' own addresses, by version of IP.
        mtus: bytes of an inner packet, likewise.
    """
    for version, name in DEVICES.items():
        own = view.own(version)
        if name not in devices or own is None or view.uplink_of(version) is None:
            continue
        others = [(each, address) for address, each in view.vxlan_macs.items() if address.version == version]
        yield Vxlan(
            local=own.ip,
            mtu=mtus[version],
            vni=felix.vxlan_vni or VXLAN_VNI,
            port=felix.vxlan_port or VXLAN_PORT,
            mac=mac(view.me, version),
            address=addresses.get(version),
            forwarding=frozenset(others),
            neighbours=frozenset((each, tunnel.gateway(address, each)) for each, address in others),
            name=name,
        )
