"""A node with two pods and a router on its wire that can be anybody, for tests of what may be sent and by whom."""

from typing import Literal

from builders import pod
from crafted import PORT, Listener
from route_node import Lab, RouteNode
from spaces import Pod, Space

from felix_py.state import Event
from ipip.tunnel import Asked

ROUTER, NEIGHBOUR = "172.31.1.1", "172.31.1.12"
WEB, OTHER = "10.65.0.2", "10.65.0.3"
WEB6 = "fd65::2"


class Guarded:
    """A node with the pods `web` and `other`, and the router on its wire, which can be anybody."""

    def __init__(
        self, made: Lab, *events: Event, driver: Asked = "auto", guard: Literal["ebpf", "nftables"] = "ebpf"
    ) -> None:
        self.lab = made
        self.driver = driver
        self.host, self.router = made.space(), made.space()
        self.host.ip(
            f"link add eth0 type veth peer name rack1 netns {self.router.path}",
            "addr add 172.31.1.11/24 dev eth0",
            "addr add fd31:1::11/64 dev eth0 nodad",
            "link set eth0 up",
        )
        self.router.ip(
            f"addr add {ROUTER}/24 dev rack1",
            "addr add fd31:1::1/64 dev rack1 nodad",
            "link set rack1 up",
            "route add 10.65.0.0/16 via 172.31.1.11",
            "route add fd65::/48 via fd31:1::11",
        )
        self.host.ip("route add default via 172.31.1.1")
        self.host.parameter("ipv6/conf/all/forwarding", "1")
        self.web = made.pod(self.host, "cali1", WEB, WEB6)
        self.other = self.quiet("cali2", OTHER)
        self._gateway6(self.web)
        self.node: RouteNode = made.node(
            *events,
            pod("default/web", "a1", "cali1", f"{WEB}/32", f"{WEB6}/128"),
            pod("default/other", "a1", "cali2", f"{OTHER}/32"),
            space=self.host,
            driver=driver,
            guard=guard,
        )
        assert self.node.until(lambda: f"{WEB} dev cali1 proto 80 scope link" in self.host.routes())

    def _gateway6(self, web: Pod) -> None:
        self.host.ip("addr add fe80::1/64 dev cali1 nodad")
        web.space.ip("route add default via fe80::1 dev eth0")

    def quiet(self, interface: str, address: str) -> Pod:
        """Make a pod that sends nothing by itself, and asks nobody where its gateway is."""
        made = self.lab.pod(self.host, interface, ipv6=False)
        made.space.ip(
            f"addr add {address}/32 dev eth0",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0",
            "neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0",
        )
        return made

    def listener(self, space: Space, version: int = 4, port: int = PORT) -> Listener:
        made = Listener(space, version, port)
        self.lab.callback(made.close)
        return made
