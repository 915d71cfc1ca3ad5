"""The datastore of Kubernetes at a real API server: news, faults, and a server that goes away and comes back."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from api_server import ApiServer, free_port

from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client
from felix_py.datastore.kubernetes_follow import Follower, Told
from felix_py.datastore.kubernetes_watch import Standing
from felix_py.kubernetes_resources import FOLLOWED
from felix_py.model import IPPool, Key, NodeName, Resource
from felix_py.state import ClusterState

pytestmark = pytest.mark.kubernetes

SECONDS = 20.0
RETURN = 2.0
"""Seconds after the server's return within which the state is right."""


def node(name: str = "a1", address: str = "172.31.1.11/24", **spec: Any) -> dict[str, Any]:
    annotations = {"projectcalico.org/IPv4Address": address}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations}, "spec": spec}


def custom(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


POOL = custom("IPPool", "default", cidr="10.65.0.0/16", ipipMode="CrossSubnet")


class Followed:
    """A datastore that is followed, and what it has told."""

    def __init__(self, client: Client, secrets: Path, name: str = "a1") -> None:
        self.store = KubernetesDatastore(client, NodeName(name), secrets)
        self.cluster = ClusterState()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and self._task.exception() is not None:
            raise self._task.exception() or AssertionError

    async def _follow(self) -> None:
        async for news in self.store.events():
            self.cluster = self.cluster.after_all(news)
            self._news.set()

    async def until(self, holds: Callable[[ClusterState], bool], within: float = SECONDS) -> float:
        """Wait until what is known is so; return after how many seconds it was."""
        began = time.monotonic()
        while not holds(self.cluster):
            self._news.clear()
            left = began + within - time.monotonic()
            assert left > 0, f"after {within} s: {self.cluster.resources}, {self.store.faults}"
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                continue
        return time.monotonic() - began

    async def said(self, words: str, within: float = SECONDS) -> str:
        """Wait until a fault has these words, and return it."""
        until = time.monotonic() + within
        while True:
            for fault in self.store.faults:
                if words in fault:
                    return fault
            assert time.monotonic() < until, f"{words!r} is not in {self.store.faults}"
            await asyncio.sleep(0.05)

    async def well(self) -> None:
        """Wait until nothing is wrong."""
        until = time.monotonic() + SECONDS
        while self.store.faults:
            assert time.monotonic() < until, self.store.faults
            await asyncio.sleep(0.05)


def has(kind: str, name: str) -> Callable[[ClusterState], bool]:
    return lambda cluster: Key(kind, name) in cluster.resources


def is_so(kind: str, name: str, holds: Callable[[Any], bool]) -> Callable[[ClusterState], bool]:
    def asked(cluster: ClusterState) -> bool:
        found: Resource | None = cluster.resources.get(Key(kind, name))
        return found is not None and holds(found)

    return asked


def nat(on: bool) -> Callable[[ClusterState], bool]:  # noqa: FBT001 - of a test
    return is_so("IPPool", "default", lambda pool: isinstance(pool, IPPool) and pool.nat_outgoing is on)


async def later(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


def test_what_the_server_has_then_every_change(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(), POOL)

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(lambda cluster: cluster.in_sync)
            assert has("IPPool", "default")(followed.cluster)
            assert has("Node", "a1")(followed.cluster)
            assert has("Namespace", "kube-system")(followed.cluster)
            await later(
                server.apply,
                node("a2", "172.31.1.12/24"),
                custom("BGPPeer", "tor", peerIP="172.31.1.1", asNumber=64600),
            )
            await followed.until(has("Node", "a2"))
            await followed.until(has("BGPPeer", "tor"))
            await later(server.delete, node("a2"))
            await followed.until(lambda cluster: Key("Node", "a2") not in cluster.resources)
            assert followed.store.faults == ()

    asyncio.run(check())


def test_what_the_server_takes_and_we_cannot_use_keeps_its_last_good_version(server: ApiServer, tmp_path: Path) -> None:
    peer = custom("BGPPeer", "tor", peerIP="172.31.1.1", asNumber=64600)
    server.apply(node(), POOL, peer)

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(has("BGPPeer", "tor"))
            await later(server.apply, custom("BGPPeer", "tor", peerIP="172.31.1.300", asNumber=64600))
            fault = await followed.said("172.31.1.300")
            assert fault.startswith("kubernetes: BGPPeer tor: spec.peerIP: is '172.31.1.300'")
            assert has("BGPPeer", "tor")(followed.cluster)
            await later(server.apply, peer)
            await followed.well()

    asyncio.run(check())


def test_pod_cidrs_count_until_there_is_a_pool(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(podCIDR="10.244.0.0/24", podCIDRs=["10.244.0.0/24"]))

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(has("IPPool", "pod-cidrs-10-244-0-0-24"))
            assert has("BlockAffinity", "pod-cidrs-10-244-0-0-24-a1")(followed.cluster)
            await later(server.apply, POOL)
            await followed.until(has("IPPool", "default"))
            await followed.until(lambda cluster: not has("IPPool", "pod-cidrs-10-244-0-0-24")(cluster))

    asyncio.run(check())


def test_a_server_that_dies_costs_nothing_and_is_heard_within_two_seconds_of_its_return(
    server: ApiServer, tmp_path: Path
) -> None:
    server.apply(node(), POOL)

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(nat(on=False))
            before = followed.cluster
            await later(server.stop)
            assert "what was known last stays in force" in await followed.said("the connection failed")
            began, used = time.monotonic(), time.thread_time()
            await asyncio.sleep(3)
            assert (time.thread_time() - used) / (time.monotonic() - began) < 0.02
            assert followed.cluster == before
            await later(server.start)
            back = time.monotonic()
            await later(
                server.apply, custom("IPPool", "default", cidr="10.65.0.0/16", ipipMode="CrossSubnet", natOutgoing=True)
            )
            await followed.until(nat(on=True))
            assert time.monotonic() - back < RETURN + 0.5
            await followed.well()

    asyncio.run(check())


def test_a_server_that_hangs_is_waited_for(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(), POOL)

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(nat(on=False))
            server.pause(until=True)
            await asyncio.sleep(1)
            server.pause(until=False)
            await later(server.apply, custom("IPPool", "default", cidr="10.65.0.0/16", natOutgoing=True))
            await followed.until(nat(on=True))

    asyncio.run(check())


def test_a_revision_that_the_server_has_forgotten_leads_to_a_list(server: ApiServer) -> None:
    server.apply(node(), POOL)
    told: list[Told] = []
    pools = next(each for each in FOLLOWED if each.kind == "IPPool")
    follower = Follower(Client(server.kubeconfig), pools, told.append)
    follower._standing = Standing("1")
    follower.start()
    until = time.monotonic() + SECONDS
    while not any(each.whole for each in told):
        assert time.monotonic() < until, told
        time.sleep(0.05)
    follower.stop()
    assert [set(each.good) for each in told if each.whole] == [{Key("IPPool", "default")}]
    assert not any(each.bug for each in told)


def test_a_server_that_does_not_know_this_node_is_not_believed(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(), POOL)

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(has("IPPool", "default"))
            before = followed.cluster
            await later(server.clear)
            await followed.said("knows no Node a1")
            assert followed.cluster == before
            await later(server.apply, node(), custom("IPPool", "default", cidr="10.66.0.0/16"))
            await followed.until(is_so("IPPool", "default", lambda pool: str(pool.cidr) == "10.66.0.0/16"))

    asyncio.run(check())


def test_the_last_pool_never_goes(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(), POOL)

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(has("IPPool", "default"))
            await later(server.delete, POOL)
            await followed.said("is gone to the last one")
            assert has("IPPool", "default")(followed.cluster)
            await later(server.apply, custom("IPPool", "other", cidr="10.66.0.0/16"))
            await followed.until(
                lambda cluster: has("IPPool", "other")(cluster) and not has("IPPool", "default")(cluster)
            )

    asyncio.run(check())


def test_who_lacks_a_right_says_which(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(), POOL)
    weak = server.write_kubeconfig("weak", {"token": "weak-token"})

    async def check() -> None:
        async with Followed(Client(weak), tmp_path) as followed:
            fault = await followed.said("ippools")
            assert 'User "weak" cannot list resource "ippools" in API group "projectcalico.org"' in fault
            assert not followed.cluster.in_sync

    asyncio.run(check())


def test_the_second_server_is_asked_where_the_first_is_away(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(), POOL)
    dead = f"https://127.0.0.1:{free_port()}"

    async def check() -> None:
        client = Client(server.kubeconfig, (dead, server.url))
        async with Followed(client, tmp_path) as followed:
            await followed.until(has("IPPool", "default"))
            assert client.server == server.url

    asyncio.run(check())


def test_a_token_that_was_replaced_is_read_anew(server: ApiServer, tmp_path: Path) -> None:
    server.apply(node(), POOL)
    config = server.write_kubeconfig("rotating", {"token": "stale-token"})

    async def check() -> None:
        async with Followed(Client(config), tmp_path) as followed:
            await followed.said("credentials are read anew")
            await later(server.write_kubeconfig, "rotating", {"token": "good-token"})
            await followed.until(has("IPPool", "default"))
            await followed.well()

    asyncio.run(check())


def test_a_password_that_a_peer_refers_to_is_read_from_its_file(server: ApiServer, tmp_path: Path) -> None:
    reference = {"secretKeyRef": {"name": "tor", "key": "password"}}
    server.apply(node(), POOL, custom("BGPPeer", "tor", peerIP="172.31.1.1", asNumber=64600, password=reference))

    def write() -> None:
        (tmp_path / "tor").mkdir()
        (tmp_path / "tor" / "password").touch(0o600)
        (tmp_path / "tor" / "password").write_text("s3cret")

    async def check() -> None:
        async with Followed(Client(server.kubeconfig), tmp_path) as followed:
            await followed.until(has("Secret", "tor/password"))
            await later(write)
            await followed.until(is_so("Secret", "tor/password", lambda secret: secret.value == "s3cret"))

    asyncio.run(check())
