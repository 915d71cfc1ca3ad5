"""VXLAN between real nodes: what is sent how, what others change, what the datastore says; told by BGP and without."""

import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from builders import node, vxlan_pool
from route_node import lab
from vxlan_lab import ADDRESSES, ADDRESSES6, BLOCKS, BLOCKS6, PODS, PODS6, Racks

from felix_py import once
from felix_py.calc.transition import LINGER
from felix_py.config import Config
from felix_py.kernel.objects import DeleteTunnel, RouteKey
from felix_py.model import FelixConfiguration, Key, NodeName, VxlanMode
from felix_py.state import Event, Present
from vxlan.device import Device
from vxlan.tunnel import DEVICES, gateway, mac_of

pytestmark = pytest.mark.netns

Makes = Callable[..., Racks]

VXLAN, VXLAN6 = DEVICES[4], DEVICES[6]
POOL6 = "fd65::/48"


def pools(mode: VxlanMode) -> tuple[Event, ...]:
    return vxlan_pool(mode=mode), vxlan_pool(POOL6, mode, name="default-ipv6")


@pytest.fixture
def racks() -> Iterator[Makes]:
    with lab() as made:
        yield lambda *events, **options: Racks(made, *events, **options)


def onlooker(made: Racks) -> Device:
    """Return what reads and hears of a1's devices without the agent."""
    found = made.a1.space.do(Device)
    made.lab.callback(found.close)
    return found


def entries(made: Racks, name: str = "a1") -> set[str]:
    """Return the forwarding entries of a node's device as `bridge` prints them."""
    rows: list[dict[str, Any]] = json.loads(made.spaces[name].run("bridge", "-j", "fdb", "show", "dev", VXLAN))
    return {f"{row['mac']} {row['dst']} {row['state']}" for row in rows}


@pytest.mark.parametrize(("mode", "near"), [(VxlanMode.ALWAYS, VXLAN), (VxlanMode.CROSS_SUBNET, "eth0")])
@pytest.mark.parametrize("bgp", [True, False], ids=["told by BGP", "without BGP"])
def test_all_reach_all_by_both_versions_of_ip(racks: Makes, mode: VxlanMode, near: str, *, bgp: bool) -> None:
    made = racks(*pools(mode), bgp=bgp)
    assert made.has(BLOCKS["a2"], near)
    assert made.has(BLOCKS["b1"], VXLAN)
    assert made.has(BLOCKS6["a2"], near.replace(VXLAN, VXLAN6))
    assert made.has(BLOCKS6["b1"], VXLAN6)
    assert entries(made) == {f"{mac_of(name, 4)} {ADDRESSES[name]} permanent" for name in ("a2", "b1")}
    assert made.connected()
    assert made.a1.loud() == []


def test_packets_between_racks_are_in_vxlan_and_those_inside_one_are_not(racks: Makes) -> None:
    made = racks(*pools(VxlanMode.CROSS_SUBNET))
    assert made.connected()
    made.router.run("nft", "add table netdev seen")
    made.router.run("nft", "add chain netdev seen in { type filter hook ingress device rack1 priority 0 ; }")
    for expression in ("ip daddr 172.31.2.11 udp dport 4789", "ip6 daddr fd31:2::11 udp dport 4789"):
        made.router.run("nft", f"add rule netdev seen in {expression} counter")
    assert made.pods["a1"].space.pings(PODS["b1"])
    assert made.pods["a1"].space.pings(PODS6["b1"])
    listing = made.router.run("nft", "list table netdev seen")
    assert listing.count("packets 0 bytes") == 0, listing


@pytest.mark.parametrize(
    "change",
    [
        f"link del {VXLAN}",
        f"link set {VXLAN} down",
        f"neigh del {ADDRESSES['b1']} dev {VXLAN}",
        f"neigh replace {ADDRESSES['b1']} lladdr 02:00:00:00:00:01 dev {VXLAN} nud permanent",
        f"route del {BLOCKS['b1']}",
        f"addr del 10.65.0.1/32 dev {VXLAN}",
        f"neigh del {gateway(IPv6Address(ADDRESSES6['b1']), mac_of('b1', 6))} dev {VXLAN6}",
    ],
)
def test_what_others_change_is_back_at_once_and_told_by_an_event(racks: Makes, change: str) -> None:
    made = racks(*pools(VxlanMode.ALWAYS))
    assert made.has(BLOCKS["b1"], VXLAN)
    assert made.has(BLOCKS6["b1"], VXLAN6)
    made.a1.settle()
    looking = onlooker(made)
    wanted = {name: made.a1.space.do(looking.read, name) for name in (VXLAN, VXLAN6)}
    routes = made.a1.space.routes()
    made.a1.space.ip(change)
    assert made.a1.until(
        lambda: (
            {name: made.a1.space.do(looking.read, name) for name in wanted} == wanted
            and made.a1.space.routes() == routes
        )
    ), made.a1.space.routes()
    assert made.connected()


