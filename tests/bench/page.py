"""A page of fifty nodes and five thousand routes in a browser, and `felixctl routes` of ten thousand routes."""

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import page_tables
from figures import RUNS, tell
from route_space import ONE_LINK, Space, scaled

from felix_py.api import Answer, TcpApi
from felix_py.config import ListenAddress
from felix_py.ctl import client
from felix_py.lab import machines
from felix_py.page.feed import Feed
from felix_py.page.gate import Reach
from felix_py.page.server import PageServer

sys.path.insert(0, str(Path(__file__).parents[1] / "page"))

from browser import browser

UPDATES = 8
"""Updates of a page that are measured; each changes a session, a node, a hundred routes and an event."""

ROUTES = scaled(10_000)
"""That felixctl lists."""


async def _nothing(_node: str, _resource: str, _query: Mapping[str, str]) -> Answer:
    return 404, {"error": "nothing more is known here"}


class Served:
    """A page of a made-up cluster, served by a thread."""

    def __init__(self) -> None:
        self.cluster = page_tables.Cluster()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise AssertionError("the page is not served")

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.cluster.news = asyncio.Event()
        feed = Feed(self.cluster)
        page = PageServer(feed, _nothing, Reach.LOOPBACK)
        server = TcpApi(ListenAddress("127.0.0.1", 0), page.all(), setting="--listen", admit=page.admit)
        tasks = [asyncio.create_task(server.serve()), asyncio.create_task(feed.run())]
        await server.listening.wait()
        self.address = f"http://127.0.0.1:{server.port}/"
        self._ready.set()
        await self._end.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def change(self) -> None:
        self.loop.call_soon_threadsafe(self.cluster.change)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


def updates() -> dict[str, list[float]]:
    """Return milliseconds from a message's arrival until the document is written, and until the frame is painted."""
    served = Served()
    counted = "performance.getEntriesByName('felix.painted').length"
    try:
        with browser() as page:
            page.look(1280, 900, "light")
            page.open(served.address)
            page.evaluate("document.getElementById('tab-routes').click()")
            page.until("document.querySelector('.scroller.routes .row')")
            for _ in range(UPDATES):
                before = page.evaluate(counted)
                served.change()
                page.until(f"{counted} > {before}")
            found = page.evaluate("performance.getEntriesByType('measure').map((each) => [each.name, each.duration])")
    finally:
        served.close()
    every: dict[str, list[float]] = {}
    for name, duration in found:
        every.setdefault(name, []).append(duration)
    return every


@contextmanager
def agent_with(count: int) -> Iterator[Path]:
    """Have an agent that holds this many routes to other nodes, which the datastore tells; yield its socket."""
    with tempfile.TemporaryDirectory() as folder, closing_space(Space(ONE_LINK)) as space:
        home = Path(folder)
        (home / "resources").mkdir()
        (home / "resources" / "cluster.yaml").write_text("\n---\n".join(map(json.dumps, page_tables.resources(count))))
        directories = {"resourceDirectory": "resources", "runDirectory": "run", "stateDirectory": "lib"}
        settings: dict[str, Any] = {name: str(home / path) for name, path in directories.items()}
        settings |= {"nodeName": "n0", "bgp": "Disabled", "logLevel": "error", "netfilter": "Disabled"}
        (home / "felix.yaml").write_text(json.dumps(settings))
        with space.entered():
            agent = subprocess.Popen([machines.program("felix-agent"), "run", "--config", home / "felix.yaml"])
        try:
            deadline = time.monotonic() + 120
            while _installed(home / "run" / "agent.sock") < count:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the agent has not written {count} routes")
                time.sleep(0.2)
            yield home / "run" / "agent.sock"
        finally:
            agent.terminate()
            agent.wait(10)


@contextmanager
def closing_space(space: Space) -> Iterator[Space]:
    try:
        yield space
    finally:
        space.close()


def _installed(path: Path) -> int:
    with suppress(client.Unreachable):
        return int(client.get(path, "status")["routes"].get("installed", 0))
    return 0


def listings(path: Path) -> list[float]:
    """Return how many milliseconds `felixctl routes` takes, as a user types it."""
    words = [machines.program("felixctl"), "--socket", str(path), "routes"]
    taken = []
    for _ in range(RUNS):
        start = time.monotonic()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        taken.append(1000 * (time.monotonic() - start))
        if done.stdout.count("\n") < ROUTES:
            raise AssertionError(f"{done.stdout.count(chr(10))} lines: {done.stderr}")
    return taken


def bench() -> bool:
    measured = updates()
    # The first is the page's birth, with everything in it; what follows are updates.
    first, later = measured["felix.painted"][0], measured["felix.painted"][1:]
    kept = [
        tell("page: 50 nodes, 5,000 routes: all of it until painted", [first], "ms", 1000.0),
        tell("page: 50 nodes, 5,000 routes: an update until painted", later, "ms", 100.0),
        tell("page: 50 nodes, 5,000 routes: the slowest update until painted", [max(later)], "ms", 100.0),
    ]
    with agent_with(ROUTES) as path:
        kept.append(tell(f"felixctl routes: {ROUTES:,} routes", listings(path), "ms", 400.0))
    return all(kept)


if __name__ == "__main__":
    sys.exit(0 if bench() else 1)
