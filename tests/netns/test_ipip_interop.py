"""All drivers speak the same protocol: each in one rack, each in the other; those with the module in the guest."""

import errno
import socket
import threading
from collections.abc import Iterator

import ipip_lab
import pytest
from ipip_lab import Namespace, Racks, capture, until

from ipip import header

pytestmark = pytest.mark.netns


def pair(one: str, two: str) -> object:
    marks = [pytest.mark.ipip_module] if "kernel" in (one, two) else []
    return pytest.param((one, two), id=f"{one} asks {two}", marks=marks)


@pytest.fixture(
    scope="module", params=[pair(one, two) for one in ("kernel", "ebpf", "tun") for two in ("kernel", "ebpf", "tun")]
)
def shared(request: pytest.FixtureRequest) -> Iterator[Racks]:
    with ipip_lab.racks(*request.param) as made:
        yield made


@pytest.fixture
def racks(shared: Racks) -> Racks:
    return shared.reset()


@pytest.fixture
def wired(racks: Racks) -> Iterator[Racks]:
    """Uplinks that put on the wire what a network card would: a veth hands large packets on, and without checksums."""
    for node in (racks.a1, racks.b1):
        node.namespace.do(ipip_lab.offload_transmission, b"eth0", on=False)
    yield racks
    for node in (racks.a1, racks.b1):
        node.namespace.do(ipip_lab.offload_transmission, b"eth0", on=True)


@pytest.mark.parametrize("size", [pytest.param(0, id="empty"), pytest.param(1452, id="full")])
def test_packets_pass_both_ways(racks: Racks, size: int) -> None:
    assert racks.ping("-M", "do", "-s", size).returncode == 0


def test_congestion_marks_pass(racks: Racks) -> None:
    assert racks.ping("-Q", "3").returncode == 0


def test_outer_fragments_are_put_together(racks: Racks) -> None:
    racks.tor.mtu("rack2", 1400)
    racks.b1.namespace.mtu("eth0", 1400)
    assert until(lambda: racks.ping("-M", "dont", "-s", 1452).returncode == 0, "fragments arrive")


def test_strangers_are_dropped_on_either_side(racks: Racks) -> None:
    assert racks.ping().returncode == 0, "and what tests before have sent is there by now, and not counted below"
    racks.b1.put(allowed=frozenset())
    before = racks.b1.counters()["dropped_source_not_allowed"]
    assert racks.ping().returncode == 1
    assert racks.b1.counters()["dropped_source_not_allowed"] == before + 1


DATA = bytes(range(251)) * (8 << 10)
"""2 MB, of a length that no packet size divides."""

UDP_SEGMENT = 103  # linux/udp.h

ADDRESSES = ("10.65.1.5", "10.65.2.5")


def narrowed(racks: Racks) -> None:
    """Have the wire between router and second node take 1400 bytes: the uplink of one, the path of the other."""
    racks.tor.mtu("rack2", 1400)
    racks.b1.namespace.mtu("eth0", 1400)


def ends(racks: Racks, *, back: bool) -> tuple[Namespace, Namespace, str]:
    """Return the pod that sends, the one that receives, and the latter's address."""
    pods = (racks.a1.pod, racks.b1.pod)
    sender, receiver = reversed(pods) if back else pods
    return sender, receiver, ADDRESSES[pods.index(receiver)]


@pytest.mark.parametrize("back", [pytest.param(False, id="in the middle"), pytest.param(True, id="at the uplink")])
def test_a_stream_goes_on_when_the_path_takes_less(wired: Racks, *, back: bool) -> None:
    sender, receiver, address = ends(wired, back=back)
    received: list[bytes] = []
    with receiver.do(socket.create_server, (address, 4000)) as server:
        server.settimeout(ipip_lab.DEADLINE)

        def take() -> None:
            stream, _ = server.accept()
            with stream, stream.makefile("rb") as file:
                stream.settimeout(ipip_lab.DEADLINE)
                received.append(file.read())

        taking = threading.Thread(target=take)
        taking.start()
        with sender.do(socket.create_connection, (address, 4000), ipip_lab.DEADLINE) as stream:
            stream.sendall(DATA[: len(DATA) // 2])
            narrowed(wired)
            with capture(wired.tor, "rack2") as packets:
                stream.sendall(DATA[len(DATA) // 2 :])
                stream.shutdown(socket.SHUT_WR)
                taking.join()
                sizes = {len(packet) for packet in packets()}
    assert received == [DATA]
    assert 1380 < max(sizes) <= 1500, "no packet is larger than a wire takes"


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_a_stream_passes_between_nodes_of_one_machine(racks: Racks, *, back: bool) -> None:
    """A veth hands on large packets whose checksums nobody has computed."""
    sender, receiver, address = ends(racks, back=back)
    with receiver.do(socket.create_server, (address, 4000)) as server:
        server.settimeout(ipip_lab.DEADLINE)
        with sender.do(socket.create_connection, (address, 4000), ipip_lab.DEADLINE) as stream:
            taken, _ = server.accept()
            sending = threading.Thread(target=lambda: (stream.sendall(DATA), stream.shutdown(socket.SHUT_WR)))
            sending.start()
            with taken, taken.makefile("rb") as file:
                taken.settimeout(ipip_lab.DEADLINE)
                assert file.read() == DATA
            sending.join()


@pytest.mark.parametrize("back", [pytest.param(False, id="in the middle"), pytest.param(True, id="at the uplink")])
def test_a_datagram_that_may_not_be_cut_up_teaches_its_sender(wired: Racks, *, back: bool) -> None:
    narrowed(wired)
    sender, receiver, address = ends(wired, back=back)
    with (
        receiver.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sink,
        sender.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        sink.bind((address, 4000))
        sink.settimeout(ipip_lab.DEADLINE)
        source.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        source.connect((address, 4000))
        until(lambda: learnt(source) == 1380, "the socket knows what the path takes")
        with pytest.raises(OSError, match="Message too long"):
            source.send(bytes(1380 - 28 + 1))
        assert until(lambda: sent(source, 1380 - 28), "what fits is sent")
        assert len(sink.recv(2000)) == 1380 - 28


def sent(source: socket.socket, size: int) -> int:
    """Send a datagram; none where the kernel has still to tell of an earlier one."""
    try:
        return source.send(bytes(size))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        return 0


def learnt(source: socket.socket) -> int:
    """Send a datagram that the path does not take; return what the kernel knows of it."""
    sent(source, 1480 - 28)
    return source.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU


@pytest.mark.parametrize("size", [700, 1452], ids=["small", "as large as fits"])
def test_datagrams_that_the_kernel_cuts_up_arrive_each_for_itself(wired: Racks, size: int) -> None:
    whole = [bytes([number]) * size for number in range(40)]
    with (
        wired.b1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sink,
        wired.a1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as source,
        capture(wired.tor, "rack2") as packets,
    ):
        sink.bind(("10.65.2.5", 4000))
        sink.settimeout(ipip_lab.DEADLINE)
        source.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
        for first in range(0, len(whole), 20):
            source.sendto(b"".join(whole[first : first + 20]), ("10.65.2.5", 4000))
            assert [sink.recv(65535) for _ in range(20)] == whole[first : first + 20]
        assert {len(packet) for packet in packets() if packet[9] == header.IPIP} == {size + 48}
