"""VXLAN devices as the kernel's thread keeps them: what is read when, made before routes, and undone after them."""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from builders import link
from fakes import FakeHost, FakeParameters, FakeTunnels

from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, KernelState, Link, Route, RouteKey
from felix_py.kernel.purge import NoPurger
from vxlan.tunnel import Vxlan

A, B = "66:00:00:00:00:0a", "66:00:00:00:00:0b"
NODE_A, NODE_B = IPv4Address("172.31.1.12"), IPv4Address("172.31.2.11")
BOTH = Vxlan(
    IPv4Address("172.31.1.11"),
    1450,
    4096,
    4789,
    "66:00:00:00:00:01",
    forwarding=frozenset({(A, NODE_A), (B, NODE_B)}),
    neighbours=frozenset({(A, NODE_A), (B, NODE_B)}),
)
ONLY_A = replace(BOTH, forwarding=frozenset({(A, NODE_A)}), neighbours=frozenset({(A, NODE_A)}))
TO_B = RouteKey(IPv4Network("10.65.2.0/26"))
THROUGH = Route(via=NODE_B, device=BOTH.name, onlink=True)


@dataclass
class FakeVxlan:
    """VXLAN devices in memory, each with a link on the fake host; notes what is asked of it beside the routes there."""

    host: FakeHost
    devices: dict[str, Vxlan] = field(default_factory=dict)
    told: bool = False
    refusal: str | None = None
    asked: list[tuple[str, bool]] = field(default_factory=list)

    def changed(self) -> bool:
        told, self.told = self.told, False
        return told

    def read(self, name: str) -> Vxlan | None:
        self.asked.append((f"read {name}", TO_B in self.host.routes))
        return self.devices.get(name)

    def put(self, wanted: Vxlan) -> None:
        self.asked.append((f"put {len(wanted.forwarding)}", TO_B in self.host.routes))
        if self.refusal is not None:
            raise KernelRefused(self.refusal)
        if wanted.name not in self.host.indexes:
            self.host.add_link(Link(wanted.name, 0, wanted.mtu, up=False, running=False))
            self.host.set_link(wanted.name, up=True)
        self.devices[wanted.name] = wanted

    def delete(self, name: str) -> None:
        self.asked.append(("delete", TO_B in self.host.routes))
        if self.devices.pop(name, None) is not None:
            self.host.delete_link(name)

    def heard(self) -> list[tuple[str, bool]]:
        """Return what was asked since this was called last, without the look for a device that is not ours now."""
        heard, self.asked = [each for each in self.asked if "v6" not in each[0]], []
        return heard


class Node:
    """A kernel's thread on a fake host."""

    def __init__(self) -> None:
        self.host = FakeHost(link("eth0", "172.31.1.11/24"))
        self.vxlan = FakeVxlan(self.host)
        parts = (self.host, FakeTunnels(self.host), KernelRefused, FakeParameters(self.host), NoPurger())
        self.kernel = Kernel(*parts, vxlan=self.vxlan)

    def make(self, tunnel: Vxlan | None, *, route: bool, now: float = 0.0) -> tuple[tuple[object, str], ...]:
        """Turn once with this wish; return what failed."""
        self.kernel.catch_up(now)
        if self.kernel.resync_cause:
            self.kernel.resync()
        routes = {TO_B: THROUGH} if route else {}
        tunnels = {tunnel.name: tunnel} if tunnel is not None else {}
        return self.kernel.make(KernelState(routes=routes, tunnels=tunnels), now).failed


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_device_comes_before_the_route_and_goes_after_it(node: Node) -> None:
    assert node.make(BOTH, route=True) == ()
    assert node.vxlan.heard() == [("read vxlan.calico", False), ("put 2", False)]
    assert node.host.routes[TO_B] == THROUGH
    node.make(BOTH, route=True)
    node.vxlan.heard()
    node.make(None, route=False)
    assert node.vxlan.heard() == [("delete", False)]


def test_a_node_that_goes_keeps_its_entries_until_its_route_is_gone(node: Node) -> None:
    node.make(BOTH, route=True)
    node.make(BOTH, route=True)
    node.vxlan.heard()
    node.make(ONLY_A, route=False)
    assert node.vxlan.heard() == [("read vxlan.calico", True), ("put 1", False)]


def test_nothing_is_read_while_nobody_changes_anything_and_all_of_it_when_somebody_does(node: Node) -> None:
    node.make(BOTH, route=True)
    node.make(BOTH, route=True)
    node.vxlan.heard()
    node.make(BOTH, route=True)
    assert node.vxlan.heard() == []
    node.vxlan.devices[BOTH.name] = ONLY_A
    node.vxlan.told = True
    node.make(BOTH, route=True)
    assert node.vxlan.heard() == [("read vxlan.calico", True), ("put 2", True)]
    assert node.vxlan.devices[BOTH.name] == BOTH


def test_a_device_that_is_deleted_is_made_again_with_its_route(node: Node) -> None:
    node.make(BOTH, route=True)
    node.vxlan.delete(BOTH.name)
    node.make(BOTH, route=True)
    assert node.vxlan.devices[BOTH.name] == BOTH
    assert node.host.routes[TO_B] == THROUGH


def test_a_refusal_is_told_and_tried_again_later(node: Node) -> None:
    node.vxlan.refusal = "no vxlan module"
    failed = node.make(BOTH, route=True)
    assert [why for _, why in failed] == ["no vxlan module"]
    node.vxlan.heard()
    node.make(BOTH, route=True, now=0.05)
    assert "put 2" not in dict(node.vxlan.heard()), "not at once"
    node.vxlan.refusal = None
    assert node.make(BOTH, route=True, now=1.0) == ()
    assert node.host.routes[TO_B] == THROUGH


def test_where_nothing_makes_vxlan_devices_it_is_said(node: Node) -> None:
    parts = (node.host, FakeTunnels(node.host), KernelRefused, FakeParameters(node.host), NoPurger())
    node.kernel = Kernel(*parts)
    assert [why for _, why in node.make(BOTH, route=False)] == [
        "nothing here makes VXLAN devices; give vxlanMode: Never"
    ]
