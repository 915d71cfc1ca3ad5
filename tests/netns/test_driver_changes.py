"""One driver gives way to another while the node's pods go on talking: connections live on, and nothing is left."""

import socket
import threading
from itertools import permutations

import ipip_lab
import pytest
from ipip_lab import Driver, Node, Racks

from ipip.device import Device

pytestmark = pytest.mark.netns

DATA = bytes(range(251)) * (4 << 10)
"""1 MB, of a length that no packet size divides."""

LEFT_BY: dict[Driver, tuple[str, ...]] = {
    "kernel": ("nft list tables", "felix-ipip"),
    "ebpf": ("tc filter show dev eth0 ingress", "felix-ipip"),
    "tun": ("ip -d link show", " tun "),
}
"""What shows a driver at work: a command, and the words that it prints."""


def changes(before: Driver, after: Driver) -> object:
    marks = [pytest.mark.ipip_module] if "kernel" in (before, after) else []
    return pytest.param(before, after, id=f"{before} gives way to {after}", marks=marks)


def moved(node: Node, driver: Driver) -> Node:
    """Have another agent, with another driver, take the node over."""
    device = node.namespace.do(Device, run_directory=node.directory, driver=driver)
    node = Node(node.namespace, node.pod, device, node.wish, node.directory)
    node.put()
    node.route()
    return node


def is_at_work(node: Node, driver: Driver) -> bool:
    command, words = LEFT_BY[driver]
    return words in node.namespace.run(*command.split()).stdout


@pytest.mark.parametrize(("before", "after"), [changes(*each) for each in permutations(("kernel", "ebpf", "tun"), 2)])
def test_connections_live_on_when_a_driver_gives_way_to_another(before: Driver, after: Driver) -> None:
    with ipip_lab.racks(before, "ebpf") as racks:
        racks.ready()
        for node in (racks.a1, racks.b1):
            node.namespace.do(ipip_lab.offload_transmission, b"eth0", on=False)
        received: list[bytes] = []
        with racks.b1.pod.do(socket.create_server, ("10.65.2.5", 4000)) as server:
            server.settimeout(ipip_lab.DEADLINE)
            taking = threading.Thread(target=take, args=(server, received))
            taking.start()
            with racks.a1.pod.do(socket.create_connection, ("10.65.2.5", 4000), ipip_lab.DEADLINE) as stream:
                there_and_back(racks, stream, before, after)
            taking.join()
    assert received == [DATA * 3]


def there_and_back(racks: Racks, stream: socket.socket, before: Driver, after: Driver) -> None:
    stream.sendall(DATA)
    node = racks.a1
    for gone, works in ((before, after), (after, before)):
        node = moved(node, works)
        assert (is_at_work(node, gone), is_at_work(node, works)) == (False, True)
        assert node.read() == node.wish
        stream.sendall(DATA)


def take(server: socket.socket, received: list[bytes]) -> None:
    stream, _ = server.accept()
    with stream, stream.makefile("rb") as file:
        stream.settimeout(ipip_lab.DEADLINE)
        received.append(file.read())
