"""One driver gives way to another while the node's pods go on talking: nothing is lost but what is on its way."""

import errno
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations, permutations
from pathlib import Path

import ipip_lab
import pytest
from ipip_lab import Driver, Namespace, Node, Racks

from ipip.device import Device, TunnelRefused
from ipip.process import Process

pytestmark = pytest.mark.netns

DATA = bytes(range(251)) * (4 << 10)
"""1 MB, of a length that no packet size divides."""

PATIENCE = 4 * ipip_lab.DEADLINE
"""Seconds that nothing may come: TCP waits ever longer while there is no device, and an emulated guest takes long."""

EVERY = "0.02" if "GUEST" in os.environ else "0.001"
"""Seconds between two packets of a train; an emulated processor carries no thousand a second each way."""

ON_THEIR_WAY = 5
"""Packets that a change may cost a train: 5 ms of a thousand a second."""

ROUNDS = 2 if "GUEST" in os.environ else 5
"""There and back."""

SAID = re.compile(r"(\d+) packets transmitted, (\d+) received")
"""What ping says at last."""

DRIVERS: tuple[Driver, ...] = ("kernel", "ebpf", "tun")

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


@pytest.mark.parametrize(("before", "after"), [changes(*each) for each in permutations(DRIVERS, 2)])
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
        stream.settimeout(PATIENCE)
        received.append(file.read())


class Train:
    """Echo requests from one pod to another, at a steady rate."""

    def __init__(self, sender: Namespace, address: str, log: Path) -> None:
        self._log = log
        command = ("ip", "netns", "exec", sender.name, "ping", "-i", EVERY, address)
        with log.open("w") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def answers(self) -> int:
        return self._log.read_text().count("icmp_seq=")

    def end(self) -> tuple[int, int]:
        """Return how many were sent, and of how many no answer came."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)
        found = SAID.search(self._log.read_text())
        assert found, self._log.read_text()[-500:]
        sent, answered = map(int, found.groups())
        return sent, sent - answered

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def trains(racks: Racks, directory: Path) -> Iterator[list[Train]]:
    """Have both pods ask each other all the time, so that a change is met by packets both ways."""
    running = [Train(racks.a1.pod, "10.65.2.5", directory / "a1"), Train(racks.b1.pod, "10.65.1.5", directory / "b1")]
    try:
        ipip_lab.until(lambda: all(each.answers() > ON_THEIR_WAY for each in running), "both trains are answered")
        yield running
    finally:
        for each in running:
            each.close()


@pytest.mark.parametrize(("before", "after"), [changes(*each) for each in combinations(DRIVERS, 2)])
@pytest.mark.parametrize("far", [pytest.param("ebpf", id="asked by ebpf"), pytest.param("tun", id="asked by tun")])
def test_a_change_loses_no_more_than_what_is_on_its_way(
    before: Driver, after: Driver, far: Driver, tmp_path: Path
) -> None:
    with ipip_lab.racks(before, far) as racks:
        node = racks.ready().a1
        for driver in (after, before) * ROUNDS:
            with trains(racks, tmp_path) as running:
                node = moved(node, driver)
                assert is_at_work(node, driver)
                until_both_go_on(running)
                sent, lost = zip(*(each.end() for each in running), strict=True)
            assert max(lost) <= ON_THEIR_WAY, f"{node.device.driver} to {driver}: {lost} of {sent}"
            assert node.read() == node.wish


def until_both_go_on(running: Iterable[Train]) -> None:
    """Wait until packets have passed that were sent after the change."""
    enough = [each.answers() + 2 * ON_THEIR_WAY for each in running]
    ipip_lab.until(
        lambda: all(each.answers() > least for each, least in zip(running, enough, strict=True)),
        "both trains are answered after the change",
    )


@pytest.mark.parametrize("then", ["ebpf", "tun"])
def test_a_substitute_carries_on_where_the_new_driver_fails(then: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TunnelRefused("no TUN today")

    with ipip_lab.racks("ebpf", "ebpf") as racks:
        node = racks.ready().a1
        with monkeypatch.context() as patch:
            patch.setattr(Process, "put", refuse)
            with pytest.raises(TunnelRefused, match="no TUN today"):
                moved(node, "tun")
        assert racks.ping().returncode == 0
        assert "dev tunl0-sub" in node.namespace.run("ip", "route", "get", "10.65.2.5").stdout
        node = moved(node, then)
        assert racks.ping().returncode == 0
        assert "dev tunl0 " in node.namespace.run("ip", "route", "get", "10.65.2.5").stdout
        assert "tunl0-sub" not in node.namespace.run("ip", "link").stdout
        assert node.read() == node.wish


def test_a_change_that_was_cut_off_is_no_state_that_anybody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise ProcessLookupError(errno.ESRCH, "died")

    with ipip_lab.racks("tun", "ebpf") as racks:
        node = racks.ready().a1
        with monkeypatch.context() as patch:
            patch.setattr(Process, "delete", die)
            with pytest.raises(TunnelRefused):
                moved(node, "ebpf")
        assert racks.ping().returncode == 0
        again = node.namespace.do(Device, run_directory=node.directory)
        assert again.driver == "tun"
        assert node.namespace.do(again.read, "tunl0") != node.wish
        node.namespace.do(again.put, node.wish)
        assert node.namespace.do(again.read, "tunl0") == node.wish
        assert "tunl0-sub" not in node.namespace.run("ip", "link").stdout
        assert racks.ping().returncode == 0
