"""What an agent tells a real API server of its BGP sessions: kubectl shows it, and one that is away hears it later."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from api_server import ApiServer
from bgp_builders import B1, TOR, TOR_AS, peer
from session_reports import heard, reports
from test_definitions_at_a_server import kubectl

from bgp.speaker import Speaker
from bgp.types import PeerDown
from felix_py.datastore.api import Sight
from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client
from felix_py.datastore.kubernetes_reports import Reporter
from felix_py.model import NodeName
from felix_py.news import News

pytestmark = pytest.mark.kubernetes

SECONDS = 20.0
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a1"}}
OBJECT = "/apis/projectcalico.org/v3/caliconodestatuses/a1"
EVENTS = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind=Node"


class Told:
    """An agent's speaker, whose sessions are told to a server."""

    def __init__(self, server: ApiServer, folder: Path, user: Path | None = None) -> None:
        self.speaker: Speaker = heard(peer(TOR, TOR_AS, "tor-1", "global"), peer(B1, name="b1"), up=(TOR,))
        self.news = News()
        self._server = server
        client = Client(user or server.kubeconfig)
        self.store = KubernetesDatastore(client, NodeName("a1"), folder)
        sight = Sight(lambda _: True, lambda: reports(self.speaker), self.news)
        self.reporter = Reporter(client, NodeName("a1"), self.store, sight)

    def lose(self, reason: str, now: float) -> None:
        self.speaker.on(PeerDown(TOR, reason), now=now)
        self.news.ring()

    def regain(self, now: float) -> None:
        heard(into=self.speaker, up=(TOR,), now=now)
        self.news.ring()

    async def until(self, asked: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until the object at the server is so, and return it."""
        async with asyncio.timeout(SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    found = await asyncio.to_thread(self._server.request, "GET", OBJECT)
                    if found.get("status") and asked(found):
                        return found
                await asyncio.sleep(0.05)

    async def events(self, count: int, asked: Callable[[list[dict[str, Any]]], object] = bool) -> list[dict[str, Any]]:
        """Wait until there are so many Events, and they are so; return them, the oldest first."""
        async with asyncio.timeout(SECONDS):
            while True:
                found = (await asyncio.to_thread(self._server.request, "GET", EVENTS))["items"]
                if len(found) >= count and asked(found):
                    return sorted(found, key=lambda each: int(each["metadata"]["resourceVersion"]))
                await asyncio.sleep(0.05)


@asynccontextmanager
async def told(server: ApiServer, folder: Path, user: Path | None = None) -> AsyncIterator[Told]:
    made = Told(server, folder, user)

    async def follow() -> None:
        async for _ in made.store.events():
            pass

    tasks = [asyncio.create_task(follow()), asyncio.create_task(made.reporter.run())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
            made.lose("the hold timer expired", 20)
            await made.until(established(0))

    asyncio.run(check())
    header, row = kubectl(server, "get", "bgpstatus").splitlines()
    assert header.split() == ["NAME", "ESTABLISHED", "NOT-ESTABLISHED", "LAST-ERROR", "UPDATED", "AGE"]
    assert row.split()[:3] == ["a1", "0", "2"]
    assert "172.31.1.1: the hold timer expired" in row
    said = " ".join(kubectl(server, "explain", "caliconodestatuses.status.bgp.peersV4.state").split())
    assert "other states than Established are those of the moment" in said


def test_kubectl_describes_a_node_with_its_sessions(server: ApiServer, tmp_path: Path) -> None:
    async def check() -> None:
        async with told(server, tmp_path) as made:
            await made.events(1)
            made.lose("the hold timer expired", 20)
            up, down = await made.events(2)
            assert (up["type"], up["reason"]) == ("Normal", "BGPSessionUp")
            assert up["message"] == "session with 172.31.1.1 (tor-1), AS 64500, is established"
            assert (down["type"], down["reason"]) == ("Warning", "BGPSessionDown")

    asyncio.run(check())
    lines = kubectl(server, "describe", "node", "a1").splitlines()
    (row,) = (line for line in lines if "BGPSessionDown" in line)
    assert "felix-agent" in row
    assert "session with 172.31.1.1 (tor-1), AS 64500, is lost: the hold timer expired" in row


def test_what_happens_again_is_counted(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("felix_py.kubernetes_events.AGAIN", 0.5)

    async def check() -> None:
        async with told(server, tmp_path) as made:
            for second in (10, 20, 30):
                await made.events(1)
                made.lose("reset", second)
                made.regain(second + 1)
            found = await made.events(2, lambda events: sum(each["count"] for each in events) == 7)
            assert {each["reason"]: each["count"] for each in found} == {"BGPSessionUp": 4, "BGPSessionDown": 3}

            # the server forgets Events after a while, and is told anew
            await asyncio.to_thread(server.request, "DELETE", "/api/v1/namespaces/default/events")
            made.lose("reset", 40)
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
            made.lose("the hold timer expired", 20)
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
            made.lose("the hold timer expired", 20)
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
