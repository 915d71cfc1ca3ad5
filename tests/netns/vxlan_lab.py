"""Two racks of nodes with both versions of IP, told what a datastore would: a1 and a2 share a subnet, b1 does not."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any

from builders import block, node
from route_node import Lab, RouteNode
from spaces import SECONDS, Pod, Space

from felix_py.model import Key, NodeName, WorkloadEndpoint
from felix_py.state import Event, InSync, Present

ADDRESSES = {"a1": "172.31.1.11", "a2": "172.31.1.12", "b1": "172.31.2.11"}
ADDRESSES6 = {"a1": "fd31:1::11", "a2": "fd31:1::12", "b1": "fd31:2::11"}
BLOCKS = {"a1": "10.65.0.0/26", "a2": "10.65.1.0/26", "b1": "10.65.2.0/26"}
BLOCKS6 = {"a1": "fd65::/122", "a2": "fd65::1:0/122", "b1": "fd65::2:0/122"}
PODS = {"a1": "10.65.0.5", "a2": "10.65.1.5", "b1": "10.65.2.5"}
PODS6 = {"a1": "fd65::5", "a2": "fd65::1:5", "b1": "fd65::2:5"}

POD_GATEWAY = "fe80::ecee:eeff:feee:eeee"
PORT = 7000


class Racks:
    """The nodes, their pods, and the router with a bridge for each rack; `names` says which nodes there are."""

    def __init__(self, made: Lab, *events: Event, names: Iterable[str] = ADDRESSES, **settings: Any) -> None:
        self.lab = made
        self.names = tuple(names)
        self.router = made.space()
        self.router.ip(
            *(f"link add rack{rack} type bridge forward_delay 0" for rack in (1, 2)),
            *(f"addr add 172.31.{rack}.1/24 dev rack{rack}" for rack in (1, 2)),
            *(f"addr add fd31:{rack}::1/64 dev rack{rack} nodad" for rack in (1, 2)),
            *(f"link set rack{rack} up" for rack in (1, 2)),
        )
        self.router.parameter("ipv4/ip_forward", "1")
        self.router.parameter("ipv6/conf/all/forwarding", "1")
        self.spaces = {name: self.plugged(name) for name in self.names}
        self.pods = {name: self._pod(name) for name in self.names}
        self.nodes = {
            name: made.node(space=space, name=name, start=False, **settings) for name, space in self.spaces.items()
        }
        known = (
            *(node(name, f"{ADDRESSES[name]}/24", f"{ADDRESSES6[name]}/64") for name in ADDRESSES),
            *(block(name, blocks[name]) for name in ADDRESSES for blocks in (BLOCKS, BLOCKS6)),
            *map(self._present, self.names),
            *events,
            InSync(),
        )
        for each in self.nodes.values():
            each.start(*known)
        if settings.get("bgp", True):
            self.announce()
        for each in self.nodes.values():
            each.settle()

    def plugged(self, name: str) -> Space:
        """Make a machine with the addresses of this node, plugged into its rack."""
        space, rack = self.lab.space(), ADDRESSES[name].split(".")[2]
        space.ip(
            f"link add eth0 type veth peer name port-{name} netns {self.router.path}",
            f"addr add {ADDRESSES[name]}/24 dev eth0",
            f"addr add {ADDRESSES6[name]}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via 172.31.{rack}.1",
            f"route add default via fd31:{rack}::1",
        )
        self.router.ip(f"link set port-{name} master rack{rack} up")
        return space

    def _pod(self, name: str) -> Pod:
        made = self.lab.pod(self.spaces[name], "cali1", PODS[name], PODS6[name])
        made.space.ip(f"route add default via {POD_GATEWAY} dev eth0")
        return made

    @staticmethod
    def _present(name: str) -> Present:
        networks = (ip_network(f"{PODS[name]}/32"), ip_network(f"{PODS6[name]}/128"))
        endpoint = WorkloadEndpoint(f"default/{name}", NodeName(name), "cali1", networks)
        return Present(Key("WorkloadEndpoint", endpoint.name), endpoint)

    @property
    def a1(self) -> RouteNode:
        return self.nodes["a1"]

    def announce(self) -> None:
        """Let each node learn the blocks of the others, as a mesh would tell them."""
        for name, each in self.nodes.items():
            each.learn({BLOCKS[of]: ADDRESSES[of] for of in ADDRESSES if of != name})
            each.learn({BLOCKS6[of]: ADDRESSES6[of] for of in ADDRESSES if of != name})

    def tell(self, *events: Event) -> None:
        """Tell one node after the other; each has made of it what it could before the next one hears of it."""
        for each in self.nodes.values():
            each.tell(*events)
            each.settle()

    def has(self, prefix: str, device: str, seconds: float = SECONDS) -> bool:
        """Say whether a1 comes to have a route of ours to a prefix out of a device."""
        family = ip_network(prefix).version
        return self.a1.until(
            lambda: f" dev {device} " in self.a1.space.run("ip", f"-{family}", "route", "show", prefix, "proto", "80"),
            seconds,
        )

    def connected(self, *, families: Iterable[dict[str, str]] = (PODS, PODS6)) -> bool:
        """Say whether every pod reaches every other, and every node every pod of others."""
        ways = [
            (place, addresses[of])
            for addresses in families
            for of in self.names
            for name in self.names
            if name != of
            for place in (self.pods[name].space, self.spaces[name])
        ]
        return all(self.a1.until(lambda way=way: way[0].pings(way[1]), SECONDS) for way in ways)


class Stream:
    """Numbered datagrams from one pod to another, one each millisecond or so, until it is stopped."""

    def __init__(self, source: Space, target: Space, address: str) -> None:
        family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
        self._from, self._at = (space.do(socket.socket, family, socket.SOCK_DGRAM) for space in (source, target))
        self._at.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        self._at.bind((address, PORT))
        self._from.connect((address, PORT))
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.001):
            self._from.send(self.sent.to_bytes(4, "big"))
            self.sent += 1

    def lost(self) -> set[int]:
        """Stop, and return the numbers of those that did not arrive."""
        self._stop.set()
        self._thread.join(SECONDS)
        self._at.settimeout(1.0)
        missing = set(range(self.sent))
        while missing:
            try:
                missing.discard(int.from_bytes(self._at.recv(64), "big"))
            except TimeoutError:
                break
        return missing

    def close(self) -> None:
        self._stop.set()
        self._thread.join(SECONDS)
        self._from.close()
        self._at.close()


@contextmanager
def streams(racks: Racks, one: str, other: str) -> Iterator[list[Stream]]:
    """Send both ways between the pods of two nodes, by both versions of IP."""
    made = []
    try:
        for addresses in (PODS, PODS6):
            for source, target in ((one, other), (other, one)):
                spaces = racks.pods[source].space, racks.pods[target].space
                made.append(Stream(*spaces, addresses[target]))
        yield made
    finally:
        for each in made:
            each.close()
