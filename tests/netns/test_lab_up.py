"""A whole lab that is up: what its commands answer, what breaks and heals, and what a second lab is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import PROGRAM, eventually, felix_lab, lab_name, left_of, standing

from felix_py.lab import faults, health, machines, namespaces, state
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAME = lab_name("up")


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of this file; each leaves it as it was."""
    with standing(NAME) as lab:
        yield lab


@pytest.fixture
def healed(lab: Lab) -> Iterator[None]:
    """Heal everything after a test that breaks things, and wait until all is as before."""
    yield
    felix_lab(NAME, "heal")
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == []), felix_lab(NAME, "status").out


def test_status_tells_that_all_is_well() -> None:
    called = felix_lab(NAME, "status")
    assert called.status == 0, called.out
    assert [line.split()[0] for line in called.out.splitlines()] == [
        "NAME", "tor", "a1", "a2", "b1", "b2", "client", "✓",
    ]  # fmt: skip
    assert "4 of 4 sessions" in called.out


def test_everybody_reaches_everybody() -> None:
    called = felix_lab(NAME, "ping")
    assert called.status == 0, called.out
    assert "272 of 272 pings answered" in called.out


def test_one_pings_another_by_name() -> None:
    called = felix_lab(NAME, "ping", "a1-pod1", "b2-pod3")
    assert called.status == 0, called.out
    assert "3 packets transmitted, 3 received" in called.out


@pytest.mark.parametrize(
    ("target", "words", "expected"),
    [
        pytest.param("a1", ["felixctl", "routes"], "10.65.2.0/26", id="felixctl on a node"),
        pytest.param("a1", ["hostname"], "a1\n", id="a node's own host name"),
        pytest.param("a1", ["cat", "/etc/felix/felix.yaml"], "nodeName: a1\n", id="a node's own files"),
        pytest.param("a1", ["ping", "-c", "1", "b2"], "(172.31.2.12)", id="another machine by its name"),
        pytest.param("tor", ["birdc", "show", "protocols"], "Established", id="birdc on the router"),
        pytest.param("client", ["ip", "route"], "default via 172.31.9.1", id="a host"),
        pytest.param("a1-pod1", ["ip", "route"], "default via 169.254.1.1", id="a pod"),
        pytest.param("rack-a", ["ip", "-br", "link"], "switch", id="a switch"),
    ],
)
def test_exec_runs_a_command_where_it_should(target: str, words: list[str], expected: str) -> None:
    called = felix_lab(NAME, "exec", target, *words)
    assert called.status == 0, called.error
    assert expected in called.out


def test_exec_gives_back_the_status_of_the_command() -> None:
    assert felix_lab(NAME, "exec", "a1", "sh", "-c", "exit 7").status == 7


def test_an_unknown_target_is_refused_with_what_there_is() -> None:
    called = felix_lab(NAME, "exec", "c9", "true")
    assert called.status == 2
    assert called.error.startswith("felix-lab: c9 is nothing in this lab; there are rack-a, rack-b, outside, tor, a1")
    assert felix_lab(NAME, "fail", "a1.roof").status == 2


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_second_one_is_refused_and_touches_nothing(command: str, lab: Lab) -> None:
    def fingerprint() -> object:
        return namespaces.named(lab.prefix), machines.daemon(lab.of_node("a1")), sorted(lab.directory.rglob("*"))

    before = fingerprint()
    called = felix_lab(NAME, command)
    assert called.status == 2
    assert called.error == f"felix-lab: a lab named {NAME} is up already; `felix-lab down` takes it down\n"
    assert fingerprint() == before


