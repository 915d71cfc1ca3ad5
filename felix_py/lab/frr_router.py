"""The frr.conf of a router that runs FRR. Pure: a Topology in, text out."""

from collections.abc import Iterator
from typing import NamedTuple

from felix_py.lab import rendering
from felix_py.lab.topology import Router, Topology
from felix_py.model import IPAddress


class Session(NamedTuple):
    """A neighbour of the router.

    Attributes:
        node: it is a node, which is told of nothing and believed about pods only.
    """

    name: str
    address: IPAddress
    as_number: int
    node: bool


HEAD = """\
! Router {name}, written by felix-lab.
frr defaults traditional
hostname {name}
log stdout
service integrated-vtysh-config
!
{pods}
!
router bgp {as_number}
 bgp router-id {router_id}
 bgp log-neighbor-changes
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
"""

NEIGHBOUR = """\
 neighbor {address} remote-as {as_number}
 neighbor {address} description {name}
 neighbor {address} advertisement-interval 0
 neighbor {address} timers connect 1
"""


def frr_conf(topology: Topology, router: Router) -> str:
    """Return the configuration of a router's FRR: eBGP with the nodes and the routers beside it, IPv4."""
    sessions = list(_sessions(topology, router))
    lines = [
        HEAD.format(
            name=router.name,
            router_id=min(address.ip for address in router.addresses.values()),
            as_number=router.as_number,
            pods="\n".join(_pods(topology)),
        )
    ]
    lines += [NEIGHBOUR.format(**each._asdict()) for each in sessions]
    lines += [" !\n address-family ipv4 unicast\n  redistribute connected\n"]
    for each in sessions:
        lines.append(f"  neighbor {each.address} activate\n")
        if each.node:
            lines.append(
                f"  neighbor {each.address} prefix-list pods in\n  neighbor {each.address} prefix-list pods out\n"
            )
            if router.announce_default:
                lines.append(f"  neighbor {each.address} default-originate\n")
    return "".join((*lines, " exit-address-family\nexit\n"))


def _pods(topology: Topology) -> Iterator[str]:
    pools = [pool.cidr for pool in topology.pools if not pool.disabled and pool.cidr.version == 4]  # noqa: PLR2004
    yield from (f"ip prefix-list pods seq {5 * place} permit {cidr} le 32" for place, cidr in enumerate(pools, 1))
    if not pools:
        yield "ip prefix-list pods seq 5 deny any"


def _sessions(topology: Topology, router: Router) -> Iterator[Session]:
    for node in rendering.neighbours(topology, router):
        for _, near in rendering.sessions(router, node):
            if near.version == 4:  # noqa: PLR2004 - IP versions
                yield Session(str(node.name), near, node.as_number or topology.bgp.as_number, node=True)
    for other, network in topology.between_routers(router):
        yield Session(other.name, other.addresses[network].ip, other.as_number, node=False)
