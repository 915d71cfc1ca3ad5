"""What happens to a whole node that is disturbed: it heals by itself, or says in one sentence what is wrong."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from labs import eventually, felix_lab, lab_name, left_of

from felix_py.lab import health, machines, pods, watching
from felix_py.lab.state import Lab

pytestmark = pytest.mark.netns

NAME = lab_name("flt")
REMOTE = "10.65.2.0/26"


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of this file; each must leave it healthy."""
    try:
        called = felix_lab(NAME, "up")
        assert called.status == 0, called.error
        yield Lab(NAME)
    finally:
        felix_lab(NAME, "down")
        assert left_of(NAME) == []


@pytest.fixture(autouse=True)
def healthy_afterwards(lab: Lab) -> Iterator[None]:
    """Hold every test to it: whatever was done to the node, it is well again at the end."""
    yield
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 30), felix_lab(NAME, "status").out


def on_a1(*words: str) -> str:
    """Run a command on node a1 and return what it says."""
    called = felix_lab(NAME, "exec", "a1", *words)
    assert called.status == 0, called.error + called.out
    return called.out


def routes(*words: str) -> dict[str, dict[str, Any]]:
    """Return a1's routes by prefix, as felixctl tells them."""
    called = felix_lab(NAME, "exec", "a1", "felixctl", "routes", "-o", "json", *words)
    return {row["prefix"]: row for row in json.loads(called.out)["routes"]}


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(felix_lab(NAME, "exec", "a1", "felixctl", "status", "-o", "json").out)
    return found


def problems() -> list[str]:
    found: list[str] = status()["problems"]
    return found


def settled() -> bool:
    """Say whether every route of a1 is in place and carries packets to the other rack."""
    return {row["state"] for row in routes().values()} == {"installed"} and crosses()


def crosses() -> bool:
    return felix_lab(NAME, "exec", "a1-pod1", "ping", "-c1", "-W1", "10.65.2.1").status == 0


def pod() -> dict[str, Any]:
    """Return the route of a1-pod1, whatever address it has by now."""
    return next(row for row in routes().values() if row["from"] == "default/a1-pod1")


@contextmanager
def route_events(lab: Lab, machine: str) -> Iterator[watching.Watcher]:
    """Watch the route table of one machine."""
    with watching.running(watching.route_monitor(lab, machine)) as watcher:
        watcher.wait_for_netlink()
        yield watcher


TROUBLE = [
    pytest.param(["ip", "route", "flush", "proto", "80"], id="every route of ours flushed"),
    pytest.param(["ip", "route", "del", REMOTE], id="a route deleted"),
    pytest.param(["ip", "route", "replace", REMOTE, "via", "172.31.1.1"], id="a route replaced by another tool"),
    pytest.param(["ip", "link", "del", "tunl0"], id="tunnel deleted"),
    pytest.param(["ip", "link", "set", "tunl0", "down"], id="tunnel down"),
    pytest.param(["ip", "link", "set", "tunl0", "mtu", "1300"], id="tunnel with another MTU"),
    pytest.param(["ip", "addr", "flush", "dev", "tunl0"], id="tunnel without its address"),
    pytest.param(["sh", "-c", "pkill -9 --ns $$ --nslist net felix-ipip"], id="tunnel's process killed"),
    pytest.param(["sh", "-c", "ip link set eth0 down; ip link set eth0 up"], id="uplink down and up"),
]


@pytest.mark.parametrize("words", TROUBLE)
def test_heals_by_itself(words: list[str], lab: Lab) -> None:
    process = machines.daemon(lab.of_node("a1"))
    on_a1(*words)
    # An uplink that was down has lost its default route; a host's own network configuration would put it back.
    on_a1("ip", "route", "replace", "default", "via", "172.31.1.1")
    assert eventually(settled), felix_lab(NAME, "exec", "a1", "felixctl", "routes").out
    assert machines.daemon(lab.of_node("a1")) == process, "the agent healed it, and was not restarted for it"


def test_a_foreign_static_route_stays_and_is_reported_with_its_remedy() -> None:
    on_a1("ip", "route", "replace", REMOTE, "via", "172.31.1.1", "proto", "static")
    try:
        assert eventually(lambda: routes()[REMOTE]["state"] == "missing")
        assert routes()[REMOTE]["reason"] == (
            "a route of protocol static stands there (via 172.31.1.1 dev eth0); "
            "remove it with `ip route del 10.65.2.0/26 proto static`"
        )
    finally:
        on_a1("ip", "route", "del", REMOTE, "proto", "static")
    assert eventually(settled)


def test_a_drifted_parameter_is_set_again_at_once() -> None:
    path = f"/proc/sys/net/ipv4/conf/{pod()['device']}/proxy_arp"
    on_a1("sh", "-c", f"echo 0 > {path}")
    assert eventually(lambda: on_a1("cat", path).strip() == "1", 2)


