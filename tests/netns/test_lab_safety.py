"""The packet filter of a node of the lab: masquerading, a dead agent, plan and cleanup; and the doctor."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crafted import udp
from lab_node import NAME, crosses, on_a1
from labs import eventually, on_machine

from felix_py.lab import machines
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("healthy_afterwards")]

LISTEN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.settimeout(20)
    server.bind(("", 7777))
    print("ready", flush=True)
    print(server.recvfrom(99)[1][0], flush=True)
"""
SPEAK = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 7777))"

FORGE = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    raw.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))
"""
"""Sends a packet as it is."""


def inside(lab: Lab, machine: str, script: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", lab.namespace(machine), sys.executable, "-c", script, *words]


def source_seen(lab: Lab, source: str, target: str, address: str) -> str:
    """Send from one machine to another; return what address the other one sees."""
    with subprocess.Popen(inside(lab, target, LISTEN), stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        subprocess.run(inside(lab, source, SPEAK, address), check=True)
        return listener.stdout.readline().strip()


def table() -> str:
    return on_a1("nft", "--stateless", "list", "table", "inet", "felix")


def programs() -> dict[str, str]:
    """Return what stands where packets of each pod arrive, with the kernel's numbers of it."""
    pods = [line.split("@")[0] for line in on_a1("ip", "-br", "link").splitlines() if line.startswith("cali")]
    return {name: on_a1("tc", "filter", "show", "dev", name, "ingress") for name in pods}


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """Change a resource as a user does with an editor, and back."""
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def agent_down(lab: Lab) -> Iterator[None]:
    machines.signal_supervisor(lab.of_node("a1"), run=False)
    try:
        assert eventually(lambda: machines.daemon(lab.of_node("a1")) is None)
        yield
    finally:
        machines.signal_supervisor(lab.of_node("a1"), run=True)


def test_nat_outgoing_shows_the_node_to_the_outside_and_the_pod_to_pods(lab: Lab) -> None:
    pods = lab.pod_addresses()
    assert source_seen(lab, "a1-pod1", "client", "172.31.9.10") == pods["a1-pod1"]
    with edited(lab.directory / "resources" / "cluster.yaml", "ipipMode:", "natOutgoing: true\n  ipipMode:"):
        assert eventually(lambda: "nat-outgoing" in table().partition("chain postrouting")[2])
        assert source_seen(lab, "a1-pod1", "client", "172.31.9.10") == "172.31.1.11"
        assert source_seen(lab, "a1-pod1", "a2", "172.31.1.12") == "172.31.1.11", "as in Calico, nodes are outside"
        for other in ("a1-pod2", "a2-pod1", "b1-pod1"):
            assert source_seen(lab, "a1-pod1", other, pods[other]) == pods["a1-pod1"]
    assert eventually(lambda: "nat-outgoing" not in table().partition("chain postrouting")[2])
    assert source_seen(lab, "a1-pod1", "client", "172.31.9.10") == pods["a1-pod1"]


