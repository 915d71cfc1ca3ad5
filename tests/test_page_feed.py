"""What readers of a page get over real sockets: all at once, then news; a reader that stops reading costs nobody."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

from felix_py.api import Answer, TcpApi
from felix_py.config import ListenAddress
from felix_py.page import feed as feeds
from felix_py.page.feed import READERS, Feed
from felix_py.page.gate import Reach
from felix_py.page.server import PageServer
from felix_py.page.tables import Tables

HEAD = "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"


class Told:
    """A source that tests tell."""

    def __init__(self, count: int = 3) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.looks = 0
        self.news = asyncio.Event()
        self.put(**{f"r{number}": "installed" for number in range(count)})

    def put(self, **states: str) -> None:
        self.rows = {**self.rows, **{key: {"state": state, "text": "x" * 200} for key, state in states.items()}}
        self.news.set()

    async def gather(self) -> Tables:
        self.looks += 1
        self.news.clear()
        return {"routes": self.rows}

    async def changed(self) -> None:
        await self.news.wait()


async def ask(node: str, resource: str, query: Mapping[str, str]) -> Answer:
    return 200, {"node": node, "resource": resource, **query}


class Reader:
    """A browser's end of the feed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.held: dict[str, str] = {}

    async def leave(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def message(self) -> tuple[str, dict[str, Any]]:
        """Read the next event, and take it in."""
        kind = ""
        while True:
            line = (await asyncio.wait_for(self._reader.readline(), 10)).decode().strip()
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                message = json.loads(line.removeprefix("data: "))
                self.held.update({key: row["state"] for key, row in message["put"].get("routes", {}).items()})
                return kind, message


async def connect(port: int, path: str = "/page/feed", host: str = "127.0.0.1", buffer: int | None = None) -> Reader:
    raw = socket.socket()
    if buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.settimeout(0)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1 << 24)
    writer.write(HEAD.format(path=path, host=host).encode())
    return Reader(reader, writer)


