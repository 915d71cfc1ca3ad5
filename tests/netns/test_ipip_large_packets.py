"""The userspace driver with and without its compiled part, on one side or both: the same packets reach the pods."""

import fcntl
import shutil
import socket
import struct
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import ipip_lab
import pytest
from ipip_lab import Racks, capture, until

from ipip import process

pytestmark = pytest.mark.netns

SIOCETHTOOL, ETHTOOL_GTSO = 0x8946, 0x1E  # linux/sockios.h, linux/ethtool.h

DATA = bytes(range(251)) * (16 << 10)
"""4 MB, of a length that no packet size divides."""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is where no compiler was found."""
    copy = tmp_path_factory.mktemp("plain") / "ipip"
    shutil.copytree(process.ROOT, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return copy


@pytest.fixture(scope="module", params=["both", "sender", "receiver", "neither"])
def shared(request: pytest.FixtureRequest, without: Path) -> Iterator[Racks]:
    """Two racks; the parameter says who of them has the compiled part."""
    with ipip_lab.racks() as racks, pytest.MonkeyPatch.context() as patch:
        for node, name in ((racks.a1, "sender"), (racks.b1, "receiver")):
            if request.param not in ("both", name):
                patch.setattr(process, "ROOT", without)
            node.put()
            node.route()
            patch.undo()
        yield racks


@pytest.fixture
def racks(shared: Racks) -> Racks:
    for rack, node in ((1, shared.a1), (2, shared.b1)):
        shared.tor.mtu(f"rack{rack}", 1500)
        node.namespace.mtu("eth0", 1500)
        for namespace in (node.namespace, node.pod):
            namespace.parameter("route/flush", 1)
    return shared


def offloaded(device: bytes) -> bool:
    """Say whether the kernel leaves the cutting up of TCP to a device, as `ethtool -k` does."""
    value = array("I", (ETHTOOL_GTSO, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", device, value.buffer_info()[0]))
    return bool(value[1])


def carried(racks: Racks, data: bytes) -> bytes:
    """Send data from pod to pod over TCP and return what arrived."""
    with racks.b1.pod.do(socket.create_server, ("10.65.2.5", 4000)) as server:
        server.settimeout(ipip_lab.DEADLINE)
        sending = threading.Thread(target=send, args=(racks, data))
        sending.start()
        stream, _ = server.accept()
        with stream, stream.makefile("rb") as received:
            stream.settimeout(ipip_lab.DEADLINE)
            found = received.read()
        sending.join()
    return found


def send(racks: Racks, data: bytes) -> None:
    with racks.a1.pod.do(socket.create_connection, ("10.65.2.5", 4000), ipip_lab.DEADLINE) as stream:
        stream.sendall(data)


def test_a_stream_arrives_whole(racks: Racks) -> None:
    before = racks.b1.counters()
    assert carried(racks, DATA) == DATA
    after = racks.b1.counters()
    assert after["received_bytes"] - before["received_bytes"] > len(DATA)
    assert (after["received_packets"] - before["received_packets"]) * 1480 > len(DATA)
    assert after["dropped_malformed"] == before["dropped_malformed"]


def test_no_packet_on_the_wire_is_larger_than_the_wire_takes(racks: Racks) -> None:
    with capture(racks.tor, "rack1") as packets:
        assert carried(racks, DATA[:100_000]) == DATA[:100_000]
        sizes = {len(packet) for packet in packets()}
    assert max(sizes) == 1500


def test_a_stream_goes_on_over_a_path_that_takes_less(racks: Racks) -> None:
    racks.tor.mtu("rack2", 1400)
    racks.b1.namespace.mtu("eth0", 1400)
    assert carried(racks, DATA) == DATA


def test_a_slow_uplink_delays_packets_before_it_drops_them(racks: Racks) -> None:
    limit = ("tbf", "rate", "400mbit", "burst", "16k", "limit", "64m")
    racks.a1.namespace.run("tc", "qdisc", "add", "dev", "eth0", "root", *limit)
    try:
        before = racks.a1.counters()["dropped_send_failed"]
        assert carried(racks, DATA * 4) == DATA * 4
        assert racks.a1.counters()["dropped_send_failed"] == before
    finally:
        racks.a1.namespace.run("tc", "qdisc", "del", "dev", "eth0", "root")


@pytest.mark.parametrize("checksum", [True, False], ids=["with checksum", "without"])
def test_datagrams_arrive_each_for_itself_and_in_order(racks: Racks, *, checksum: bool) -> None:
    sent = [bytes([number]) * (number % 3 + 40) for number in range(200)]
    with (
        racks.b1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        racks.a1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("10.65.2.5", 4000))
        receiver.settimeout(ipip_lab.DEADLINE)
        sender.setsockopt(socket.SOL_SOCKET, 11, not checksum)  # SO_NO_CHECK
        for payload in sent:
            sender.sendto(payload, ("10.65.2.5", 4000))
        assert [receiver.recv(2048) for _ in sent] == sent


def test_the_kernel_cuts_nothing_up_for_the_one_who_does_it_himself(
    racks: Racks, request: pytest.FixtureRequest
) -> None:
    compiled = request.node.callspec.params["shared"] in ("both", "sender")
    assert racks.a1.namespace.do(offloaded, b"tunl0") == compiled
    assert until(lambda: racks.ping().returncode == 0, "the tunnel works")
