"""The programs of a node that runs: felix-agent beside an agent, felixctl, and rubbish on their sockets."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab_node import NAME, on_a1, pod, problems, settled
from labs import eventually, felix_lab, on_machine

from felix_py.lab import health, machines
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("healthy_afterwards")]


def test_a_second_agent_is_refused_in_one_sentence(lab: Lab) -> None:
    called = on_machine(NAME, "a1", "felix-agent", "run")
    assert called.status == 1
    running = machines.daemon(lab.of_node("a1"))
    assert called.error == (
        f"felix-agent: an agent runs on this node already (process {running}, /run/felix/agent.lock); "
        "stop it first, or ask it with felixctl\n"
    )


def test_without_permission_one_sentence_says_so() -> None:
    called = felix_lab(
        NAME, "exec", "a1", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "felix-agent", "run"
    )
    assert called.status == 1
    assert called.error == (
        "felix-agent: `felix-agent run` needs the capability CAP_NET_ADMIN and this process (user 0) does not have it; "
        "run it as root\n"
    )


def test_a_node_as_it_should_be_has_nothing_to_plan() -> None:
    assert on_a1("felix-agent", "plan") == "nothing to change\n"
    assert on_a1("felixctl", "plan") == "nothing to change: the kernel holds what it should\n"


def test_what_differs_is_shown_as_a_diff() -> None:
    assert on_a1("felixctl", "routes", "--diff") == "the kernel holds exactly what is wanted\n"
    prefix, interface = pod()["prefix"], pod()["device"]
    on_a1("ip", "link", "set", interface, "down")
    try:
        assert eventually(lambda: pod()["state"] == "missing")
        called = on_machine(NAME, "a1", "felixctl", "routes", "--diff")
        assert called.status == 1
        assert called.out == f"+ {prefix} dev {interface} scope link\n  missing: {interface} is down\n"
    finally:
        on_a1("ip", "link", "set", interface, "up")
    assert eventually(settled)


def test_cleaning_up_removes_all_that_is_ours_and_a_new_agent_makes_it_again(lab: Lab) -> None:
    with machines_down(lab):
        said = on_a1("felix-agent", "cleanup")
        assert "delete route 10.65.0.0/26 blackhole" in said
        assert "delete tunnel tunl0" in said
        assert on_a1("ip", "route", "show", "proto", "80") == ""
        assert "tunl0" not in on_a1("ip", "-br", "link")
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 30)
    assert settled()


@contextmanager
def machines_down(lab: Lab) -> Iterator[None]:
    """Hold a1's agent down, as `systemctl stop` would."""
    machines.signal_supervisor(lab.of_node("a1"), run=False)
    try:
        assert eventually(lambda: machines.daemon(lab.of_node("a1")) is None)
        yield
    finally:
        machines.signal_supervisor(lab.of_node("a1"), run=True)


def test_cleaning_up_under_a_running_agent_is_refused() -> None:
    called = on_machine(NAME, "a1", "felix-agent", "cleanup")
    assert called.status == 1
    assert "an agent runs on this node already" in called.error


def rubbish(path: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass


@pytest.mark.parametrize("name", ["agent.sock", "cni.sock"])
@pytest.mark.parametrize("data", [b"\x00\xff" * 5000 + b"\n", b"{}\n", b""], ids=["binary", "empty object", "nothing"])
def test_rubbish_on_a_socket_does_no_harm(lab: Lab, name: str, data: bytes) -> None:
    process = machines.daemon(lab.of_node("a1"))
    rubbish(lab.of_node("a1") / "run" / name, data)
    assert settled()
    assert machines.daemon(lab.of_node("a1")) == process


@pytest.mark.alone
def test_felixctl_answers_within_300_milliseconds(lab: Lab) -> None:
    # felixctl itself, not felix-lab and a second Python around it; its socket is a path, and paths need no namespace.
    socket_of_a1 = lab.of_node("a1") / "run" / "agent.sock"
    assert fastest(lambda: felixctl("--socket", str(socket_of_a1), "routes")) < 0.3


def felixctl(*words: str) -> None:
    """Run felixctl on its own; it must answer that all is well."""
    subprocess.run([str(Path(sys.executable).parent / "felixctl"), *words], check=True, capture_output=True, timeout=10)


def fastest(work: Callable[[], object]) -> float:
    """Return the shortest of five runs in seconds: the machine may be busy, and that is not what is measured."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def session(address: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(on_machine(NAME, "a1", "felixctl", "bgp", "peer", address, "-o", "json").out)
    return found


def test_a_session_is_disabled_enabled_and_reset_by_felixctl() -> None:
    assert "is asked for" in on_a1("felixctl", "bgp", "disable", "172.31.1.1", "--message", "maintenance of a1")
    assert eventually(lambda: session("172.31.1.1")["state"] == "Idle")
    assert session("172.31.1.1")["lastError"].startswith("administratively down; ")
    assert any(problem.startswith("BGP session with 172.31.1.1 (tor-a1) is Idle") for problem in problems())
    on_a1("felixctl", "bgp", "enable", "172.31.1.1")
    assert eventually(lambda: session("172.31.1.1")["state"] == "Established")
    flaps = session("172.31.1.12")["flaps"]
    on_a1("felixctl", "bgp", "reset", "172.31.1.12")
    assert eventually(lambda: session("172.31.1.12")["flaps"] == flaps + 1)
    assert eventually(lambda: session("172.31.1.12")["state"] == "Established")
    on_a1("felixctl", "bgp", "refresh", "172.31.1.12")
    assert eventually(settled)


def test_a_session_that_is_not_there_cannot_be_disabled() -> None:
    called = on_machine(NAME, "a1", "felixctl", "bgp", "disable", "10.9.9.9")
    assert called.status != 0
    assert "no session with 10.9.9.9 is configured; configured are 172.31.1.1, " in called.error + called.out
