"""`felixctl doctor` on nodes of a real lab that are broken on purpose: what it finds, and the fix that it names."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from labs import eventually, lab_name, standing

from felix_py.ctl.probe_packets import Ends, Request, Way, packet
from felix_py.lab import health, machines, namespaces
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAME = lab_name("doctor")

Checks = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of this file; each leaves it as it was."""
    with standing(NAME) as lab:
        yield lab


def run(machine: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*machines.enter(Lab(NAME), machine), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=machines.environment())


def on(machine: str, *words: str) -> str:
    """Run a command on a machine; it has to succeed."""
    done = run(machine, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def doctor(node: str, *words: str) -> Checks:
    done = run(node, "felixctl", "doctor", "-o", "json", *words)
    document = json.loads(done.stdout)
    failed = any(row["state"] == "failed" for row in document["checks"])
    assert (done.returncode, document["healthy"]) == (int(failed), not failed)
    return {row["check"]: row for row in document["checks"]}


@contextmanager
def changed(machine: str, there: list[str], back: list[str]) -> Iterator[None]:
    on(machine, *there)
    try:
        yield
    finally:
        on(machine, *back)


def table(machine: str, hook: str, rules: str, policy: str = "accept") -> Any:
    chain = f"table inet other {{ chain {hook} {{ type filter hook {hook} priority 0; policy {policy}; {rules}; }}; }}"
    return changed(machine, ["nft", chain], ["nft", "delete", "table", "inet", "other"])


def judged(checks: Checks, name: str) -> tuple[str, str, str]:
    return checks[name]["state"], checks[name]["detail"], checks[name]["fix"] or ""


def test_a_node_of_a_lab_is_well() -> None:
    checks = doctor("a1")
    assert {name for name, row in checks.items() if row["state"] not in ("ok", "skipped")} == set()
    assert checks["protocol 4"]["detail"] == "protocol 4 passes to 2 nodes and back"
    assert checks["path MTU"]["detail"] == "full packets get through to 2 nodes"


A1_TO_B2, B2_TO_A1 = "ip saddr 172.31.1.11 ip daddr 172.31.2.12", "ip saddr 172.31.2.12 ip daddr 172.31.1.11"


@pytest.mark.parametrize(
    ("filtered", "detail", "fix"),
    [
        pytest.param(
            (A1_TO_B2,),
            "protocol 4 from this node to b2 (172.31.2.12) is filtered; the other direction and plain packets pass",
            "let IP protocol 4 pass from 172.31.1.11 to 172.31.2.12",
            id="there",
        ),
        pytest.param(
            (B2_TO_A1,),
            "protocol 4 from b2 (172.31.2.12) to this node is filtered; the other direction and plain packets pass",
            "let IP protocol 4 pass from 172.31.2.12 to 172.31.1.11",
            id="back",
        ),
        pytest.param(
            (A1_TO_B2, B2_TO_A1),
            "protocol 4 is filtered both from this node to b2 (172.31.2.12) and back, though plain packets pass",
            "between 172.31.1.11 and 172.31.2.12",
            id="both ways",
        ),
    ],
)
def test_a_router_that_drops_protocol_4_is_found_with_the_direction(
    filtered: tuple[str, ...], detail: str, fix: str
) -> None:
    with table("tor", "forward", "; ".join(f"{each} ip protocol 4 drop" for each in filtered)):
        here, there = doctor("a1"), doctor("b2")
    assert here["protocol 4"]["state"] == "failed"
    assert here["protocol 4"]["detail"].startswith(detail)
    assert fix in here["protocol 4"]["fix"]
    # The other end finds the same, seen from there.
    assert there["protocol 4"]["state"] == "failed"
    seen = {A1_TO_B2: "from a1 (172.31.1.11) to this node", B2_TO_A1: "from this node to a1 (172.31.1.11)"}
    assert len(filtered) > 1 or seen[filtered[0]] in there["protocol 4"]["detail"]


def test_a_node_that_answers_nobody_is_no_filter_of_protocol_4() -> None:
    with table("b2", "input", "icmp type echo-request drop"):
        state, detail, fix = judged(doctor("a1"), "protocol 4")
    assert (state, "b2 (172.31.2.12) does not answer a plain echo request" in detail) == ("warning", True)
    assert "felixctl trace 172.31.2.12" in fix


@contextmanager
def _narrow() -> Iterator[None]:
    mtu = ["ip", "link", "set", "rack-b", "mtu"]
    with changed("tor", [*mtu, "1400"], [*mtu, "1500"]):
        yield


def test_a_node_without_its_cable_is_told_what_can_be_known() -> None:
    up = "ip link set eth0 up; ip route replace default via 172.31.2.1"
    with changed("b1", ["ip", "link", "set", "eth0", "down"], ["sh", "-c", up]):
        checks = doctor("b1")
    lab = Lab(NAME)
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == [])
    assert checks["protocol 4"]["state"] in ("warning", "skipped"), checks["protocol 4"]
    assert checks["agent"]["state"] == "failed"


