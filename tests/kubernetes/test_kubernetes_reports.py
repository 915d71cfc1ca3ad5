"""What an agent tells a real API server of its BGP sessions: kubectl shows it, and one that is away hears it later."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from api_server import ApiServer
from test_definitions_at_a_server import kubectl
from told_sessions import OBJECT, SECONDS, told

pytestmark = [pytest.mark.kubernetes, pytest.mark.netns]

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a1"}}
CLOSED = "peer said Cease: Administrative Shutdown"
"""Why the session is lost: BIRD has closed it."""


@pytest.fixture(autouse=True)
def node(server: ApiServer) -> None:
    server.request("DELETE", "/api/v1/namespaces/default/events")
    server.apply(NODE)


def established(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda found: found["status"]["bgp"]["numberEstablished"] == number


def owner(found: dict[str, Any]) -> str:
    return str(found["metadata"]["ownerReferences"][0]["uid"])


def test_kubectl_shows_sessions_and_why_there_is_none(server: ApiServer, tmp_path: Path) -> None:
    async def check() -> None:
        async with told(server, tmp_path) as made:
            found = await made.until(established(1))
            uid = (await asyncio.to_thread(server.request, "GET", "/api/v1/nodes/a1"))["metadata"]["uid"]
            assert owner(found) == uid
            await made.lose()
            found = await made.until(established(0))
            errors = {each["peerIP"]: each["lastError"] for each in found["status"]["bgp"]["peersV4"]}
            assert errors["172.31.1.1"] == CLOSED
            assert "the peer has not connected" in errors["172.31.2.11"]

    asyncio.run(check())
    header, row = kubectl(server, "get", "bgpstatus").splitlines()
    assert header.split() == ["NAME", "ESTABLISHED", "NOT-ESTABLISHED", "LAST-ERROR", "UPDATED", "AGE"]
    assert row.split()[:3] == ["a1", "0", "2"]
    assert ": the peer has not connected" in row
    assert "(and 1 more)" in row
    said = " ".join(kubectl(server, "explain", "caliconodestatuses.status.bgp.peersV4.state").split())
    assert "other states than Established are those of the moment" in said


def test_kubectl_describes_a_node_with_its_sessions(server: ApiServer, tmp_path: Path) -> None:
    async def check() -> None:
        async with told(server, tmp_path) as made:
            await made.events(1)
            await made.lose()
            up, down = await made.events(2)
            assert (up["type"], up["reason"]) == ("Normal", "BGPSessionUp")
            assert up["message"] == "session with 172.31.1.1 (tor-1), AS 64500, is established"
            assert (down["type"], down["reason"]) == ("Warning", "BGPSessionDown")

    asyncio.run(check())
    lines = kubectl(server, "describe", "node", "a1").splitlines()
    (row,) = (line for line in lines if "BGPSessionDown" in line)
    assert "felix-agent" in row
    assert f"session with 172.31.1.1 (tor-1), AS 64500, is lost: {CLOSED}" in row


def test_what_happens_again_is_counted(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("felix_py.kubernetes_events.AGAIN", 0.5)

    async def check() -> None:
        async with told(server, tmp_path) as made:
            for _ in range(3):
                await made.events(1)
                await made.lose()
                await made.regain()
            found = await made.events(2, lambda events: sum(each["count"] for each in events) == 7)
            assert {each["reason"]: each["count"] for each in found} == {"BGPSessionUp": 4, "BGPSessionDown": 3}

            # the server forgets Events after a while, and is told anew
            await asyncio.to_thread(server.request, "DELETE", "/api/v1/namespaces/default/events")
            await made.lose()
            (again,) = await made.events(1)
            assert (again["reason"], again["count"]) == ("BGPSessionDown", 4)

    asyncio.run(check())


def test_a_server_that_is_away_holds_nobody_up_and_hears_it_all_later(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("felix_py.kubernetes_events.RETRY", 1.0)

    async def check() -> None:
        async with told(server, tmp_path) as made:
            await made.until(established(1))
            await made.events(1)
            await asyncio.to_thread(server.stop)
            await made.lose()
            began, used, late = time.monotonic(), time.process_time(), 0.0
            while time.monotonic() - began < 4:
                before = time.monotonic()
                await asyncio.sleep(0.05)
                late = max(late, time.monotonic() - before - 0.05)
            assert late < 0.5
            assert (time.process_time() - used) / 4 < 0.1
            assert not [each for each in made.store.faults if "CalicoNodeStatus" in each or "Events" in each]
            await asyncio.to_thread(server.start)
            await made.until(established(0))
            assert [each["reason"] for each in await made.events(2)] == ["BGPSessionUp", "BGPSessionDown"]

    asyncio.run(check())


def test_an_object_that_somebody_removed_is_made_anew(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("felix_py.kubernetes_status.FIRST", 0.1)
    monkeypatch.setattr("felix_py.kubernetes_status.LAST", 0.1)

    async def check() -> None:
        async with told(server, tmp_path) as made:
            await made.until(established(1))
            await asyncio.to_thread(server.request, "DELETE", OBJECT)
            await made.lose()
            await made.until(established(0))

            # so is one whose Node is another one
            await asyncio.to_thread(server.delete, NODE)
            await asyncio.to_thread(server.apply, NODE)
            uid = (await asyncio.to_thread(server.request, "GET", "/api/v1/nodes/a1"))["metadata"]["uid"]
            async with asyncio.timeout(SECONDS):
                while made.store.own_node is None or made.store.own_node.uid != uid:
                    made.store.own_node_changed.clear()
                    await made.store.own_node_changed.wait()
            made.news.ring()
            await made.until(lambda found: owner(found) == uid)

    asyncio.run(check())


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    (one,) = (each for each in found["status"]["conditions"] if each["type"] == kind)
    return dict(one)


def test_kubectl_waits_for_conditions_and_says_why_a_resource_has_no_effect(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("felix_py.datastore.kubernetes_reports.LATEST", 0.1)
    monkeypatch.setattr("felix_py.kubernetes_status.FIRST", 0.1)
    pool = {"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "one"}}
    server.apply({**pool, "spec": {"cidr": "10.65.0.0/16"}})

    def accepted(status: str) -> Callable[[dict[str, Any]], bool]:
        return lambda found: condition(found, "ResourcesAccepted")["status"] == status

    async def check() -> None:
        async with told(server, tmp_path) as made:
            first = await made.until(accepted("True"))
            two = {**pool, "metadata": {"name": "two"}, "spec": {"cidr": "10.65.128.0/17"}}
            await asyncio.to_thread(server.apply, two)
            found = condition(await made.until(accepted("False")), "ResourcesAccepted")
            assert found["reason"] == "Faulty"
            assert "IPPool" in found["message"]
            assert "10.65.128.0/17" in found["message"]
            wide = await asyncio.to_thread(kubectl, server, "get", "bgpstatus", "-o", "wide")
            header, row = wide.splitlines()
            assert header.split()[4:6] == ["RESOURCES", "WHY"]
            assert "10.65.128.0/17" in row
            await asyncio.to_thread(server.delete, two)
            await asyncio.to_thread(
                kubectl, server, "wait", "--for=condition=ResourcesAccepted", "bgpstatus/a1", "--timeout=20s"
            )
            # one session is down all the time: since when, the next agent knows too
            since = condition(first, "SessionsEstablished")["lastTransitionTime"]
        async with told(server, tmp_path) as made:
            second = await made.until(lambda found: found["status"]["lastUpdated"] > first["status"]["lastUpdated"])
            assert condition(second, "SessionsEstablished")["status"] == "False"
            assert condition(second, "SessionsEstablished")["lastTransitionTime"] == since

    asyncio.run(check())


def test_who_may_not_write_says_which_right_is_missing(server: ApiServer, tmp_path: Path) -> None:
    weak = server.write_kubeconfig("weak", {"token": "weak-token"})
    name = "reader-of-nodes"
    rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "weak"}]
    binding = {**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": subjects}
    server.apply({**role, "rules": rules}, binding)

    async def check() -> None:
        async with told(server, tmp_path, weak) as made, asyncio.timeout(SECONDS):
            while True:
                faults = " ".join(made.store.faults)
                if "CalicoNodeStatus a1: cannot be written: we lack the right" in faults and "Events: " in faults:
                    break
                await asyncio.sleep(0.05)
            assert 'User "weak" cannot patch resource "caliconodestatuses" in API group "projectcalico.org"' in faults
            assert 'User "weak" cannot create resource "events" in API group ""' in faults

    try:
        asyncio.run(check())
    finally:
        server.delete(role, binding)
