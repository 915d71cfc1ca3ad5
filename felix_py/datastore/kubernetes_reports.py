"""Tells the API server how this node's BGP sessions are: by its CalicoNodeStatus, and by Events on its Node."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from bgp.report import PeerReport
from felix_py import kubernetes_events, kubernetes_status
from felix_py.datastore.api import Sight
from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client, Failed
from felix_py.datastore.kubernetes_watch import RULES, Cause
from felix_py.first_done import first_done
from felix_py.kubernetes_events import EventBook, Series
from felix_py.kubernetes_status import Marks, Pace
from felix_py.model import NodeName

GATHER = 1.0
"""Seconds that changes are gathered: sessions come and go together, and nobody reads faster."""

PERIOD = 30.0
"""Seconds between two looks while nothing is said to have changed; each costs a fraction of a millisecond."""

LATEST = 10.0
"""Seconds until what is wrong with resources is told, at most. All nodes find a resource wrong at once, and each waits
for a part of this, drawn at its start; what is mended meanwhile is not told."""

SOON = 1.0
"""The same until this node's object is known."""

APPLY = "application/apply-patch+yaml"
MANAGER = "felix-agent"
MERGE = "application/merge-patch+json"

NOT_FOUND, EXISTS = "NotFound", "AlreadyExists"

SILENT = frozenset({Cause.BROKEN, Cause.BUSY})
"""Failures that are said already, by those who follow kinds."""


class Reporter:
    """Writes how sessions are: soon after they have changed, and seldom.

    The agent is not held up: requests are sent by another thread, one after the other, and none while the last waits.

    Args:
        client: the API server.
        node: whose sessions they are.
        datastore: knows this node's object, and says what is wrong.
        sight: of the agent.
    """

    def __init__(self, client: Client, node: NodeName, datastore: KubernetesDatastore, sight: Sight) -> None:
        self._client = client
        self._node = node
        self._datastore = datastore
        self._sight = sight
        self._path = f"{kubernetes_status.PATH}/{node}"
        self._seen: Marks = {}
        self._told: Marks | None = None
        self._faults_told: tuple[str, ...] = ()
        self._faults_since: float | None = None
        self._lag = random.uniform(0, LATEST)  # noqa: S311 - only a spread
        self._conditions: list[dict[str, Any]] = []
        self._owner = ""
        self._pace = Pace()
        self._events = EventBook()

    async def run(self) -> None:
        """Look whenever something has changed, and now and then, for ever."""
        while True:
            number = self._sight.changes.number
            self._datastore.faults_changed.clear()
            pause = await self._look()
            await self._stirred(number, pause)
            await asyncio.sleep(GATHER)

    async def _stirred(self, number: int, pause: float) -> None:
        """Wait until sessions or faults are others, for some seconds at most."""
        await first_done(self._sight.changes.changed(number, pause), self._datastore.faults_changed.wait())

    async def _look(self) -> float:
        """Tell what is new; return the seconds until there may be something to tell although nothing changes."""
        reports = self._sight.sessions()
        marks, moment = kubernetes_status.marks(reports), datetime.now(UTC)
        happened = kubernetes_events.happenings(self._seen, reports, moment)
        self._events.note(happened, time.monotonic())
        self._seen = marks
        own = self._datastore.own_node
        if own is None or not self._sight.ready(0.0):
            return SOON
        changed = marks != self._told or own.uid != self._owner or self._faults_due(time.monotonic()) == 0
        if not self._pace.wait(time.monotonic(), changed=changed):
            await self._tell_status(reports, marks, own.uid, moment)
        for series in self._events.due(time.monotonic()):
            if not await self._tell_event(series, own.uid):
                break
        now = time.monotonic()
        wait, faults = self._pace.wait(now, changed=self._told != marks), self._faults_due(now)
        if faults is not None:
            wait = min(wait, max(faults, self._pace.wait(now, changed=True)))
        return min(PERIOD, wait, self._events.wait(now) or PERIOD)

    def _faults_due(self, now: float) -> float | None:
        """Return the seconds until faults are to be told; None where they have been, as they are."""
        if self._datastore.faults == self._faults_told:
            self._faults_since = None
            return None
        if self._faults_since is None:
            self._faults_since = now
        return max(0.0, self._faults_since + self._lag - now)

    async def _tell_status(self, reports: tuple[PeerReport, ...], marks: Marks, uid: str, moment: datetime) -> None:
        faults, subject = self._datastore.faults, f"CalicoNodeStatus {self._node}"
        well = await self._try(subject, self._write_status, uid, reports, moment, faults)
        self._pace = self._pace.written(time.monotonic(), random.random(), well=well)  # noqa: S311 - only a spread
        if well:
            self._told, self._owner, self._faults_told = marks, uid, faults

    def _write_status(
        self, uid: str, reports: tuple[PeerReport, ...], moment: datetime, faults: tuple[str, ...]
    ) -> None:
        if uid == self._owner:
            try:
                self._apply_status(reports, moment, faults)
            except Failed as failure:
                if failure.reason != NOT_FOUND:
                    raise
            else:
                return
        found = self._apply(self._path, kubernetes_status.owned(self._node, uid))
        # What the agent before this one has written tells since when a condition is as it is.
        self._conditions = found.get("status", {}).get("conditions", self._conditions)
        self._apply_status(reports, moment, faults)

    def _apply_status(self, reports: tuple[PeerReport, ...], moment: datetime, faults: tuple[str, ...]) -> None:
        document = kubernetes_status.document(self._node, reports, moment, faults, self._conditions)
        self._apply(f"{self._path}/status", document)
        self._conditions = document["status"]["conditions"]

    def _apply(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        return self._client.ask("PATCH", path, document, content=APPLY, fieldManager=MANAGER, force="true")

    async def _tell_event(self, series: Series, uid: str) -> bool:
        made = series.made(self._node, uid)
        well = await self._try("Events", self._write_event, series, made)
        if well:
            self._events.wrote(series, made["metadata"]["name"], time.monotonic())
        else:
            self._events.refused(time.monotonic())
        return well

    def _write_event(self, series: Series, made: dict[str, Any]) -> None:
        if series.name is not None:
            try:
                path = f"{kubernetes_events.PATH}/{series.name}"
                self._client.ask("PATCH", path, series.changed(), content=MERGE)
            except Failed as failure:
                if failure.reason != NOT_FOUND:  # the server forgets Events after an hour
                    raise
            else:
                return
        try:
            self._client.ask("POST", kubernetes_events.PATH, made)
        except Failed as failure:
            if failure.reason != EXISTS:  # it is there: the answer to the last attempt was lost
                raise

    async def _try(self, subject: str, write: Callable[..., None], *arguments: object) -> bool:
        """Write, and take note of why that cannot be done."""
        try:
            await asyncio.to_thread(write, *arguments)
        except Failed as failure:
            if failure.news.cause not in SILENT:
                sentence = f"cannot be written: {RULES[failure.news.cause].reason}: {failure}"
                self._datastore.note(subject, (sentence,))
            return False
        self._datastore.note(subject, ())
        return True
