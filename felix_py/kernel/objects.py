"""The nouns of the kernel's tables, as we wish them and as we read them back: one type for both sides."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import repeat
from typing import NamedTuple, Self, TypeAlias

from bgp.spans import comparable
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.guard import Guard
from felix_py.model import IPAddress, IPNetwork
from ipip.tunnel import Tunnel as Ipip
from vxlan.tunnel import Vxlan

Tunnel: TypeAlias = Ipip | Vxlan
"""A device that wraps what goes out of it, of either kind; its name tells which."""

MAIN_TABLE = 254
"""RT_TABLE_MAIN, include/uapi/linux/rtnetlink.h."""

IPV6 = 6
"""The version of IP whose routes have a metric even where nobody gives one."""

IPV6_METRIC = 1024
"""What the kernel makes of metric 0 in IPv6: IP6_RT_PRIO_USER, include/net/ip6_route.h."""


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


class _Identity(NamedTuple):
    dst: IPNetwork
    table: int
    tos: int
    metric: int


class RouteKey(_Identity):
    """The kernel's own identity of a route: two routes that differ in any of these live side by side.

    Metric 0 of an IPv6 prefix becomes 1024, as in the kernel: one route must not have two names.
    """

    __slots__ = ()

    # A tuple, since of a table of 100,000 routes each is made and hashed: it costs a quarter of what a dataclass does.
    def __new__(cls, dst: IPNetwork, table: int = MAIN_TABLE, tos: int = 0, metric: int = 0) -> Self:
        """Take the prefix; everything else is what a plain `ip route add` leaves out."""
        if not metric and dst.version == IPV6:
            metric = IPV6_METRIC
        return tuple.__new__(cls, (dst, table, tos, metric))

    def __str__(self) -> str:
        usual = IPV6_METRIC if self.dst.version == IPV6 else 0
        extras = [f"tos {self.tos:#x}"] * bool(self.tos) + [f"table {self.table}"] * (self.table != MAIN_TABLE)
        return " ".join([str(self.dst), *extras, *[f"metric {self.metric}"] * (self.metric != usual)])


def plain_keys(prefixes: Sequence[IPNetwork]) -> Iterator[RouteKey]:
    """Return `RouteKey(prefix)` of each prefix; a third of the price where all are IPv4 and there are many."""
    if comparable(prefixes):
        return map(tuple.__new__, repeat(RouteKey), zip(prefixes, repeat(MAIN_TABLE), repeat(0), repeat(0)))
    return map(RouteKey, prefixes)


@dataclass(frozen=True, slots=True)
class RouteEncapsulation:
    """What the route itself wraps packets in (RTA_ENCAP), without a tunnel device.

    Attributes:
        kind: LWTUNNEL_ENCAP_..., include/uapi/linux/lwtunnel.h.
        payload: the attributes of that kind, as the kernel dumps them.
    """

    kind: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where a packet goes next; a route has one, or several equal ones among which the kernel spreads flows.

    Attributes:
        onlink: the gateway is on the device's link although no address says so (RTNH_F_ONLINK).
        weight: share of the flows, 1 to 256.
    """

    via: IPAddress | None = None
    device: str | None = None
    onlink: bool = False
    weight: int = 1
    encapsulation: RouteEncapsulation | None = None

    def __str__(self) -> str:
        words = [f"via {self.via}"] * (self.via is not None) + [f"dev {self.device}"] * (self.device is not None)
        return " ".join([*words, *["onlink"] * self.onlink, *[f"weight {self.weight}"] * (self.weight != 1)])


