"""Our manifest: it is what its base says, and a real API server takes it and its overlays."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, binary

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())


def built(folder: Path) -> str:
    program = binary("kubectl") or shutil.which("kubectl")
    if program is None:
        pytest.skip("needs kubectl: apt-get install kubernetes-client")
    done = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    found = list(yaml.safe_load_all(text))
    return sorted(found, key=lambda each: each["kind"] != "Namespace")


def test_the_manifest_is_what_its_base_says() -> None:
    written = (FOLDER / "felix.yaml").read_text()
    body = "".join(line for line in written.splitlines(keepends=True) if not line.startswith("#"))
    assert body == built(FOLDER / "base"), "run `make manifests`"


@pytest.mark.kubernetes
@pytest.mark.parametrize("folder", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_a_real_server_takes_all_of_it(server: ApiServer, folder: str) -> None:
    for document in documents(built(FOLDER / folder)):
        server.apply(document, dry=document["kind"] != "Namespace")


def container() -> dict[str, Any]:
    (daemons,) = (each for each in documents((FOLDER / "felix.yaml").read_text()) if each["kind"] == "DaemonSet")
    pod: dict[str, Any] = daemons["spec"]["template"]["spec"]
    return pod


def test_no_container_is_privileged_or_writes_into_its_image() -> None:
    pod = container()
    for each in (*pod["initContainers"], *pod["containers"]):
        context = each["securityContext"]
        assert "privileged" not in context
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"]["drop"] == ["ALL"]


def test_nobody_reads_secrets_and_nobody_writes_what_people_write() -> None:
    roles = [each for each in documents((FOLDER / "felix.yaml").read_text()) if each["kind"] in ("Role", "ClusterRole")]
    rules = [rule for role in roles for rule in role["rules"]]
    rights = {(verb, what) for rule in rules for verb in rule["verbs"] for what in rule["resources"]}
    assert not [what for _, what in rights if what in ("secrets", "pods", "*")]
    changing = {(verb, what) for verb, what in rights if verb not in ("get", "list", "watch")}
    reports = {"caliconodestatuses", "caliconodestatuses/status", "events"}
    assert {what for _, what in changing} == {"nodes/status", "blockaffinities", "ipamblocks", *reports}


# --- the chart

CHART = FOLDER / "chart"


def helm(*words: str) -> "subprocess.CompletedProcess[str]":
    program = binary("helm")
    if program is None:
        pytest.skip("needs helm: go build helm.sh/helm/v3/cmd/helm")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)


def rendered(*words: str) -> list[dict[str, Any]]:
    done = helm("template", "felix", str(CHART), "--namespace", "felix-system", "--kube-version", "1.33.4", *words)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def test_the_chart_passes_its_linter() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_chart_makes_what_the_manifest_has() -> None:
    plain = {(each["kind"], each["metadata"]["name"]): each for each in documents((FOLDER / "felix.yaml").read_text())}
    made = {(each["kind"], each["metadata"]["name"]): each for each in rendered("--include-crds")}
    assert set(plain) - set(made) == {("Namespace", "felix-system")}
    assert set(made) <= set(plain)
    settings = ("ConfigMap", "felix")
    read = [yaml.safe_load(each[settings]["data"]["felix.yaml"]) for each in (plain, made)]
    assert read[0] == read[1]
    daemons = made["DaemonSet", "felix"]["spec"]["template"]
    assert set(daemons["metadata"].pop("annotations")) == {"felix-py/settings"}
    for each in (*daemons["spec"]["initContainers"], *daemons["spec"]["containers"]):
        assert each.pop("imagePullPolicy") == "IfNotPresent"
    for key in set(made) - {settings}:
        assert made[key] == plain[key]


@pytest.mark.kubernetes
def test_a_real_server_takes_what_the_chart_makes_of_other_values(server: ApiServer) -> None:
    server.apply(*(each for each in documents((FOLDER / "felix.yaml").read_text()) if each["kind"] == "Namespace"))
    pool = (
        "--set-json",
        'ipPool={"cidr":"10.65.0.0/16","vxlanMode":"CrossSubnet"}',
        "--set",
        "settings.logLevel=debug",
    )
    made = rendered(
        *pool, "--set", "cni.binDirectory=/usr/lib/cni", "--set-json", 'bgpConfiguration={"asNumber":64600}'
    )
    for document in made:
        server.apply(document, dry=True)
    assert {"IPPool", "BGPConfiguration"} <= {each["kind"] for each in made}


@pytest.mark.kubernetes
@pytest.mark.parametrize("what", ["chart", "base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_kubectl_applies_all_of_it_at_once(server: ApiServer, what: str) -> None:
    """As users do, by one command, and as a dry run at the server: types, rules and references are judged there."""
    plain = documents((FOLDER / "felix.yaml").read_text())
    server.apply(*(each for each in plain if each["kind"] == "Namespace"))
    program = binary("kubectl")
    if program is None:
        pytest.skip("needs kubectl: tests/kubernetes/binaries.sh FOLDER kubectl")
    made = rendered("--include-crds") if what == "chart" else documents(built(FOLDER / what))
    done = subprocess.run(
        [program, "--kubeconfig", server.kubeconfig, "apply", "--dry-run=server", "--validate=strict", "-f", "-"],
        input=yaml.safe_dump_all(made),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # The definitions are there already, made by server-side apply; nothing else is warned of.
    assert [line for line in done.stderr.splitlines() if "last-applied-configuration" not in line] == []
    assert done.stdout.count("(server dry run)") == len(made)


@pytest.mark.parametrize(
    "words", ["settings.datastore=directory", "image.nmae=x", "cni.binDirectory=opt", "ipPool.ipipMode=Always"]
)
def test_the_charts_schema_refuses(words: str) -> None:
    done = helm("template", "felix", str(CHART), "--kube-version", "1.33.4", "--set", words)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
