"""Whose socket felixctl asks: the one given, that of a lab's node, or this node's own."""

from pathlib import Path

import pytest

from felix_py.ctl import client
from felix_py.ctl.client import Refused, Unreachable


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FELIX_LAB", raising=False)
    monkeypatch.delenv("FELIX_SOCKET", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two labs: both have a1, one has b1 as well, and the other one b2."""
    for name in ("lab/nodes/a1", "six/nodes/a1", "six/nodes/b1", "lab/nodes/b2"):
        socket = tmp_path / name / "run" / "agent.sock"
        socket.parent.mkdir(parents=True)
        socket.touch()
    (tmp_path / ".lock").touch()
    return tmp_path


def of(home: Path, node: str, lab: str | None = None) -> str:
    return client.socket_path(None, node, lab, home).relative_to(home).parts[0]


def test_a_node_that_one_lab_has_is_found(home: Path) -> None:
    assert (of(home, "b1"), of(home, "b2")) == ("six", "lab")


def test_of_several_labs_none_is_taken_by_chance(home: Path) -> None:
    with pytest.raises(Refused, match=r"^the labs lab and six each have a node a1; say which by --lab, or FELIX_LAB$"):
        of(home, "a1")


def test_the_lab_that_is_named_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (of(home, "a1", "six"), of(home, "a1", "lab")) == ("six", "lab")
    monkeypatch.setenv("FELIX_LAB", "lab")
    assert (of(home, "a1"), of(home, "a1", "six")) == ("lab", "six")


def test_inside_a_lab_no_other_one_is_looked_into(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FELIX_LAB", "lab")
    with pytest.raises(Unreachable, match=r"^lab lab has no running node b1; see `felix-lab --name lab status`$"):
        of(home, "b1")


@pytest.mark.parametrize("node", ["c1", "*"])
def test_a_node_that_no_lab_has_is_said(home: Path, node: str) -> None:
    with pytest.raises(Unreachable, match="no lab on this machine has a running node"):
        of(home, node)
    with pytest.raises(Unreachable, match="no lab on this machine has a running node"):
        of(home / "nowhere", node)


def test_a_lab_without_a_node_is_refused() -> None:
    with pytest.raises(Refused, match=r"^--lab six says where a node is, and no node was named; give --node as well$"):
        client.socket_path(None, None, "six")


def test_what_is_no_lab_is_asked_as_ever(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FELIX_LAB", "lab")
    assert client.socket_path(None, None, home=home) == Path("/run/felix/agent.sock")
    assert client.socket_path("/x", "a1", home=home) == Path("/x")
    monkeypatch.setenv("FELIX_SOCKET", "/y")
    assert client.socket_path(None, None, home=home) == Path("/y")
