"""The local API: HTTP over a unix socket, documents in JSON; felixctl talks to it, and so may curl."""

import asyncio
import contextlib
import grp
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import structlog

LIMIT = 64 << 10
"""Bytes that one request may have; ours have a few hundred."""

DEADLINE = 5.0
"""Seconds that a client may take to say what it wants."""

GROUP = "felix"
"""Members of this group may use the socket; without the group only root may."""

Answer: TypeAlias = tuple[int, Mapping[str, Any]]
Handler: TypeAlias = Callable[[tuple[str, ...], Mapping[str, str]], Awaitable[Answer]]
"""Gets the parts of the path after /v1/NAME, and the query; returns status and document."""

log = structlog.get_logger()


class Api:
    """Serves documents; every request is answered, rubbish with a sentence."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers

    async def serve(self) -> None:
        """Listen until cancelled."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._client, self._path)
        _permit(self._path)
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (TimeoutError, ConnectionError):
            pass  # the client went away or never spoke: nobody is there to be told
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with asyncio.timeout(DEADLINE):
                request = await _request(connection, reader)
        except h11.RemoteProtocolError as error:
            log.warning("api.rubbish", socket=str(self._path), reason=str(error))
            answer: Answer = 400, {"error": f"this is no HTTP request: {error}"}
        else:
            if request is None:
                return
            answer = await self._answer(request)
        writer.write(_response(connection, *answer))
        await writer.drain()

    async def _answer(self, request: h11.Request) -> Answer:
        target = urlsplit(request.target.decode("ascii", "replace"))
        parts = [unquote(part) for part in target.path.split("/") if part]
        if request.method != b"GET":
            return 405, {"error": f"method {request.method.decode('ascii', 'replace')} is not known here; use GET"}
        handler = self._handlers.get(parts[1]) if len(parts) > 1 and parts[0] == "v1" else None
        if handler is None:
            known = ", ".join(f"/v1/{name}" for name in self._handlers)
            return 404, {"error": f"{target.path} is not known here; known are {known}"}
        query = {name: values[-1] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
        return await handler(tuple(parts[2:]), query)


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


def _response(connection: h11.Connection, status: int, document: Mapping[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    head = h11.Response(
        status_code=status,
        headers=[("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")],
    )
    events = (head, h11.Data(data=body), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


def _permit(path: Path) -> None:
    """Open the socket to root and to the group, where there is one."""
    path.chmod(0o660)
    with contextlib.suppress(KeyError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
