"""Each rule of the packet filter against crafted packets on the real kernel: what passes, what is dropped."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from builders import block, node, pod, pool
from crafted import IPIP, dropped, ip, send, udp
from guarded import NEIGHBOUR, OTHER, ROUTER, WEB, WEB6, Guarded
from route_node import CLUSTER, lab

from felix_py.kernel import filter_counters
from felix_py.model import FelixConfiguration, IpipMode, IPPool, Key
from felix_py.state import Event, InSync, Present

pytestmark = pytest.mark.netns


@pytest.fixture(params=["ebpf", "nftables"])
def plain(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """A node without a tunnel, its pods guarded by programs and by the table."""
    with lab() as made:
        yield Guarded(made, *CLUSTER, guard=request.param)


TUNNELLED: tuple[Event, ...] = (
    node("a1", "172.31.1.11/24"),
    node("a2", f"{NEIGHBOUR}/24"),
    pool(mode=IpipMode.ALWAYS),
    block("a1", "10.65.0.0/26"),
    InSync(),
)


@pytest.fixture(params=[("tun", "ebpf"), ("ebpf", "ebpf"), ("tun", "nftables")], ids="-".join)
def tunnelled(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """A node with a tunnel: of `tun` its packets pass the packet filter, `ebpf` takes them before it could see them."""
    with lab() as made:
        driver, guard = request.param
        yield Guarded(made, *TUNNELLED, driver=driver, guard=guard)


def stopped(guarded: Guarded) -> dict[str, int]:
    """Return what was dropped, by the packet filter or by the tunnel driver itself."""
    found = dict(dropped(guarded.host))
    if guarded.driver == "ebpf":
        assert "tunnel-stranger" not in found, "nothing is left for the packet filter to drop"
        found["tunnel-stranger"] = guarded.host.do(guarded.node.device.counters)["dropped_source_not_allowed"]
    return found


@pytest.mark.parametrize(
    ("own", "stolen", "target"),
    [(WEB, OTHER, ROUTER), (WEB, "172.31.1.11", ROUTER), (WEB, "8.8.8.8", ROUTER), (WEB6, "fd65::3", "fd31:1::1")],
    ids=["another pod's", "the node's", "anybody's", "another pod's, IPv6"],
)
def test_a_pod_sends_from_its_own_address_and_from_no_other(plain: Guarded, own: str, stolen: str, target: str) -> None:
    arrives = plain.listener(plain.router, 6 if ":" in own else 4)
    send(plain.web.space, udp(stolen, target, b"stolen"))
    send(plain.web.space, udp(own, target, b"own"))
    assert arrives.next() == (b"own", own), "the first packet was stopped, or the second would not be the first"
    assert dropped(plain.host)["pod-spoofed"] >= 1


def test_a_pod_cannot_speak_for_another_to_its_own_host(plain: Guarded) -> None:
    arrives = plain.listener(plain.host)
    send(plain.web.space, udp(OTHER, "172.31.1.11", b"stolen"))
    send(plain.web.space, udp(WEB, "172.31.1.11", b"own"))
    assert arrives.next() == (b"own", WEB)
    assert dropped(plain.host) == {"pod-spoofed": 1}
    if plain.node.settings.guard == "nftables":
        counted = plain.host.do(filter_counters.read)
        assert counted.pop("pod-spoofed") == 1
        assert set(counted.values()) == {0}, "the others stand there and have nothing to tell"


def test_a_pod_cannot_send_what_a_tunnel_would_unwrap(plain: Guarded) -> None:
    arrives = plain.listener(plain.router)
    inner = udp("10.65.9.9", ROUTER, b"hidden")
    vxlan_port, beside = plain.listener(plain.router, port=4789), plain.listener(plain.router, port=4790)
    send(plain.web.space, ip(WEB, ROUTER, IPIP, inner))
    send(plain.web.space, udp(WEB, ROUTER, b"vxlan", port=4789))
    send(plain.web.space, udp(WEB, ROUTER, b"no vxlan", port=4790))
    send(plain.web.space, udp(WEB, ROUTER, b"plain"))
    assert arrives.next() == (b"plain", WEB)
    assert beside.next() == (b"no vxlan", WEB)
    assert dropped(plain.host) == {"pod-encapsulated": 2}
    # What the router sends itself to the port arrives as the first packet: nothing was in the queue before.
    send(plain.router, udp("127.0.0.1", "127.0.0.1", b"own", port=4789))
    assert vxlan_port.next() == (b"own", "127.0.0.1")


def test_an_interface_of_no_known_pod_carries_nothing_either_way_until_it_is_known(plain: Guarded) -> None:
    new = plain.quiet("cali3", "10.65.0.4")
    plain.host.ip("route add 10.65.0.4 dev cali3")  # some other program was faster than the news
    plain.node.settle()
    at_router, at_pod = plain.listener(plain.router), plain.listener(new.space)
    send(new.space, udp("10.65.0.4", ROUTER, b"early"))
    send(plain.router, udp(ROUTER, "10.65.0.4", b"early"))
    assert plain.node.until(lambda: dropped(plain.host) == {"interface-unknown": 2}), dropped(plain.host)
    plain.node.tell(pod("default/new", "a1", "cali3", "10.65.0.4/32"))
    assert plain.node.until(lambda: "10.65.0.4 dev cali3 proto 80 scope link" in plain.host.routes())
    send(new.space, udp("10.65.0.4", ROUTER, b"known"))
    send(plain.router, udp(ROUTER, "10.65.0.4", b"known"))
    assert at_router.next() == (b"known", "10.65.0.4")
    assert at_pod.next() == (b"known", ROUTER)


def test_a_pod_that_left_is_unknown_at_once(plain: Guarded) -> None:
    plain.node.forget("WorkloadEndpoint", "default/other")
    assert plain.node.until(lambda: f"{OTHER} dev cali2 proto 80 scope link" not in plain.host.routes())
    arrives = plain.listener(plain.router)
    send(plain.other.space, udp(OTHER, ROUTER, b"late"))
    send(plain.web.space, udp(WEB, ROUTER, b"own"))
    assert arrives.next() == (b"own", WEB)
    assert dropped(plain.host) == {"interface-unknown": 1}


def through_tunnel(outer: str, payload: bytes) -> bytes:
    return ip(outer, "172.31.1.11", IPIP, udp("10.65.1.5", WEB, payload))


def test_only_nodes_send_through_the_tunnel(tunnelled: Guarded) -> None:
    tunnelled.router.ip(f"addr add {NEIGHBOUR}/24 dev rack1")
    arrives = tunnelled.listener(tunnelled.web.space)
    send(tunnelled.router, through_tunnel(ROUTER, b"a stranger's"))
    send(tunnelled.router, through_tunnel(NEIGHBOUR, b"a node's"))
    assert arrives.next() == (b"a node's", "10.65.1.5")
    assert stopped(tunnelled) == {"tunnel-stranger": 1}


def test_a_node_that_is_gone_is_a_stranger_and_a_named_outsider_is_none(tunnelled: Guarded) -> None:
    def known() -> str:
        return tunnelled.host.run("nft", "list", "set", "inet", "felix", "nodes")

    tunnelled.router.ip(f"addr add {NEIGHBOUR}/24 dev rack1")
    outsider = FelixConfiguration("default", external_nodes=(ip_network(f"{ROUTER}/32"),))
    tunnelled.node.forget("Node", "a2")
    tunnelled.node.tell(Present(Key("FelixConfiguration", "default"), outsider))
    assert tunnelled.node.until(lambda: NEIGHBOUR not in known() and tunnelled.node.kernel.have.tunnels)
    tunnelled.node.settle()
    arrives = tunnelled.listener(tunnelled.web.space)
    send(tunnelled.router, through_tunnel(NEIGHBOUR, b"a stranger's by now"))
    send(tunnelled.router, through_tunnel(ROUTER, b"an outsider's"))
    assert arrives.next() == (b"an outsider's", "10.65.1.5")
    assert stopped(tunnelled) == {"tunnel-stranger": 1}


def test_rules_hold_without_an_agent(tunnelled: Guarded) -> None:
    tunnelled.node.stop()
    arrives = tunnelled.listener(tunnelled.router)
    send(tunnelled.web.space, udp(OTHER, ROUTER, b"stolen"))
    send(tunnelled.web.space, ip(WEB, ROUTER, IPIP, udp("10.65.9.9", ROUTER, b"hidden")))
    send(tunnelled.router, through_tunnel(ROUTER, b"a stranger's"))
    send(tunnelled.web.space, udp(WEB, ROUTER, b"own"))
    assert arrives.next() == (b"own", WEB)
    assert stopped(tunnelled) == {"pod-spoofed": 1, "pod-encapsulated": 1, "tunnel-stranger": 1}


def outgoing(*, nat: bool) -> Event:
    value = pool().value
    assert isinstance(value, IPPool)
    return Present(Key("IPPool", "default"), IPPool("default", value.cidr, nat_outgoing=nat))


def test_out_of_all_pools_a_pod_with_nat_outgoing_is_its_node_and_inside_it_is_itself(plain: Guarded) -> None:
    def chains() -> str:
        return plain.host.run("nft", "list", "chains", "inet")

    plain.node.tell(outgoing(nat=True))
    assert plain.node.until(lambda: "postrouting" in chains())
    outside, inside, here = (plain.listener(space) for space in (plain.router, plain.other.space, plain.host))
    ports = [7000, 7001, 7002]
    for port in ports:
        send(plain.web.space, udp(WEB, ROUTER, b"out", source_port=port))
    assert [outside.next() for _ in ports] == [(b"out", "172.31.1.11")] * 3
    send(plain.web.space, udp(WEB, OTHER, b"in"))
    assert inside.next() == (b"in", WEB)
    send(plain.web.space, udp(WEB, "172.31.1.11", b"to the host"))
    assert here.next() == (b"to the host", WEB)
    assert dropped(plain.host) == {"nat-outgoing": 3}
    plain.node.tell(outgoing(nat=False))
    assert plain.node.until(lambda: "postrouting" not in chains())
    send(plain.web.space, udp(WEB, ROUTER, b"itself", source_port=7100))
    assert outside.next() == (b"itself", WEB)
