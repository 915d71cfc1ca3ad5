"""The local API: HTTP over a unix socket, documents in JSON; and the same server on TCP for probes and metrics."""

import asyncio
import contextlib
import grp
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import structlog

from felix_py.config import ListenAddress

LIMIT = 64 << 10
"""Bytes that one request may have; ours have a few hundred."""

DEADLINE = 5.0
"""Seconds that a client may take to say what it wants, and again to take its answer."""

CLIENTS = 64
"""Connections at a time; more are closed unheard, so that idle ones cannot use up the agent's descriptors."""

LISTEN_AGAIN = 10.0
"""Seconds until a TCP address that could not be had is tried again."""

GROUP = "felix"
"""Members of this group may use the socket; without the group only root may."""


STALLED = 60.0
"""Seconds that the reader of a stream may take for one part of it; its connection is cut then."""


class Text(NamedTuple):
    """A body that is no JSON document."""

    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}


class Stream(NamedTuple):
    """A body without an end; each part is made when the one before has left for the client."""

    content_type: str
    parts: AsyncGenerator[bytes, None]
    headers: Mapping[str, str] = {}


class Asker(NamedTuple):
    """Who asks: `host` is whom the client believes to ask, `address` where it connects from by TCP."""

    host: str | None
    address: str | None


Answer: TypeAlias = tuple[int, Mapping[str, Any]]
Page: TypeAlias = tuple[int, Text]
Flow: TypeAlias = tuple[int, Stream]
Handler: TypeAlias = Callable[[tuple[str, ...], Mapping[str, str]], Awaitable[Answer | Page | Flow]]
"""Gets the parts of the path after the handler's own name, and the query; returns status and document, or a page."""

Admit: TypeAlias = Callable[[str, Asker], Answer | None]
"""Gets the name of a handler, and who asks; returns what to answer instead, None where the handler may."""

log = structlog.get_logger()


class _Server:
    """Answers every request, rubbish with a sentence, and lets no client wait for another."""

    def __init__(
        self,
        name: str,
        root: str,
        handlers: Mapping[str, Handler],
        actions: Mapping[str, Handler] | None = None,
        admit: Admit | None = None,
    ) -> None:
        self._name = name
        self._root = root
        self._methods = {b"GET": handlers, **({b"POST": actions} if actions else {})}
        self._admit = admit
        self._clients: set[asyncio.Task[None] | None] = set()
        self._closing = False

    async def _serve(self, server: asyncio.Server) -> None:
        """Serve until cancelled; clients that still wait are cut off then, or the server would wait for them."""
        self._closing = False
        loop = asyncio.get_running_loop()
        async with server:
            try:
                await loop.create_future()
            finally:
                self._closing = True
                for listening in server.sockets:
                    loop.remove_reader(listening.fileno())
                for client in self._clients:
                    if client is not None:
                        client.cancel()
                await asyncio.sleep(0)  # a server that is closed leaves whom it has just accepted with no word for ever

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing or len(self._clients) >= CLIENTS:  # closing: it connected, and its turn comes only now
            writer.transport.abort()
            return
        client = asyncio.current_task()
        self._clients.add(client)
        try:
            await self._talk(reader, writer)
            writer.close()
            async with asyncio.timeout(DEADLINE):
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            pass  # the client went away, never spoke, or never read: nobody is there to be told
        except asyncio.CancelledError:
            if not self._closing:
                raise
            # else asyncio, whose task this is, would log it as a fault of the handler
        finally:
            writer.transport.abort()  # nothing, where all is sent and closed
            self._clients.discard(client)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with asyncio.timeout(DEADLINE):
                request = await _request(connection, reader)
        except h11.RemoteProtocolError as error:
            log.warning("api.rubbish", socket=self._name, reason=str(error))
            answer: Answer | Page | Flow = 400, {"error": f"this is no HTTP request: {error}"}
        else:
            if request is None:
                return
            answer = await self._answer(request, Asker(_host(request), _address(writer)))
        status, content = answer
        if isinstance(content, Stream):
            await _flow(connection, content, reader, writer)
            return
        writer.write(_response(connection, status, content))
        async with asyncio.timeout(DEADLINE):
            await writer.drain()

    async def _answer(self, request: h11.Request, asker: Asker) -> Answer | Page | Flow:
        target = urlsplit(request.target.decode("ascii", "replace"))
        parts = [unquote(part) for part in target.path.split("/") if part]
        root = [part for part in self._root.split("/") if part]
        name = parts[len(root)] if parts[: len(root)] == root and len(parts) > len(root) else ""
        usable = {method: handlers[name] for method, handlers in self._methods.items() if name in handlers}
        if not usable:
            known = ", ".join(dict.fromkeys(f"{self._root}{each}" for some in self._methods.values() for each in some))
            return 404, {"error": f"{target.path} is not known here; known are {known}"}
        handler = usable.get(request.method)
        if handler is None:
            method, known = request.method.decode("ascii", "replace"), " or ".join(each.decode() for each in usable)
            return 405, {"error": f"method {method} is not known for {target.path}; use {known}"}
        if self._admit is not None and (refused := self._admit(name, asker)) is not None:
            return refused
        query = {name: values[-1] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
        return await handler(tuple(parts[len(root) + 1 :]), query)


class Api(_Server):
    """Serves /v1/NAME on a unix socket, to root and the group felix.

    Args:
        handlers: answer GET, and change nothing.
        actions: answer POST, and do what is asked.
    """

    def __init__(
        self, path: Path, handlers: Mapping[str, Handler], actions: Mapping[str, Handler] | None = None
    ) -> None:
        super().__init__(str(path), "/v1/", handlers, actions or {})
        self._path = path

    async def serve(self) -> None:
        """Listen until cancelled."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._client, self._path)
        _permit(self._path)
        try:
            await self._serve(server)
        finally:
            self._path.unlink(missing_ok=True)


class TcpApi(_Server):
    """Serves /NAME on a TCP address. One that cannot be had costs these answers and nothing else.

    Attributes:
        listening: is set when clients can come.
        port: where they can come then; not the one of `address` if that is 0, by which the kernel chooses.
    """

    def __init__(
        self, address: ListenAddress, handlers: Mapping[str, Handler], *, setting: str, admit: Admit | None = None
    ) -> None:
        super().__init__(str(address), "/", handlers, admit=admit)
        self._address = address
        self._setting = setting
        self.listening = asyncio.Event()
        self.port = address.port

    async def serve(self) -> None:
        """Listen until cancelled; where the address cannot be had, say so once, and wait for it."""
        server = await self._listen()
        self.port = server.sockets[0].getsockname()[1]
        self.listening.set()
        await self._serve(server)

    async def _listen(self) -> asyncio.Server:
        said = False
        while True:
            try:
                return await asyncio.start_server(self._client, *self._address)
            except OSError as error:
                if not said:
                    # asyncio puts words of its own into strerror
                    why = os.strerror(error.errno) if error.errno else str(error)
                    reason = f"{self._address} cannot be listened on: {why}; free it, or give another {self._setting}"
                    log.warning("metrics.refused", address=str(self._address), reason=f"{reason}, or none")
                said = True
                await asyncio.sleep(LISTEN_AGAIN)


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read one request to its end; None when the client left without one."""
    request: h11.Request | None = None
    received = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed):
            return None
        elif event is h11.NEED_DATA:
            data = await reader.read(1 << 14)
            received += len(data)
            if received > LIMIT:
                raise h11.RemoteProtocolError(f"it is longer than {LIMIT} bytes")
            connection.receive_data(data)


