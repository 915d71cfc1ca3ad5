"""Follows one kind at the API server in a thread of its own: lists, watches, and tells what it understood."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from felix_py.datastore.kubernetes_client import LIST_TIMEOUT, Client, Failed
from felix_py.datastore.kubernetes_watch import Cause, News, Next, Standing, after, cause_of
from felix_py.kubernetes_resources import Followed, OwnNode, Understood, key_of, own_node, understand
from felix_py.model import Fault, Invalid, Key, NodeName

PAGE = 100
"""Objects in a page of a list. A Node has some 12 KB, and several times as much while it is read: pages of 500, which
kubectl asks for, cost 30 MiB more, and no less time."""

WATCH = range(1500, 2100)
"""Seconds until a watch is taken up anew, by chance, so that not all nodes do it at once."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is new of a kind.

    Attributes:
        whole: this is everything there is; what is not in it is gone.
        good: resources that can be used.
        bad: those that cannot, with what is wrong.
        gone: what was removed.
        away: why the kind cannot be followed now; None where it is.
        own: this node's Node, where it is among them.
        bug: what ended the thread, and is to end the agent.
    """

    kind: str
    whole: bool = False
    good: Mapping[Key, Understood] = field(default_factory=dict)
    bad: Mapping[Key, tuple[Fault, ...]] = field(default_factory=dict)
    gone: frozenset[Key] = frozenset()
    away: str | None = None
    own: OwnNode | None = None
    bug: Exception | None = None


class Follower:
    """One kind, followed until `stop`; `tell` is called in its thread.

    Args:
        client: the API server.
        what: the kind.
        tell: takes what is new.
        own: the name of this node, of whose Node more is told; None for none.
    """

    def __init__(
        self, client: Client, what: Followed, tell: Callable[[Told], None], own: NodeName | None = None
    ) -> None:
        self._client = client
        self._what = what
        self._tell = tell
        self._own = own
        self._standing = Standing()
        self._quiet = threading.Event()
        self._away: str | None = None
        self._found: OwnNode | None = None
        self._thread = threading.Thread(target=self._run, name=f"follow-{what.kind}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End with the next event; the thread keeps no program from ending."""
        self._quiet.set()

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as bug:  # noqa: BLE001 - a thread that ends in silence would leave the agent with old news for ever
            self._tell(Told(self._what.kind, bug=bug))

    def _follow(self) -> None:
        while not self._quiet.is_set():
            began = time.monotonic()
            try:
                revision = self._standing.revision
                news = self._list() if revision is None else self._watch(revision)
            except Failed as failure:
                news = failure.news
            if news.cause is Cause.ENDED:
                news = News(Cause.ENDED, lasted=time.monotonic() - began)
            self._go_on(after(self._standing, news, random.random()))  # noqa: S311 - no secret, only a spread

    def _go_on(self, following: Next) -> None:
        self._standing = following.standing
        if following.wait:
            self._set_away(following.reason)
        if following.renew:
            try:
                self._client.renew()
            except Failed as failure:
                self._set_away(str(failure))
        if following.wait:
            self._quiet.wait(following.wait)

    def _set_away(self, reason: str | None) -> None:
        if reason == self._away:
            return
        self._away = reason
        self._tell(Told(self._what.kind, away=reason))

    def _list(self) -> News:
        good: dict[Key, Understood] = {}
        bad: dict[Key, tuple[Fault, ...]] = {}
        revision = ""
        for page in self._client.pages(self._what.path, PAGE, patience=LIST_TIMEOUT):
            for document in page["items"]:
                self._sort(document, good, bad)
            revision = page["metadata"]["resourceVersion"]
        self._tell(Told(self._what.kind, whole=True, good=good, bad=bad, own=self._found))
        self._set_away(None)
        return News(Cause.LISTED, revision)

    def _watch(self, revision: str) -> News:
        with self._client.watch(self._what.path, revision, random.choice(WATCH)) as events:  # noqa: S311 - as above
            self._standing = Standing(revision)
            self._set_away(None)
            for event in events:
                if self._quiet.is_set():
                    break
                news = self._heard(event)
                if news.cause is not Cause.MOVED:
                    return news
                self._standing = after(self._standing, news, 0).standing
        return News(Cause.ENDED)

    def _heard(self, event: Mapping[str, Any]) -> News:
        kind, document = event["type"], event["object"]
        if kind == "ERROR":
            return News(cause_of(document.get("code", 0)), words=document.get("message", ""))
        good: dict[Key, Understood] = {}
        bad: dict[Key, tuple[Fault, ...]] = {}
        if kind == "DELETED":
            self._tell(Told(self._what.kind, gone=frozenset({key_of(self._what.kind, document)})))
        elif kind != "BOOKMARK":
            self._sort(document, good, bad)
            self._tell(Told(self._what.kind, good=good, bad=bad, own=self._found))
        return News(Cause.MOVED, document["metadata"]["resourceVersion"])

    def _sort(
        self,
        document: Mapping[str, Any],
        good: dict[Key, Understood],
        bad: dict[Key, tuple[Fault, ...]],
    ) -> None:
        key = key_of(self._what.kind, document)
        if self._what.kind == "Node" and key.name == self._own:
            self._found = own_node(document)
        try:
            good[key] = understand(self._what.kind, document)
        except Invalid as invalid:
            bad[key] = invalid.faults
