"""What a tunnel does, whatever drives it: one contract for the kernel's module, our BPF programs and our process."""

import re
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address

import ipip_lab
import pytest
from ipip_lab import Driver, Racks, capture, until

from ipip import header
from ipip.device import Device, TunnelRefused, choose

pytestmark = pytest.mark.netns

UDP = bytes.fromhex("4500001c00004000401123460a4102050a4101050fa00fa000080000")
"""10.65.2.5 to 10.65.1.5, port 4000, empty, without a checksum of its own."""

LINK_ADDRESS_ROUTE = 0x1 | 0x10 | 0x40  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE


@pytest.fixture(scope="module", params=["ebpf", "tun", pytest.param("kernel", marks=pytest.mark.ipip_module)])
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


@pytest.fixture
def bare(driver: Driver) -> Iterator[Racks]:
    with ipip_lab.racks(driver, driver) as made:
        yield made


@pytest.fixture(scope="module")
def shared(driver: Driver) -> Iterator[Racks]:
    with ipip_lab.racks(driver, driver) as made:
        yield made


@pytest.fixture
def racks(shared: Racks) -> Racks:
    return shared.reset()


def test_pods_reach_each_other_in_protocol_4_between_the_nodes(racks: Racks) -> None:
    with capture(racks.tor, "rack1") as packets:
        assert racks.ping().returncode == 0
        found = [split for packet in packets() if (split := header.decode(packet)) is not None]
    ways = {(socket.inet_ntoa(outer.source), socket.inet_ntoa(outer.destination)) for outer, _ in found}
    assert ways == {("172.31.1.11", "172.31.2.11"), ("172.31.2.11", "172.31.1.11")}
    inner = found[0][1]
    assert (socket.inet_ntoa(inner[12:16]), socket.inet_ntoa(inner[16:20])) == ("10.65.1.5", "10.65.2.5")


def test_nodes_reach_pods_from_the_tunnels_own_address(racks: Racks) -> None:
    racks.a1.namespace.run("ping", "-c1", "-W2", "10.65.2.5")
    assert racks.a1.namespace.run("ip", "route", "get", "10.65.2.5").stdout.split("src ")[1].startswith("10.65.1.1")


def test_a_stream_arrives_whole(racks: Racks) -> None:
    data = bytes(range(251)) * 4096  # a length that no packet size divides
    with racks.b1.pod.do(socket.create_server, ("10.65.2.5", 4000)) as server:
        sending = threading.Thread(target=send_stream, args=(racks, data))
        sending.start()
        server.settimeout(ipip_lab.DEADLINE)
        stream, _ = server.accept()
        with stream, stream.makefile("rb") as received:
            assert received.read() == data
        sending.join()


def send_stream(racks: Racks, data: bytes) -> None:
    with racks.a1.pod.do(socket.create_connection, ("10.65.2.5", 4000), ipip_lab.DEADLINE) as stream:
        stream.sendall(data)


@pytest.mark.parametrize("outer", [1, 2, 3])
def test_a_mark_of_congestion_on_the_way_reaches_the_pod_that_can_read_it(racks: Racks, outer: int) -> None:
    inner = header.with_type_of_service(UDP, 2)
    with capture(racks.a1.pod, "eth0") as packets:
        ipip_lab.raw_send(racks.b1.namespace, "172.31.2.11", "172.31.1.11", header.IPIP, inner, service=outer)
        (arrived,) = until(lambda: [packet for packet in packets() if packet[9] == 17], "the packet arrives")
    assert arrived[1] & 3 == outer


def test_a_mark_of_congestion_that_the_pod_cannot_read_drops_the_packet(racks: Racks) -> None:
    with capture(racks.a1.pod, "eth0") as packets:
        for service in (3, 0):
            ipip_lab.raw_send(racks.b1.namespace, "172.31.2.11", "172.31.1.11", header.IPIP, UDP, service=service)
        until(lambda: [packet for packet in packets() if packet[9] == 17], "the unmarked packet arrives")
        assert len([packet for packet in packets() if packet[9] == 17]) == 1