def test_felixctl_finds_a_node_of_a_lab_by_its_name() -> None:
    command = [machines.program("felixctl"), "--socket", str(state.Lab(NAME).of_node("b1") / "run" / "agent.sock")]
    done = subprocess.run([*command, "routes", "-o", "json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["node"] == "b1"


@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize("target", ["a1.uplink", "rack-b", "a2"])
def test_what_fails_is_seen_and_heals(target: str) -> None:
    assert felix_lab(NAME, "fail", target).status == 0
    broken = felix_lab(NAME, "ping")
    assert broken.status == 1
    assert "lost: " in broken.out
    status = felix_lab(NAME, "status")
    assert status.status == 1
    assert f"failed on purpose: {target}" in status.out
    assert felix_lab(NAME, "heal", target).out == f"healed {target}\n"
    assert eventually(lambda: felix_lab(NAME, "ping").status == 0)


@pytest.mark.usefixtures("healed")
def test_an_agent_that_is_killed_is_started_again(lab: Lab) -> None:
    before = machines.daemon(lab.of_node("a1"))
    assert f"process {before}; it is started again" in felix_lab(NAME, "fail", "a1.agent").out
    assert eventually(lambda: machines.daemon(lab.of_node("a1")) not in (None, before))


@pytest.mark.usefixtures("healed")
def test_a_killed_exabgp_is_started_again(lab: Lab) -> None:
    before = faults.exabgp(lab, "a1")
    assert f"process {before}; it is started again" in felix_lab(NAME, "fail", "a1.bgp").out
    assert eventually(lambda: faults.exabgp_or_none(lab, "a1") not in (None, before))


@pytest.mark.usefixtures("healed")
def test_a_killed_bird_is_started_again_and_keeps_its_routes(lab: Lab) -> None:
    before = machines.daemon(lab.of_router("tor"))
    [tor] = lab.topology().routers
    routes = health.learned(lab, tor)
    assert len(routes) == 4
    assert felix_lab(NAME, "fail", "tor.bgp").status == 0
    assert eventually(lambda: machines.daemon(lab.of_router("tor")) not in (None, before))
    assert health.learned(lab, tor) == routes


def test_a_dead_router_cuts_the_racks_and_heals(lab: Lab, healed: None) -> None:  # noqa: ARG001 - heals afterwards
    felix_lab(NAME, "fail", "tor")
    assert machines.daemon(lab.of_router("tor")) is None
    assert felix_lab(NAME, "exec", "a1-pod1", "ping", "-c", "1", "-W", "2", "172.31.1.12").status == 0
    assert felix_lab(NAME, "ping", "a1", "client").status == 1


def test_nothing_stands_in_the_namespace_of_the_host() -> None:
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)
    names = {link["ifname"] for link in links}
    assert not names & {"a1", "a2", "b1", "b2", "tor", "client", "switch", "tunl0", "rack-a"}
    assert not {name for name in names if name.startswith("cali")}
    routes = subprocess.run(["ip", "route", "show", "table", "all"], capture_output=True, text=True, check=True).stdout
    assert "10.65." not in routes
    assert "172.31." not in routes


def test_logs_are_those_of_the_daemon() -> None:
    assert "agent.started" in felix_lab(NAME, "logs", "-n", "1000", "a1").out
    assert felix_lab(NAME, "logs", "client").status == 2


# --- what is refused before anything is made


def test_who_is_not_root_is_told_so() -> None:
    # Nobody may not even read a checkout in root's home: the program is loaded first, and then becomes nobody.
    script = "import os, sys; from felix_py.lab import main; os.setuid(65534); sys.exit(main.main(['status']))"
    nobody = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert nobody.returncode == 1
    assert (
        nobody.stderr == "felix-lab: `felix-lab status` works with network namespaces; run it as root, or with sudo\n"
    )


def test_a_missing_bird_is_named_with_the_line_that_installs_it() -> None:
    bird = shutil.which("bird", path=machines.SYSTEM_PATH)
    name = lab_name("bird")
    # In a mount namespace of its own BIRD is covered by something that cannot be run.
    script = f'mount --bind /dev/null {bird} && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", *PROGRAM, "--name", name, "up"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "felix-lab: bird not found; install with: apt-get install bird2\n"
    assert left_of(name) == []


def test_a_faulty_topology_is_refused_with_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("networks: {lan: 10.0.0.0/33}\nnodes: {n1: {network: wan, address: 10.0.0.1}}\n")
    called = felix_lab(lab_name("bad"), "up", "--topology", str(path))
    assert called.status == 1
    assert called.error.splitlines() == [
        f"felix-lab: {path}: networks.lan: is '10.0.0.0/33'; give a subnet without host bits, as 172.31.1.0/24",
        f"felix-lab: {path}: nodes.n1.network: is 'wan', which is no network of this file; known are lan",
    ]
    assert left_of(lab_name("bad")) == []


def test_a_missing_topology_is_named() -> None:
    called = felix_lab(lab_name("gone"), "up", "--topology", "/nowhere.yaml")
    assert (called.status, called.error) == (
        2,
        "felix-lab: --topology is /nowhere.yaml, which does not exist; give the path of a topology\n",
    )


def test_the_reader_of_a_pipe_may_leave_early() -> None:
    process = subprocess.Popen([*PROGRAM, "--name", NAME, "status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate(timeout=20)
    assert process.returncode != -signal.SIGPIPE
    assert b"Traceback" not in error
