"""`kubectl felix`, run by kubectl at a real API server: which pods it finds, what it would run, and what it refuses."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import BINARIES, ApiServer, binary

pytestmark = pytest.mark.kubernetes

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "felix-system"}}
PODS = "/api/v1/namespaces/felix-system/pods"


def pod(server: ApiServer, node: str, phase: str = "Running") -> None:
    """Make a pod as the DaemonSet does, and say of it what kubelet would."""
    labels = {"app.kubernetes.io/name": "felix"}
    container = {"name": "agent", "image": "felix-py:dev"}
    spec = {"nodeName": node, "hostNetwork": True, "containers": [container]}
    metadata = {"name": f"felix-{node}", "namespace": "felix-system", "labels": labels}
    server.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    patch = {"status": {"phase": phase}}
    server.request("PATCH", f"{PODS}/felix-{node}/status", patch, content="strategic-merge-patch+json")


@pytest.fixture(autouse=True)
def pods(server: ApiServer) -> Iterator[None]:
    if binary("kubectl") is None:
        pytest.skip("needs kubectl: tests/kubernetes/binaries.sh FOLDER kubectl")
    server.apply(NAMESPACE)
    pod(server, "a1")
    pod(server, "a2")
    yield
    server.request("DELETE", f"{PODS}?gracePeriodSeconds=0")


def run(server: ApiServer, *words: str, program: str = "kubectl felix") -> "subprocess.CompletedProcess[str]":
    path = f"{FOLDER}:{BINARIES}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "KUBECONFIG": str(server.kubeconfig),
        "KUBECACHEDIR": f"{server.folder}/c",
    }
    return subprocess.run(
        [*program.split(), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def planned(server: ApiServer, *words: str) -> list[list[str]]:
    done = run(server, "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def executed(node: str, *words: str, given: tuple[str, ...] = ()) -> list[str]:
    where = ["--namespace", "felix-system", "exec", f"felix-{node}", "-c", "agent", "--", "felixctl"]
    return ["kubectl", *given, *where, *words]


def test_every_node_is_asked_where_none_is_named(server: ApiServer) -> None:
    assert planned(server, "bgp", "peers") == [executed("a1", "bgp", "peers"), executed("a2", "bgp", "peers")]


def test_a_node_that_is_named_is_asked_alone(server: ApiServer) -> None:
    for words in (("--node", "a2"), ("--node=a2",), ("-n", "felix-system", "--node", "a2")):
        assert planned(server, *words, "routes", "10.65.0.0/26", "--why") == [
            executed("a2", "routes", "10.65.0.0/26", "--why")
        ]
    assert planned(server, "--node", "a2", "--node", "a1", "status") == [
        executed("a2", "status"),
        executed("a1", "status"),
    ]


def test_what_follows_the_command_is_felixctls(server: ApiServer) -> None:
    words = ("-o", "json", "bgp", "disable", "172.31.1.1", "--message", "it's a test; $HOME", "--node", "x")
    assert planned(server, "--node", "a1", *words) == [executed("a1", *words)]
    assert planned(server, "--node", "a1", "--help") == [executed("a1", "--help")]


def test_which_cluster_is_kubectls(server: ApiServer) -> None:
    given = (f"--kubeconfig={server.kubeconfig}", "--context=lab")
    assert planned(server, *given, "--node", "a1", "status") == [executed("a1", "status", given=given)]
    assert "context" in run(server, "--context", "elsewhere", "status").stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(
            ["--node", "b9", "status"], "node b9 has no felix pod in namespace felix-system", id="no pod there"
        ),
        pytest.param(["-n", "default", "status"], "there is no felix pod in namespace default", id="none at all"),
        pytest.param(["events", "--follow"], "--follow does not end, and 2 nodes are asked", id="without end"),
        pytest.param([], "give a command, as in: kubectl felix status", id="nothing"),
        pytest.param(["--node"], "--node needs a value", id="no value"),
        pytest.param(["--node", "a1;reboot", "status"], "--node is 'a1;reboot', which is no name", id="no name"),
        pytest.param(["--context", "a b", "status"], "--context is 'a b', which is no name", id="a blank"),
    ],
)
def test_what_is_refused(server: ApiServer, words: list[str], sentence: str) -> None:
    done = run(server, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kubectl felix: ")
    assert sentence in done.stderr


def test_a_pod_that_does_not_run_is_named_and_the_others_are_asked(server: ApiServer) -> None:
    pod(server, "a1", "Pending")
    done = run(server, "--dry-run", "status")
    assert done.returncode == 2
    assert "node a1: pod felix-a1 is Pending and cannot be asked" in done.stderr
    assert [shlex.split(line) for line in done.stdout.splitlines()] == [executed("a2", "status")]


def test_of_several_nodes_each_answer_bears_its_name(server: ApiServer) -> None:
    """No kubelet is here: the API server itself refuses to run anything, and says so for each node."""
    done = run(server, "status")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["=== a1", "=== a2"]
    assert done.stderr.count("Error from server") == 2
    done = run(server, "status", "-o", "json")
    assert done.stdout.splitlines() == [f'{{"node": "{node}", "status": 1, "answer": null}}' for node in ("a1", "a2")]
    assert run(server, "status", "-o", "yaml").stdout.splitlines() == ["--- # a1", "--- # a2"]
    assert run(server, "--node", "a1", "status").returncode == 1


def test_help(server: ApiServer) -> None:
    done = run(server, "--help")
    assert done.returncode == 0
    assert "kubectl felix --node a1 routes" in done.stdout
    assert "kubectl-felix" in run(server, "list", program="kubectl plugin").stdout


def test_completion_knows_nodes_and_options(server: ApiServer) -> None:
    for name in ("a1", "a2"):
        server.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    complete = "kubectl __complete felix"
    assert run(server, "--node", "", program=complete).stdout.splitlines() == ["a1", "a2", ":4"]
    assert "felix-system" in run(server, "--node", "a1", "-n", "", program=complete).stdout.splitlines()
    assert "--dry-run" in run(server, "--d", program=complete).stdout.splitlines()
    assert run(server, "--node", "a1", "routes", "", program=complete).stdout.splitlines() == [":4"]
