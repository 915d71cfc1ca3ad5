"""What a trace needs to know of a machine: its kernel, and what its agent knows of its tunnels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from felix_py.kernel.base_chains import Chain
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.flow import Flow
from felix_py.kernel.guard import Guard
from felix_py.kernel.lookup_codec import Found
from felix_py.kernel.objects import Link, RouteType
from felix_py.kernel.rule_codec import Rule
from felix_py.kernel.wire import Refusal
from felix_py.model import IPAddress, IPNetwork


class Sight(Protocol):
    """One machine's kernel, as a trace looks at it."""

    links: Mapping[str, Link]
    table: FilterTable | None
    guard: Guard | None
    chains: tuple[Chain, ...]

    def lookup(
        self, destination: IPAddress, source: IPAddress | None, device: str | None, flow: Flow | None = None
    ) -> Found | Refusal:
        """Return what becomes of a packet that came in by a device; None where this machine sends it."""

    def rules(self, version: int) -> Iterable[Rule]:
        """Return the rules of policy routing, in the order in which they are asked."""

    def rejecting(self, kind: RouteType, version: int) -> Iterable[IPNetwork]:
        """Return all prefixes that routes of a type send nowhere."""

    def neighbour(self, address: IPAddress, device: str) -> str:
        """Return the state of a neighbour in the words of `ip neighbour`, after looking for one that is not known."""

    def forwarding(self, address: IPAddress, device: str) -> IPAddress | None:
        """Return the node to which a device sends frames for a neighbour; None where it knows none."""

    def parameter(self, path: str) -> str | None:
        """Return a parameter below /proc/sys."""


@dataclass(frozen=True, slots=True)
class TunnelFacts:
    """What an agent knows of its tunnel and a router's table does not say.

    Attributes:
        driver: what carries the packets; None where nobody says.
        local: the source of the outer header.
        allowed: whose packets are taken out of the tunnel; None where nobody says.
    """

    driver: str | None = None
    local: IPAddress | None = None
    allowed: frozenset[IPAddress] | None = field(default=None)
