"""Whatever happens to a lab on its way up, and whenever: nothing of it is left. And the demo proves what it says."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from labs import PROGRAM, SMALL, eventually, felix_lab, host_folders, lab_name, left_of

from felix_py.lab import namespaces, state

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


TOPOLOGIES = Path(__file__).parents[2] / "deploy" / "lab"
"""Where two-racks.yaml is, of `felix-lab demo`, and two-racks-spine.yaml, of `make demo` and docker-compose.yml."""


@pytest.mark.alone
@pytest.mark.parametrize("file", ["two-racks.yaml", pytest.param("two-racks-spine.yaml", marks=pytest.mark.frr)])
def test_the_demo_proves_everything_in_time_and_leaves_nothing(file: str) -> None:
    name, before, start = lab_name("demo"), host_folders(), time.monotonic()
    called = felix_lab(name, "demo", "--topology", str(TOPOLOGIES / file))
    took = time.monotonic() - start
    assert called.status == 0, called.out + called.error
    assert took < 30
    assert called.out.count("✓ ") >= 8
    assert "everything proved" in called.out
    assert "\x1b" not in called.out
    assert left_of(name) == []
    assert host_folders() <= before | others_need()


def others_need() -> set[str]:
    """Return the folders that stay because another lab is up."""
    others = state.HOME.is_dir() and any(path.is_dir() for path in state.HOME.iterdir())
    netns = {str(namespaces.NETNS)} if namespaces.NETNS.is_dir() and any(namespaces.NETNS.iterdir()) else set()
    return {*state.SHARED, str(state.HOME)} if others else netns


@pytest.mark.parametrize(
    ("number", "after"),
    [
        pytest.param(signal.SIGINT, "comes up", id="at the very start"),
        pytest.param(signal.SIGTERM, "comes up+0.15", id="while agents start"),
        pytest.param(signal.SIGINT, "comes up+0.9", id="while sessions come up"),
        pytest.param(signal.SIGINT, "2. ", id="during a proof"),
        pytest.param(signal.SIGHUP, "5. ", id="when the terminal goes away during a proof"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, after: str) -> None:
    name = lab_name("int")
    mark, _, pause = after.partition("+")
    process = subprocess.Popen(
        [*PROGRAM, "--name", name, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert any(mark in line for line in process.stdout)
        time.sleep(float(pause or 0))  # the moment itself is the case
        process.send_signal(number)
        _, error = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
        felix_lab(name, "down") if left_of(name) else None
    assert process.returncode == 130
    assert error == f"felix-lab: interrupted by {number.name}; nothing of the lab is left\n"
    assert left_of(name) == []


def test_who_comes_while_a_demo_runs_is_told_so_and_disturbs_nothing() -> None:
    name = lab_name("two")
    with subprocess.Popen([*PROGRAM, "--name", name, "demo"], stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            assert any("1. " in line for line in demo.stdout)
            for command in ("up", "demo", "down"):
                called = felix_lab(name, command)
                assert called.status == 2
                assert called.error == (
                    f"felix-lab: another felix-lab command works on the lab named {name} right now "
                    f"(process {demo.pid})\n"
                )
            rest = demo.stdout.read()
        finally:
            demo.terminate()
    assert "everything proved" in rest
    assert demo.returncode == 0
    assert left_of(name) == []


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.5])
def test_down_removes_what_a_crashed_up_left(pause: float, small: str) -> None:
    name = lab_name("crash")
    process = subprocess.Popen([*PROGRAM, "--name", name, "up", "--topology", small], stdout=-3, stderr=-3)
    assert eventually(lambda: bool(namespaces.named(f"felix-{name}-")))
    time.sleep(pause)  # the moment itself is the case
    process.kill()
    process.wait()
    refused = felix_lab(name, "up", "--topology", small)
    assert refused.status == 2, refused.out
    assert felix_lab(name, "down").status == 0
    assert left_of(name) == []


def test_up_and_down_can_be_repeated(small: str) -> None:
    name = lab_name("again")
    for _ in range(2):
        called = felix_lab(name, "up", "--topology", small)
        assert called.status == 0, called.error
        assert "12 of 12" in felix_lab(name, "ping").out
        assert felix_lab(name, "down").status == 0
        assert left_of(name) == []
    assert felix_lab(name, "down").out == f"no lab named {name} is up; nothing to do\n"
    assert felix_lab(name, "status").error == f"felix-lab: no lab named {name} is up; `felix-lab up` starts one\n"


def test_a_node_without_a_default_route_serves_its_pods_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(SMALL.replace("pods: 1}", "pods: 1, defaultRoute: false}"))
    name = lab_name("bare")
    try:
        called = felix_lab(name, "up", "--topology", str(path))
        assert called.status == 0, called.error
        assert "12 of 12" in felix_lab(name, "ping").out
    finally:
        felix_lab(name, "down")
    assert left_of(name) == []