def test_a_narrow_path_is_found_with_who_said_it() -> None:
    with _narrow():
        state, detail, fix = judged(doctor("a1"), "path MTU")
    assert state == "failed"
    assert "packets of 1500 bytes do not reach b1 (172.31.2.11), those of 1400 do" in detail
    assert "172.31.1.1 says that it passes on 1400 bytes; and 1 more nodes like that" in detail
    assert "ip link set dev UPLINK mtu 1400" in fix


def test_an_mtu_black_hole_is_called_so() -> None:
    with _narrow(), table("tor", "output", "meta l4proto icmp drop"):
        state, detail, fix = judged(doctor("a1"), "path MTU")
    assert (state, "nobody says so: an MTU black hole" in detail) == ("failed", True)
    assert "mtu 1400" in fix


def test_nothing_is_sent_where_nothing_may_be() -> None:
    on("b2", "nft", "table inet other { counter seen { }; chain raw { type filter hook prerouting priority -310; }; }")
    try:
        rule = "add rule inet other raw icmp type echo-request counter name seen"
        on("b2", "nft", f"{rule}; add rule inet other raw ip protocol 4 counter name seen")
        assert doctor("a1", "--no-probe")["protocol 4"]["state"] == "skipped"
        assert "packets 0 " in on("b2", "nft", "list", "counter", "inet", "other", "seen")
        assert doctor("a1")["protocol 4"]["state"] == "ok"
        assert "packets 0 " not in on("b2", "nft", "list", "counter", "inet", "other", "seen")
    finally:
        on("b2", "nft", "delete", "table", "inet", "other")


# --- hosts that are in the way of themselves


def _pod(node: str) -> str:
    return next(line.split()[0].split("@")[0] for line in on(node, "ip", "-br", "link").splitlines() if "cali" in line)


@contextmanager
def _wide_pod() -> Iterator[None]:
    """A veth of a pod that nobody has told the agent of, whose MTU it keeps of none but its own."""
    link = ["ip", "link", "add", "calistranger", "mtu", "1500", "type", "veth", "peer", "name", "stranger"]
    with changed("a1", link, ["ip", "link", "del", "calistranger"]):
        yield


@contextmanager
def _renamed() -> Iterator[None]:
    address = ["172.31.2.11/24", "dev", "eth0"]
    back = f"ip addr add {' '.join(address)}; ip route replace default via 172.31.2.1"
    with changed("b1", ["ip", "addr", "del", *address], ["sh", "-c", back]):
        yield
    lab = Lab(NAME)
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == [])


@contextmanager
def _full_disk() -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "felix-test", "/var/lib/felix"]
    with changed("a1", mount, ["umount", "/var/lib/felix"]):
        yield


@contextmanager
def _few_files() -> Iterator[None]:
    agent = machines.daemon(Lab(NAME).of_node("a1"))
    limit, used = ["prlimit", f"--pid={agent}"], len(os.listdir(f"/proc/{agent}/fd"))  # noqa: PTH208 - only how many
    with changed("a1", [*limit, f"--nofile={used + 2}:"], [*limit, "--nofile=20000:"]):
        yield