def test_without_a_default_route_pods_still_find_their_gateway() -> None:
    on_a1("ip", "route", "del", "default")
    try:
        assert eventually(lambda: routes().get("169.254.1.1/32", {}).get("state") == "installed")
        # A pod of another runtime has no permanent neighbour: it asks by ARP, and the host must answer.
        on_pod("ip", "neigh", "del", "169.254.1.1", "dev", "eth0")
        on_pod("ping", "-c1", "-W2", "10.65.1.1")  # the same rack: nothing leads to the other one now
        assert "lladdr ee:ee:ee:ee:ee:ee" in on_pod("ip", "neigh", "show", "169.254.1.1")
    finally:
        on_a1("ip", "route", "replace", "default", "via", "172.31.1.1")
    assert eventually(lambda: "169.254.1.1/32" not in routes())


def on_pod(*words: str) -> str:
    """Run a command in pod a1-pod1 and return what it says."""
    called = felix_lab(NAME, "exec", "a1-pod1", *words)
    assert called.status == 0, called.error + called.out
    return called.out


def test_an_uplink_without_its_address_is_named_and_heals() -> None:
    on_a1("ip", "addr", "del", "172.31.1.11/24", "dev", "eth0")
    try:
        assert eventually(
            lambda: routes()["10.65.1.0/26"]["reason"] == "no interface has this node's address 172.31.1.11/24"
        ), problems()
    finally:
        on_a1("ip", "addr", "add", "172.31.1.11/24", "dev", "eth0")
        on_a1("ip", "route", "replace", "default", "via", "172.31.1.1")
    assert eventually(settled)


def test_a_pod_that_lost_its_interface_is_named_and_harms_no_other(lab: Lab) -> None:
    prefix, interface = pod()["prefix"], pod()["device"]
    on_a1("ip", "link", "del", interface)
    assert eventually(lambda: pod()["state"] == "missing")
    assert f"{prefix} is missing: {interface} does not exist" in problems()
    assert felix_lab(NAME, "exec", "a1-pod2", "ping", "-c1", "-W2", "10.65.2.1").status == 0
    attach_again(lab, "a1-pod1")
    assert eventually(settled)


def attach_again(lab: Lab, name: str) -> None:
    """Have the container runtime remove and attach a pod again."""
    pod = pods.Pod(name, lab.topology().pods[name].name)
    pods.detach(lab, [pod])
    pods.attach(lab, [pod])


def test_an_agent_killed_and_started_again_writes_nothing(lab: Lab) -> None:
    before = machines.daemon(lab.of_node("a1"))
    with route_events(lab, "a1") as mine, route_events(lab, "b1") as neighbour:
        assert felix_lab(NAME, "fail", "a1.agent").status == 0
        assert eventually(lambda: machines.daemon(lab.of_node("a1")) not in (None, before))
        assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 30)
        assert mine.stop() == ()
        assert neighbour.stop() == ()


def all_told(before: int) -> bool:
    """Say whether another ExaBGP holds all sessions."""
    bgp = status()["bgp"]
    return bgp["childPid"] not in (None, before) and bgp["established"] == bgp["configured"]


def test_exabgp_killed_again_and_again_costs_no_route(lab: Lab) -> None:
    with route_events(lab, "a1") as mine, route_events(lab, "b1") as neighbour, route_events(lab, "tor") as router:
        for _ in range(5):
            before = status()["bgp"]["childPid"]
            os.kill(before, 9)
            # RFC 4724 section 4.2: who loses a session again before its End-of-RIB must forget what it kept. So the
            # next kill comes when the new process has told everybody; one in that very moment cannot be survived.
            assert eventually(lambda: all_told(before), 20)  # noqa: B023 - used now
        assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 60)
        assert mine.stop() == ()
        assert neighbour.stop() == ()
        assert router.stop() == ()


@contextmanager
def resource(lab: Lab, name: str, text: str) -> Iterator[Path]:
    """Put a file into the resource folder that every node reads, and put everything back afterwards."""
    path = lab.directory / "resources" / name
    before = path.read_text() if path.exists() else None

    def write(content: str) -> None:
        temporary = path.with_suffix(".new")
        temporary.write_text(content)
        temporary.rename(path)

    write(text)
    try:
        yield path
    finally:
        path.unlink() if before is None else write(before)


BROKEN = [
    pytest.param("kind: [IPPool\n", "cannot be read", id="broken YAML"),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: IPPolo, metadata: {name: x}, spec: {}}",
        "kind: is 'IPPolo', which is unknown",
        id="unknown kind",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: x}, spec: {cidr: 10.9.0.0/16, foo: 1}}",
        "IPPool x: spec.foo: is not supported; remove it",
        id="unsupported field",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: a}, spec: {cidr: 10.65.128.0/17}}",
        "IPPool a: spec.cidr: is 10.65.128.0/17, which overlaps IPPool default (10.65.0.0/16)",
        id="pool overlap",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: x}, "
        "spec: {cidr: 10.9.0.0/26, node: a1, state: confirmed}}",
        "which lies in no IPPool",
        id="block outside any pool",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: a0}, "
        "spec: {bgp: {ipv4Address: 172.31.1.11/24}}}",
        "Node a0: spec.bgp.ipv4Address: is 172.31.1.11, which Node a1 has already",
        id="two nodes with one address",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), BROKEN)
