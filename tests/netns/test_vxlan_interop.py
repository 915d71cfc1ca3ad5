"""Our VXLAN with an end that `ip` and `bridge` have made: the wire format and the way back, by a stranger's hand."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from builders import node, vxlan_pool
from route_node import lab
from spaces import Space
from vxlan_lab import ADDRESSES, ADDRESSES6, BLOCKS, BLOCKS6, PODS, PODS6, Racks

from felix_py.model import Node, VxlanMode
from felix_py.state import Present
from vxlan.tunnel import link_local, mac_of

pytestmark = pytest.mark.netns

MAC, MAC6 = "02:00:5e:00:00:04", "02:00:5e:00:00:06"
"""What the stranger gave its devices, and wrote down in its Node."""

LARGEST, LARGEST6 = 1450 - 28, 1430 - 48
"""Bytes of payload in the largest ping that fits, IPv4 and IPv6 over an uplink of 1500."""


def written_down() -> Present:
    known = node("b1", f"{ADDRESSES['b1']}/24", f"{ADDRESSES6['b1']}/64")
    assert isinstance(known.value, Node)
    return Present(known.key, replace(known.value, vxlan_mac=MAC, vxlan_mac6=MAC6))


@pytest.fixture
def ends() -> Iterator[tuple[Racks, Space]]:
    with lab() as made:
        pools = vxlan_pool(mode=VxlanMode.ALWAYS), vxlan_pool("fd65::/48", VxlanMode.ALWAYS, name="default-ipv6")
        racks = Racks(made, *pools, written_down(), names=("a1",), bgp=False)
        stranger = racks.plugged("b1")
        ours, ours6 = mac_of("a1", 4), mac_of("a1", 6)
        stranger.ip(
            "link add vx4 type vxlan id 4096 dstport 4789 local 172.31.2.11 nolearning",
            "link add vx6 type vxlan id 4096 dstport 4789 local fd31:2::11 nolearning",
            f"link set vx4 address {MAC} mtu 1450 up",
            f"link set vx6 address {MAC6} mtu 1430 up",
            f"addr add {PODS['b1']}/32 dev lo",
            f"addr add {PODS6['b1']}/128 dev lo nodad",
            f"neigh add 10.65.0.1 lladdr {ours} dev vx4 nud permanent",
            f"neigh add {link_local(ours6)} lladdr {ours6} dev vx6 nud permanent",
            f"route add {BLOCKS['a1']} via 10.65.0.1 dev vx4 onlink src {PODS['b1']}",
            f"route add {BLOCKS6['a1']} via {link_local(ours6)} dev vx6 src {PODS6['b1']}",
        )
        stranger.run("bridge", "fdb", "add", ours, "dev", "vx4", "dst", ADDRESSES["a1"], "self", "permanent")
        stranger.run("bridge", "fdb", "add", ours6, "dev", "vx6", "dst", ADDRESSES6["a1"], "self", "permanent")
        yield racks, stranger


def test_a_hand_made_end_is_understood_both_ways_up_to_the_largest_packet(ends: tuple[Racks, Space]) -> None:
    racks, stranger = ends
    pod = racks.pods["a1"].space
    assert racks.has(BLOCKS["b1"], "vxlan.calico")
    assert racks.has(BLOCKS6["b1"], "vxlan-v6.calico")
    for address, largest in ((PODS["b1"], LARGEST), (PODS6["b1"], LARGEST6)):
        assert racks.a1.until(lambda to=address: pod.pings(to), 5.0)
        assert pod.pings(address, "-Mdo", f"-s{largest}")
    assert stranger.pings(PODS["a1"])
    assert stranger.pings(PODS6["a1"])


@pytest.mark.parametrize(("address", "largest"), [(PODS["b1"], LARGEST), (PODS6["b1"], LARGEST6)], ids=["IPv4", "IPv6"])
def test_a_packet_that_does_not_fit_is_answered_with_the_mtu(
    ends: tuple[Racks, Space], address: str, largest: int
) -> None:
    racks, _ = ends
    pod = racks.pods["a1"].space
    assert racks.a1.until(lambda: pod.pings(address), 5.0)
    words = ["ping", "-n", "-c2", "-i0.2", "-W1", "-Mdo", f"-s{largest + 1}", address]
    said = pod.do(subprocess.run, words, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert f"mtu={1430 if ':' in address else 1450}" in said.stdout + said.stderr or "too long" in said.stderr