@pytest.mark.parametrize(
    ("broken", "node", "check", "state", "detail", "fix"),
    [
        pytest.param(
            lambda: table("a1", "forward", "tcp dport 22 accept", "drop"),
            "a1",
            "FORWARD policy",
            "failed",
            "chain inet other forward drops what no rule of it accepts",
            "nft insert rule inet other forward",
            id="a firewall drops what it does not know",
        ),
        pytest.param(
            lambda: table("a1", "input", "tcp dport 22 accept", "drop"),
            "a1",
            "INPUT policy",
            "failed",
            "chain inet other input drops",
            "tcp dport 179 accept",
            id="a firewall keeps nodes out",
        ),
        pytest.param(
            lambda: table("a1", "input", "ip protocol 4 drop"),
            "a1",
            "tunnel rules",
            "failed",
            "chain inet other input drops tunnel packets",
            "nft delete rule inet other input handle N",
            id="a rule against tunnels",
        ),
        pytest.param(
            _wide_pod, "a1", "MTU", "warning", "has MTU 1500, and the tunnel 1480", "restart the pod", id="MTU"
        ),
        pytest.param(
            lambda: changed(
                "a1",
                ["ip", "addr", "add", "10.65.3.9/32", "dev", "lo"],
                ["ip", "addr", "del", "10.65.3.9/32", "dev", "lo"],
            ),
            "a1",
            "overlaps",
            "failed",
            "10.65.3.9/32 of lo and 10.65.3.0/26, a block of pods, overlap",
            "renumber the interface",
            id="a network in the pods' range",
        ),
        pytest.param(
            _renamed,
            "b1",
            "node address",
            "failed",
            "no interface has 172.31.2.11/24",
            "ip address add 172.31.2.11/24",
            id="the node's address is gone",
        ),
        pytest.param(_full_disk, "a1", "disk", "failed", " kB left: events", "free some space", id="a full disk"),
        pytest.param(
            _few_files,
            "a1",
            "files",
            "failed",
            " files open: it will",
            "LimitNOFILE",
            id="files run out",
        ),
    ],
)
def test_what_is_broken_is_found_with_its_fix(
    broken: Any, node: str, check: str, state: str, detail: str, fix: str
) -> None:
    with broken():
        found = judged(doctor(node), check)
    assert found[0] == state, found
    assert detail in found[1]
    assert fix in found[2]


@contextmanager
def _running(machine: str, name: str, folder: Path) -> Iterator[None]:
    """Let a program of this name run there."""
    program = folder / name
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([*machines.enter(Lab(NAME), machine), str(program), "60"])
    try:
        comm = Path("/proc", str(process.pid), "comm")
        assert eventually(lambda: comm.read_text().strip() == name[:15])
        yield
    finally:
        process.kill()
        process.wait()


def test_programs_that_have_their_own_say_are_named(tmp_path: Path) -> None:
    names = {
        "kube-router": ("other networking", "failed"),
        "firewalld": ("firewall", "warning"),
        "NetworkManager": ("NetworkManager", "warning"),
        "systemd-networkd": ("networkd", "warning"),
    }
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_running("a1", name, tmp_path))
        checks = doctor("a1", "--no-probe")
    assert {check: checks[check]["state"] for check, _ in names.values()} == dict(names.values())


def test_a_host_without_its_agent_shows_everything_that_the_agent_would_put_right(lab: Lab) -> None:
    pod = _pod("a2")
    directory = lab.of_node("a2")
    machines.signal_supervisor(directory, run=False)
    try:
        assert eventually(lambda: machines.daemon(directory) is None)
        wrong = ("ip_forward=0", "conf.all.rp_filter=2", f"conf.{pod}.proxy_arp=0")
        on("a2", "sysctl", "-qw", *(f"net.ipv4.{each}" for each in wrong))
        on("a2", "nft", "delete", "table", "inet", "felix")
        on("a2", "ip", "route", "del", "default")
        with namespaces.inside(lab.namespace("a2")), socket.create_server(("", 179)):
            checks = doctor("a2")
    finally:
        on("a2", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
        on("a2", "ip", "route", "replace", "default", "via", "172.31.1.1")
        machines.signal_supervisor(directory, run=True)
        assert eventually(lambda: health.not_converged(lab, lab.topology()) == [])
    failed = {name for name, row in checks.items() if row["state"] == "failed"}
    assert failed == {
        "agent", "forwarding", "pod interfaces", "gateway", "reverse path", "packet filter", "BGP port",
    }  # fmt: skip
    assert all(checks[name]["fix"] for name in failed)
    assert {row["state"] for row in doctor("a2").values()} <= {"ok", "skipped"}


def test_tunnel_packets_from_a_stranger_are_told() -> None:
    ends = Ends(*map(IPv4Address, ("172.31.9.10", "10.65.9.9", "172.31.2.11")))
    data = packet(Request(ends, Way.BOTH), 1, 1)
    with namespaces.inside(Lab(NAME).namespace("client")):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(data, ("172.31.2.11", 0))
    assert eventually(lambda: doctor("b1", "--no-probe")["tunnel drops"]["state"] == "warning")
    _, detail, fix = judged(doctor("b1", "--no-probe"), "tunnel drops")
    assert detail == "tunl0 dropped 1 packets from addresses of no known node"
    assert "externalNodesList" in fix
