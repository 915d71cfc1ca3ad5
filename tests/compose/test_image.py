"""The image: what is in it, what is not, and what its programs do."""

import json
from pathlib import Path
from typing import Any

import pytest
from compose_lab import docker

pytestmark = [pytest.mark.compose, pytest.mark.usefixtures("images")]

MEGABYTES = 200
"""How large the image of a node may be."""


def inside(*words: str) -> str:
    return docker("run", "--rm", "--network", "none", "felix-py:dev", *words)


def image() -> dict[str, Any]:
    (found,) = json.loads(docker("image", "inspect", "felix-py:dev"))
    return dict(found)


def test_it_is_small() -> None:
    assert image()["Size"] < MEGABYTES * 1_000_000


def test_it_has_no_compiler_and_no_installer() -> None:
    script = "for each in gcc cc clang musl-gcc ld make pip; do command -v $each; done; true"
    assert inside("sh", "-c", script) == ""


def test_it_says_what_it_is() -> None:
    labels = image()["Config"]["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[prefix + "title"] == "felix-py"
    assert labels[prefix + "licenses"] == "Apache-2.0"
    assert {prefix + name for name in ("version", "revision", "created", "description")} <= set(labels)


def test_nothing_of_the_build_is_in_its_environment() -> None:
    names = {each.partition("=")[0].lower() for each in image()["Config"]["Env"]}
    assert not {name for name in names if "proxy" in name or name.startswith(("pip_", "apt_"))}
    assert "No such file" in inside("sh", "-c", "ls /etc/pip.conf /etc/apt/apt.conf.d/90build 2>&1 || true")


def test_the_programs_are_there() -> None:
    assert "usage: felixctl" in inside("felixctl", "--help")
    assert "usage: felix-agent" in inside("felix-agent", "--help")
    supported = json.loads(inside("sh", "-c", """echo '{"cniVersion": "1.0.0"}' | CNI_COMMAND=VERSION felix-cni"""))
    assert "1.0.0" in supported["supportedVersions"]


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: us}}]
clusters: [{name: here, cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: us, user: {token: secret}}]
"""


def test_what_is_left_of_the_kubernetes_client_speaks_to_a_server(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "felix.yaml").write_text("nodeName: a1\ndatastore: kubernetes\nkubeconfig: /etc/felix/kubeconfig\n")
    words = [
        "run",
        "--rm",
        "--network",
        "none",
        "--cap-add",
        "NET_ADMIN",
        "-v",
        f"{tmp_path}:/etc/felix",
        "felix-py:dev",
    ]
    said = docker(*words, "sh", "-c", "timeout 3 felix-agent run 2>&1 || true")
    assert "https://127.0.0.1:9: Connection refused" in said, said
    assert "Traceback" not in said


def test_what_needs_a_compiler_was_built() -> None:
    script = (
        "import felix_py.cni, felix_py.kernel, ipip, pathlib;"
        "folders = [pathlib.Path(each.__path__[0]) for each in (felix_py, felix_py.cni, felix_py.kernel, ipip)];"
        "print(*sorted(each.name for folder in folders for each in folder.glob('*.*o')))"
    )
    built = ["callers.so", "exchange.so", "guard.bpf.o", "offload.so", "replace.so", "tunnel.bpf.o"]
    assert inside("python", "-c", script).split() == built


def test_everything_is_compiled_already() -> None:
    script = "import felix_py.ctl.main, argparse, json; print(felix_py.ctl.main.__cached__, json.__cached__)"
    for path in inside("sh", "-c", f"ls -1 $(python -c '{script}')").split():
        assert path.endswith(".pyc")


def test_the_plugin_is_installed_for_the_runtime_of_the_host(tmp_path: Path) -> None:
    words = ["run", "--rm", "--network", "none", "-v", f"{tmp_path}:/host", "felix-py:dev", "felix-cni-install"]
    for _ in range(2):  # an upgrade replaces what is there
        docker(*words)
        plugin = tmp_path / "opt" / "cni" / "bin" / "felix-cni"
        assert plugin.stat().st_mode & 0o777 == 0o755
        assert plugin.read_bytes().startswith(b"\x7fELF")
        [conflist] = (tmp_path / "etc" / "cni" / "net.d").iterdir()
        assert conflist.name == "10-felix.conflist"
        assert json.loads(conflist.read_text())["plugins"] == [{"type": "felix-cni"}]
        assert [each.name for each in plugin.parent.iterdir()] == ["felix-cni"]
