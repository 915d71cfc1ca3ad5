"""A network one rack of which takes smaller packets: nodes and pods there follow, those of the other rack learn."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from labs import eventually, felix_lab, lab_name, standing

from felix_py.lab.state import Lab

pytestmark = pytest.mark.netns

NAME = lab_name("mtu")
TARGET = "10.65.2.1"
"""b1-pod1."""

TAKE = """
import socket
with socket.create_server(("", 7777)) as server:
    server.settimeout(20)
    print("ready", flush=True)
    stream, _ = server.accept()
    stream.settimeout(20)
    print(len(stream.makefile("rb").read()), flush=True)
"""
GIVE = "import socket, sys; socket.create_connection((sys.argv[1], 7777), 20).sendall(bytes(2_000_000))"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing(NAME) as made:
        yield made


def run(lab: Lab, machine: str, *words: str) -> str:
    command = ["ip", "netns", "exec", lab.namespace(machine), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def interfaces(lab: Lab, machine: str) -> dict[str, int]:
    return {each["ifname"]: each["mtu"] for each in json.loads(run(lab, machine, "ip", "-j", "link"))}


def narrow(lab: Lab, size: int) -> None:
    """Have everything that is plugged in in the second rack take so much."""
    for port in interfaces(lab, "rack-b").keys() - {"lo", "switch"}:
        run(lab, "rack-b", "ip", "link", "set", port, "mtu", str(size))
    for node in ("b1", "b2"):
        run(lab, node, "ip", "link", "set", "eth0", "mtu", str(size))
    held = json.loads(run(lab, "tor", "ip", "-j", "addr"))
    (leg,) = (each["ifname"] for each in held if any(one["local"] == "172.31.2.1" for one in each["addr_info"]))
    run(lab, "tor", "ip", "link", "set", leg, "mtu", str(size))


def streamed(lab: Lab) -> int:
    """Send 2 MB from rack to rack; return how much arrived."""
    takes = ["ip", "netns", "exec", lab.namespace("b1-pod1"), sys.executable, "-c", TAKE]
    with subprocess.Popen(takes, stdout=subprocess.PIPE, text=True) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
        run(lab, "a1-pod1", sys.executable, "-c", GIVE, TARGET)
        return int(taker.stdout.readline())


def told_by_icmp(lab: Lab) -> str | None:
    """Return what a pod of the first rack hears about a packet that is too large for the path."""
    command = ["ip", "netns", "exec", lab.namespace("a1-pod1"), "ping", "-c1", "-W2", "-M", "do", "-s", "1452", TARGET]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"mtu ?= ?(\d+)", answer.stdout + answer.stderr)
    return found[1] if found else None


def pods_take(lab: Lab, size: int) -> bool:
    return all(interfaces(lab, pod)["eth0"] == size for pod in ("b1-pod1", "b1-pod2", "b1-pod3", "b2-pod1"))


def test_nodes_and_pods_of_a_narrow_rack_follow_and_the_others_learn(lab: Lab) -> None:
    assert pods_take(lab, 1480)
    narrow(lab, 1400)
    assert eventually(lambda: pods_take(lab, 1380)), interfaces(lab, "b1-pod1")
    assert interfaces(lab, "b1")["tunl0"] == 1380
    told = json.loads(felix_lab(NAME, "exec", "b1", "felixctl", "status", "-o", "json").out)
    assert told["podMTU"]["value"] == 1380
    assert told["healthy"]

    assert interfaces(lab, "a1-pod1")["eth0"] == 1480, "its own node's uplink is as it was"
    assert streamed(lab) == 2_000_000
    assert eventually(lambda: told_by_icmp(lab) == "1380")
    assert "1 received" in run(lab, "a1-pod1", "ping", "-c1", "-W2", "-M", "do", "-s", "1352", TARGET)

    narrow(lab, 1500)
    assert eventually(lambda: pods_take(lab, 1480)), interfaces(lab, "b1-pod1")
    assert streamed(lab) == 2_000_000
