"""What Calico's own tests ask of routes between nodes, IP in IP and CrossSubnet; the numbers are theirs.

Three nodes with a pod each: a1 and a2 share a subnet, b1 is behind a router. BGP is told what a mesh would have told.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest
from builders import block, node, pool
from crafted import dropped
from route_node import SOON, Lab, RouteNode, lab
from spaces import SECONDS, Monitor, Pod, Space

from felix_py.calc.transition import LINGER
from felix_py.model import IpipMode
from felix_py.state import Event, InSync
from ipip import header

pytestmark = pytest.mark.netns

ADDRESSES = {"a1": "172.31.1.11", "a2": "172.31.1.12", "b1": "172.31.2.11"}
BLOCKS = {"a1": "10.65.0.0/26", "a2": "10.65.1.0/26", "b1": "10.65.2.0/26"}
PODS = {"a1": "10.65.0.5", "a2": "10.65.1.5", "b1": "10.65.2.5"}

OWN = {
    "default via 172.31.1.1 dev eth0",
    "blackhole 10.65.0.0/26 proto 80",
    "10.65.0.5 dev cali1 proto 80 scope link",
}
"""What a1 has whatever the mode."""

TO_A2, TO_B1 = (
    "10.65.1.0/26 via 172.31.1.12 dev {} proto 80 onlink",
    "10.65.2.0/26 via 172.31.2.11 dev {} proto 80 onlink",
)
TUNNELLED = OWN | {TO_A2.format("tunl0"), TO_B1.format("tunl0")}
CROSS_SUBNET = OWN | {TO_A2.format("eth0"), TO_B1.format("tunl0")}
BY_ROUTER = "10.65.2.0/26 via 172.31.1.1 dev eth0 proto 80"
"""Without a tunnel, b1 is reached as the host itself reaches it."""


class Cluster:
    """The nodes, their pods, and the router with a bridge for each rack."""

    def __init__(self, made: Lab, mode: IpipMode, *more: Event, **settings: str | None) -> None:
        self.lab = made
        self.router = made.space()
        self.router.ip(
            *(f"link add rack{rack} type bridge forward_delay 0" for rack in (1, 2)),
            *(f"addr add 172.31.{rack}.1/24 dev rack{rack}" for rack in (1, 2)),
            *(f"link set rack{rack} up" for rack in (1, 2)),
        )
        self.router.parameter("ipv4/ip_forward", "1")
        self.spaces = {name: self._plugged(name) for name in ADDRESSES}
        self.pods = {name: made.pod(space, "cali1", PODS[name]) for name, space in self.spaces.items()}
        self.nodes = {
            name: made.node(space=space, name=name, start=False, **settings) for name, space in self.spaces.items()
        }
        events = (
            *(node(name, f"{address}/24") for name, address in ADDRESSES.items()),
            *(block(name, cidr) for name, cidr in BLOCKS.items()),
            *(pod.present(f"default/{name}", name) for name, pod in self.pods.items()),
            pool(mode=mode),
            *more,
            InSync(),
        )
        for each in self.nodes.values():
            each.start(*events)
        self.announce({cidr: name for name, cidr in BLOCKS.items()})
        for each in self.nodes.values():
            each.settle()

    def _plugged(self, name: str) -> Space:
        space, rack = self.lab.space(), ADDRESSES[name].split(".")[2]
        space.ip(
            f"link add eth0 type veth peer name port-{name} netns {self.router.path}",
            f"addr add {ADDRESSES[name]}/24 dev eth0",
            "link set eth0 up",
            f"route add default via 172.31.{rack}.1",
        )
        self.router.ip(f"link set port-{name} master rack{rack} up")
        return space

    @property
    def a1(self) -> RouteNode:
        return self.nodes["a1"]

    def announce(self, prefixes: dict[str, str]) -> None:
        """Let each node learn these prefixes from their nodes, as a mesh would."""
        for name, each in self.nodes.items():
            each.learn({prefix: ADDRESSES[of] for prefix, of in prefixes.items() if of != name})

    def tell(self, *events: Event) -> None:
        for each in self.nodes.values():
            each.tell(*events)

    def has(self, routes: set[str], seconds: float = SOON) -> bool:
        return self.a1.until(lambda: self.a1.space.routes() == routes, seconds)

    def connected(self) -> bool:
        """Say whether every pod reaches every other, and every node every pod of others."""
        ways = [
            (place, address)
            for of, address in PODS.items()
            for name in PODS
            if name != of
            for place in (self.pods[name].space, self.spaces[name])
        ]
        return all(self.a1.until(lambda way=way: way[0].pings(way[1]), SECONDS) for way in ways)


@pytest.fixture
def cluster() -> Iterator[Callable[..., Cluster]]:
    with lab() as made:
        yield lambda *words, **settings: Cluster(made, *words, **settings)


Makes = Callable[..., Cluster]


def replaced(monitor: Monitor, *prefixes: str) -> bool:
    """Say whether these, and no others, changed, and each in place: there was no moment without it."""
    seen = monitor.events()
    return {each.key for each in seen} == set(prefixes) and all(each.verb == "add" and each.replaced for each in seen)


def test_26_with_ipip_always_blocks_of_others_go_through_the_tunnel_and_all_reach_all(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    assert made.has(TUNNELLED), made.a1.space.routes()
    assert made.connected()
    assert made.spaces["a1"].pings(ADDRESSES["b1"]), "node to node"
    assert made.pods["a1"].space.pings(ADDRESSES["b1"]), "pod to node"
    assert not made.pods["b1"].space.pings("10.65.0.6", "-W0.2"), "an unused address of a block leads nowhere"
    assert "10.65.0.6" not in made.router.run("ip", "neigh"), "and not to the router"
    assert made.a1.loud() == []


def test_27_cross_subnet_tunnels_only_to_nodes_of_other_subnets(cluster: Makes) -> None:
    made = cluster(IpipMode.CROSS_SUBNET)
    assert made.has(CROSS_SUBNET), made.a1.space.routes()
    assert made.connected()


def test_27_when_the_nodes_mask_changes_routes_switch_in_place_without_a_restart(cluster: Makes) -> None:
    made = cluster(IpipMode.CROSS_SUBNET)
    assert made.has(CROSS_SUBNET)
    monitor = made.lab.monitor(made.a1)
    made.a1.tell(node("a1", "172.31.1.11/16"))
    assert made.has(OWN | {TO_A2.format("eth0"), TO_B1.format("eth0")})
    made.a1.tell(node("a1", "172.31.1.11/32"))
    assert made.has(TUNNELLED), "a node alone in its subnet has no neighbours"
    made.a1.tell(node("a1", "172.31.1.11/24"))
    assert made.has(CROSS_SUBNET)
    assert replaced(monitor, "10.65.1.0/26", "10.65.2.0/26")
    assert made.connected()


def test_28_while_the_uplink_is_unknown_routes_wait_and_say_why_and_come_with_it(cluster: Makes) -> None:
    made = cluster(IpipMode.CROSS_SUBNET)
    made.a1.stop()
    made.a1.space.ip("route flush proto 80", "addr del 172.31.1.11/24 dev eth0")
    made.a1.start()
    own = {"169.254.1.1 dev lo proto 80 scope link", *(OWN - {"default via 172.31.1.1 dev eth0"})}
    assert made.has(own), made.a1.space.routes()
    assert set(made.a1.agent.picture.desired.waiting.values()) == {
        "no interface has this node's address 172.31.1.11/24"
    }
    made.a1.space.ip("addr add 172.31.1.11/24 dev eth0", "route add default via 172.31.1.1")
    assert made.has(CROSS_SUBNET)
    assert made.connected()


def test_30_from_always_to_never_routes_move_in_place_and_the_tunnel_goes_last(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    assert made.has(TUNNELLED)
    monitor = made.lab.monitor(made.a1)
    made.tell(pool(mode=IpipMode.NEVER))
    assert made.has(OWN | {TO_A2.format("eth0"), BY_ROUTER}), made.a1.space.routes()
    assert "10.65.0.1" in made.a1.space.run("ip", "addr"), "others may still send through it"
    made.a1.pass_time(LINGER)
    assert made.a1.until(lambda: "10.65.0.1" not in made.a1.space.run("ip", "addr"))
    assert replaced(monitor, "10.65.1.0/26", "10.65.2.0/26")
    made.router.ip(*(f"route add {BLOCKS[name]} via {ADDRESSES[name]}" for name in BLOCKS))
    for each in made.nodes.values():
        each.settle()
    assert made.connected()


def test_31_the_tunnels_mtu_follows_the_uplinks(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    assert " mtu 1480 " in made.a1.space.run("ip", "link", "show", "tunl0")
    made.a1.space.ip("link set eth0 mtu 1400")
    assert made.a1.until(lambda: " mtu 1380 " in made.a1.space.run("ip", "link", "show", "tunl0"))
    assert made.a1.until(lambda: made.a1.agent.pod_mtu() == 1380)
    assert made.has(TUNNELLED)


def refused(each: RouteNode) -> int:
    """Return how many tunnel packets came from somebody who is no node: by filter and driver."""
    behind: int = each.space.do(each.device.counters).get("dropped_source_not_allowed", 0)
    return behind + dropped(each.space).get("tunnel-stranger", 0)


def test_32_a_node_that_is_gone_has_no_routes_and_its_tunnel_packets_are_dropped(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    assert made.connected()
    before = refused(made.a1)
    made.a1.forget("Node", "b1")
    made.a1.forget("BlockAffinity", "b1-10.65.2.0-26")
    made.a1.learn({BLOCKS["b1"]: None})
    assert made.has(TUNNELLED - {TO_B1.format("tunl0")})
    assert not made.pods["b1"].space.pings(PODS["a1"], "-W0.3")
    assert refused(made.a1) > before


def udp(source: str, destination: str, text: bytes) -> bytes:
    """Return an IP packet from and to port 4000; without a checksum of its own, which UDP allows."""
    size = 28 + len(text)
    head = struct.pack(
        ">BBHIBBH4s4s", 0x45, 0, size, 0, 64, 17, 0, IPv4Address(source).packed, IPv4Address(destination).packed
    )
    checked = head[:10] + header.checksum(head).to_bytes(2, "big") + head[12:]
    return checked + struct.pack(">HHHH", 4000, 4000, size - 20, 0) + text


def in_ipip(inner: bytes, source: str, destination: str) -> bytes:
    return header.encapsulate(inner, IPv4Address(source).packed, IPv4Address(destination).packed)


def forge(space: Space, packet: bytes, destination: str) -> None:
    """Send a packet just as it is, whatever it says of its source."""
    with space.do(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(packet, (destination, 0))


@contextmanager
def listening(pod: Pod) -> Iterator[Callable[[], bytes]]:
    """Open port 4000 of a pod; the function returns the next text that arrives."""
    with pod.space.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(SECONDS)
        server.bind((PODS["a1"], 4000))
        yield lambda: server.recv(99)


def test_33_a_tunnel_packet_from_whom_nobody_knows_is_dropped(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    inside = {word: udp("10.65.2.5", PODS["a1"], word) for word in (b"stranger", b"node")}
    with listening(made.pods["a1"]) as receive:
        made.a1.until(lambda: made.pods["b1"].space.pings(PODS["a1"]), SECONDS)
        before = refused(made.a1)
        forge(made.router, in_ipip(inside[b"stranger"], "172.31.1.1", ADDRESSES["a1"]), ADDRESSES["a1"])
        forge(made.spaces["b1"], in_ipip(inside[b"node"], ADDRESSES["b1"], ADDRESSES["a1"]), ADDRESSES["a1"])
        assert receive() == b"node", "and the stranger's, sent before, never came"
    assert refused(made.a1) == before + 1


def from_a_pod(made: Cluster, outer_source: str) -> bytes:
    """Send a tunnel packet from b1's pod to a1, then an honest one; return the text that arrives first."""
    target = ADDRESSES["a1"]
    with listening(made.pods["a1"]) as receive:
        assert made.a1.until(lambda: made.pods["b1"].space.pings(PODS["a1"]), SECONDS)
        forge(made.pods["b1"].space, in_ipip(udp("10.65.1.9", PODS["a1"], b"crafted"), outer_source, target), target)
        assert made.pods["b1"].space.pings(target), "whatever was sent before has been dealt with"
        forge(made.pods["b1"].space, udp(PODS["b1"], PODS["a1"], b"honest"), PODS["a1"])
        return receive()


