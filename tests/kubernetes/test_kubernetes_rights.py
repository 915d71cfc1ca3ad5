"""Each right of our manifest taken away at a real API server: the node says which one it lacks, and no other."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from cluster import INSTALL, cluster, eventually

from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client
from felix_py.datastore.kubernetes_rights import AGAIN_FIRST, RightsKeeper
from felix_py.kubernetes_rights import RIGHTS, Right, problem
from felix_py.model import NodeName

pytestmark = pytest.mark.kubernetes

RBAC = {"apiGroup": "rbac.authorization.k8s.io"}
WHO = [{**RBAC, "kind": "User", "name": "weak"}]

RARE = (
    Right("delete", "projectcalico.org", "ipamblocks"),
    Right("watch", "projectcalico.org", "bgppeers"),
    Right("create", "", "events", "default"),
)
"""Rights that a node which has just started does not need, or not yet."""

SECONDS = 20.0


def roles(without: tuple[Right, ...] = ()) -> list[dict[str, Any]]:
    """Return the manifest's roles but for these rights."""
    found = [each for each in yaml.safe_load_all(INSTALL.read_text()) if each["kind"] in ("Role", "ClusterRole")]
    for role in found:
        namespace = role["metadata"].get("namespace", "")
        role["rules"] = [
            {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
            if Right(verb, group, resource, namespace) not in without
        ]
    return found


def binding(role: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": role["apiVersion"], "kind": f"{role['kind']}Binding", "metadata": role["metadata"],
        "roleRef": {**RBAC, "kind": role["kind"], "name": role["metadata"]["name"]}, "subjects": WHO,
    }  # fmt: skip


@pytest.fixture(scope="module")
def weak(running: ApiServer) -> Iterator[Client]:
    """Somebody who has just what is bound to him."""
    bindings = [binding(role) for role in roles()]
    running.apply(*bindings)
    yield Client(running.write_kubeconfig("weak", {"token": "weak-token"}))
    running.delete(*bindings, *roles())


def keeper(client: Client, folder: Path) -> tuple[RightsKeeper, KubernetesDatastore]:
    store = KubernetesDatastore(client, NodeName("a1"), folder)
    return RightsKeeper(client, store), store


def said(store: KubernetesDatastore) -> set[Right]:
    return {right for right in RIGHTS if any(problem(right) in fault for fault in store.faults)}


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: f"{right.verb}-{right.resource}".replace("/", "-"))
def test_who_lacks_a_right_names_it(running: ApiServer, weak: Client, tmp_path: Path, right: Right) -> None:
    asks, _ = keeper(weak, tmp_path)
    running.apply(*roles((right,)))
    eventually(lambda: asks.missing() == (right,), f"just {right} is missing", SECONDS)


def test_what_is_missing_is_said_until_it_is_there(running: ApiServer, weak: Client, tmp_path: Path) -> None:
    async def check() -> None:
        asks, store = keeper(weak, tmp_path)
        await asyncio.to_thread(running.apply, *roles(RARE))
        await asyncio.to_thread(eventually, lambda: set(asks.missing()) == set(RARE), "they are missing", SECONDS)
        task = asyncio.create_task(asks.run())
        try:
            await asyncio.to_thread(eventually, lambda: said(store) == set(RARE), "all are named", SECONDS)
            await asyncio.to_thread(running.apply, *roles())
            await asyncio.to_thread(eventually, lambda: said(store) == set(), "none is named", 2 * AGAIN_FIRST)
            assert not task.done(), "a part of the agent that ends takes it down"
        finally:
            task.cancel()

    asyncio.run(check())


@pytest.mark.netns
def test_an_agent_says_what_it_lacks_before_it_needs_it(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        who = made.install()
        made.server.apply(*roles(RARE))
        a1 = made.node("a1", 1, 1)
        a1.start(who)

        def named() -> bool:
            said = " ".join(a1.ask("status").get("problems", ()))
            return all(problem(right) in said for right in RARE)

        eventually(named, "status names all of them")
        logged = [each["fault"] for each in a1.log if each["event"] == "datastore.fault"]
        assert all(any(problem(right) in fault for fault in logged) for right in RARE)
        made.server.apply(*roles())
        eventually(lambda: not [each for each in a1.ask("status")["problems"] if "the right" in each], "it is well")
