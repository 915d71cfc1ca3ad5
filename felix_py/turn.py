"""One look at the node: read the kernel, compute the wish, and the steps between the two; nothing is changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from felix_py.calc.desired import desired
from felix_py.calc.routes import Learned
from felix_py.kernel import ownership
from felix_py.kernel.objects import KernelState, Link, Plan, Report, Route, RouteKey
from felix_py.kernel.reconcile import conflicts, plan
from felix_py.model import NodeName
from felix_py.picture import Picture
from felix_py.state import ClusterState

DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")


class KernelTable(Protocol):
    """What the loop needs of the kernel; `kernel.netlink.Kernel` is the real one. Called in one thread only."""

    def links(self) -> dict[str, Link]:
        """Return every interface by name."""

    def table(self, links: Mapping[str, Link]) -> dict[RouteKey, Route]:
        """Return the main route table."""

    def read(self, want: KernelState, table: Mapping[RouteKey, Route]) -> KernelState:
        """Return what is ours of it, and what stands in the way."""

    def carry_out(self, plan: Plan) -> Report:
        """Do each step; one that is refused stops no other."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw, and what should be done about it."""

    picture: Picture
    have: KernelState
    steps: Plan


def look(
    kernel: KernelTable,
    cluster: ClusterState,
    learned: tuple[Learned, ...],
    me: NodeName,
    *,
    converged: bool,
    tunnel_address: IPv4Address | None,
) -> Look:
    """Read the kernel, compute the wish, and the steps from one to the other.

    Args:
        kernel: read only.
        cluster: all resources.
        learned: BGP's best paths.
        me: this node.
        converged: whether the absence of a path means something by now; until then remote routes stay.
        tunnel_address: the tunnel's own address, from this node's block.

    Raises:
        KernelRefused: when the kernel cannot be read.
    """
    links = kernel.links()
    table = kernel.table(links)
    ours = {key: route for key, route in table.items() if ownership.is_ours(route)}
    want = desired(
        cluster,
        learned,
        me,
        links,
        tunnel_address=tunnel_address,
        default_route=DEFAULT_ROUTE in {key.dst for key in table},
        underlay={key: route for key, route in table.items() if key not in ours},
        kept={} if converged else ours,
    )
    have = kernel.read(want.state, table)
    picture = Picture(want, have, table, links, conflicts=conflicts(want.state, have))
    return Look(picture, have, plan(want.state, have))
