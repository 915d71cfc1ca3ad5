"""Named cluster states as node a1 sees them, and the routes that it should hold, written as `ip route` prints them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from builders import block, link, links, node, pod, pool

from felix_py.calc.desired import Desired, desired
from felix_py.calc.hearsay import Learned
from felix_py.kernel.objects import Link, NextHop, Route, RouteKey
from felix_py.model import IpipMode, IPPool, Key, Node, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState, Event, InSync, Present

A1 = NodeName("a1")
ETH0 = link("eth0", "172.31.1.11/24")
WEB = "cali0000000web0"
HOST = links(link("lo"), ETH0, link(WEB))
ROUTER = {RouteKey(IPv4Network("0.0.0.0/0")): Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)}
NODES: tuple[Event, ...] = (
    node("a1", "172.31.1.11/24"),
    node("a2", "172.31.1.12/24"),
    node("a3", "172.31.1.13/24"),
    node("b1", "172.31.2.11/24"),
    InSync(),
)


def veth(name: str, index: int, *, running: bool = True) -> Link:
    return Link(name, index, 1500, up=True, running=running)


def heard(prefix: str, next_hop: str, *equal: str) -> tuple[IPv4Network, Learned]:
    said = Learned(IPv4Address(next_hop), next_hop, equal=tuple(IPv4Address(each) for each in equal))
    return IPv4Network(prefix), said


@dataclass(frozen=True)
class State:
    """What a1 knows, and what follows from it.

    Attributes:
        routes: every route that is wanted and can be installed.
        waiting: wanted prefixes that cannot be installed, with the obstacle.
    """

    name: str
    events: tuple[Event, ...]
    routes: Mapping[str, str]
    waiting: Mapping[str, str] = field(default_factory=dict)
    learned: tuple[tuple[IPv4Network, Learned], ...] = ()
    links: Mapping[str, Link] = field(default_factory=lambda: HOST)
    underlay: Mapping[RouteKey, Route] = field(default_factory=lambda: ROUTER)
    default_route: bool = True

    def __str__(self) -> str:
        return self.name

    def wish(self) -> Desired:
        return self.wish_of(ClusterState().after_all(self.events))

    def wish_of(self, cluster: ClusterState) -> Desired:
        learned = dict(self.learned)
        return desired(cluster, learned, A1, self.links, underlay=self.underlay, default_route=self.default_route)


STATES = (
    State("empty node", NODES, routes={}),
    State(
        "one pod",
        (*NODES, pool(), block("a1", "10.65.0.0/26"), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        routes={"10.65.0.0/26": "blackhole", "10.65.0.5/32": "dev cali0000000web0 scope link"},
    ),
    State(
        "two pods with one address on two interfaces",
        (
            *NODES,
            pool(),
            pod("default/elder", "a1", "caliaaaaaaaaaaa", "10.65.0.5/32"),
            pod("default/younger", "a1", "calibbbbbbbbbbb", "10.65.0.5/32"),
        ),
        links=links(ETH0, veth("caliaaaaaaaaaaa", 7), veth("calibbbbbbbbbbb", 12)),
        routes={"10.65.0.5/32": "dev calibbbbbbbbbbb scope link"},
    ),
    State(
        "pod moved to another node, which tells its address",
        (*NODES, pool(), block("a1", "10.65.0.0/26"), pod("default/web", "a2", WEB, "10.65.0.5/32")),
        learned=(heard("10.65.0.5/32", "172.31.1.12"),),
        routes={"10.65.0.0/26": "blackhole", "10.65.0.5/32": "via 172.31.1.12 dev eth0 onlink"},
    ),
    State(
        "pod left a veth without carrier behind and is on another node",
        (*NODES, pool(), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        learned=(heard("10.65.0.5/32", "172.31.1.12"),),
        links=links(ETH0, veth(WEB, 7, running=False)),
        routes={"10.65.0.5/32": "via 172.31.1.12 dev eth0 onlink"},
    ),
    State(
        "pod without carrier, alone",
        (*NODES, pool(), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        links=links(ETH0, veth(WEB, 7, running=False)),
        routes={"10.65.0.5/32": "dev cali0000000web0 scope link"},
    ),
    State(
        "pod without its device",
        (*NODES, pool(), block("a1", "10.65.0.0/26"), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        links=links(ETH0),
        routes={"10.65.0.0/26": "blackhole"},
        waiting={"10.65.0.5/32": "cali0000000web0 does not exist"},
    ),
    State(
        "pod whose device is down, and whose address is a block of its own, which has no blackhole",
        (*NODES, pool(), block("a1", "10.65.0.5/32"), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        links=links(ETH0, link(WEB, up=False)),
        routes={},
        waiting={"10.65.0.5/32": "cali0000000web0 is down"},
    ),
    State(
        "pod without carrier, whose address is a block of its own",
        (*NODES, pool(), block("a1", "10.65.0.5/32"), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        links=links(ETH0, veth(WEB, 7, running=False)),
        routes={"10.65.0.5/32": "dev cali0000000web0 scope link"},
    ),
    State(
        "pod with an address of each version",
        (
            *NODES,
            pool(),
            Present(
                Key("WorkloadEndpoint", "default/web"),
                WorkloadEndpoint(
                    "default/web",
                    A1,
                    WEB,
                    (IPv4Network("10.65.0.5/32"), IPv6Network("fd00:65::5/128")),  # type: ignore[arg-type, unused-ignore]
                ),
            ),
        ),
        routes={"10.65.0.5/32": "dev cali0000000web0 scope link", "fd00:65::5/128": "dev cali0000000web0"},
    ),
    State(
        "pool that says CrossSubnet",
        (*NODES, pool(mode=IpipMode.CROSS_SUBNET)),
        learned=(heard("10.65.1.0/26", "172.31.1.12"), heard("10.65.2.0/26", "172.31.2.11")),
        routes={
            "10.65.1.0/26": "via 172.31.1.12 dev eth0 onlink",
            "10.65.2.0/26": "via 172.31.2.11 dev tunl0 onlink",
        },
    ),
    State(
        "pool mode changed to Always",
        (*NODES, pool(mode=IpipMode.ALWAYS)),
        learned=(heard("10.65.1.0/26", "172.31.1.12"), heard("10.65.2.0/26", "172.31.2.11")),
        routes={
            "10.65.1.0/26": "via 172.31.1.12 dev tunl0 onlink",
            "10.65.2.0/26": "via 172.31.2.11 dev tunl0 onlink",
        },
    ),
    State(
        "remote through a router",
        (*NODES, pool(mode=IpipMode.NEVER)),
        learned=(heard("10.65.1.0/26", "172.31.1.12"), heard("10.65.2.0/26", "172.31.2.11")),
        routes={"10.65.1.0/26": "via 172.31.1.12 dev eth0 onlink", "10.65.2.0/26": "via 172.31.1.1 dev eth0"},
    ),
    State(
        "remote through a router whose own way is onlink",
        (*NODES, pool(mode=IpipMode.NEVER)),
        learned=(heard("10.65.2.0/26", "172.31.2.11"),),
        underlay={
            RouteKey(IPv4Network("0.0.0.0/0")): Route(
                via=IPv4Address("169.254.0.1"), device="eth0", onlink=True, protocol=16
            )
        },
        routes={"10.65.2.0/26": "via 169.254.0.1 dev eth0 onlink"},
    ),
    State(
        "remote through two routers",
        (*NODES, pool(mode=IpipMode.NEVER)),
        learned=(heard("10.65.2.0/26", "172.31.2.11"),),
        underlay={
            RouteKey(IPv4Network("0.0.0.0/0")): Route(
                hops=(NextHop(IPv4Address("172.31.1.2"), "eth0"), NextHop(IPv4Address("172.31.1.1"), "eth0")),
                protocol=3,
            )
        },
        routes={"10.65.2.0/26": "nexthop via 172.31.1.1 dev eth0 nexthop via 172.31.1.2 dev eth0"},
    ),
    State(
        "host without a default route",
        (*NODES, pool(mode=IpipMode.NEVER), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        learned=(heard("10.65.2.0/26", "172.31.2.11"),),
        underlay={},
        default_route=False,
        routes={"10.65.0.5/32": "dev cali0000000web0 scope link", "169.254.1.1/32": "dev lo scope link"},
        waiting={"10.65.2.0/26": "no route leads to next hop 172.31.2.11"},
    ),
    State(
        "address of our block borrowed by another node",
        (*NODES, pool(), block("a1", "10.65.0.0/26"), pod("default/web", "a1", WEB, "10.65.0.5/32")),
        learned=(heard("10.65.0.9/32", "172.31.2.11"),),
        routes={
            "10.65.0.0/26": "blackhole",
            "10.65.0.5/32": "dev cali0000000web0 scope link",
            "10.65.0.9/32": "via 172.31.2.11 dev tunl0 onlink",
        },
    ),
    State(
        "node without an address",
        (
            Present(Key("Node", "a1"), Node(A1)),
            node("a2", "172.31.1.12/24"),
            pool(),
            block("a1", "10.65.0.0/26"),
            pod("default/web", "a1", WEB, "10.65.0.5/32"),
            InSync(),
        ),
        learned=(heard("10.65.1.0/26", "172.31.1.12"),),
        routes={"10.65.0.0/26": "blackhole", "10.65.0.5/32": "dev cali0000000web0 scope link"},
    ),
    State(
        "uplink unknown",
        (*NODES, pool()),
        learned=(heard("10.65.1.0/26", "172.31.1.12"), heard("10.65.2.0/26", "172.31.2.11")),
        links=links(link("lo"), link("eth0", "192.0.2.1/24")),
        routes={},
        waiting={
            "10.65.1.0/26": "no interface has this node's address 172.31.1.11/24",
            "10.65.2.0/26": "no interface has this node's address 172.31.1.11/24",
        },
    ),
    State(
        "two interfaces with the node's address",
        (*NODES, pool()),
        learned=(heard("10.65.1.0/26", "172.31.1.12"),),
        links=links(
            Link("eth1", 3, 1500, up=True, running=True, addresses=frozenset({"172.31.1.11/24"})),
            Link("eth0", 2, 1500, up=True, running=True, addresses=frozenset({"172.31.1.11/24"})),
        ),
        routes={"10.65.1.0/26": "via 172.31.1.12 dev eth0 onlink"},
    ),
    State(
        "a block on two nodes of the own rack",
        (*NODES, pool()),
        learned=(heard("10.65.9.0/26", "172.31.1.13", "172.31.1.12"),),
        routes={"10.65.9.0/26": "nexthop via 172.31.1.12 dev eth0 onlink nexthop via 172.31.1.13 dev eth0 onlink"},
    ),
    State(
        "a block on two nodes, of which BGP prefers the one in the other rack",
        (*NODES, pool()),
        learned=(heard("10.65.9.0/26", "172.31.2.11", "172.31.1.12"),),
        routes={"10.65.9.0/26": "via 172.31.1.12 dev eth0 onlink"},
    ),
    State(
        "a block on two nodes, both through the tunnel",
        (*NODES, pool(mode=IpipMode.ALWAYS)),
        learned=(heard("10.65.9.0/26", "172.31.2.11", "172.31.1.12"),),
        routes={"10.65.9.0/26": "via 172.31.2.11 dev tunl0 onlink"},
    ),
    State(
        "a block on two nodes, to one of which no route leads",
        (*NODES, pool(mode=IpipMode.NEVER)),
        learned=(heard("10.65.9.0/26", "172.31.2.11", "172.31.1.12"),),
        underlay={},
        routes={"10.65.9.0/26": "via 172.31.1.12 dev eth0 onlink"},
    ),
    State(
        "two pools of different modes",
        (
            *NODES,
            pool("10.65.0.0/16", IpipMode.ALWAYS),
            Present(Key("IPPool", "plain"), IPPool("plain", IPv4Network("10.66.0.0/16"), IpipMode.NEVER)),
        ),
        learned=(heard("10.65.1.0/26", "172.31.1.12"), heard("10.66.1.0/26", "172.31.1.12")),
        routes={
            "10.65.1.0/26": "via 172.31.1.12 dev tunl0 onlink",
            "10.66.1.0/26": "via 172.31.1.12 dev eth0 onlink",
        },
    ),
    State(
        "pool disabled",
        (
            *NODES,
            Present(Key("IPPool", "default"), IPPool("default", IPv4Network("10.65.0.0/16"), disabled=True)),
            block("a1", "10.65.0.0/26"),
            pod("default/web", "a1", WEB, "10.65.0.5/32"),
        ),
        learned=(heard("10.65.1.0/26", "172.31.1.12"),),
        routes={"10.65.0.0/26": "blackhole", "10.65.0.5/32": "dev cali0000000web0 scope link"},
    ),
)
