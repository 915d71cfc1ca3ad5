"""The ebpf driver's programs: outlive the agent, are found again, are put back when somebody removes them."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import ipip_lab
import pytest
from ipip_lab import Racks, capture, until

from ipip import bpf, ebpf, header, links, traffic
from ipip.device import Device, TunnelRefused

pytestmark = pytest.mark.netns

UDP = bytes.fromhex("4500001c00004000401123460a4102050a4101050fa00fa000080000")
"""10.65.2.5 to 10.65.1.5, port 4000, empty, without a checksum of its own."""

DROP_ALL = bytes.fromhex("b7000000020000009500000000000000")
"""A program: r0 = TC_ACT_SHOT; exit."""

TRAFFIC_CONTROL = 0x8 | 0x1  # RTMGRP_TC and RTMGRP_LINK
AGENT = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[1:3]
import ipip_lab
from ipip.device import Device
Device(pathlib.Path(sys.argv[3]), "ebpf").put(ipip_lab.wish(1))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def bare() -> Iterator[Racks]:
    with ipip_lab.racks("ebpf", "ebpf") as made:
        yield made


@pytest.fixture
def racks(bare: Racks) -> Racks:
    return bare.ready()


def programs(racks: Racks) -> list[traffic.Filter | None]:
    def find() -> list[traffic.Filter | None]:
        names = {name: link.index for name, link in links.every().items()}
        return [traffic.find(names["tunl0"], traffic.EGRESS), traffic.find(names["eth0"], traffic.INGRESS)]

    return racks.a1.namespace.do(find)


def test_an_agent_that_dies_loses_no_packet(bare: Racks) -> None:
    bare.b1.put()
    bare.b1.route()
    root, here = Path(ipip_lab.__file__).parents[2], Path(ipip_lab.__file__).parent
    died = bare.a1.namespace.run(sys.executable, "-c", AGENT, root, here, bare.a1.directory, check=False)
    assert died.returncode == -signal.SIGKILL
    bare.a1.route()
    assert bare.ping().returncode == 0
    assert bare.a1.read() == bare.a1.wish


def test_a_new_agent_adopts_the_programs_and_writes_nothing(racks: Racks) -> None:
    before = programs(racks)
    device = racks.a1.namespace.do(Device, run_directory=racks.a1.directory)
    assert (device.driver, device.why) == ("ebpf", "ebpf: tunl0 is carried by our BPF programs already")
    assert racks.a1.namespace.do(device.read, "tunl0") == racks.a1.wish
    watch = racks.a1.namespace.do(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with watch:
        watch.bind((0, TRAFFIC_CONTROL))
        racks.a1.namespace.do(device.put, racks.a1.wish)
        watch.settimeout(0)
        with pytest.raises(BlockingIOError):
            watch.recv(1)
    assert programs(racks) == before


def test_counters_go_on_over_a_restart_of_the_agent(racks: Racks) -> None:
    assert racks.ping().returncode == 0
    device = racks.a1.namespace.do(Device, run_directory=racks.a1.directory)
    found = racks.a1.namespace.do(device.counters)
    assert (found["sent_packets"], found["received_packets"], found["sent_bytes"]) == (1, 1, 84)


def test_programs_of_another_version_are_replaced_in_place(racks: Racks, monkeypatch: pytest.MonkeyPatch) -> None:
    before = programs(racks)
    monkeypatch.setattr(ebpf, "version", lambda: "newer")
    assert racks.a1.read() != racks.a1.wish
    racks.a1.put()
    assert racks.a1.read() == racks.a1.wish
    assert racks.ping().returncode == 0
    after = programs(racks)
    assert all(each is not None and each.name == "felix-ipip:newer" for each in after)
    assert not {each.program for each in before if each} & {each.program for each in after if each}


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(("tc", "qdisc", "del", "dev", "eth0", "clsact"), id="the uplink's queueing discipline deleted"),
        pytest.param(("tc", "filter", "del", "dev", "tunl0", "egress"), id="the device's filters deleted"),
        pytest.param(("ip", "link", "del", "tunl0-other"), id="both ends deleted"),
    ],
)
def test_what_somebody_removes_is_missed_and_put_back(racks: Racks, harm: tuple[str, ...]) -> None:
    racks.a1.namespace.run(*harm)
    found = racks.a1.read()
    assert found is None or not found.up
    assert racks.ping().returncode == 1
    racks.a1.put()
    racks.a1.route()
    assert racks.a1.read() == racks.a1.wish
    assert racks.ping().returncode == 0


def test_an_other_end_that_is_down_is_missed_and_set_up(racks: Racks) -> None:
    racks.a1.namespace.ip("link set tunl0-other down\n")
    found = racks.a1.read()
    assert found is not None
    assert not found.up
    racks.a1.put()
    racks.a1.route()
    assert racks.a1.read() == racks.a1.wish


def test_a_new_uplink_gets_the_program_and_a_pod_does_not(racks: Racks) -> None:
    racks.a1.namespace.ip(
        "link add eth1 type veth peer name far1\nlink add cali9 type veth peer name far9\n"
        "link add br0 type bridge\nlink set far1 master br0\n"
    )
    assert racks.a1.read() != racks.a1.wish
    racks.a1.put()
    assert racks.a1.read() == racks.a1.wish

    def attached() -> set[str]:
        return {name for name, link in links.every().items() if traffic.find(link.index, traffic.INGRESS)}

    assert racks.a1.namespace.do(attached) == {"eth0", "eth1", "far9", "br0"}
    racks.a1.namespace.do(racks.a1.device.delete, "tunl0")
    assert racks.a1.namespace.do(attached) == set()


def test_filters_of_others_stay_and_see_what_is_not_for_the_tunnel(racks: Racks) -> None:
    def attach(priority: int) -> None:
        descriptor = bpf.load("drop", DROP_ALL)
        index = links.every()["eth0"].index
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(traffic, "PRIORITY", priority)
            traffic.attach(index, traffic.INGRESS, "somebody", descriptor)
        os.close(descriptor)

    assert racks.ping().returncode == 0  # from here on the neighbours know each other
    racks.a1.namespace.do(attach, 90)
    assert racks.ping().returncode == 0
    assert racks.a1.namespace.run("ping", "-c1", "-W1", "172.31.1.1", check=False).returncode == 1
    racks.a1.namespace.do(racks.a1.device.delete, "tunl0")
    assert "somebody" in racks.a1.namespace.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout


def send(racks: Racks, payload: bytes, *, to: str = "172.31.1.11", origin: str = "172.31.2.11") -> None:
    ipip_lab.raw_send(racks.b1.namespace, origin, to, header.IPIP, payload)


CRAFTED = [
    pytest.param(UDP[:19], "dropped_malformed", id="shorter than a header"),
    pytest.param(b"\x60" + UDP[1:], "dropped_malformed", id="not IPv4"),
    pytest.param(b"\x44" + UDP[1:], "dropped_malformed", id="a header too short"),
    pytest.param(UDP[:2] + b"\xff\xff" + UDP[4:], "dropped_malformed", id="longer than it is"),
    pytest.param(UDP[:2] + b"\0\x10" + UDP[4:], "dropped_malformed", id="shorter than its header"),
]


@pytest.mark.parametrize(("payload", "reason"), CRAFTED)
def test_what_is_no_packet_is_dropped_and_counted(racks: Racks, payload: bytes, reason: str) -> None:
    with capture(racks.a1.namespace, "tunl0") as packets:
        send(racks, payload)
        until(lambda: racks.a1.counters()[reason] == 1, "it is counted")
        assert packets() == []


def test_a_stranger_among_the_neighbours_is_dropped_and_counted(racks: Racks) -> None:
    racks.b1.namespace.ip("addr add 172.31.2.66/24 dev eth0\n")
    with capture(racks.a1.namespace, "tunl0") as packets:
        send(racks, UDP, origin="172.31.2.66")
        until(lambda: racks.a1.counters()["dropped_source_not_allowed"] == 1, "it is counted")
        assert packets() == []


def test_only_the_nodes_own_address_is_a_way_in(racks: Racks) -> None:
    racks.a1.namespace.ip("addr add 172.31.1.12/24 dev eth0\n")
    with capture(racks.a1.namespace, "eth0") as arrived, capture(racks.a1.namespace, "tunl0") as packets:
        send(racks, UDP, to="172.31.1.12")
        until(lambda: [packet for packet in arrived() if packet[9] == header.IPIP], "it arrives")
        assert packets() == []
    assert racks.a1.counters()["received_packets"] == 0


def test_a_tunnel_in_the_tunnel_is_not_taken_apart(racks: Racks) -> None:
    addresses = socket.inet_aton("172.31.2.11"), socket.inet_aton("172.31.1.11")
    with capture(racks.a1.pod, "eth0") as packets, capture(racks.a1.namespace, "tunl0") as seen:
        send(racks, header.encapsulate(UDP, *addresses))
        until(lambda: [packet for packet in seen() if packet[9] == header.IPIP], "the inner tunnel's packet arrives")
        assert [packet for packet in packets() if packet[9] == socket.IPPROTO_UDP] == []


def test_a_pod_is_no_way_in(racks: Racks) -> None:
    racks.a1.pod.ip("addr add 172.31.2.11/32 dev lo\n")
    with capture(racks.a1.namespace, "cali0") as sent, capture(racks.a1.namespace, "tunl0") as packets:
        ipip_lab.raw_send(racks.a1.pod, "172.31.2.11", "172.31.1.11", header.IPIP, UDP)
        until(lambda: [packet for packet in sent() if packet[9] == header.IPIP], "the pod sends it")
        assert packets() == []


def test_a_packet_for_a_node_itself_is_not_encapsulated(racks: Racks) -> None:
    racks.a1.namespace.ip("route add 172.31.2.11/32 via 172.31.2.11 dev tunl0 onlink\n")
    before = racks.a1.counters()["dropped_no_route"]
    with capture(racks.tor, "rack1") as packets:
        assert racks.a1.namespace.run("ping", "-c1", "-W1", "172.31.2.11", check=False).returncode == 1
        assert packets() == []
    assert racks.a1.counters()["dropped_no_route"] > before  # ping is told, and tries again


def test_a_node_that_no_route_leads_to_is_counted(racks: Racks) -> None:
    racks.a1.namespace.ip("route del default\n")
    assert racks.ping().returncode == 1
    assert racks.a1.counters()["dropped_no_uplink"] == 1


def reply_late(racks: Racks) -> None:
    """Send a pod's packet out of tunl0 whatever routes say, as if its route had changed once it was on its way."""
    reply = UDP[:12] + UDP[16:20] + UDP[12:16] + UDP[20:]
    with racks.a1.namespace.do(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        sock.sendto(reply, ("tunl0", 0x0800, 0, 0, bytes(6)))


@pytest.mark.parametrize("known", [True, False], ids=["a neighbour that is known", "a neighbour to be asked for"])
def test_a_packet_whose_route_moved_while_it_was_on_its_way_follows_the_route(racks: Racks, *, known: bool) -> None:
    racks.tor.ip("route add 10.65.2.0/26 via 172.31.2.11\n")
    racks.a1.namespace.ip("route replace 10.65.2.0/26 via 172.31.1.1 dev eth0 proto 80\n")
    racks.a1.namespace.ip("neigh flush dev eth0\n")
    if known:
        assert racks.a1.namespace.run("ping", "-c1", "-W2", "172.31.1.1").returncode == 0
    with capture(racks.b1.pod, "eth0") as packets:
        reply_late(racks)
        until(lambda: [packet for packet in packets() if packet[9] == socket.IPPROTO_UDP], "it arrives")
    counted = {name for name, count in racks.a1.counters().items() if count}
    assert counted <= {"received_packets", "received_bytes"}, "the pod says that nobody listens, and that by the tunnel"


def test_no_packet_is_lost_while_a_route_leaves_the_tunnel_and_comes_back(racks: Racks) -> None:
    racks.tor.ip("route add 10.65.2.0/26 via 172.31.2.11\n")
    ways = ("via 172.31.1.1 dev eth0", "via 172.31.2.11 dev tunl0 onlink")
    moves = "".join(f"route replace 10.65.2.0/26 {way} proto 80\n" for way in ways) * 1000
    flood = racks.a1.pod.do(
        ipip_lab.subprocess.Popen, ["ping", "-q", "-f", "-c", "30000", "10.65.2.5"], stdout=-1, text=True
    )
    while flood.poll() is None:
        racks.a1.namespace.ip(moves)
    summary = next(line for line in flood.communicate()[0].splitlines() if "packet loss" in line)
    assert ", 0% packet loss" in summary
    assert racks.a1.counters()["dropped_no_route"] == 0


@pytest.mark.parametrize("route", [None, "blackhole 10.65.2.0/26", "10.65.2.0/26 dev tunl0"])
def test_a_packet_whose_route_leads_to_no_other_device_is_dropped(racks: Racks, route: str | None) -> None:
    racks.a1.namespace.ip("route del default\nroute del 10.65.2.0/26\n")
    if route is not None:
        racks.a1.namespace.ip(f"route add {route}\n")
    with pytest.raises(OSError, match="No buffer space"):  # so a packet socket is told of what a filter dropped
        reply_late(racks)
    assert racks.a1.counters()["dropped_no_route"] == 1


def test_routes_of_others_through_the_tunnel_work_as_with_the_module(racks: Racks) -> None:
    racks.b1.namespace.ip("addr add 10.99.0.1/32 dev lo\n")
    racks.a1.namespace.ip("route add 10.99.0.0/24 via 172.31.2.11 dev tunl0 onlink proto static\n")
    assert racks.a1.namespace.run("ping", "-c1", "-W2", "10.99.0.1").returncode == 0


def test_no_packet_is_lost_while_nodes_and_routes_come_and_go(racks: Racks) -> None:
    ping = racks.a1.pod.do(
        ipip_lab.subprocess.Popen, ["ping", "-q", "-i", "0.002", "-w", "3", "10.65.2.5"], stdout=-1, text=True
    )
    nodes = [IPv4Address(f"172.31.9.{number}") for number in range(1, 200)]
    while ping.poll() is None:
        racks.a1.put(allowed=racks.a1.wish.allowed | frozenset(nodes))
        racks.a1.put()
    summary = next(line for line in ping.communicate()[0].splitlines() if "packet loss" in line)
    assert ", 0% packet loss" in summary


def test_a_driver_gives_way_to_another_and_leaves_nothing(racks: Racks) -> None:
    other = racks.a1.namespace.do(Device, run_directory=racks.a1.directory, driver="tun")
    racks.a1.namespace.do(other.put, racks.a1.wish)
    racks.a1.route()
    assert racks.ping().returncode == 0
    assert "felix-ipip" not in racks.a1.namespace.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout
    racks.a1.namespace.do(Device, run_directory=racks.a1.directory, driver="ebpf")
    back = racks.a1.namespace.do(Device, run_directory=racks.a1.directory, driver="ebpf")
    racks.a1.namespace.do(back.put, racks.a1.wish)
    racks.a1.route()
    assert racks.ping().returncode == 0
    assert racks.a1.carriers() == []
    racks.a1.namespace.do(back.delete, "tunl0")


def test_a_kernel_that_refuses_the_programs_is_told_apart(racks: Racks) -> None:
    with pytest.raises(bpf.Refused, match="nonsense: R0 !read_ok"):
        bpf.load("nonsense", bytes.fromhex("9500000000000000"))
    assert racks.ping().returncode == 0


def test_without_the_right_to_load_programs_the_reason_is_a_sentence() -> None:
    words = "from ipip import ebpf; print(ebpf.unusable())"
    command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--reuid", "65534", "--clear-groups"]
    done = ipip_lab.command(
        *command, "/usr/bin/python3", "-c", f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); {words}"
    )
    assert done.stdout == "BPF is forbidden here; give CAP_BPF and CAP_NET_ADMIN, before Linux 5.8 CAP_SYS_ADMIN\n"


def test_programs_that_were_not_built_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ebpf, "OBJECT", tmp_path / "tunnel.bpf.o")
    sentence = "tunnel.bpf.o was not built: apt-get install clang, then install felix-py again"
    assert ebpf.unusable() == sentence
    with pytest.raises(TunnelRefused, match=sentence), ebpf.loaded():
        pass
