"""`felixctl diag` on a node with passwords: everything is in the file but them; and names completed by its agent."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import lab_name, standing

from felix_py.lab import machines
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAME = lab_name("diag")

IN_A_SECRET, IN_A_FILE, IN_SETTINGS = "correct-horse-battery", "staple-of-the-tor", "never-to-be-seen"

PEER = """\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: other-router}
spec:
  node: a1
  peerIP: 172.31.1.99
  asNumber: 64999
  passwordFile: %s
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing(NAME) as lab:
        yield lab


def felixctl(node: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*machines.enter(Lab(NAME), node), "felixctl", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=machines.environment())


@pytest.fixture
def secrets(lab: Lab) -> None:
    """Put passwords wherever users put them, some where they should not."""
    etc = lab.of_node("a1") / "etc"
    (etc / "secrets" / "mesh").mkdir(parents=True)
    (etc / "secrets" / "mesh" / "password").write_text(f"{IN_A_SECRET}\n")
    own = etc / "tor-password"
    own.write_text(f"{IN_A_FILE}\n")
    own.chmod(0o600)
    with (etc / "felix.yaml").open("a") as settings:
        settings.write(f"# the old password: {IN_SETTINGS}\n")
    (lab.directory / "resources" / "diag.yaml").write_text(PEER % "/etc/felix/tor-password")
    # It is in the journal, since somebody wrote it into a message.
    for verb in (["disable", "172.31.1.12", "--message", f"try {IN_A_SECRET}"], ["enable", "172.31.1.12"]):
        assert felixctl("a1", "bgp", *verb).returncode == 0


@pytest.mark.usefixtures("secrets")
def test_everything_is_in_the_file_but_passwords(tmp_path: Path) -> None:
    file = tmp_path / "report.tar.gz"
    done = felixctl("a1", "diag", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{file}: ")
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        folder = archive.getnames()[0].split("/")[0]
        texts = {
            entry.name.removeprefix(f"{folder}/"): archive.extractfile(entry).read().decode()  # type: ignore[union-attr]
            for entry in archive
        }
    for name, text in texts.items():
        for secret in (IN_A_SECRET, IN_A_FILE, IN_SETTINGS):
            assert secret not in text, name
    assert json.loads(texts["agent/status.json"])["node"] == "a1"
    assert "try REMOVED" in texts["agent/events.json"]
    assert json.loads(texts["agent/bgp-peer-172.31.2.11.json"])["address"] == "172.31.2.11"
    assert "proto 80" in texts["host/routes.txt"]
    assert "table inet felix" in texts["host/nftables.txt"]
    assert {row["check"] for row in json.loads(texts["host/doctor.json"])["checks"]} >= {"protocol 4", "disk"}
    assert "nodeName: a1" in texts["settings/felix.yaml"]
    assert "passwordFile: /etc/felix/tor-password" in texts["settings/resources/diag.yaml"]
    assert [name for name in texts if "secret" in name] == []


def test_a_node_without_an_agent_still_has_a_host(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "report.tar.gz"
    socket = lab.of_node("b1") / "run" / "agent.sock"
    socket.rename(socket.with_suffix(".away"))
    try:
        done = felixctl("b1", "diag", str(file))
    finally:
        socket.with_suffix(".away").rename(socket)
    assert done.returncode == 0, done.stderr
    with tarfile.open(file) as archive:
        found = {entry.name.split("/", 1)[1]: entry for entry in archive}
        status = archive.extractfile(found["agent/status.json"])
        assert status is not None
        assert "no agent runs here" in json.load(status)["error"]
        assert found["host/routes.txt"].size > 0


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(("diag", "/nowhere/report"), "cannot be written: No such file or directory", id="no such folder"),
        pytest.param(("--node", "a1", "diag"), "felix-lab exec a1 felixctl diag", id="another node"),
    ],
)
def test_what_cannot_be_gathered_is_said(words: tuple[str, ...], sentence: str) -> None:
    done = felixctl("a1", *words)
    assert done.returncode == 1
    assert sentence in done.stderr


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        pytest.param(("bgp", "peer", "172.31.2"), ["172.31.2.11", "172.31.2.12"], id="peers"),
        pytest.param(("routes", "10.65.3"), ["10.65.3.0/26"], id="prefixes"),
        pytest.param(("trace", "a1"), ["a1", "a1-pod1", "a1-pod2", "a1-pod3"], id="nodes and pods"),
    ],
)
def test_names_that_the_agent_knows_are_completed(words: tuple[str, ...], found: list[str]) -> None:
    assert felixctl("a1", "complete", "--", *words).stdout.split() == found
