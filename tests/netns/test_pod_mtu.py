"""Pods that are there follow what their node's uplink takes, at both ends of their veth, while they go on talking."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from cni_agent import RESOURCES, AgentHost
from cni_lab import Host, command, host, in_pod, until
from ipip_lab import Namespace

from felix_py.kernel import jobs

pytestmark = pytest.mark.netns

FAR = "172.31.1.1"

DATA = bytes(range(251)) * (32 << 10)
"""8 MB, of a length that no packet size divides."""


class Wired(AgentHost):
    """A host whose uplink leads to a machine on the same wire."""

    far: Namespace

    def uplink(self, mtu: int) -> None:
        """Have the wire take so much from now on."""
        self.far.mtu("up0", mtu)
        self.ip("link", "set", "eth0", "mtu", str(mtu))

    def resources(self, mode: str, more: str = "") -> None:
        (self.folder / "resources" / "node.yaml").write_text(
            RESOURCES.replace("ipipMode: Never", f"ipipMode: {mode}") + more
        )

    def ends(self, pod: str) -> tuple[int, int]:
        """Return the MTU of a pod's interface, and of the host's end."""
        (outside,) = self.veths()
        return mtu_of(in_pod(pod, "ip", "-j", "link", "show", "eth0")), mtu_of(self.ip("-j", "link", "show", outside))

    def told(self) -> int:
        """Return what the file says."""
        return int((self.state / "mtu").read_text())


def mtu_of(listing: str) -> int:
    return int(json.loads(listing)[0]["mtu"])


def prepare(node: Host) -> None:
    assert isinstance(node, Wired)
    node.far.ip(
        f"link add up0 type veth peer name eth0 netns {node.name}\naddr add {FAR}/24 dev up0\nlink set up0 up\n"
    )
    node.far.ip("route add 10.65.0.0/16 via 172.31.1.11\n")
    node.ip("addr", "add", "172.31.1.11/24", "dev", "eth0")
    node.ip("link", "set", "eth0", "up")
    (node.folder / "resources").mkdir()
    node.resources("Never")
    (node.folder / "felix.yaml").write_text(
        f"nodeName: n1\nrunDirectory: {node.folder}\nstateDirectory: {node.state}\n"
        f"resourceDirectory: {node.folder / 'resources'}\n"
    )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Wired]:
    Wired.far = Namespace("far")
    try:
        with host(tmp_path, kind=Wired, before=prepare) as made:
            assert isinstance(made, Wired)
            yield made
    finally:
        Wired.far.close()


def attached(node: Wired) -> tuple[str, str]:
    """Attach a pod; return its namespace and its address."""
    pod = node.pod()
    answer = node.cni("ADD", "c1", pod)
    assert answer.status == 0, answer.text
    return pod, answer.address


def test_a_pod_follows_the_uplink_down_and_up_at_both_ends(node: Wired) -> None:
    pod, _ = attached(node)
    assert (node.ends(pod), node.told()) == ((1500, 1500), 1500)
    for size in (1400, 1500, 9000, 1300):
        node.uplink(size)
        until(lambda size=size: node.ends(pod) == (size, size), f"the pod takes {size}")
        until(lambda size=size: node.told() == size, f"the file says {size}")
    assert [event["mtu"] for event in node.log if event["event"] == "link.put"] == [1400, 1500, 9000, 1300]


def test_a_pod_follows_a_change_of_pools_and_settings(node: Wired) -> None:
    pod, _ = attached(node)
    node.resources("Always")
    until(lambda: node.ends(pod) == (1480, 1480), "there is a tunnel now, which needs 20 bytes")
    override = "---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n"
    node.resources("Always", override + "spec: {ipipMTU: 1350}\n")
    until(lambda: node.ends(pod) == (1350, 1350), "the setting goes first")
    assert mtu_of(node.ip("-j", "link", "show", "tunl0")) == 1350
    node.resources("Never", override + "spec: {ipipMTU: 1350}\n")
    until(lambda: node.ends(pod) == (1500, 1500), "without a tunnel its setting means nothing")


def test_a_new_pod_and_one_from_before_a_restart_have_the_same(node: Wired) -> None:
    pod, _ = attached(node)
    node.stop()
    node.uplink(1400)
    node.start()
    until(lambda: node.ends(pod) == (1400, 1400), "the uplink shrank while no agent ran")


def test_a_pod_that_somebody_made_smaller_stays_smaller(node: Wired) -> None:
    pod, _ = attached(node)
    command("ip", "-n", pod, "link", "set", "eth0", "mtu", "1380")
    node.uplink(1400)
    until(lambda: node.ends(pod) == (1380, 1400), "its own end fits already")
    node.uplink(1300)
    until(lambda: node.ends(pod) == (1300, 1300), "and follows where it does not")


def test_a_namespace_that_cannot_be_entered_is_named_with_the_remedy(node: Wired) -> None:
    pod, address = attached(node)
    kept = Path("/run/netns", f"{pod}-moved")
    kept.touch()
    command("mount", "--bind", f"/run/netns/{pod}", kept)
    try:
        command("umount", f"/run/netns/{pod}")
        node.uplink(1400)
        events = until(lambda: [each for each in node.log if each["event"] == "step.refused"], "it is told")
        assert re.fullmatch(
            rf"MTU 1400 of cali\w+: /run/netns/{pod} .* restart the pod, to be given the new one", events[0]["reason"]
        )
        assert node.pings(address), "the pod goes on"
    finally:
        command("mount", "--bind", kept, f"/run/netns/{pod}")
        command("umount", kept)
        kept.unlink()
    until(lambda: node.ends(pod) == (1400, 1400), "it is tried again")


@contextmanager
def sink(far: Namespace) -> Iterator[list[bytes]]:
    """Take one TCP connection; the list holds what came, once the block has ended."""
    received: list[bytes] = []
    with far.do(socket.create_server, (FAR, 4000)) as server:
        server.settimeout(15)

        def take() -> None:
            stream, _ = server.accept()
            with stream, stream.makefile("rb") as file:
                stream.settimeout(15)
                received.append(file.read())

        thread = threading.Thread(target=take)
        thread.start()
        yield received
        thread.join()


def inside(pod: str) -> ThreadPoolExecutor:
    """Return a thread that lives in a pod."""
    thread = ThreadPoolExecutor(max_workers=1)
    with Path("/run/netns", pod).open() as file:
        thread.submit(jobs.set_namespace, file.fileno()).result()
    return thread


def test_a_stream_goes_on_while_the_uplink_shrinks_and_grows(node: Wired) -> None:
    pod, _ = attached(node)
    with sink(node.far) as received, inside(pod).submit(socket.create_connection, (FAR, 4000), 15).result() as stream:
        sizes = [1400, 1500, 1300, 1500]
        piece = len(DATA) // len(sizes) + 1
        for number, size in enumerate(sizes):
            node.uplink(size)
            stream.sendall(DATA[number * piece : (number + 1) * piece])
    assert received == [DATA]
