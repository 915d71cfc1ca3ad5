"""Blocks and claims as custom resources, changed by compare-and-swap: the API server compares resourceVersion."""

import errno
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

from felix_py import durable, ipam_resources
from felix_py.claims import Conflict, Found, Stored
from felix_py.datastore.api import Damaged, Unavailable
from felix_py.datastore.kubernetes_client import Client, Failed
from felix_py.datastore.kubernetes_watch import Cause
from felix_py.ipam import Block
from felix_py.kubernetes_resources import STORED
from felix_py.model import BlockAffinity, Invalid, Key, NodeName
from felix_py.resources import API_VERSION, parse

KEPT = {"app.kubernetes.io/managed-by": "felix-py"}
"""Labels of what nodes write: an affinity without was written by somebody who means it to stay."""

SELECTOR = ",".join(f"{name}={value}" for name, value in KEPT.items())

CONCERNS = "node.felix-py/"
"""How labels begin that say which nodes an object concerns: not each of thousands lists all of thousands of blocks."""

UNTRACKED: tuple[dict[str, str], ...] = ({},)
"""Has the server stop tracking who owns which field (https://kubernetes.io/docs/reference/using-api/server-side-apply/
#clearing-managedfields): nodes alone write blocks, and with 50 pods that was a third of a block, and of the time."""

PAGE = 500
"""Objects in a page of a list of all."""

NOT_FOUND = "NotFound"
"""What the server says of an object that is not there; of a kind that it does not know, it says nothing."""

ATTIC = "damaged"
"""Folder of the state directory for what could not be understood."""

REASONS = {
    Cause.BROKEN: (errno.EHOSTUNREACH, "see that the API server can be reached"),
    Cause.FORBIDDEN: (errno.EACCES, "apply deploy/kubernetes/felix.yaml again, which has the rights that are needed"),
    Cause.UNKNOWN: (errno.ENOENT, "apply deploy/kubernetes/felix.yaml, which defines it"),
}
"""By cause: what OSError says it is, and the remedy."""


class KubernetesSwaps:
    """`datastore.api.Swaps` at the API server."""

    def __init__(self, client: Client, state_directory: Path) -> None:
        self._client = client
        self._attic = state_directory / ATTIC
        self._known: dict[Key, Found] = {}  # objects as they were understood, so that they need not be again
        self._newest: dict[str, str] = {}  # by kind, the revision that a list has to have; empty for the very newest

    def read(self, key: Key) -> Found | None:
        """Return a resource as it is now; see `datastore.api.Swaps`."""
        try:
            return self._understood(key, self._client.insist("GET", _path(key)))
        except Failed as failure:
            if failure.reason == NOT_FOUND:
                return None
            raise self._unavailable(key, failure) from failure

    def known(self, key: Key) -> Found | None:
        """Return a resource as it was last; see `datastore.api.Swaps`."""
        return self._known.get(key)

    def listing(self, kind: str, of: NodeName | None = None) -> tuple[tuple[Found, ...], tuple[Damaged, ...]]:
        """Return all that nodes keep of one kind, or what concerns one of them; see `datastore.api.Swaps`."""
        found: list[Found] = []
        damaged: list[Damaged] = []
        try:
            pages = self._pages(kind) if of is None else self._what_concerns(kind, of)
            for document in (each for page in pages for each in page["items"]):
                try:
                    found.append(self._understood(Key(kind, document["metadata"]["name"]), document))
                except Damaged as problem:
                    damaged.append(problem)
        except Failed as failure:
            raise self._unavailable(Key(kind, ""), failure) from failure
        return tuple(found), tuple(damaged)

    def _pages(self, kind: str) -> Iterator[dict[str, Any]]:
        return self._client.pages(STORED[kind].path, PAGE, insist=True, labelSelector=SELECTOR)

    def _what_concerns(self, kind: str, node: NodeName) -> Iterator[dict[str, Any]]:
        """List what concerns a node, from the server's memory where that has what we wrote last; it may lag a moment.

        From etcd the server would read all objects of the kind for it: seconds, where its memory takes milliseconds
        (https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list).
        """
        newest = self._newest.get(kind, "0")
        recent = {"resourceVersion": newest, "resourceVersionMatch": "NotOlderThan"} if newest else {}
        self._newest[kind] = ""  # until it has worked: a server that was restored may not get there for long
        query: dict[str, Any] = {"labelSelector": f"{SELECTOR},{concerning(node)}", **recent}
        page = self._client.insist("GET", STORED[kind].path, **query)
        if not self._newest[kind]:  # nobody has written meanwhile
            self._newest[kind] = newest or page["metadata"]["resourceVersion"]
        yield page

    def swap(self, key: Key, value: Stored | None, revision: str | None) -> str:
        """Change a resource if it still has this revision; see `datastore.api.Swaps`."""
        try:
            after = self._swapped(key, value, revision)
        except Failed as failure:
            if failure.status == HTTPStatus.CONFLICT or (revision is not None and failure.reason == NOT_FOUND):
                raise Conflict(f"{key} was changed by somebody else") from failure
            # Without an answer nobody knows whether it was done; whoever can still ask, asks.
            unknown = failure.status == 0 or failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            done = self._done_anyway(key, value, revision) if unknown else None
            if done is None:
                raise self._unavailable(key, failure) from failure
            after = done
        if value is not None:
            self._known[key] = Found(value, after)
        else:
            self._known.pop(key, None)
        self._newest[key.kind] = after
        return after

    def put_aside(self, damaged: Damaged) -> None:
        """Take what cannot be understood out of the way; as `datastore.api.Swaps` says: into a file of this node."""
        key = damaged.key
        try:
            document = self._client.ask("GET", _path(key))
            revision = document["metadata"]["resourceVersion"]
            try:
                self._understood(key, document)
            except Damaged:
                path = self._attic / f"{key.kind}-{key.name}-{revision}.json"
                durable.write(path, json.dumps(document) + "\n", mode=0o600)
                self._client.ask("DELETE", _path(key), _precondition(revision))
        except Failed as failure:
            if failure.reason != NOT_FOUND:
                raise self._unavailable(key, failure) from failure

    # --- one request

    def _swapped(self, key: Key, value: Stored | None, revision: str | None) -> str:
        if value is None:
            self._client.insist("DELETE", _path(key), _precondition(revision))
            return ""
        if revision is None:
            answer = self._client.insist("POST", STORED[key.kind].path, _document(key, value, None))
        else:
            answer = self._client.insist("PUT", _path(key), _document(key, value, revision))
        return str(answer["metadata"]["resourceVersion"])

    def _done_anyway(self, key: Key, value: Stored | None, before: str | None) -> str | None:
        """Return the revision that a change left whose answer was lost; None where it was not done, or nobody knows."""
        try:
            found: Found | None = self._understood(key, self._client.ask("GET", _path(key), anyway=True))
        except Failed as failure:
            if failure.reason != NOT_FOUND:
                return None
            found = None
        except Damaged:
            return None
        if value is None:
            return "" if found is None else None
        return found.revision if found is not None and found.value == value and found.revision != before else None

    def _understood(self, key: Key, document: Mapping[str, Any]) -> Found:
        revision, known = document["metadata"]["resourceVersion"], self._known.get(key)
        if known is not None and known.revision == revision:
            return known
        place = f"{self._client.server}{_path(key)}"
        try:
            found = self._known[key] = Found(_value(key, document, place), revision)
        except Invalid as invalid:
            raise Damaged(key, place, "; ".join(fault.message for fault in invalid.faults)) from invalid
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(key, place, " ".join(str(error).split())) from error
        return found

    def _unavailable(self, key: Key, failure: Failed) -> Unavailable:
        number, remedy = REASONS.get(failure.news.cause, (errno.EIO, "see what the API server logs"))
        return Unavailable(number, str(failure), f"{self._client.server}{_path(key)}", remedy)


