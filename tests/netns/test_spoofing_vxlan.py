"""The packet filter's rules for VXLAN against crafted packets on the real kernel: who may send through it, who not."""

import struct
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from builders import block, node, vxlan_pool
from crafted import dropped, ip, send, udp
from guarded import NEIGHBOUR, OTHER, ROUTER, WEB, WEB6, Guarded
from route_node import lab

from felix_py.model import FelixConfiguration, Key, VxlanMode
from felix_py.state import Event, InSync, Present
from vxlan.tunnel import mac_of

pytestmark = pytest.mark.netns

HERE, HERE6 = "172.31.1.11", "fd31:1::11"
ROUTER6, NEIGHBOUR6 = "fd31:1::1", "fd31:1::12"
VNI, PORT = 4096, 4789

CLUSTER: tuple[Event, ...] = (
    node("a1", f"{HERE}/24", f"{HERE6}/64"),
    node("a2", f"{NEIGHBOUR}/24", f"{NEIGHBOUR6}/64"),
    vxlan_pool(mode=VxlanMode.ALWAYS),
    vxlan_pool("fd65::/48", VxlanMode.ALWAYS, name="default-ipv6"),
    block("a1", "10.65.0.0/26"),
    block("a1", "fd65::/122"),
    InSync(),
)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with lab() as made:
        found = Guarded(made, *CLUSTER)
        found.router.ip(f"addr add {NEIGHBOUR}/24 dev rack1", f"addr add {NEIGHBOUR6}/64 dev rack1 nodad")
        yield found


def wrapped(outer: str, inner: bytes, *, vni: int = VNI, port: int = PORT) -> bytes:
    """Make a VXLAN packet from an address to this node (RFC 7348 section 5)."""
    version = 6 if ":" in outer else 4
    kind = {4: 0x0800, 6: 0x86DD}[version]
    frame = bytes.fromhex((mac_of("a1", version) + mac_of("a2", version)).replace(":", "")) + struct.pack(">H", kind)
    header = struct.pack(">II", 0x08 << 24, vni << 8)
    return udp(outer, HERE if version == 4 else HERE6, header + frame + inner, port)


@pytest.mark.parametrize(
    ("stranger", "known", "source", "target"),
    [(ROUTER, NEIGHBOUR, "10.65.1.5", WEB), (ROUTER6, NEIGHBOUR6, "fd65::1:5", WEB6)],
    ids=["IPv4", "IPv6"],
)
def test_only_nodes_send_through_vxlan(guarded: Guarded, stranger: str, known: str, source: str, target: str) -> None:
    arrives = guarded.listener(guarded.web.space, 6 if ":" in target else 4)
    send(guarded.router, wrapped(stranger, udp(source, target, b"a stranger's")))
    send(guarded.router, wrapped(known, udp(source, target, b"of another network"), vni=9))
    send(guarded.router, wrapped(known, udp(source, target, b"a node's")))
    assert arrives.next() == (b"a node's", source)
    assert dropped(guarded.host) == {"tunnel-stranger": 1}


def test_a_node_that_is_gone_is_a_stranger_and_a_named_outsider_is_none(guarded: Guarded) -> None:
    def known() -> str:
        return guarded.host.run("nft", "list", "set", "inet", "felix", "nodes")

    outsider = FelixConfiguration("default", external_nodes=(ip_network(f"{ROUTER}/32"),))
    guarded.node.forget("Node", "a2")
    guarded.node.tell(Present(Key("FelixConfiguration", "default"), outsider))
    assert guarded.node.until(lambda: NEIGHBOUR not in known())
    guarded.node.settle()
    arrives = guarded.listener(guarded.web.space)
    send(guarded.router, wrapped(NEIGHBOUR, udp("10.65.1.5", WEB, b"a stranger's by now")))
    send(guarded.router, wrapped(ROUTER, udp("10.65.1.5", WEB, b"an outsider's")))
    assert arrives.next() == (b"an outsider's", "10.65.1.5")
    assert dropped(guarded.host) == {"tunnel-stranger": 1}


def test_a_pod_cannot_send_vxlan_at_the_port_that_is_set(guarded: Guarded) -> None:
    guarded.node.tell(Present(Key("FelixConfiguration", "default"), FelixConfiguration("default", vxlan_port=8472)))
    rules = guarded.host.run("nft", "list", "table", "inet", "felix")
    assert guarded.node.until(lambda: "udp dport 8472" in guarded.host.run("nft", "list", "table", "inet", "felix")), (
        rules
    )
    guarded.node.settle()
    arrives, vxlan = guarded.listener(guarded.router), guarded.listener(guarded.router, port=8472)
    for port in (4789, 8472):
        send(guarded.web.space, udp(WEB, ROUTER, b"hidden", port=port))
    send(guarded.web.space, udp(WEB, ROUTER, b"plain"))
    assert arrives.next() == (b"plain", WEB)
    assert dropped(guarded.host) == {"pod-encapsulated": 2}
    send(guarded.router, udp("127.0.0.1", "127.0.0.1", b"own", port=8472))
    assert vxlan.next() == (b"own", "127.0.0.1"), "nothing was in the queue before"


def test_rules_hold_without_an_agent_and_whatever_is_inside(guarded: Guarded) -> None:
    guarded.node.stop()
    arrives = guarded.listener(guarded.router)
    send(guarded.web.space, udp(OTHER, ROUTER, b"stolen"))
    send(guarded.router, wrapped(ROUTER, udp("10.65.1.5", WEB, b"a stranger's")))
    send(guarded.router, wrapped(ROUTER, ip("10.65.1.5", WEB, 4, b"anything")))
    send(guarded.web.space, udp(WEB, ROUTER, b"own"))
    assert arrives.next() == (b"own", WEB)
    assert dropped(guarded.host) == {"pod-spoofed": 1, "tunnel-stranger": 2}
