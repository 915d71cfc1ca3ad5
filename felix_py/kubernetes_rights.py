"""The rights that an agent needs at the API server, and which of them it lacks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

CUSTOM = "projectcalico.org"

REMEDY = "apply deploy/kubernetes/felix.yaml again, which has it"


class Right(NamedTuple):
    """One verb on one kind of object, as RBAC has it.

    Attributes:
        resource: with its subresource, as `nodes/status`.
        namespace: where it is needed; empty for the whole cluster.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""

    def __str__(self) -> str:
        """Write it as the API server does when it refuses."""
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return f'cannot {self.verb} resource "{self.resource}" in API group "{self.group}" {where}'


READ = ("list", "watch")
WRITTEN_BY_PEOPLE = (
    "ippools", "ipreservations", "ipamconfigurations", "bgpconfigurations", "bgppeers", "bgpfilters",
    "felixconfigurations",
)  # fmt: skip

NEEDED: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("", ("nodes", "namespaces"), READ, ""),
    ("", ("nodes/status",), ("patch",), ""),
    (CUSTOM, WRITTEN_BY_PEOPLE, READ, ""),
    (CUSTOM, ("blockaffinities",), (*READ, "get", "create", "update", "delete"), ""),
    (CUSTOM, ("ipamblocks",), ("list", "get", "create", "update", "delete"), ""),
    (CUSTOM, ("caliconodestatuses",), ("create", "patch"), ""),
    (CUSTOM, ("caliconodestatuses/status",), ("patch",), ""),
    ("", ("events",), ("create", "patch"), "default"),
)
"""Group, resources, verbs, namespace: what deploy/kubernetes/base/rights.yaml grants, which a test compares."""

RIGHTS = tuple(
    Right(verb, group, resource, namespace)
    for group, resources, verbs, namespace in NEEDED
    for resource in resources
    for verb in verbs
)

REVIEW_RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
REVIEW_ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
"""Whoever is known to the server may ask them (ClusterRole system:basic-user)."""

RULES_QUESTION: Mapping[str, Any] = {
    "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}
}  # fmt: skip


def access_question(right: Right) -> dict[str, Any]:
    """Return what asks the server for one right."""
    resource, _, inner = right.resource.partition("/")
    attributes = {
        "verb": right.verb, "group": right.group, "resource": resource, "subresource": inner,
        "namespace": right.namespace,
    }  # fmt: skip
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }


def doubtful(rules: Sequence[Mapping[str, Any]]) -> Iterator[Right]:
    """Yield the rights that these rules do not grant; another authorizer may, so each has to be asked for."""
    for right in RIGHTS:
        if not any(_grants(rule, right) for rule in rules):
            yield right


def _grants(rule: Mapping[str, Any], right: Right) -> bool:
    """Say whether one of `status.resourceRules` grants a right on all objects of a kind."""
    return (
        not rule.get("resourceNames")
        and _among(right.verb, rule.get("verbs"))
        and _among(right.group, rule.get("apiGroups"))
        and _among(right.resource, rule.get("resources"))
    )


def _among(word: str, words: Sequence[str] | None) -> bool:
    return words is not None and (word in words or "*" in words)


def problem(right: Right) -> str:
    """Return the sentence that `felixctl status` has of a right that is missing."""
    return f"we lack the right: {right}; {REMEDY}"