@pytest.mark.parametrize(
    ("options", "dont_fragment", "congestion"),
    [
        pytest.param(("-M", "do", "-Q", "2"), True, 2, id="set and capable"),
        pytest.param(("-M", "dont", "-Q", "0"), False, 0, id="unset"),
    ],
)
def test_dont_fragment_and_congestion_bits_are_copied_to_the_outer_header(
    racks: Racks, options: tuple[str, ...], *, dont_fragment: bool, congestion: int
) -> None:
    with capture(racks.tor, "rack1") as packets:
        assert racks.ping(*options).returncode == 0
        outer, _ = next(split for packet in packets() if (split := header.decode(packet)) is not None)
    assert (outer.dont_fragment, outer.type_of_service & 3) == (dont_fragment, congestion)


def test_nothing_is_there_before_put_and_after_delete(bare: Racks) -> None:
    node = bare.a1
    assert node.read() is None
    node.put()
    assert node.read() == node.wish
    for _ in range(2):
        node.namespace.do(node.device.delete, "tunl0")
        assert node.read() is None
    assert node.carriers() == []


def test_a_second_put_writes_nothing(racks: Racks) -> None:
    watch = racks.a1.namespace.do(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with watch:
        watch.bind((0, LINK_ADDRESS_ROUTE))
        before = racks.a1.carriers()
        racks.a1.put()
        watch.settimeout(0)
        with pytest.raises(BlockingIOError):
            watch.recv(1)
    assert racks.a1.carriers() == before


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("link set tunl0 down", id="set down"),
        pytest.param("link set tunl0 mtu 1300", id="another MTU"),
        pytest.param("addr flush dev tunl0", id="address removed"),
        pytest.param("addr add 10.9.9.9/32 dev tunl0", id="a second address"),
        pytest.param("addr change 10.65.1.1/24 dev tunl0", id="a second mask"),
    ],
)
def test_drift_is_seen_and_healed(racks: Racks, harm: str) -> None:
    racks.a1.namespace.ip(harm + "\n")
    assert racks.a1.read() != racks.a1.wish
    racks.a1.put()
    assert racks.a1.read() == racks.a1.wish
    racks.a1.route()
    assert racks.ping().returncode == 0


def test_changes_are_taken_while_packets_flow(racks: Racks) -> None:
    racks.a1.put(mtu=1400, address=IPv4Address("10.65.1.2"))
    racks.a1.route()
    assert racks.a1.read() == ipip_lab.changed(racks.a1.wish, mtu=1400, address=IPv4Address("10.65.1.2"))
    assert racks.ping().returncode == 0


def test_a_tunnel_may_have_no_address(racks: Racks) -> None:
    racks.a1.put(address=None)
    racks.a1.route()
    assert racks.a1.read() == ipip_lab.changed(racks.a1.wish, address=None)
    assert racks.ping().returncode == 0


def test_packets_from_strangers_are_dropped_and_counted(racks: Racks) -> None:
    allowed = frozenset({IPv4Address("172.31.2.99")})
    racks.b1.put(allowed=allowed)
    assert racks.b1.read() == ipip_lab.changed(racks.b1.wish, allowed=allowed)
    before = racks.b1.counters()["dropped_source_not_allowed"]
    assert racks.ping().returncode == 1
    assert racks.b1.counters()["dropped_source_not_allowed"] == before + 1
    racks.b1.put()
    assert racks.ping().returncode == 0


