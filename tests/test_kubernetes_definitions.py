"""The CustomResourceDefinitions know the fields that our readers of resources know, and no others."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from felix_py import bgp_filter_resources, kubernetes_status
from felix_py.kubernetes_resources import FOLLOWED, STORED
from felix_py.model import Invalid
from felix_py.resources import API_VERSION, KINDS, parse

FOLDER = Path(__file__).parents[1] / "deploy/kubernetes/crds"
DEFINITIONS = {
    document["spec"]["names"]["kind"]: document
    for document in (yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml")))
    if document["kind"] == "CustomResourceDefinition"
}
CUSTOM = sorted(set(KINDS) - {"Node", "Namespace", "WorkloadEndpoint"})
NAMES = {"FelixConfiguration": "default", "BGPConfiguration": "default", "IPAMConfiguration": "default"}


def schema(kind: str) -> dict[str, Any]:
    (version,) = DEFINITIONS[kind]["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def supported(kind: str) -> set[str]:
    """Ask our reader, which names what it knows when it refuses something."""
    document = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": NAMES.get(kind, "x")},
        "spec": {"surely": "unknown"},
    }
    with pytest.raises(Invalid) as refused:
        parse(document, "here")
    sentence = next(fault.message for fault in refused.value.faults if fault.path == "spec.surely")
    match = re.search(r"supported here: ([^)]*)", sentence)
    assert match is not None
    return set(match[1].split(", "))


def test_every_kind_that_is_followed_or_stored_is_defined() -> None:
    known = {each.kind for each in FOLLOWED if each.path.startswith("/apis/")} | set(STORED)
    assert set(DEFINITIONS) == known | {kubernetes_status.KIND}


@pytest.mark.parametrize("kind", CUSTOM)
def test_fields_are_those_that_are_read(kind: str) -> None:
    assert set(schema(kind)["properties"]["spec"]["properties"]) == supported(kind)


@pytest.mark.parametrize("name", ["exportV4", "importV4", "exportV6", "importV6"])
def test_fields_of_rules_are_those_that_are_read(name: str) -> None:
    rules = schema("BGPFilter")["properties"]["spec"]["properties"][name]["items"]["properties"]
    assert set(rules) == bgp_filter_resources.RULE_FIELDS
    assert set(rules["operations"]["items"]["properties"]) == set(bgp_filter_resources.OPERATIONS)


@pytest.mark.parametrize("kind", sorted(DEFINITIONS))
def test_names_are_where_the_agent_looks(kind: str) -> None:
    spec = DEFINITIONS[kind]["spec"]
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    known = {each.kind: each.path for each in (*FOLLOWED, *STORED.values())}
    known[kubernetes_status.KIND] = kubernetes_status.PATH
    assert (known[kind], DEFINITIONS[kind]["metadata"]["name"]) == (path, f"{spec['names']['plural']}.{spec['group']}")
    assert spec["scope"] == "Cluster"


def undescribed(found: dict[str, Any], path: str) -> list[str]:
    own = [] if "description" in found or path.count(".") != 1 else [path]
    return own + [
        each for name, inner in found.get("properties", {}).items() for each in undescribed(inner, f"{path}.{name}")
    ]


@pytest.mark.parametrize("kind", CUSTOM)
def test_kubectl_explain_says_something_of_every_field(kind: str) -> None:
    assert schema(kind)["description"].endswith(".")
    silent = undescribed(schema(kind)["properties"]["spec"], "spec")
    assert not silent
