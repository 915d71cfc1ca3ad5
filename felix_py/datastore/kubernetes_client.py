"""One connection to the API server by the official client: requests and watches, each answered or failed in words.

The client's generated models are not used: for each object of a list they would take a hundred times as long as JSON
does. What is used is how it finds servers and credentials, and its connection pool.
"""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

from felix_py.datastore.kubernetes_watch import Cause, News, cause_of

CONNECT_TIMEOUT = 1.0
"""Seconds; longer ones would be noticed after the server's return."""

ANSWER_TIMEOUT = 5.0
"""Seconds between two pieces of an answer; not of a watch, which may be silent."""

LIST_TIMEOUT = 30.0
"""The same of a list that nobody waits for: a server that has just started, or is busy, reads thousands from etcd."""

PATIENCE = 30.0
"""Seconds that one answer may take for which a pod waits. To give it up and try again would cost a busy server more,
and runtimes wait for minutes (kubelet's runtimeRequestTimeout)."""

BUSY_FIRST, BUSY_JITTER = 1.0, 0.5
"""Seconds until a server is asked again that took nothing on (429), if it names none; and what is added, at most."""

CONNECTIONS = 32
"""One for each kind that is watched, and some for changes."""

KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)
"""A server that went away without a word is noticed after 25 s: a watch alone would wait for it for ever."""

MEMORY = 0.5
"""Seconds for which a failed connection fails further requests at once, so that nobody waits for the same thing."""


class Failed(Exception):  # noqa: N818 - named for what happened
    """A request that was not answered as it should be.

    Attributes:
        news: what happened.
        status: of HTTP; 0 where there was no answer.
        reason: in the server's one word, as NotFound; empty where it is not an API server that speaks.
    """

    def __init__(self, news: News, status: int = 0, reason: str = "") -> None:
        super().__init__(news.words)
        self.news = news
        self.status = status
        self.reason = reason