def test_the_hosts_own_packets_into_the_tunnel_come_from_its_end_of_it(lab: Lab) -> None:
    bound = SPEAK.replace(
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "(s := socket.socket(socket.AF_INET, socket.SOCK_DGRAM), s.bind(('172.31.1.11', 0)))[0]",
    )
    address = lab.pod_addresses()["b1-pod1"]
    with subprocess.Popen(inside(lab, "b1-pod1", LISTEN), stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        subprocess.run(inside(lab, "a1", bound, address), check=True)
        seen = listener.stdout.readline().strip()
    tunnel = json.loads(on_a1("felixctl", "status", "-o", "json"))["tunnel"]["address"]
    assert seen == tunnel


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_dead_agent_leaves_the_table_and_a_new_one_does_not_touch_it(lab: Lab, signal: str) -> None:
    before = on_a1("nft", "--stateless", "--handle", "list", "table", "inet", "felix")
    guarded = programs()
    assert all("felix-guard:" in each for each in guarded.values())
    process = machines.daemon(lab.of_node("a1"))
    subprocess.run(["kill", f"-{signal}", str(process)], check=True)
    assert on_a1("nft", "--stateless", "--handle", "list", "table", "inet", "felix") == before
    assert programs() == guarded
    assert eventually(lambda: machines.daemon(lab.of_node("a1")) not in (None, process))
    assert eventually(lambda: on_machine(NAME, "a1", "felixctl", "status").status == 0)
    assert on_a1("nft", "--stateless", "--handle", "list", "table", "inet", "felix") == before
    assert programs() == guarded, "not even loaded anew"


def test_plan_shows_what_differs_and_cleanup_removes_the_table_and_the_programs(lab: Lab) -> None:
    with agent_down(lab):
        name = next(iter(programs()))
        on_a1("tc", "qdisc", "del", "dev", name, "clsact")
        assert on_a1("felix-agent", "plan").startswith(f"set guard of pods' interfaces {name} from 10.65.")
        assert "felix-guard:" not in programs()[name], "a plan writes nothing"
        machines.signal_supervisor(lab.of_node("a1"), run=True)
        assert eventually(lambda: all("felix-guard:" in each for each in programs().values()))
    with agent_down(lab):
        on_a1("nft", "add element inet felix nodes { 192.0.2.1 }")
        assert on_a1("felix-agent", "plan") == "set nftables table inet felix nodes without 192.0.2.1\n"
        said = on_a1("felix-agent", "cleanup")
        assert "delete nftables table inet felix\n" in said
        assert "delete guard of pods' interfaces\n" in said
        assert on_a1("nft", "list", "tables") == ""
        assert set(programs().values()) == {""}
        assert not any(line.startswith("qdisc clsact") for line in on_a1("tc", "qdisc", "show").splitlines())
    assert eventually(lambda: "table inet felix" in on_machine(NAME, "a1", "nft", "list", "ruleset").out)
    assert eventually(lambda: all("felix-guard:" in each for each in programs().values()))


def test_status_says_who_guards_pods_and_why_and_a_spoofed_packet_is_counted(lab: Lab) -> None:
    status = json.loads(on_a1("felixctl", "status", "-o", "json"))
    assert status["guard"] == {"kind": "ebpf", "why": "ebpf: this kernel takes our BPF programs"}
    assert "guard      of pods' interfaces: ebpf: this kernel takes our BPF programs\n" in on_a1("felixctl", "status")

    def spoofed() -> float:
        ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9099/metrics').read().decode())"
        lines = subprocess.run(inside(lab, "a1", ask), capture_output=True, text=True, check=True).stdout.splitlines()
        return next(float(line.split()[-1]) for line in lines if 'counter="pod-spoofed"' in line)

    before = spoofed()
    stolen = udp("10.99.9.9", "172.31.9.10", b"stolen").hex()
    subprocess.run(inside(lab, "a1-pod1", FORGE, stolen, "172.31.9.10"), check=True)
    assert eventually(lambda: spoofed() == before + 1)


# --- the doctor, on a node that is well and on broken ones


def doctor() -> tuple[int, dict[str, dict[str, str]]]:
    called = on_machine(NAME, "a1", "felixctl", "doctor", "-o", "json")
    return called.status, {row["check"]: row for row in json.loads(called.out)["checks"]}


def failing() -> dict[str, str]:
    """Return what fails, by check: the fix."""
    status, rows = doctor()
    found = {name: row["fix"] for name, row in rows.items() if row["state"] == "failed"}
    assert status == int(bool(found))
    return found


def bgp_answers(lab: Lab) -> bool:
    """Say whether the node takes connections to its BGP port from others."""
    connect = "import socket; socket.create_connection(('172.31.1.11', 179), 1)"
    return subprocess.run(inside(lab, "client", connect), stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_a_node_that_is_well() -> None:
    assert failing() == {}


@pytest.mark.parametrize(("hook", "check"), [("forward", "FORWARD policy"), ("input", "INPUT policy")])
def test_a_firewall_that_drops_by_default_is_named_and_its_fix_is_one(lab: Lab, hook: str, check: str) -> None:
    driver = json.loads(on_a1("felixctl", "status", "-o", "json"))["tunnel"]["driver"]
    unseen = hook == "input" and driver == "ebpf"  # takes tunnel packets before any firewall
    chain = f"inet firewall {hook}s"
    on_a1("nft", f"add table inet firewall; add chain {chain} {{ type filter hook {hook} priority 0; policy drop; }}")
    try:
        assert crosses() == unseen
        assert bgp_answers(lab) == (hook == "forward")
        fix = failing()[check]
        for command in fix.partition(": ")[2].split("; "):
            on_a1("sh", "-c", command)
        assert eventually(lambda: failing() == {})
        assert crosses()
        assert bgp_answers(lab)
    finally:
        on_a1("nft", "delete table inet firewall")


def test_a_node_without_an_agent_and_with_somebody_else_at_the_port(lab: Lab, tmp_path: Path) -> None:
    program = tmp_path / "kube-router"
    shutil.copy("/bin/sleep", program)
    squat = "import socket, time; s = socket.create_server(('', 179)); print('ready', flush=True); time.sleep(60)"
    with agent_down(lab):
        other = subprocess.Popen(["ip", "netns", "exec", lab.namespace("a1"), str(program), "60"])
        squatter = subprocess.Popen(inside(lab, "a1", squat), stdout=subprocess.PIPE, text=True)
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == "ready\n"
            assert eventually(lambda: failing().keys() == {"agent", "BGP port", "other networking"}), failing()
        finally:
            for each in (other, squatter):
                each.kill()
                each.communicate()


def test_a_node_of_a_lab_is_not_examined_from_outside() -> None:
    called = subprocess.run(
        [str(Path(sys.executable).parent / "felixctl"), "--socket", "/nowhere", "--node", "a1", "doctor"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (called.returncode, called.stderr) == (
        1,
        "felixctl: doctor examines the host that it runs on; for a node of a lab: felix-lab exec a1 felixctl doctor\n",
    )
