"""felixctl get, apply and delete on a real folder: all of what is asked for or nothing, and who says why not."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from felix_py.ctl import main
from felix_py.datastore import directory

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default}
spec: {cidr: 10.65.0.0/16, ipipMode: CrossSubnet}
"""
PEER = """\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 172.31.1.1, asNumber: 64500}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "resources"
    found.mkdir()
    (found / "pools.yaml").write_text("# pods\n" + POOL)
    return found


@pytest.fixture
def call(folder: Path, capsys: pytest.CaptureFixture[str]) -> "Call":
    return Call(folder, capsys)


class Call:
    """felixctl for a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Return the exit status, what was printed, and what was complained of."""
        status = main.main([*words, "--folder", str(self._folder)])
        shown = self._capsys.readouterr()
        return status, shown.out, shown.err


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "given.yaml"
    path.write_text(text)
    return str(path)


def test_resources_are_applied_where_they_stand_and_new_ones_in_a_file_of_their_name(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    given = file(tmp_path, POOL.replace("CrossSubnet", "Never") + "---\n" + PEER)
    assert call("apply", "-f", given) == (
        0,
        f"IPPool default changed, {folder}/pools.yaml\nBGPPeer tor created, {folder}/bgppeer-tor.yaml\n",
        "",
    )
    assert (folder / "pools.yaml").read_text().startswith("# pods\napiVersion")
    reading = directory.read(folder)
    assert {str(key) for key in reading.good} == {"IPPool default", "BGPPeer tor"}
    assert reading.faults == ()
    assert call("apply", "-f", given)[1] == (
        f"IPPool default unchanged, {folder}/pools.yaml\nBGPPeer tor unchanged, {folder}/bgppeer-tor.yaml\n"
    )


def test_one_fault_and_nothing_is_applied(call: Call, folder: Path, tmp_path: Path) -> None:
    given = file(tmp_path, PEER + "---\n" + POOL.replace("CrossSubnet", "Sometimes") + "---\n[1, 2]\n")
    status, out, error = call("apply", "-f", given)
    assert (status, out) == (2, "")
    first, second = error.splitlines()
    assert first.startswith(f"felixctl: {given}: IPPool default: spec.ipipMode: is 'Sometimes'")
    assert second == f"felixctl: {given}: holds [1, 2] where a resource (a mapping) should be"
    assert [path.name for path in folder.iterdir()] == ["pools.yaml"]


def test_what_contradicts_what_is_in_force_is_refused(call: Call, folder: Path, tmp_path: Path) -> None:
    given = file(tmp_path, POOL.replace("name: default", "name: other").replace("10.65.0.0/16", "10.65.4.0/24"))
    status, _, error = call("apply", "-f", given)
    assert status == 2
    assert error.startswith(f"felixctl: {folder}/ippool-other.yaml: IPPool other: ")
    assert [path.name for path in folder.iterdir()] == ["pools.yaml"]


def test_dry_runs_write_nothing(call: Call, folder: Path, tmp_path: Path) -> None:
    assert call("apply", "-f", file(tmp_path, PEER), "--dry-run")[1].endswith("bgppeer-tor.yaml (dry run)\n")
    assert call("delete", "ippool", "default", "--dry-run")[0] == 0
    assert [path.name for path in folder.iterdir()] == ["pools.yaml"]


def test_standard_input_and_lists_are_taken(
    call: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("apply", "-f", file(tmp_path, PEER))
    shown = call("get", "-o", "yaml")[1]
    assert [each["kind"] for each in yaml.safe_load(shown)["items"]] == ["BGPPeer", "IPPool"]
    assert call("delete", "-f", file(tmp_path, shown))[0] == 0
    assert list(folder.iterdir()) == []
    monkeypatch.setattr("sys.stdin", io.StringIO(shown))
    assert call("apply", "-f", "-")[0] == 0
    assert call("get", "-o", "yaml")[1].splitlines()[-1] == shown.splitlines()[-1]


def test_get_says_where_a_resource_stands_and_whether_it_is_in_force(call: Call, folder: Path) -> None:
    (folder / "bad.yaml").write_text(PEER.replace("64500", "-1"))
    status, out, _ = call("get")
    assert status == 1
    bad, good = (line.split(maxsplit=3) for line in out.splitlines()[1:])
    assert good == ["IPPool", "default", f"{folder}/pools.yaml", "in force"]
    assert bad[:3] == ["BGPPeer", "tor", f"{folder}/bad.yaml"]
    assert bad[3].startswith(f"not in force: {folder}/bad.yaml: BGPPeer tor: spec.asNumber: is -1")


def test_one_resource_is_itself_in_json(call: Call) -> None:
    status, out, _ = call("get", "ippools", "default", "-o", "json")
    assert (status, json.loads(out)) == (0, yaml.safe_load(POOL))


def test_what_is_not_there_is_named(call: Call) -> None:
    assert call("get", "IPPool", "other") == (
        1,
        "",
        "felixctl: there is no IPPool other; `felixctl get IPPool` lists those that are there\n",
    )
    status, _, error = call("delete", "ippool", "default", "other")
    assert status == 2
    assert error.endswith("has no IPPool other; `felixctl get` lists what there is\n")
    assert call("get", "ippool")[0] == 0  # the other was not deleted either


def test_claims_that_nodes_keep_are_theirs(call: Call, folder: Path) -> None:
    kept = folder / "ipam" / "affinities" / "a1.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(
        '{"metadata": {"name": "a1-10-65-0-0-26"}, "apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", '
        '"spec": {"node": "a1", "cidr": "10.65.0.0/26", "state": "confirmed"}}'
    )
    assert call("get", "blockaffinities")[1].splitlines()[1].split() == [
        "BlockAffinity", "a1-10-65-0-0-26", str(kept), "in", "force",
    ]  # fmt: skip
    status, _, error = call("delete", "blockaffinity", "a1-10-65-0-0-26")
    assert (status, error) == (
        2,
        f"felixctl: {kept}: BlockAffinity a1-10-65-0-0-26: is kept by nodes themselves; see `felixctl ipam`\n",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "holds no resource; give at least one", id="nothing"),
        pytest.param("a: [", "cannot be read: ", id="no YAML"),
        pytest.param(PEER + "---\n" + PEER, "stands there twice; keep one of the two", id="the same twice"),
    ],
)
def test_a_file_that_cannot_be_applied_is_a_sentence(call: Call, tmp_path: Path, text: str, words: str) -> None:
    status, out, error = call("apply", "-f", file(tmp_path, text))
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert words in error


def test_files_that_are_no_yaml_are_put_right_first(call: Call, folder: Path, tmp_path: Path) -> None:
    (folder / "half.yaml").write_text("a: [")
    status, _, error = call("apply", "-f", file(tmp_path, PEER))
    assert status == 2
    assert error.endswith("put that file right first\n")
    assert not (folder / "bgppeer-tor.yaml").exists()


def test_with_kubernetes_as_the_datastore_kubectl_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FELIX_DATASTORE", "kubernetes")
    assert main.main(["get"]) == 2
    assert "use kubectl, as `kubectl get ippools`" in capsys.readouterr().err


def test_a_link_to_a_file_elsewhere_stays_one(call: Call, folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    real.write_text(PEER)
    (folder / "peers.yaml").symlink_to(real)
    assert call("apply", "-f", file(tmp_path, PEER.replace("64500", "64501")))[0] == 0
    assert (folder / "peers.yaml").is_symlink()
    assert "64501" in real.read_text()


def test_many_at_once_lose_nobodys_work(folder: Path, tmp_path: Path) -> None:
    (folder / "pools.yaml").write_text("")
    program = [sys.executable, "-m", "felix_py.ctl.main", "apply", "--folder", str(folder), "-f"]
    running = []
    for number in range(8):
        path = tmp_path / f"{number}.yaml"
        path.write_text(PEER.replace("name: tor", f"name: tor{number}").replace("1.1,", f"1.{number + 1},"))
        running.append(subprocess.Popen([*program, str(path)], stdout=subprocess.DEVNULL))
    assert [process.wait(30) for process in running] == 8 * [0]
    assert len(directory.read(folder).good) == 8