@dataclass(frozen=True, slots=True)
class NextHopObject:
    """A next hop, or a group of them, that lives on its own in the kernel and that routes name by its ID.

    Attributes:
        hop: the single next hop; None for a group.
        group: of a group, the ID and the weight of each member.
    """

    hop: NextHop | None = None
    group: tuple[tuple[int, int], ...] = ()
    protocol: int = 80

    def __str__(self) -> str:
        return str(self.hop) if self.hop else "group " + "/".join(f"{member},{weight}" for member, weight in self.group)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the neighbour table: where an address of a link is found.

    Attributes:
        mac: in lower case with colons; None while it is not known.
        state: NUD_..., include/uapi/linux/neighbour.h.
        proxy: the host answers for the address (NTF_PROXY).
    """

    address: IPAddress
    device: str
    mac: str | None = None
    state: int = 0x80
    proxy: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the FIB.

    Attributes:
        device: interface name; None for blackholes.
        onlink: the gateway is on the device's link although no address says so (RTNH_F_ONLINK).
        protocol: who installed it (rtm_protocol); see `ownership`.
        hops: several equal next hops; `via`, `device` and `onlink` are empty then.
        through: the ID of a next-hop object that says where; `via`, `device` and `hops` are empty then.
    """

    type: RouteType = RouteType.UNICAST
    via: IPAddress | None = None
    device: str | None = None
    scope: Scope = Scope.UNIVERSE
    onlink: bool = False
    source: IPAddress | None = None
    mtu: int | None = None
    protocol: int = 80
    hops: tuple[NextHop, ...] = ()
    through: int | None = None
    encapsulation: RouteEncapsulation | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """The interfaces that packets may leave by."""
        several = [hop.device for hop in self.hops]
        return tuple(device for device in (self.device, *several) if device is not None)

    def __str__(self) -> str:
        words = [] if self.type is RouteType.UNICAST else [self.type.name.lower()]
        words += [f"nhid {self.through}"] * (self.through is not None)
        words += [f"via {self.via}"] * (self.via is not None) + [f"dev {self.device}"] * (self.device is not None)
        words += ["scope link"] * (self.scope is Scope.LINK) + ["onlink"] * self.onlink
        words += [f"src {self.source}"] * (self.source is not None) + [f"mtu {self.mtu}"] * (self.mtu is not None)
        words += [f"nexthop {hop}" for hop in self.hops]
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
class PodLink:
    """How large packets a pod's veth takes, at both of its ends.

    Attributes:
        netns: path of the pod's network namespace.
        inside: the pod's end.
        mtu: in bytes.
    """

    netns: str
    inside: str
    mtu: int


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """How far the engine goes.

    Attributes:
        remove_external: routes of other programs out of workloads' interfaces are ours to remove; `proto boot`, which
            CNI plugins leave behind, is in any case.
        sync: routes are written and removed at all.
    """

    remove_external: bool = True
    sync: bool = True


class Amended(NamedTuple):
    """How a mapping of routes came about.

    Attributes:
        before: the mapping that it was made from.
        news: what is wanted now wherever the two may differ, None where nothing is; they are alike everywhere else.
        moved: interfaces by which no other routes leave, in either of the two, than those that the news are about.
    """

    before: Mapping[RouteKey, Route]
    news: Mapping[RouteKey, Route | None]
    moved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KernelState:
    """What this node's kernel should hold, or does hold, of the things that are ours.

    Attributes:
        next_hops: next-hop objects by ID, that `routes` go through.
        tunnels: by device name.
        sysctls: path below /proc/sys to value.
        netfilter: our nftables table; None for none.
        guard: what our programs at pods' interfaces let pass; None for no programs.
        pod_links: pods' veths by the name of the host's end, of which alone the MTU is read back.
        amended: how `routes` came about, for whoever took those before; None where nobody knows.
    """

    routes: Mapping[RouteKey, Route] = field(default_factory=dict)
    next_hops: Mapping[int, NextHopObject] = field(default_factory=dict)
    tunnels: Mapping[str, Tunnel] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    policy: RoutePolicy = RoutePolicy()
    netfilter: FilterTable | None = None
    guard: Guard | None = None
    pod_links: Mapping[str, PodLink] = field(default_factory=dict)
    amended: Amended | None = field(default=None, compare=False, repr=False)


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
class PutPodLink:
    """Give both ends of a pod's veth another MTU."""

    name: str
    link: PodLink


@dataclass(frozen=True, slots=True)
class PutFilterTable:
    """Make our nftables table so, at one moment for all packets."""

    table: FilterTable
    replaces: FilterTable | None = None
    cause: str = "wanted"

    def __hash__(self) -> int:
        """Hash what differs most: the elements are mappings, which cannot be hashed."""
        return hash(self.table.rules)


@dataclass(frozen=True, slots=True)
class DeleteFilterTable:
    """Remove our nftables table."""


@dataclass(frozen=True, slots=True)
class PutGuard:
    """Have our programs at pods' interfaces let exactly this pass."""

    guard: Guard
    replaces: Guard | None = None

    def __hash__(self) -> int:
        """Hash what can be hashed, for the sources are a mapping."""
        return hash((self.guard.refused, self.guard.ports))


@dataclass(frozen=True, slots=True)
class DeleteGuard:
    """Remove our programs from pods' interfaces."""


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


Step: TypeAlias = (
    PutTunnel
    | DeleteTunnel
    | PutSysctl
    | PutPodLink
    | PutFilterTable
    | DeleteFilterTable
    | PutGuard
    | DeleteGuard
    | PutRoute
    | DeleteRoute
)
Plan: TypeAlias = tuple[Step, ...]


class KernelRefused(Exception):  # noqa: N818 - named for what the caller does: try again later
    """The kernel said no to one step; the sentence says to what and why."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a plan: every step stands in exactly one of the two."""

    done: tuple[Step, ...] = ()
    failed: tuple[tuple[Step, str], ...] = ()