class Client:
    """The API server, one of several where several are given. For any thread."""

    def __init__(self, kubeconfig: Path | None, servers: Sequence[str] = ()) -> None:
        """Read who we are; nothing is asked of the server yet.

        Args:
            kubeconfig: None for what a pod is given.
            servers: URLs to use instead of the one given there, in this order.

        Raises:
            Failed: when that cannot be read.
        """
        self._kubeconfig = kubeconfig
        self._servers = tuple(servers)
        self._current = 0
        self._failed_at: float | None = None
        self._lock = threading.Lock()
        self.renew()

    def renew(self) -> None:
        """Read anew who we are and whom we trust: tokens and certificates are replaced now and then.

        Raises:
            Failed: when that cannot be read; the former credentials stay in use.
        """
        configuration = Configuration()
        try:
            if self._kubeconfig is None:
                config.load_incluster_config(configuration)
            else:
                config.load_kube_config(str(self._kubeconfig), client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            where = self._kubeconfig or "the service account of this pod"
            sentence = f"{where} cannot be used: {' '.join(str(error).split())}; set kubeconfig to a readable file"
            raise Failed(News(Cause.DENIED, words=sentence)) from error
        configuration.connection_pool_maxsize = CONNECTIONS
        configuration.socket_options = list(KEEPALIVE)
        pool = RESTClientObject(configuration).pool_manager
        with self._lock:
            self._configuration, self._pool = configuration, pool
            if not self._servers:
                self._servers = (configuration.host,)

    @property
    def server(self) -> str:
        """Return the URL of the server that is used now."""
        return self._servers[self._current % len(self._servers)].rstrip("/")

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: str = "application/json",
        anyway: bool = False,
        patience: float = ANSWER_TIMEOUT,
        **query: object,
    ) -> dict[str, Any]:
        """Send one request and return the answer.

        Args:
            method: of HTTP.
            path: with its leading slash.
            body: what is sent, as JSON.
            content: the media type of the body.
            anyway: although the server could not be reached a moment ago.
            patience: seconds between two pieces of the answer.
            query: parameters.

        Raises:
            Failed: with the reason.
        """
        recent = self._failed_at
        if not anyway and recent is not None and time.monotonic() - recent < MEMORY:
            raise Failed(News(Cause.BROKEN, words=f"{self.server} could not be reached a moment ago"))
        headers = {"Content-Type": content} if body is not None else {}
        sent = json.dumps(body).encode() if body is not None else None
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=patience)
        with self._response(method, path, query, headers, sent, timeout) as response:
            return _json(response.data)

    def insist(self, method: str, path: str, body: object = None, **query: object) -> dict[str, Any]:
        """Send one request as `ask` does, with PATIENCE, and again for as long as the server is too busy to begin.

        Raises:
            Failed: with the reason.
        """
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask(method, path, body, patience=PATIENCE, **query)  # type: ignore[arg-type]
            except Failed as failure:
                # A server that has just started, or has more to do than it may: nothing was done.
                pause = (failure.news.after or BUSY_FIRST) + random.uniform(0, BUSY_JITTER)  # noqa: S311 - no secret
                if failure.status != HTTPStatus.TOO_MANY_REQUESTS or time.monotonic() + pause > until:
                    raise
                time.sleep(pause)

    def pages(
        self, path: str, size: int, *, patience: float = ANSWER_TIMEOUT, insist: bool = False, **query: object
    ) -> Iterator[dict[str, Any]]:
        """List a collection, page by page.

        Args:
            path: of the collection.
            size: objects in a page.
            patience: see `ask`.
            insist: ask for each page as `insist` does.
            query: parameters.

        Raises:
            Failed: with the reason; what was listed before is not all.
        """
        more = ""
        while True:
            asked = {**query, "limit": size} | ({"continue": more} if more else {})
            page = self.insist("GET", path, **asked) if insist else self.ask("GET", path, patience=patience, **asked)  # type: ignore[arg-type]
            yield page
            more = page["metadata"].get("continue", "")
            if not more:
                return

    @contextmanager
    def watch(self, path: str, revision: str, seconds: int, **query: object) -> Iterator[Iterator[dict[str, Any]]]:
        """Watch a collection from a revision on; the events end when the server, or `seconds`, ends them.

        Raises:
            Failed: with the reason.
        """
        extra = {"watch": 1, "resourceVersion": revision, "allowWatchBookmarks": "true", "timeoutSeconds": seconds}
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=seconds + ANSWER_TIMEOUT)
        with self._response("GET", path, {**query, **extra}, {}, None, timeout) as response:
            yield _events(response)

    @contextmanager
    def _response(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        headers: dict[str, str],
        body: bytes | None,
        timeout: urllib3.Timeout,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        server, response = self._current, None
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            for each in self._configuration.auth_settings().values():  # the library reads a pod's token anew here
                headers[each["key"]] = each["value"]
            headers["Accept"] = "application/json"
            response = self._pool.request(
                method, url, body=body, headers=headers, timeout=timeout, preload_content=False, retries=False
            )
            self._failed_at = None
            if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                raise _refused(response)
            yield response
        except config.ConfigException as error:  # the file with the token has nothing in it
            raise Failed(News(Cause.DENIED, words=str(error))) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._failed_at = time.monotonic()
            with self._lock:
                if self._current == server:
                    self._current += 1
            raise Failed(
                News(Cause.BROKEN, words=f"{self._servers[server % len(self._servers)]}: {_in_words(error)}")
            ) from error
        finally:
            if response is not None:
                _dispose(response)


def _events(response: urllib3.BaseHTTPResponse) -> Iterator[dict[str, Any]]:
    rest = b""
    for piece in response.stream(amt=None):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line:
                yield _json(line)


def _json(text: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise Failed(News(Cause.GARBLED, words=str(error))) from error
    return found


def _dispose(response: urllib3.BaseHTTPResponse) -> None:
    """Give the connection back where the answer was read to its end; one with an answer to come is closed."""
    if response.closed:
        response.release_conn()
    else:
        response.close()


def _refused(response: urllib3.BaseHTTPResponse) -> Failed:
    words, reason = f"HTTP status {response.status}", ""
    with suppress(ValueError, KeyError, TypeError):  # a proxy's words, or none
        said = json.loads(response.data)
        words, reason = said["message"], said.get("reason", "")
    wait = response.headers.get("Retry-After", "")
    news = News(cause_of(response.status), after=float(wait) if wait.isdigit() else 0.0, words=words)
    return Failed(news, response.status, reason)


def _in_words(error: BaseException) -> str:
    """Return the innermost reason: libraries wrap it several times, each with its address in hexadecimal."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = error.__cause__ or error.__context__ or error
    strerror = getattr(error, "strerror", None)
    return strerror or " ".join(str(error).split())