def test_34_a_tunnel_packet_that_a_pod_made_is_never_opened(cluster: Makes) -> None:
    assert from_a_pod(cluster(IpipMode.ALWAYS), PODS["b1"]) == b"honest"


def test_34_a_tunnel_packet_that_a_pod_made_in_the_name_of_another_node_is_never_opened(cluster: Makes) -> None:
    assert from_a_pod(cluster(IpipMode.ALWAYS), ADDRESSES["a2"]) == b"honest"


def spoofed(made: Cluster) -> bytes:
    """Send from b1's pod to a1's in the name of another pod, then honestly; return the text that arrives first."""
    with listening(made.pods["a1"]) as receive:
        assert made.a1.until(lambda: made.pods["b1"].space.pings(PODS["a1"]), SECONDS)
        for source, text in (("10.65.1.9", b"spoofed"), (PODS["b1"], b"honest")):
            forge(made.pods["b1"].space, udp(source, PODS["a1"], text), PODS["a1"])
        return receive()


def test_35_a_pod_cannot_send_from_an_address_that_is_not_its_own(cluster: Makes) -> None:
    assert spoofed(cluster(IpipMode.ALWAYS)) == b"honest"


def test_35_nor_on_a_host_whose_reverse_path_filter_is_loose(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    # The larger one of all's and the interface's counts, but on an interface without an address loose is strict.
    made.spaces["b1"].parameter("ipv4/conf/all/rp_filter", "2")
    assert spoofed(made) == b"honest"


def test_36_an_address_borrowed_from_another_nodes_block_has_a_route_everywhere(cluster: Makes) -> None:
    made = cluster(IpipMode.CROSS_SUBNET)
    borrowed, address = "10.65.0.9/32", "10.65.0.9"  # of a1's block, on b1
    pod = made.lab.pod(made.nodes["b1"], "cali2", address)
    made.tell(pod.present("default/borrower", "b1"))
    made.announce({borrowed: "b1"})
    route = "10.65.0.9 via 172.31.2.11 dev tunl0 proto 80 onlink"
    for name in ("a1", "a2"):
        assert made.nodes[name].until(lambda name=name: route in made.spaces[name].routes()), name
        assert made.nodes[name].until(lambda name=name: made.pods[name].space.pings(address), SECONDS)
    made.announce({borrowed: "a2"})  # the pod has moved
    assert made.has(CROSS_SUBNET | {"10.65.0.9 via 172.31.1.12 dev eth0 proto 80 onlink"})


def test_37_tunnel_addresses_in_blocks_of_one_address_have_a_route_each_and_are_reached(cluster: Makes) -> None:
    tunnels = {"a1": "10.65.255.1", "a2": "10.65.255.2", "b1": "10.65.255.3"}
    made = cluster(IpipMode.ALWAYS, *(block(name, f"{address}/32") for name, address in tunnels.items()))
    for name, each in made.nodes.items():
        each.stop()
        each.settings = each.settings._replace(tunnel_address=tunnels[name])
        each.start()
    made.announce({f"{address}/32": name for name, address in tunnels.items()})
    expected = {f"{tunnels[name]} via {ADDRESSES[name]} dev tunl0 proto 80 onlink" for name in ("a2", "b1")}
    assert made.a1.until(lambda: expected <= made.a1.space.routes())
    assert made.a1.until(lambda: made.spaces["b1"].pings("10.65.255.1", "-I", "10.65.255.3"), SECONDS)
    assert not [route for route in made.a1.space.routes() if "blackhole" in route and "/32" in route]
    assert "local 10.65.255.1 dev lo" in made.a1.space.run("ip", "route", "get", "10.65.255.1")


def test_38_a_static_route_of_somebody_else_through_the_tunnel_is_never_removed(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    theirs = "192.0.2.0/24 dev tunl0 proto static scope link"
    made.a1.space.ip("route add 192.0.2.0/24 dev tunl0 proto static")
    made.a1.settle()
    made.a1.pass_time(61)
    made.a1.settle()
    made.a1.stop()
    made.a1.start()
    assert made.has(TUNNELLED | {theirs})


def test_38_what_bird_left_on_a_wanted_prefix_is_replaced_in_place(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    made.a1.stop()
    made.a1.space.ip("route flush proto 80")
    made.a1.space.ip("route add 10.65.1.0/26 via 172.31.1.12 dev tunl0 onlink proto bird")
    monitor = made.lab.monitor(made.a1)
    made.a1.start()
    assert made.has(TUNNELLED)
    assert [(seen.verb, seen.replaced) for seen in monitor.of("10.65.1.0/26")] == [("add", True)]


def test_38_what_bird_left_through_the_tunnel_on_an_unwanted_prefix_is_removed(cluster: Makes) -> None:
    made = cluster(IpipMode.ALWAYS)
    made.a1.space.ip("route add 10.65.9.0/26 via 172.31.1.19 dev tunl0 onlink proto bird")
    assert made.has(TUNNELLED)
