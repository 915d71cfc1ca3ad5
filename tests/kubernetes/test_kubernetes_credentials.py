"""Tokens as pods have them, at a real API server: bound to an object, replaced in their file, and worthless one day."""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_server import ApiServer
from kubernetes.config import incluster_config
from test_kubernetes_datastore import POOL, Followed, custom, has, later, nat, node

from felix_py.datastore.kubernetes_client import Client, Failed
from felix_py.datastore.kubernetes_watch import Cause

pytestmark = pytest.mark.kubernetes

ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/holder"
REVOKED = 20.0
"""Seconds until a server has forgotten that it knew a token: it remembers for 10 s."""


class Mounted:
    """The files that a pod finds about who it is, written as kubelet does."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server, self.token = server, folder / "token"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "holder", "namespace": "default"}}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        subjects = [{"kind": "ServiceAccount", "name": "holder", "namespace": "default"}]
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
        made = {**binding, "metadata": {"name": "holder"}, "roleRef": reference, "subjects": subjects}
        self._documents = (account, made)
        server.apply(*self._documents)

    def close(self) -> None:
        self._server.delete(*self._documents)

    def bind(self, name: str) -> str:
        """Return a token that is good for as long as a Secret is there."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}}
        self._server.apply(secret)
        uid = self._server.request("GET", f"/api/v1/namespaces/default/secrets/{name}")["metadata"]["uid"]
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}
        question = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": bound}}
        return str(self._server.request("POST", f"{ACCOUNT}/token", question)["status"]["token"])

    def revoke(self, name: str) -> None:
        self._server.request("DELETE", f"/api/v1/namespaces/default/secrets/{name}")

    def put(self, token: str) -> None:
        """Replace the token in one step."""
        fresh = self.token.with_suffix(".new")
        fresh.write_text(token)
        fresh.rename(self.token)


@pytest.fixture
def mounted(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounted]:
    made = Mounted(server, tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(made.token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(server.folder / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    yield made
    made.close()


async def refused(client: Client, path: str) -> Failed:
    """Ask until the server does not know us any more."""
    async with asyncio.timeout(REVOKED):
        while True:
            try:
                await later(client.ask, "GET", path)
            except Failed as failure:
                return failure
            await asyncio.sleep(0.1)


def test_a_bound_token_that_was_replaced_and_revoked_costs_nothing(
    server: ApiServer, tmp_path: Path, mounted: Mounted
) -> None:
    server.apply(node(), POOL)
    mounted.put(mounted.bind("first"))

    async def check() -> None:
        client = Client(None)
        async with Followed(client, tmp_path) as followed:
            await followed.until(has("IPPool", "default"))
            before = followed.cluster

            # worthless before there is another one: what was known stays, and it is said why
            await later(mounted.revoke, "first")
            failure = await refused(client, "/api/v1/nodes/a1")
            assert failure.news.cause is Cause.DENIED
            await later(server.stop)
            await later(server.start)
            assert "credentials are read anew" in await followed.said("Unauthorized")
            assert followed.cluster == before

            # kubelet puts the next one there
            mounted.put(await later(mounted.bind, "second"))
            await followed.well()
            await later(server.apply, custom("IPPool", "default", cidr="10.65.0.0/16", natOutgoing=True))
            await followed.until(nat(on=True))
            await later(client.ask, "GET", "/api/v1/nodes/a1")

    asyncio.run(check())


class MinutesLater:
    """The library's clock: it reads a token anew that is older than a minute."""

    timedelta = dt.timedelta

    class datetime:  # noqa: N801 - as the library calls it
        @staticmethod
        def now() -> dt.datetime:
            return dt.datetime.now() + dt.timedelta(minutes=2)  # noqa: DTZ005 - as the library does


@pytest.mark.parametrize(
    ("broken", "words"),
    [(lambda path: path.write_text(""), "Token file exists but empty"), (Path.unlink, "No such file or directory")],
    ids=["empty", "away"],
)
def test_a_token_that_cannot_be_read_fails_a_request_in_words(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch, broken: Callable[[Path], object], words: str
) -> None:
    token = mounted.bind("only")
    mounted.put(token)
    client = Client(None)
    client.ask("GET", "/api/v1/namespaces/default")
    broken(mounted.token)
    client.ask("GET", "/api/v1/namespaces/default")
    monkeypatch.setattr(incluster_config, "datetime", MinutesLater)
    with pytest.raises(Failed, match=words):
        client.ask("GET", "/api/v1/namespaces/default")
    with pytest.raises(Failed, match="the service account of this pod cannot be used"):
        client.renew()
    mounted.put(token)
    client.ask("GET", "/api/v1/namespaces/default", anyway=True)