def _response(connection: h11.Connection, status: int, content: Mapping[str, Any] | Text) -> bytes:
    page = content if isinstance(content, Text) else Text("application/json", json.dumps(content).encode())
    length = str(len(page.body))
    head = h11.Response(
        status_code=status,
        headers=[
            ("Content-Type", page.content_type),
            ("Content-Length", length),
            ("Connection", "close"),
            *page.headers.items(),
        ],
    )
    events = (head, h11.Data(data=page.body), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


async def _flow(
    connection: h11.Connection, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send a stream until the client goes; one that does not read is given no further part."""
    headers = [("Content-Type", stream.content_type), ("Connection", "close"), *stream.headers.items()]
    writer.transport.set_write_buffer_limits(high=0)  # "drained" is then: all of it is the kernel's business
    writer.write(connection.send(h11.Response(status_code=200, headers=headers)) or b"")
    sending = asyncio.create_task(_send(connection, stream.parts, writer))
    leaving = asyncio.create_task(_until_left(reader))
    try:
        await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        leaving.cancel()
        results = await asyncio.gather(sending, leaving, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _send(connection: h11.Connection, parts: AsyncGenerator[bytes, None], writer: asyncio.StreamWriter) -> None:
    async with contextlib.aclosing(parts):
        async for part in parts:
            writer.write(connection.send(h11.Data(data=part)) or b"")
            async with asyncio.timeout(STALLED):
                await writer.drain()


async def _until_left(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 10):
        pass  # whatever else it says, nobody listens


def _host(request: h11.Request) -> str | None:
    return next((value.decode("ascii", "replace") for name, value in request.headers if name == b"host"), None)


def _address(writer: asyncio.StreamWriter) -> str | None:
    """Return where a client of TCP connects from."""
    name = writer.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else None


def _permit(path: Path) -> None:
    """Open the socket to root and to the group, where there is one."""
    path.chmod(0o660)
    with contextlib.suppress(KeyError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
