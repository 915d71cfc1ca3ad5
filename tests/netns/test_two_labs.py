"""Two labs at once, with nodes of the same names: felixctl looks into the one that is meant."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import Called, eventually, felix_lab, lab_name, on_machine, standing

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

ONE, TWO = lab_name("one"), lab_name("two")


@pytest.fixture(scope="module", autouse=True)
def _labs() -> Iterator[None]:
    """Have two labs up; b1 runs in the first one only."""
    with standing(ONE), standing(TWO):
        failed = felix_lab(TWO, "fail", "b1")
        assert failed.status == 0, failed.error
        assert eventually(lambda: felixctl("--lab", TWO, "--node", "b1", "nodes").status == 2)
        yield


def felixctl(*words: str, **environment: str) -> Called:
    program = [str(Path(sys.executable).parent / "felixctl"), *words]
    outside = {name: value for name, value in os.environ.items() if name != "FELIX_LAB"}
    done = subprocess.run(program, capture_output=True, text=True, check=False, env={**outside, **environment})
    return Called(done.returncode, done.stdout, done.stderr)


def test_inside_a_lab_its_own_nodes_are_asked() -> None:
    asked = ("exec", "a1", "felixctl", "--node", "b1", "nodes")
    assert felix_lab(ONE, *asked).status == 0
    assert felix_lab(TWO, *asked).status == 2


@pytest.mark.parametrize("machine", ["a1", "tor"])
def test_a_machine_knows_its_lab_by_its_mounts(machine: str) -> None:
    assert on_machine(ONE, machine, "felixctl", "--node", "b1", "nodes").status == 0
    assert on_machine(TWO, machine, "felixctl", "--node", "b1", "nodes").status == 2


@pytest.mark.parametrize("lab", [ONE, TWO], ids=["one", "two"])
def test_outside_the_lab_is_named_by_option_or_environment(lab: str) -> None:
    status = 0 if lab == ONE else 2
    assert felixctl("--lab", lab, "--node", "b1", "nodes").status == status
    assert felixctl("--node", "b1", "nodes", FELIX_LAB=lab).status == status


def test_outside_no_lab_is_taken_by_chance() -> None:
    called = felixctl("--node", "a1", "nodes")
    assert (called.status, called.out) == (2, "")
    assert called.error.endswith("each have a node a1; say which by --lab, or FELIX_LAB\n")
    assert ONE in called.error
    assert TWO in called.error
