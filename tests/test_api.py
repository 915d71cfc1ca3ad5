"""The local API over a real unix socket: documents, refusals, rubbish."""

import asyncio
import contextlib
import json
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from felix_py.api import LIMIT, Answer, Api
from felix_py.ctl import client


async def routes(parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
    if parts == ("missing",):
        return 404, {"error": "no such thing"}
    return 200, {"parts": list(parts), "query": dict(query)}


async def asked(parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
    return 200, {"asked": list(parts), "message": query.get("message")}


def until_open(path: Path) -> None:
    """Wait until the socket is there and open to the group."""
    deadline = time.monotonic() + 5
    while not path.exists() or stat.S_IMODE(path.stat().st_mode) != 0o660:
        assert time.monotonic() < deadline, f"{path} never opened"


def against(path: Path, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run `work` while the API serves on `path`."""

    async def scenario() -> Any:
        server = asyncio.create_task(Api(path, {"routes": routes}, {"bgp": asked}).serve())
        await asyncio.to_thread(until_open, path)
        try:
            return await work()
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    return asyncio.run(scenario())


def ask(path: Path, resource: str, *parts: str, **query: str | None) -> dict[str, Any]:
    result: dict[str, Any] = against(path, lambda: asyncio.to_thread(client.get, path, resource, *parts, **query))
    return result


async def raw(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_a_document_is_answered(tmp_path: Path) -> None:
    found = ask(tmp_path / "s", "routes", "10.65.0.0/26", which="rib", prefix=None)
    assert found == {"parts": ["10.65.0.0/26"], "query": {"which": "rib"}}


def test_what_does_not_exist_is_told_apart_from_no_agent(tmp_path: Path) -> None:
    with pytest.raises(client.NotFound, match="no such thing"):
        ask(tmp_path / "s", "routes", "missing")
    with pytest.raises(client.Unreachable, match=r"no agent runs here: .*/s does not exist"):
        client.get(tmp_path / "s", "routes")


def test_an_unknown_path_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(client.NotFound, match="/v1/rotues is not known here; known are /v1/routes, /v1/bgp"):
        ask(tmp_path / "s", "rotues")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x00\xff\x16\x03\x01 rubbish\r\n\r\n", b"HTTP/1.1 400", id="binary"),
        pytest.param(b"GET /v1/routes HTTP/1.1\r\n\r\n", b"HTTP/1.1 400", id="no Host"),
        pytest.param(b"POST /v1/routes HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 405", id="another method"),
        pytest.param(b"GET /v1/" + b"x" * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400", id="endless"),
        pytest.param(b"", b"", id="nothing at all"),
    ],
)
def test_rubbish_is_answered_and_does_no_harm(tmp_path: Path, sent: bytes, status: bytes) -> None:
    path = tmp_path / "s"

    async def work() -> tuple[bytes, dict[str, Any]]:
        answer = await raw(path, sent)
        good = await raw(path, b"GET /v1/routes HTTP/1.1\r\nHost: x\r\n\r\n")
        return answer, json.loads(good.partition(b"\r\n\r\n")[2])

    answer, after = against(path, work)
    assert answer[:12] == status
    assert after == {"parts": [], "query": {}}


def test_the_socket_of_a_dead_agent_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        assert ask(path, "routes")["parts"] == []
    assert not path.exists()


@pytest.mark.parametrize("turns", range(12))
def test_whoever_connects_while_the_server_ends_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    """However far the loop has come with the client: not seen, accepted, heard, or waiting for its answer."""

    async def held(_parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        await asyncio.Event().wait()
        return 200, {}

    async def scenario() -> bytes:
        server = asyncio.create_task(Api(tmp_path / "s", {"held": held}).serve())
        await asyncio.to_thread(until_open, tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0)
            connection.connect(str(tmp_path / "s"))
            connection.send(b"GET /v1/held HTTP/1.1\r\nHost: felix\r\n\r\n")
            for _ in range(turns):
                await asyncio.sleep(0)
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionResetError):
                    return await asyncio.get_running_loop().sock_recv(connection, 100)
        return b""

    assert asyncio.run(scenario()) == b""
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def post(path: Path, resource: str, *parts: str, **query: str | None) -> dict[str, Any]:
    result: dict[str, Any] = against(path, lambda: asyncio.to_thread(client.post, path, resource, *parts, **query))
    return result


def test_an_action_is_done_by_post_and_by_nothing_else(tmp_path: Path) -> None:
    answer = post(tmp_path / "s", "bgp", "peers", "172.31.1.1", "disable", message="maintenance")
    assert answer == {"asked": ["peers", "172.31.1.1", "disable"], "message": "maintenance"}
    with pytest.raises(client.Unreachable, match="method GET is not known for /v1/bgp; use POST"):
        ask(tmp_path / "s", "bgp")
    with pytest.raises(client.Unreachable, match="method POST is not known for /v1/routes; use GET"):
        post(tmp_path / "s", "routes")
