"""The nouns of the kernel's tables, as we wish them and as we read them back: one type for both sides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from felix_py.model import IPAddress, IPNetwork
from ipip.tunnel import Tunnel

MAIN_TABLE = 254
"""RT_TABLE_MAIN, include/uapi/linux/rtnetlink.h."""


class RouteType(IntEnum):
    """What the kernel does with a matching packet (rtm_type)."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9


class Scope(IntEnum):
    """How far away the destination is (rtm_scope)."""

    UNIVERSE = 0
    SITE = 200
    LINK = 253
    HOST = 254
    NOWHERE = 255


@dataclass(frozen=True, slots=True)
class RouteKey:
    """The kernel's own identity of a route: two routes that differ in any of these live side by side."""

    dst: IPNetwork
    table: int = MAIN_TABLE
    tos: int = 0
    metric: int = 0

    def __str__(self) -> str:
        extras = [f"table {self.table}"] * (self.table != MAIN_TABLE) + [f"metric {self.metric}"] * bool(self.metric)
        return " ".join([str(self.dst), *extras])


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the FIB.

    Attributes:
        device: interface name; None for blackholes.
        onlink: the gateway is on the device's link although no address says so (RTNH_F_ONLINK).
        protocol: who installed it (rtm_protocol); see `ownership`.
    """

    type: RouteType = RouteType.UNICAST
    via: IPAddress | None = None
    device: str | None = None
    scope: Scope = Scope.UNIVERSE
    onlink: bool = False
    source: IPAddress | None = None
    mtu: int | None = None
    protocol: int = 80

    def __str__(self) -> str:
        words = [] if self.type is RouteType.UNICAST else [self.type.name.lower()]
        words += [f"via {self.via}"] * (self.via is not None) + [f"dev {self.device}"] * (self.device is not None)
        words += ["scope link"] * (self.scope is Scope.LINK) + ["onlink"] * self.onlink
        words += [f"src {self.source}"] * (self.source is not None) + [f"mtu {self.mtu}"] * (self.mtu is not None)
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it; only ever read."""

    name: str
    index: int
    mtu: int
    up: bool
    running: bool
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KernelState:
    """What this node's kernel should hold, or does hold, of the things that are ours.

    Attributes:
        sysctls: path below /proc/sys to value.
        tunnels: by device name.
        occupants: only when read back: other people's routes on keys that we were asked about.
    """

    routes: Mapping[RouteKey, Route] = field(default_factory=dict)
    tunnels: Mapping[str, Tunnel] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    occupants: Mapping[RouteKey, Route] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PutTunnel:
    """Make the tunnel device so."""

    tunnel: Tunnel


@dataclass(frozen=True, slots=True)
class DeleteTunnel:
    """Remove the tunnel device."""

    name: str


@dataclass(frozen=True, slots=True)
class PutSysctl:
    """Write one kernel parameter."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class PutRoute:
    """Add the route, or replace in place what stands under its key."""

    key: RouteKey
    route: Route
    replaces: Route | None = None


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Remove exactly this route; another one under the same key stays."""

    key: RouteKey
    route: Route


Step: TypeAlias = PutTunnel | DeleteTunnel | PutSysctl | PutRoute | DeleteRoute
Plan: TypeAlias = tuple[Step, ...]


class KernelRefused(Exception):  # noqa: N818 - named for what the caller does: try again later
    """The kernel said no to one step; the sentence says to what and why."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a plan: every step stands in exactly one of the two."""

    done: tuple[Step, ...] = ()
    failed: tuple[tuple[Step, str], ...] = ()
