"""The datastore of a Kubernetes cluster: its Nodes and Namespaces, and Calico's kinds as custom resources.

Each kind is followed by a thread of its own; what they understood is put together here, in the event loop. What was
known last stays in force while the server is away, whatever it answers when it has lost its memory, and for each
resource that cannot be used.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from pathlib import Path

import structlog
from asyncinotify import Inotify

from felix_py.contradictions import Placed
from felix_py.datastore import settling
from felix_py.datastore.kubernetes_client import Client
from felix_py.datastore.kubernetes_follow import Follower, Told
from felix_py.datastore.removals import Removals
from felix_py.datastore.secrets import Passwords
from felix_py.datastore.settling import Reading, settle
from felix_py.kubernetes_resources import FOLLOWED, POD_CIDRS, WHERE, OwnNode, Understood, fault, pod_cidr_resources
from felix_py.model import Fault, Key, Node, NodeName
from felix_py.state import Event, InSync

log = structlog.get_logger()


class KubernetesDatastore:
    """What a node's agent has to know, at the API server.

    Attributes:
        own_node: this node's Node as it is; None while it is not known.
        own_node_changed: set when it is another one.
        faults_changed: set when resources have other faults.
        restored: set when a server is believed again that had lost its memory: what nodes wrote may be gone.
    """

    def __init__(
        self, client: Client, node: NodeName, secret_directory: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.own_node: OwnNode | None = None
        self.own_node_changed = asyncio.Event()
        self.faults_changed = asyncio.Event()
        self.restored = asyncio.Event()
        self._client = client
        self._clock = clock
        self._node = node
        self._problems: dict[str, tuple[str, ...]] = {}
        self._passwords = Passwords(secret_directory)
        self._good: dict[Key, Understood] = {}
        self._removals = Removals(node)
        self._believed = True
        self._bad: dict[Key, tuple[Fault, ...]] = {}
        self._away: dict[str, str] = {}
        self._unheard = {each.kind for each in FOLLOWED}
        self._in_force: Placed = {}
        self._in_sync = False
        self._faults: tuple[Fault, ...] = ()
        self._bug: Exception | None = None
        self._changed = False
        self._bell = asyncio.Event()

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault of the resources as they are now, and why some cannot be followed, one sentence each."""
        own = (fault(subject, problem) for subject, problems in self._problems.items() for problem in problems)
        return tuple(map(str, (*self._absences(), *own, *self._faults)))

    def note(self, subject: str, problems: tuple[str, ...]) -> None:
        """Take note of all that is wrong with an object of this node's own, as `Node a1`; for any thread."""
        for problem in problems:
            if problem not in self._problems.get(subject, ()):
                log.error("datastore.fault", fault=str(fault(subject, problem)))
        self._problems = {**self._problems, subject: problems}

    async def events(self) -> AsyncGenerator[tuple[Event, ...], None]:
        """Yield what the server has, then every change of it.

        Raises:
            Exception: whatever ended one of the threads, which nothing should.
        """
        loop = asyncio.get_running_loop()

        def tell(told: Told) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever listens
                loop.call_soon_threadsafe(self._hear, told)

        followers = [Follower(self._client, each, tell, self._node) for each in FOLLOWED]
        with Inotify() as inotify:
            listening = asyncio.create_task(self._listen_for_passwords(inotify), name="passwords")
            for follower in followers:
                follower.start()
            try:
                while True:
                    await self._woken()
                    if self._bug is not None:
                        raise self._bug
                    if news := tuple(self._take(inotify)):
                        yield news
            finally:
                listening.cancel()
                for follower in followers:
                    follower.stop()

    async def _woken(self) -> None:
        """Wait until something has happened, or a removal is due."""
        due = self._removals.due()
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await self._bell.wait()
        except TimeoutError:
            self._changed = True
        self._bell.clear()

    async def _listen_for_passwords(self, inotify: Inotify) -> None:
        async for _ in inotify:
            self._changed = True
            self._bell.set()

    def _hear(self, told: Told) -> None:
        """Take note of what a thread tells; most of it is the heartbeat of some node, which changes nothing."""
        self._bug = self._bug or told.bug
        if told.own is not None and told.own != self.own_node:
            self.own_node = told.own
            self.own_node_changed.set()
        self._note_absence(told.kind, told.away)
        if told.away is None:
            gone = told.gone
            if told.whole:
                known = (key for key in (*self._good, *self._bad) if key.kind == told.kind)
                gone = frozenset(key for key in known if key not in told.good and key not in told.bad)
                self._changed |= told.kind in self._unheard
                self._unheard.discard(told.kind)
            self._note(told, gone)
        if self._changed or self._bug is not None:
            self._bell.set()

    def _note_absence(self, kind: str, reason: str | None) -> None:
        before = dict(self._away)
        if reason is None:
            self._away.pop(kind, None)
        else:
            self._away[kind] = reason
        if reason is not None and reason not in before.values():  # ten kinds lose the same server: it is said once
            log.warning("datastore.away", kind=kind, reason=reason)
        if before and not self._away:
            log.info("datastore.back", server=self._client.server)

    def _note(self, told: Told, gone: frozenset[Key]) -> None:
        for key, understood in told.good.items():
            if self._good.get(key) != understood or key in self._bad:
                self._good[key] = understood
                self._bad.pop(key, None)
                self._removals.present(key, understood)
                self._changed = True
        for key, faults in told.bad.items():
            if self._bad.get(key) != faults:
                self._bad[key] = faults
                self._good.pop(key, None)
                self._changed = True
        for key in gone:
            before = self._good.pop(key, None)
            if before is not None:
                self._removals.removed(key, before, self._clock())
            if before is not None or self._bad.pop(key, None) is not None:
                self._changed = True

    def _take(self, inotify: Inotify) -> Iterator[Event]:
        changed, self._changed = self._changed, False
        if self._unheard or not changed:
            return
        disbelief = self._disbelief()
        self._judge(believed=disbelief is None)
        before, reading = self._in_force, self._reading(self._clock())
        if disbelief is None:
            self._in_force, faults = settle(before, reading)
        else:
            faults = (disbelief, *reading.faults)
        for each in faults:
            if each not in self._faults:
                log.error("datastore.fault", fault=str(each))
        if faults != self._faults:
            self.faults_changed.set()
        self._faults = faults
        found = (*settling.news(before, self._in_force), *self._passwords.look(inotify, self._in_force))
        if found:
            facts = {"resources": len(self._in_force), "changed": len(found), "cause": "objects changed"}
            log.info("datastore.loaded", directory=self._client.server, **facts)
        yield from found
        if not self._in_sync and disbelief is None:
            self._in_sync = True
            yield InSync()

    def _judge(self, *, believed: bool) -> None:
        if not believed:
            self._removals.wait()
        elif not self._believed:
            self._removals.resume(self._clock())
            self.restored.set()
        self._believed = believed

    def _reading(self, now: float) -> Reading:
        known = {**self._good, **self._removals.in_force(now)}
        good: Placed = {key: (WHERE, understood.value) for key, understood in known.items()}
        if not _has_pools((*self._good, *self._bad)):
            cidrs = {NodeName(key.name): each.pod_cidrs for key, each in self._good.items() if each.pod_cidrs}
            good = {**pod_cidr_resources(cidrs), **good}
        faults = tuple(each for several in self._bad.values() for each in several)
        kept = frozenset(self._bad)
        own, before = (placed.get(Key("Node", self._node), ("", None))[1] for placed in (good, self._in_force))
        if isinstance(own, Node) and own.address is None and isinstance(before, Node) and before.address is not None:
            # Somebody made the object anew, and its address will be there in a moment: nothing changes for that.
            kept |= {Key("Node", self._node)}
            good = {key: placed for key, placed in good.items() if key not in kept}
        return Reading(good, faults, faulty=kept)

    def _disbelief(self) -> Fault | None:
        """Say why this cannot be all that there is, if so: a server that was restored or emptied costs no route."""
        own = Key("Node", self._node)
        if own not in self._good and own not in self._bad:
            return fault(str(own), f"the API server knows no Node {self._node}, so nothing that it says is acted upon")
        written = (key for key in self._in_force if not key.name.startswith(POD_CIDRS))
        if _has_pools(written) and not _has_pools((*self._good, *self._bad)):
            sentence = "is gone to the last one, so all that was known stays in force; create one, or restart the agent"
            return fault("IPPool", sentence)
        return None

    def _absences(self) -> Iterator[Fault]:
        by_reason: dict[str, list[str]] = {}
        for kind, reason in self._away.items():
            by_reason.setdefault(reason, []).append(kind)
        for reason, kinds in by_reason.items():
            yield fault(", ".join(sorted(kinds)), f"{reason}; what was known last stays in force")


def _has_pools(keys: Iterable[Key]) -> bool:
    return any(key.kind == "IPPool" for key in keys)