def test_a_faulty_resource_is_named_and_costs_nothing(lab: Lab, text: str, sentence: str) -> None:
    with route_events(lab, "a1") as events, resource(lab, "zz-faulty.yaml", text):
        assert eventually(lambda: any(sentence in problem for problem in problems())), problems()
        assert crosses()
        assert events.stop() == ()
    assert eventually(lambda: problems() == [])


def test_a_faulty_edit_of_a_file_keeps_what_it_said_before(lab: Lab) -> None:
    path = lab.directory / "resources" / "cluster.yaml"
    broken = path.read_text().replace("10.65.0.0/16", "10.65.0.1/16")
    with route_events(lab, "a1") as events, resource(lab, "cluster.yaml", broken):
        assert eventually(lambda: any("host bits" in problem for problem in problems())), problems()
        assert crosses()
        assert events.stop() == ()


@pytest.mark.parametrize(
    ("mode", "device"), [("Always", "tunl0"), ("Never", "eth0")], ids=["everything tunnelled", "nothing tunnelled"]
)
def test_another_mode_of_the_pool_moves_routes_in_place(lab: Lab, mode: str, device: str) -> None:
    path = lab.directory / "resources" / "cluster.yaml"
    changed = path.read_text().replace("CrossSubnet", mode)
    with resource(lab, "cluster.yaml", changed):
        assert eventually(lambda: {routes()[prefix]["device"] for prefix in ("10.65.1.0/26", REMOTE)} == {device})
        assert eventually(settled)
        assert ("tunl0" in on_a1("ip", "-br", "link")) == (mode == "Always")
    assert eventually(lambda: routes()[REMOTE]["device"] == "tunl0")


def test_a_wrong_as_is_explained_and_touches_no_other_session(lab: Lab) -> None:
    path = lab.directory / "resources" / "peers.yaml"
    before = sessions_since()
    with resource(lab, "peers.yaml", path.read_text().replace("64500", "64999")):
        assert eventually(lambda: any("(tor-a1)" in problem and "AS" in problem for problem in problems()), 30), (
            problems()
        )
        assert {name: since for name, since in sessions_since().items() if name != "tor-a1"} == {
            name: since for name, since in before.items() if name != "tor-a1"
        }


def sessions_since() -> dict[str, str]:
    found = json.loads(felix_lab(NAME, "exec", "a1", "felixctl", "bgp", "peers", "-o", "json").out)
    return {row["name"]: row["since"] for row in found["peers"]}


def test_an_unreachable_peer_is_named_and_harms_no_other(lab: Lab) -> None:
    peer = (
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: ghost}, "
        "spec: {node: a1, peerIP: 172.31.1.99, asNumber: 64999}}"
    )
    before = sessions_since()
    with resource(lab, "zz-ghost.yaml", peer):
        assert eventually(lambda: any("172.31.1.99 (ghost)" in problem for problem in problems())), problems()
        assert before.items() <= sessions_since().items()
        assert crosses()
    assert eventually(lambda: problems() == [])


def test_a_second_agent_is_refused_in_one_sentence(lab: Lab) -> None:
    called = felix_lab(NAME, "exec", "a1", "felix-agent", "run")
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
        called = felix_lab(NAME, "exec", "a1", "felixctl", "routes", "--diff")
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
    called = felix_lab(NAME, "exec", "a1", "felix-agent", "cleanup")
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


@pytest.mark.parametrize("name", ["agent.sock", "cni.sock", "ipip.sock"])
@pytest.mark.parametrize("data", [b"\x00\xff" * 5000 + b"\n", b"{}\n", b""], ids=["binary", "empty object", "nothing"])
def test_rubbish_on_a_socket_does_no_harm(lab: Lab, name: str, data: bytes) -> None:
    process = machines.daemon(lab.of_node("a1"))
    rubbish(lab.of_node("a1") / "run" / name, data)
    assert settled()
    assert machines.daemon(lab.of_node("a1")) == process


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
    found: dict[str, Any] = json.loads(
        felix_lab(NAME, "exec", "a1", "felixctl", "bgp", "peer", address, "-o", "json").out
    )
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
    called = felix_lab(NAME, "exec", "a1", "felixctl", "bgp", "disable", "10.9.9.9")
    assert called.status != 0
    assert "no session with 10.9.9.9 is configured; configured are 172.31.1.1, " in called.error + called.out