def test_a_restart_with_nothing_changed_writes_nothing(racks: Makes) -> None:
    made = racks(*pools(VxlanMode.CROSS_SUBNET))
    assert made.connected()
    made.a1.settle()
    made.a1.stop()
    monitor, said = made.lab.monitor(made.a1), len(made.a1.log)
    heard = onlooker(made)
    for name in (VXLAN, VXLAN6):
        made.a1.space.do(heard.read, name)
    made.a1.start()
    made.a1.settle()
    assert monitor.events() == []
    assert not made.a1.space.do(heard.changed), "neither device, neighbours nor entries were touched"
    assert [event for event in made.a1.log[said:] if event["event"] in ("tunnel.put", "route.put")] == []


def test_cleanup_removes_the_devices_and_leaves_the_uplink(racks: Makes, tmp_path: Path) -> None:
    made = racks(*pools(VxlanMode.ALWAYS))
    assert made.has(BLOCKS["b1"], VXLAN)
    made.a1.stop()
    settings = Config(NodeName("a1"), run_directory=tmp_path, state_directory=tmp_path)
    done, refused = made.a1.space.do(once.clean_up, settings)
    assert refused == []
    assert {step.name for step in done if isinstance(step, DeleteTunnel)} == {VXLAN, VXLAN6}
    shown = made.a1.space.run("ip", "-br", "link")
    assert "vxlan" not in shown
    assert "eth0" in shown


def test_a_node_that_goes_takes_route_neighbour_and_entry_along_and_one_that_moves_is_followed(racks: Makes) -> None:
    made = racks(*pools(VxlanMode.ALWAYS), bgp=False)
    assert made.has(BLOCKS["b1"], VXLAN)
    made.a1.tell(node("b1", "172.31.2.77/24", f"{ADDRESSES6['b1']}/64"))
    assert made.a1.until(lambda: f"{mac_of('b1', 4)} 172.31.2.77 permanent" in entries(made))
    assert made.a1.until(lambda: f"via 172.31.2.77 dev {VXLAN}" in made.a1.space.run("ip", "route"))
    made.a1.forget("Node", "b1")
    assert made.a1.until(lambda: entries(made) == {f"{mac_of('a2', 4)} {ADDRESSES['a2']} permanent"})
    assert "172.31.2" not in made.a1.space.run("ip", "neigh", "show", "dev", VXLAN)
    assert made.a1.until(lambda: BLOCKS["b1"] not in made.a1.space.run("ip", "route"))
    waiting = {str(key): why for key, why in made.a1.agent.picture.desired.waiting.items()}
    assert waiting[BLOCKS["b1"]] == "Node b1 is not known, or has no IPv4 address"


def test_other_identifier_port_and_mtu_are_taken_live(racks: Makes) -> None:
    made = racks(*pools(VxlanMode.ALWAYS))
    felix = FelixConfiguration("default", vxlan_vni=77, vxlan_port=8472, vxlan_mtu=1300, vxlan_mtu6=1290)
    made.tell(Present(Key("FelixConfiguration", "default"), felix))

    def shown() -> str:
        return made.a1.space.run("ip", "-d", "link", "show", VXLAN)

    assert made.a1.until(lambda: "vxlan id 77 " in shown() and "dstport 8472" in shown() and "mtu 1300" in shown())
    assert "mtu 1290" in made.a1.space.run("ip", "link", "show", VXLAN6)
    assert "udp dport 8472" in made.a1.space.run("nft", "list", "table", "inet", "felix")
    assert made.connected()


def test_a_device_that_no_pool_needs_goes_after_a_while_and_its_rules_after_it(racks: Makes) -> None:
    made = racks(*pools(VxlanMode.ALWAYS))
    assert made.has(BLOCKS["b1"], VXLAN)
    made.tell(*pools(VxlanMode.NEVER))
    assert made.has(BLOCKS["b1"], "eth0")

    def guarded() -> bool:
        return "udp dport 4789 jump" in made.a1.space.run("nft", "list", "table", "inet", "felix")

    assert VXLAN in made.a1.space.run("ip", "link"), "others may still send through it"
    made.a1.pass_time(LINGER)
    assert made.a1.until(lambda: "vxlan" not in made.a1.space.run("ip", "link"))
    assert guarded(), "the rules outlive the device"
    made.a1.pass_time(1.0)
    assert made.a1.until(lambda: not guarded())


def test_the_datastore_goes_before_bgp_where_it_programs_routes(racks: Makes) -> None:
    made = racks(*pools(VxlanMode.ALWAYS))

    def to_b1() -> str:
        return made.a1.space.run("ip", "route", "show", BLOCKS["b1"])

    made.a1.learn({BLOCKS["b1"]: ADDRESSES["a2"]})
    assert made.a1.until(lambda: f"via {ADDRESSES['a2']} dev {VXLAN}" in to_b1())
    felix = FelixConfiguration("default", program_cluster_routes=True)
    made.a1.tell(Present(Key("FelixConfiguration", "default"), felix))
    assert made.a1.until(lambda: f"via {ADDRESSES['b1']} dev {VXLAN}" in to_b1())
    wish = made.a1.agent.picture.desired
    key = RouteKey(IPv4Network(BLOCKS["b1"]))
    assert (wish.chosen[key].origin, [each.rule for each in wish.lost[key]]) == ("block b1", ["rank"])
