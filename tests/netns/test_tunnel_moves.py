"""Routes that move between tunnels and none under traffic: pools, masks and uplinks change, and no packet is lost."""

from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest
from builders import block, node, pool, vxlan_pool
from route_node import lab
from spaces import SECONDS
from vxlan_lab import ADDRESSES, ADDRESSES6, BLOCKS, BLOCKS6, Racks, streams

from felix_py.model import IpipMode, VxlanMode
from felix_py.state import Event
from vxlan.tunnel import DEVICES

pytestmark = pytest.mark.netns

Makes = Callable[..., Racks]

VXLAN, VXLAN6 = DEVICES[4], DEVICES[6]
POOL6 = "fd65::/48"
MANY = tuple(str(each) for each in ip_network("10.65.128.0/17").subnets(new_prefix=26))[:500]

ON_THEIR_WAY = 5
"""Packets of a thousand a second that a change of the driver may cost: those in the queues of what goes."""

AT_THE_UPLINK = 1
"""The same, of what takes no tunnel: the kernel stops an interface for as long as it hangs `clsact` there, or takes it
away (net/sched/sch_api.c, qdisc_graft)."""

TIMES = 2


def vxlan(mode: VxlanMode) -> tuple[Event, ...]:
    return vxlan_pool(mode=mode), vxlan_pool(POOL6, mode, name="default-ipv6")


def ipip(mode: IpipMode) -> tuple[Event, ...]:
    return pool(mode=mode), vxlan_pool(POOL6, VxlanMode.NEVER, name="default-ipv6")


@pytest.fixture
def racks() -> Iterator[Makes]:
    with lab() as made:
        yield lambda *events, **options: Racks(made, *events, **options)


@pytest.mark.parametrize("bgp", [True, False], ids=["told by BGP", "without BGP"])
def test_a_pools_mode_changes_under_traffic_without_a_lost_packet(racks: Makes, *, bgp: bool) -> None:
    made = racks(*ipip(IpipMode.ALWAYS), names=("a1", "b1"), bgp=bgp)
    made.router.ip(
        *(f"route add {BLOCKS[name]} via {ADDRESSES[name]}" for name in made.names),
        *(f"route add {BLOCKS6[name]} via {ADDRESSES6[name]}" for name in made.names),
    )
    assert made.connected()
    steps = (
        (ipip(IpipMode.NEVER), "eth0", "eth0"),
        (vxlan(VxlanMode.ALWAYS), VXLAN, VXLAN6),
        (vxlan(VxlanMode.NEVER), "eth0", "eth0"),
        (ipip(IpipMode.ALWAYS), "tunl0", "eth0"),
        (vxlan(VxlanMode.ALWAYS), VXLAN, VXLAN6),
        (ipip(IpipMode.CROSS_SUBNET), "tunl0", "eth0"),
    )
    with streams(made, "a1", "b1") as sent:
        for events, device, device6 in steps:
            made.tell(*events)
            assert made.has(BLOCKS["b1"], device)
            assert made.has(BLOCKS6["b1"], device6)
            for each in made.nodes.values():
                each.settle()
        lost = [each.lost() for each in sent]
    assert min(each.sent for each in sent) > 300
    assert lost == [set(), set(), set(), set()]


def test_another_mask_moves_routes_in_place(racks: Makes) -> None:
    made = racks(*vxlan(VxlanMode.CROSS_SUBNET))
    assert made.has(BLOCKS["a2"], "eth0")
    assert made.connected()
    monitor = made.lab.monitor(made.a1)
    with streams(made, "a1", "a2") as sent:
        for mask, mask6, device in ((32, 128, VXLAN), (24, 64, "eth0")):
            made.a1.tell(node("a1", f"172.31.1.11/{mask}", f"fd31:1::11/{mask6}"))
            assert made.has(BLOCKS["a2"], device)
            assert made.has(BLOCKS6["a2"], device.replace(VXLAN, VXLAN6))
        lost = [each.lost() for each in sent]
    assert lost == [set(), set(), set(), set()]
    seen = monitor.events()
    assert {each.key for each in seen} == {BLOCKS["a2"], BLOCKS6["a2"]}
    assert all(each.verb == "add" and each.replaced for each in seen)


@pytest.mark.parametrize(
    ("events", "device"),
    [(vxlan(VxlanMode.CROSS_SUBNET), VXLAN), (ipip(IpipMode.CROSS_SUBNET), "tunl0")],
    ids=["VXLAN", "IPIP"],
)
def test_five_hundred_blocks_move_into_the_tunnel_and_back_under_traffic(
    racks: Makes, events: tuple[Event, ...], device: str
) -> None:
    made = racks(*events, *(block("a2", cidr) for cidr in MANY), names=("a1", "a2"), bgp=False)

    def there(to: str) -> int:
        shown = made.a1.space.run("ip", "route", "show", "proto", "80", "dev", to)
        return sum(f"{cidr} " in shown for cidr in MANY)

    assert made.connected()
    with streams(made, "a1", "a2") as sent:
        for mask, to in ((32, device), (24, "eth0"), (32, device), (24, "eth0")):
            made.a1.tell(node("a1", f"172.31.1.11/{mask}", "fd31:1::11/64"))
            assert made.a1.until(lambda to=to: there(to) == len(MANY), SECONDS)
        lost = [each.lost() for each in sent]
    assert lost == [set(), set(), set(), set()]


@pytest.mark.alone
def test_an_agent_with_another_driver_takes_five_hundred_routes_over_under_traffic(racks: Makes) -> None:
    blocks = (block("b1", cidr) for cidr in MANY)
    made = racks(*ipip(IpipMode.ALWAYS), *blocks, names=("a1", "b1"), bgp=False, driver="ebpf")
    made.router.ip(*(f"route add {BLOCKS6[name]} via {ADDRESSES6[name]}" for name in made.names))
    assert made.connected()
    for driver in ("tun", "ebpf") * TIMES:
        with streams(made, "a1", "b1") as sent:
            made.a1.stop()
            made.a1.settings = made.a1.settings._replace(driver=driver)
            made.a1.start()
            assert made.a1.device.driver == driver
            made.a1.settle()
            lost = [each.lost() for each in sent]
        assert max(map(len, lost[2:])) <= AT_THE_UPLINK, "what takes no tunnel"
        assert max(map(len, lost)) <= ON_THEIR_WAY
        shown = made.a1.space.run("ip", "route", "show", "proto", "80", "dev", "tunl0")
        assert sum(f"{cidr} " in shown for cidr in MANY) == len(MANY)
        assert "tunl0-sub" not in made.a1.space.run("ip", "link", "show")
    assert made.a1.loud() == []


def test_another_uplink_takes_all_routes_along(racks: Makes) -> None:
    made = racks(*vxlan(VxlanMode.CROSS_SUBNET), names=("a1", "a2"))
    assert made.connected()
    a1 = made.spaces["a1"]
    a1.ip(f"link add eth1 type veth peer name port-a1b netns {made.router.path}", "link set eth1 up")
    made.router.ip("link set port-a1b master rack1 up")
    a1.ip(
        "addr add 172.31.1.11/24 dev eth1",
        "addr add fd31:1::11/64 dev eth1 nodad",
        "addr del 172.31.1.11/24 dev eth0",
        "addr del fd31:1::11/64 dev eth0",
        "route add default via 172.31.1.1",
        "route replace default via fd31:1::1 dev eth1",
    )
    assert made.has(BLOCKS["a2"], "eth1")
    assert made.has(BLOCKS6["a2"], "eth1")
    assert made.has(BLOCKS["b1"], VXLAN)
    assert made.connected()
