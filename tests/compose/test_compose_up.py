"""The lab in containers: what it does once it is up, and when its nodes stop, are killed, restarted and paused."""

import json
import os
import signal
import urllib.request
from urllib.error import URLError

import pytest
from compose_lab import PAGE_PORT, Compose, eventually

pytestmark = pytest.mark.compose

BACK = 60.0
"""Seconds until a node that came back must reach everybody, on a machine that may be busy."""


def test_nobody_is_privileged(lab: Compose) -> None:
    found = {name: lab.container(name)["HostConfig"]["Privileged"] for name in ("tor", "spine", "a1", "client")}
    assert found == dict.fromkeys(found, False)


def test_everybody_reaches_everybody(lab: Compose) -> None:
    for name in ("a1", "a2", "b1", "b2"):
        called = lab.execute(name, "ping-matrix")
        assert "64 of 64 pings answered" in called.out, called.out
    assert "16 of 16 pings answered" in lab.execute("client", "ping-matrix").out


def test_the_pods_were_attached_by_the_plugin(lab: Compose) -> None:
    listed = lab.execute("a1", "felixctl", "endpoints").out
    assert [line.split()[0] for line in listed.splitlines()[1:]] == [
        "default/a1-pod1", "default/a1-pod2", "default/a1-pod3",
    ]  # fmt: skip
    assert "default via 169.254.1.1" in lab.execute("a1", "felix-lab", "exec", "a1-pod1", "ip", "route").out


def test_one_node_is_asked_from_another(lab: Compose) -> None:
    called = lab.execute("a1", "felixctl", "--node", "b2", "status")
    assert called.out.startswith("node       b2, healthy"), called.out


@pytest.mark.usefixtures("lab")  # it may be the first of them all
def test_the_page_shows_every_node_to_this_machine() -> None:
    assert eventually(_page_is_served, BACK), "its container starts beside those of the nodes"
    with urllib.request.urlopen(f"http://127.0.0.1:{PAGE_PORT}/page/feed", timeout=10) as feed:
        whole = next(json.loads(line[5:]) for line in feed if line.startswith(b"data:"))
    nodes = whole["put"]["nodes"]
    assert {name for name, row in nodes.items() if row.get("asked")} == {"a1", "a2", "b1", "b2"}, nodes


def _page_is_served() -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{PAGE_PORT}/", timeout=10).close()
    except URLError:
        return False
    return True


def test_the_engines_own_way_out_is_closed(lab: Compose) -> None:
    for name in ("tor", "spine", "a1", "client"):
        routes = lab.execute(name, "ip", "route").out
        assert ".254" not in routes, (name, routes)


def test_an_agent_that_dies_in_its_container_costs_no_packet(lab: Compose) -> None:
    count, restarts = 200, lab.container("b1")["RestartCount"]
    script = (
        f"felix-lab exec b1-pod1 ping -q -i 0.02 -c {count} 10.65.0.1 > /run/ping.log & sleep 0.5; "
        "pkill -9 felix-agent; wait; cat /run/ping.log"
    )
    called = lab.execute("b1", "sh", "-c", script)
    assert f"{count} packets transmitted, {count} received" in called.out, called.out
    assert eventually(lambda: lab.execute("b1", "felixctl", "status").status == 0, BACK), lab.said()
    assert lab.container("b1")["RestartCount"] == restarts


def test_a_paused_node_goes_on_carrying_packets(lab: Compose) -> None:
    assert lab.run("pause", "b1").status == 0
    try:
        # Its kernel is not paused: routes, tunnel and pods are there without the agent.
        assert lab.matrix("a1")
    finally:
        assert lab.run("unpause", "b1").status == 0
    assert eventually(lambda: lab.execute("b1", "felixctl", "status").status == 0, BACK), lab.said()


def test_a_restarted_node_comes_back_with_its_pods(lab: Compose) -> None:
    assert lab.run("restart", "b1").status == 0
    _is_back(lab)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_while_a_node_is_stopped_the_rest_goes_on_and_started_it_is_back(lab: Compose, end: str) -> None:
    assert lab.run(end, "b1").status == 0
    called = lab.execute("a1", "felix-lab", "exec", "a1-pod1", "ping", "-c", "3", "-i", "0.2", "10.65.3.1")
    assert "3 received" in called.out, called.out
    assert lab.run("start", "b1").status == 0
    _is_back(lab)


def test_a_node_that_crashes_is_started_again_by_the_engine(lab: Compose) -> None:
    before = lab.container("b1")
    os.kill(before["State"]["Pid"], signal.SIGKILL)
    assert eventually(lambda: lab.container("b1")["RestartCount"] == before["RestartCount"] + 1, BACK)
    _is_back(lab)


def _is_back(lab: Compose) -> None:
    assert eventually(lambda: lab.matrix("a1", "b1"), BACK), lab.said()
    assert "64 of 64" in lab.execute("b1", "ping-matrix").out