async def answered(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.format(path=path, host=host).encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head.decode(), body


async def until_nobody_reads(feed: Feed) -> None:
    while feed.readers:  # noqa: ASYNC110 - a reader's end is the loop's own business, and no event tells of it
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have looks follow each other quickly: the pace has a test of its own."""
    monkeypatch.setattr(feeds, "REST", 0.01)
    monkeypatch.setattr(feeds, "SHARE", 0)


def served(work: Callable[[int, Told, Feed], Awaitable[None]], count: int = 3, reach: Reach = Reach.LOOPBACK) -> None:
    async def scenario() -> None:
        source = Told(count)
        feed = Feed(source)
        page = PageServer(feed, ask, reach)
        server = TcpApi(ListenAddress("127.0.0.1", 0), page.all(), setting="metricsAddress", admit=page.admit)
        tasks = [asyncio.create_task(server.serve()), asyncio.create_task(feed.run())]
        try:
            await asyncio.wait_for(server.listening.wait(), 10)
            await work(server.port, source, feed)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


def test_a_reader_gets_everything_and_then_what_changes() -> None:
    async def work(port: int, source: Told, _feed: Feed) -> None:
        reader = await connect(port)
        kind, message = await reader.message()
        assert (kind, set(message["put"]["routes"])) == ("whole", {"r0", "r1", "r2"})
        source.put(r1="missing")
        kind, message = await reader.message()
        assert kind == "news"
        assert {key: row["state"] for key, row in message["put"]["routes"].items()} == {"r1": "missing"}
        await reader.leave()

    served(work)


def test_a_reader_that_stops_reading_holds_up_nobody_and_catches_up_with_one_message() -> None:
    async def work(port: int, source: Told, _feed: Feed) -> None:
        stuck, quick = await connect(port, buffer=4096), await connect(port)
        await quick.message()
        # The stuck one reads nothing; 8,000 rows of 200 bytes are more than any buffer between us and it holds.
        for turn in range(20):
            source.put(**{f"r{number}": f"state {turn}" for number in range(8000)})
            while quick.held["r7999"] != f"state {turn}":
                await quick.message()
        looks = source.looks
        kinds = [await stuck.message()]
        while stuck.held["r7999"] != "state 19":
            kinds.append(await stuck.message())
        assert kinds[0][0] == "whole"
        # What lay in buffers, and one difference to the present: not the twenty that it missed.
        assert len(kinds) <= 4, len(kinds)
        assert stuck.held == quick.held
        assert source.looks == looks, "nobody looked again on its behalf"
        await stuck.leave()
        await quick.leave()

    served(work, count=8000)


def test_nothing_is_gathered_while_nobody_reads() -> None:
    async def work(port: int, source: Told, feed: Feed) -> None:
        assert source.looks == 0
        reader = await connect(port)
        await reader.message()
        await reader.leave()
        await until_nobody_reads(feed)
        looks = source.looks
        source.put(r1="missing")
        again = await connect(port)
        await again.message()
        assert again.held["r1"] == "missing", "what a new reader gets is of now"
        assert source.looks <= looks + 2
        await again.leave()

    served(work)


def test_readers_are_limited_so_that_probes_are_answered() -> None:
    async def work(port: int, _source: Told, feed: Feed) -> None:
        readers = [await connect(port) for _ in range(READERS)]
        for reader in readers:
            await reader.message()
        status, _, body = await answered(port, "/page/feed")
        assert (status, json.loads(body)["error"]) == (503, f"{READERS} pages are open already; close one")
        for reader in readers:
            await reader.leave()
        await until_nobody_reads(feed)
        last = await connect(port)
        await last.message()
        await last.leave()

    served(work)


def test_a_look_is_followed_by_a_rest_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that takes long is looked at the more seldom, however often it changes."""
    monkeypatch.setattr(feeds, "SHARE", 10)

    async def scenario() -> list[float]:
        source, clock = Told(), asyncio.get_running_loop().time
        began: list[float] = []

        async def slowly() -> Tables:
            began.append(clock())
            await asyncio.sleep(0.02)
            source.put(r0=str(len(began)))
            return {"routes": source.rows}

        source.gather = slowly  # type: ignore[method-assign]
        feed = Feed(source, clock)
        running = asyncio.create_task(feed.run())
        messages = feed.messages()
        while len(began) < 4:
            await anext(messages)
        await messages.aclose()
        running.cancel()
        return began

    began = asyncio.run(scenario())
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(began[1:])), began


def test_the_page_brings_all_that_it_needs_and_forbids_everything_else() -> None:
    async def work(port: int, _source: Told, _feed: Feed) -> None:
        status, head, body = await answered(port, "/")
        assert status == 200
        assert "Content-Security-Policy: default-src 'none'; script-src 'self'" in head
        assert b"http" not in body.replace(b'http-equiv"', b""), "nothing is fetched from elsewhere"
        for name in ("main.js", "page.css", "icon.svg"):
            status, head, body = await answered(port, f"/page/{name}")
            assert status == 200
            assert body
        assert (await answered(port, "/page/../api.py"))[0] == 404
        assert (await answered(port, "/page/%2e%2e%2fapi.py"))[0] == 404
        status, _, body = await answered(port, "/page/route/a1?prefix=10.65.0.0/26")
        assert json.loads(body) == {"node": "a1", "resource": "routes", "prefix": "10.65.0.0/26"}

    served(work)


def test_a_strangers_name_and_another_method_are_refused() -> None:
    async def work(port: int, _source: Told, _feed: Feed) -> None:
        for path in ("/", "/page/feed", "/page/route/a1"):
            status, _, body = await answered(port, path, host="rebound.example.com")
            assert status == 403
            assert "rebound.example.com" in json.loads(body)["error"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 405")
        writer.close()
        await writer.wait_closed()

    served(work)


def test_a_page_that_is_disabled_is_not_there() -> None:
    async def work(port: int, _source: Told, _feed: Feed) -> None:
        assert (await answered(port, "/"))[0] == 404
        assert (await answered(port, "/page/feed"))[0] == 404

    served(work, reach=Reach.DISABLED)