def test_another_agent_finds_the_tunnel_as_the_first_one_left_it(racks: Racks, driver: Driver) -> None:
    node = racks.a1
    other = node.namespace.do(Device, run_directory=node.directory, driver=driver)
    assert node.namespace.do(other.read, "tunl0") == node.wish
    before = node.namespace.run("ip", "-d", "link", "show", "tunl0").stdout
    node.namespace.do(other.put, node.wish)
    assert node.namespace.run("ip", "-d", "link", "show", "tunl0").stdout == before
    assert racks.ping().returncode == 0, "the routes are there still"


@pytest.mark.parametrize(
    ("size", "passes"), [pytest.param(1480, True, id="just fits"), pytest.param(1481, False, id="one byte too many")]
)
def test_the_sender_is_told_what_fits(racks: Racks, size: int, *, passes: bool) -> None:
    answer = racks.ping("-M", "do", "-s", size - 28)
    assert (answer.returncode == 0) == passes
    assert ("Frag needed and DF set (mtu = 1480)" in answer.stdout) != passes


def told(racks: Racks) -> str | None:
    answer = racks.ping("-M", "do", "-s", 1452)
    found = re.search(r"mtu ?= ?(\d+)", answer.stdout + answer.stderr)
    return found[1] if found else None


def test_the_sender_learns_what_the_path_between_the_nodes_carries(racks: Racks) -> None:
    racks.tor.mtu("rack2", 1400)
    racks.b1.namespace.mtu("eth0", 1400)
    assert until(lambda: told(racks), "the pod learns the path's MTU") == "1380"
    assert racks.ping("-M", "dont", "-s", 1452).returncode == 0


def test_the_uplink_may_shrink_below_the_tunnel(racks: Racks) -> None:
    racks.a1.namespace.mtu("eth0", 1400)
    racks.tor.mtu("rack1", 1400)
    assert racks.ping("-M", "dont", "-s", 1452).returncode == 0
    assert until(lambda: told(racks), "the pod learns the uplink's MTU") == "1380"


def test_rubbish_between_nodes_does_no_harm(racks: Racks) -> None:
    for payload in (
        b"",
        b"\x45",
        bytes(19),
        bytes(60),
        b"\x60" + bytes(59),
        b"\x45\0\xff\xff" + bytes(16),
        b"\xff" * 99,
    ):
        ipip_lab.raw_send(racks.b1.namespace, "172.31.2.11", "172.31.1.11", header.IPIP, payload)
    assert racks.ping().returncode == 0


def test_a_strict_reverse_path_filter_is_loosened(bare: Racks) -> None:
    bare.b1.namespace.parameter("conf/all/rp_filter", 1)
    bare.ready()
    bare.a1.namespace.run("ping", "-c1", "-W2", "-I", "172.31.1.11", "10.65.2.5")


def test_a_name_that_is_taken_is_refused_in_a_sentence(bare: Racks) -> None:
    node = bare.b1
    node.namespace.run("ip", "link", "set", "tunl0", "name", "spare0", check=False)
    node.namespace.ip("link add tunl0 type veth peer name other0\n")
    with pytest.raises(
        TunnelRefused, match=r"^tunl0 is a device of kind veth, .*; remove it with `ip link del tunl0`$"
    ):
        node.put()


def test_a_device_that_stands_there_decides(racks: Racks, driver: Driver) -> None:
    sentences = {
        "kernel": "kernel: the ipip module is loaded",
        "ebpf": "ebpf: tunl0 is carried by our BPF programs already",
        "tun": "tun: tunl0 is a TUN device already; `felix-agent cleanup` lets us choose anew",
    }
    assert racks.a1.namespace.do(choose, "auto") == (driver, sentences[driver])


def test_where_no_device_stands_the_kernel_is_asked() -> None:
    space = ipip_lab.Namespace("choice")
    try:
        assert space.do(choose, "auto")[1] in (
            "kernel: the ipip module is there",
            "kernel: the ipip module is loaded",
            "ebpf: this kernel has no ipip module, and it takes our BPF programs",
        )
        assert "felix-probe" not in space.run("ip", "link").stdout
    finally:
        space.close()
