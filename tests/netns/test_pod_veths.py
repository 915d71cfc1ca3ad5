"""A pod's veth on the real kernel: nothing passes before it is opened, and everything does when that returns."""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from spaces import Space

from felix_py.cni import podnet
from felix_py.cni.podnet import Veth
from felix_py.ledger import Attachment, with_mac

pytestmark = pytest.mark.netns

MTU = 1400
ADDRESSES = ip_address("10.65.0.7"), ip_address("fd65::7")


@pytest.fixture
def host() -> Iterator[Space]:
    made = Space()
    yield made
    made.do(let_go)
    made.close()


@pytest.fixture
def pod() -> Iterator[Space]:
    made = Space()
    yield made
    made.close()


@pytest.fixture
def attachment(pod: Space) -> Attachment:
    return with_mac(Attachment("c1", "eth0", "default/web-0", "cali1", ADDRESSES, netns=pod.path))


@pytest.fixture
def veth(host: Space, pod: Space, attachment: Attachment) -> Iterator[Veth]:
    descriptor = os.open(pod.path, os.O_RDONLY)
    made = host.do(podnet.make, attachment, MTU, descriptor)
    yield made
    made.close()
    os.close(descriptor)


def let_go() -> None:
    """Close what the thread of a host keeps."""
    podnet._of_thread.sock.close()


def flags(space: Space, device: str) -> set[str]:
    (line,) = (line for line in space.run("ip", "-o", "link", "show", "dev", device).splitlines())
    return set(line.partition("<")[2].partition(">")[0].split(","))


def test_the_hosts_end_is_down_until_it_is_opened(host: Space, pod: Space, attachment: Attachment, veth: Veth) -> None:
    assert "UP" not in flags(host, "cali1")
    assert "UP" in flags(pod, "eth0")
    assert "LOWER_UP" not in flags(pod, "eth0"), "what the pod sends goes nowhere"
    host.do(veth.open, attachment)
    for space, device in ((host, "cali1"), (pod, "eth0")):
        assert {"UP", "LOWER_UP"} <= flags(space, device)


def test_the_first_packet_passes_when_it_is_open(host: Space, pod: Space, attachment: Attachment, veth: Veth) -> None:
    host.do(veth.open, attachment)
    host.ip("route add 10.65.0.7 dev cali1", "route add fd65::7 dev cali1", "addr add 10.65.9.9/32 dev lo")
    for address in ("10.65.0.7", "fd65::7"):
        assert host.pings(address)
    assert pod.pings("10.65.9.9")


def test_no_descriptor_is_left(host: Space, pod: Space, attachment: Attachment) -> None:
    descriptor, held = os.open(pod.path, os.O_RDONLY), []
    for _ in range(3):
        made = host.do(podnet.make, attachment, MTU, descriptor)
        host.do(made.open, attachment)
        made.close()
        host.ip("link del cali1")
        held.append(len(list(Path("/proc/self/fd").iterdir())))
    os.close(descriptor)
    assert held == held[:1] * 3, "but for the socket that is kept"
