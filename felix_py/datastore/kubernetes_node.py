"""This node's own object at the API server: which address it has, and that its network is up."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from felix_py import node_address
from felix_py.config import Config
from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client, Failed
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kubernetes_resources import DETECTED, IPV4, IPV6, OwnNode
from felix_py.model import IPAddress
from felix_py.node_address import Detected, Host, Undecided

PERIOD = 60.0
"""Seconds between two looks at the host's addresses; each asks the kernel only."""

SOON = 1.0
"""Seconds until another look while something is missing."""

REFUSED = 5.0
"""Seconds until another try after the API server refused."""

DISCARD = 9
"""A UDP port that is named when the kernel is asked for a source address; nothing is sent there."""

log = structlog.get_logger()


class NodeKeeper:
    """Keeps this node's object as it should be.

    Args:
        client: the API server.
        settings: of this node.
        datastore: knows the object as it is, and says what is wrong with it.
        ready: says whether the routes of this node are in, if that has been waited for since a moment.
    """

    def __init__(
        self, client: Client, settings: Config, datastore: KubernetesDatastore, ready: Callable[[float], bool]
    ) -> None:
        self._client = client
        self._settings = settings
        self._datastore = datastore
        self._ready = ready
        self._waits_since: float | None = None
        self._path = f"/api/v1/nodes/{settings.node_name}/status"
        self._subject = f"Node {settings.node_name}"

    async def run(self) -> None:
        """Look whenever the object has changed, and now and then, for ever."""
        changed = self._datastore.own_node_changed
        while True:
            changed.clear()
            own = self._datastore.own_node
            pause = PERIOD
            if own is not None:
                pause = await asyncio.to_thread(self._look, own, ready=self._is_ready(own, time.monotonic()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await changed.wait()

    def _is_ready(self, own: OwnNode, now: float) -> bool:
        """Say whether this node has its routes; one whose object was made anew begins to wait anew."""
        if own.available:
            self._waits_since = None
            return True
        if self._waits_since is None:
            self._waits_since = now
        return self._ready(self._waits_since)

    def _look(self, own: OwnNode, *, ready: bool) -> float:
        """Put right what is not as it should be; return the seconds until another look."""
        wanted, problems = self._wanted(own)
        self._datastore.note(self._subject, problems)
        patch: dict[str, Any] = {}
        changed = {name: value for name, value in wanted.items() if own.annotations.get(name) != value}
        if changed:
            patch["metadata"] = {"annotations": changed}
        # Others hold no session with a node whose address they do not know.
        if ready and not own.available and not changed:
            patch["status"] = {"conditions": [_available(datetime.now(UTC))]}
        if patch:
            try:
                self._client.ask("PATCH", self._path, patch, content="application/strategic-merge-patch+json")
            except Failed as failure:
                self._datastore.note(self._subject, (*problems, f"cannot be changed: {failure}"))
                return REFUSED
            log.info("node.announced", node=self._settings.node_name, available="status" in patch or own.available)
        return PERIOD if (own.available or "status" in patch) and not problems else SOON

    def _wanted(self, own: OwnNode) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return the annotations that should be there, and why some cannot be found."""
        wanted: dict[str, str] = {}
        problems: list[str] = []
        host: Host | None = None
        for name, version, method in ((IPV4, 4, self._settings.node_address), (IPV6, 6, self._settings.node_address6)):
            # What somebody else wrote there is meant: Calico, or the administrator.
            if method is None or own.annotations.get(name) != own.annotations.get(DETECTED[name]):
                continue
            host = host or _host(own.internal)
            match node_address.detect(method, host, version):
                case Detected(address, why):
                    wanted |= {name: str(address), DETECTED[name]: str(address)}
                    if own.annotations.get(name) != str(address):
                        log.info("node.address", address=str(address), cause=why)
                case Undecided(why):
                    problems.append(why)
        return wanted, tuple(problems)


def _host(internal: tuple[IPAddress, ...]) -> Host:
    wire = Rtnetlink()
    try:
        return Host(wire.dump_links(), internal, _source)
    finally:
        wire.close()


def _source(towards: IPAddress) -> IPAddress | None:
    """Ask the kernel which address it would use; connecting a UDP socket sends nothing."""
    family = socket.AF_INET if towards.version == 4 else socket.AF_INET6  # noqa: PLR2004 - of IP
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(towards), DISCARD))
        except OSError:
            return None  # it has no route
        return type(towards)(probe.getsockname()[0])


def _available(now: datetime) -> dict[str, str]:
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "FelixIsUp",
        "message": "felix-py routes the pods of this node",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