def concerning(node: NodeName) -> str:
    """Return the label of what concerns a node; a node's name may be longer than a label's."""
    return f"{CONCERNS}{sha256(node.encode()).hexdigest()[:32]}"


def _concerned(value: Stored) -> set[NodeName]:
    """Return the nodes that have claimed it, or for which it holds something."""
    if isinstance(value, BlockAffinity):
        return {value.node}
    return {each.node for each in value.held.values()} | ({value.affinity} if value.affinity is not None else set())


def _path(key: Key) -> str:
    return f"{STORED[key.kind].path}/{key.name}".rstrip("/")


def _precondition(revision: str | None) -> dict[str, Any]:
    return {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": revision}}


def _value(key: Key, document: Mapping[str, Any], where: str) -> Stored:
    """Read an object.

    Raises:
        Invalid, ValueError, KeyError, TypeError: for what is none of ours.
    """
    spec = document["spec"]
    if key.kind == "IPAMBlock":
        released = {each["address"]: each.get("since") for each in spec.get("released", ())}
        return ipam_resources.block({"affinity": None, "allocations": {}, **spec, "released": released})
    shaped = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": {"name": key.name}, "spec": spec}
    value = parse(shaped, where)[1]
    if not isinstance(value, BlockAffinity):
        raise TypeError(f"it is no {key.kind}")
    return value


def _document(key: Key, value: Stored, revision: str | None) -> dict[str, Any]:
    spec = ipam_resources.block_document(value) if isinstance(value, Block) else ipam_resources.affinity_document(value)
    labels = {**KEPT, **dict.fromkeys(map(concerning, _concerned(value)), "")}
    metadata: dict[str, Any] = {"name": key.name, "labels": labels}
    if revision is not None:
        metadata |= {"resourceVersion": revision, "managedFields": UNTRACKED}
    if "released" in spec:  # a list: the order counts, and the API server sorts what has names
        spec["released"] = [{"address": address, "since": since} for address, since in spec["released"].items()]
    given = {name: item for name, item in spec.items() if item is not None}
    return {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": given}
