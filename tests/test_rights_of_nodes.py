"""The rights that agents need: those of our manifest, no more and no less; and which of them rules grant."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from felix_py.kubernetes_rights import RIGHTS, Right, access_question, doubtful, problem

INSTALL = Path(__file__).parents[1] / "deploy/kubernetes/felix.yaml"

BLOCKS = Right("delete", "projectcalico.org", "ipamblocks")


def granted() -> set[Right]:
    roles = [each for each in yaml.safe_load_all(INSTALL.read_text()) if each["kind"] in ("Role", "ClusterRole")]
    return {
        Right(verb, group, resource, role["metadata"].get("namespace", ""))
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_agents_ask_for_what_the_manifest_grants() -> None:
    assert set(RIGHTS) == granted()
    assert len(RIGHTS) == len(granted())


@pytest.mark.parametrize(
    ("rule", "grants"),
    [
        ({"verbs": ["get", "delete"], "apiGroups": ["projectcalico.org"], "resources": ["ipamblocks"]}, True),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, True),
        ({"verbs": ["get"], "apiGroups": ["projectcalico.org"], "resources": ["ipamblocks"]}, False),
        ({"verbs": ["delete"], "apiGroups": [""], "resources": ["ipamblocks"]}, False),
        ({"verbs": ["delete"], "apiGroups": ["projectcalico.org"], "resources": ["ippools"]}, False),
        ({"verbs": ["delete"]}, False),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["mine"]}, False),
    ],
    ids=["by name", "all", "another verb", "another group", "another kind", "of no kind", "of one object"],
)
def test_a_rule_grants_a_right_on_all_objects_or_not(rule: dict[str, Any], grants: bool) -> None:  # noqa: FBT001 - a case
    assert (BLOCKS in doubtful([rule])) is not grants


def test_a_right_is_asked_for_and_missed_in_words() -> None:
    right = Right("patch", "", "nodes/status")
    assert access_question(right)["spec"]["resourceAttributes"] == {
        "verb": "patch", "group": "", "resource": "nodes", "subresource": "status", "namespace": ""
    }  # fmt: skip
    assert problem(Right("create", "", "events", "default")) == (
        'we lack the right: cannot create resource "events" in API group "" in the namespace "default"; '
        "apply deploy/kubernetes/felix.yaml again, which has it"
    )
