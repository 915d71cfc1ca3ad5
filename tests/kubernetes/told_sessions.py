"""A node's BGP sessions, with a router that is BIRD, of which a real API server is told."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from api_server import DIES_WITH_US, ApiServer
from bgp_builders import B1, ME, NODE_AS, TOR, TOR_AS, peer, settings
from joined import joined
from spaces import Space

from bgp.exabgp_process import BgpService
from bgp.types import SessionState
from felix_py.datastore.api import Sight
from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client
from felix_py.datastore.kubernetes_reports import Reporter
from felix_py.model import NodeName
from felix_py.news import News

SECONDS = 20.0
OBJECT = "/apis/projectcalico.org/v3/caliconodestatuses/a1"
EVENTS = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind=Node"

BIRD = f"""
router id {TOR};
log stderr all;
protocol device {{ }}
protocol bgp node {{
  local {TOR} as {TOR_AS};
  neighbor {ME} as {NODE_AS};
  connect delay time 1; connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export none; }};
}}
"""


class Router:
    """BIRD at the far end of the node's cable; what it is asked for has happened when the call returns."""

    def __init__(self, space: Space, folder: Path) -> None:
        self._control, configuration = folder / "bird.ctl", folder / "bird.conf"
        configuration.write_text(BIRD)
        words = [*DIES_WITH_US, "bird", "-f", "-c", str(configuration), "-s", str(self._control)]
        with (folder / "bird.log").open("ab") as log:
            self._process: subprocess.Popen[bytes] = space.do(subprocess.Popen, words, stderr=log)

    def ask(self, *words: str) -> None:
        subprocess.run(["birdc", "-s", str(self._control), *words], check=True, capture_output=True, timeout=SECONDS)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Told:
    """An agent's sessions, which are told to a server: one with the router, and one that nobody ever opens."""

    def __init__(self, server: ApiServer, folder: Path, user: Path | None, here: Space, router: Router) -> None:
        self.news = News()
        self.bgp = BgpService(
            on_change=self.news.ring, on_news=self.news.ring, wrapper=("nsenter", f"--net={here.path}")
        )
        self.bgp.configure(settings(peer(TOR, TOR_AS, "tor-1", "global"), peer(B1, name="b1", passive=True)))
        self.router = router
        self._server = server
        client = Client(user or server.kubeconfig)
        self.store = KubernetesDatastore(client, NodeName("a1"), folder)
        sight = Sight(lambda _: True, self.bgp.sessions, self.news)
        self.reporter = Reporter(client, NodeName("a1"), self.store, sight)

    async def _sessions(self, up: int) -> None:
        """Wait until so many sessions are established."""
        async with asyncio.timeout(SECONDS):
            while sum(each.state is SessionState.ESTABLISHED for each in self.bgp.sessions()) != up:
                await self.news.changed(self.news.number, SECONDS)

    async def lose(self) -> None:
        """Have the router close its session."""
        await self._sessions(1)
        await asyncio.to_thread(self.router.ask, "disable", "node")
        await self._sessions(0)

    async def regain(self) -> None:
        """Have the router open its session again."""
        await asyncio.to_thread(self.router.ask, "enable", "node")
        await self._sessions(1)

    async def until(self, asked: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until the object at the server is so, and return it."""
        async with asyncio.timeout(SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    found: dict[str, Any] = await asyncio.to_thread(self._server.request, "GET", OBJECT)
                    if found.get("status") and asked(found):
                        return found
                await asyncio.sleep(0.05)

    async def events(self, count: int, asked: Callable[[list[dict[str, Any]]], object] = bool) -> list[dict[str, Any]]:
        """Wait until there are so many Events, and they are so; return them, the oldest first."""
        async with asyncio.timeout(SECONDS):
            while True:
                found = (await asyncio.to_thread(self._server.request, "GET", EVENTS))["items"]
                if len(found) >= count and asked(found):
                    return sorted(found, key=lambda each: int(each["metadata"]["resourceVersion"]))
                await asyncio.sleep(0.05)


@asynccontextmanager
async def told(server: ApiServer, folder: Path, user: Path | None = None) -> AsyncIterator[Told]:
    with joined() as (here, there), contextlib.closing(Router(there, folder)) as router:
        for space, address in ((here, ME), (there, TOR)):
            space.ip(f"addr add {address}/24 dev eth0", "link set eth0 up")
        made = Told(server, folder, user, here, router)

        async def follow() -> None:
            async for _ in made.store.events():
                pass

        tasks = [asyncio.create_task(each) for each in (follow(), made.reporter.run(), made.bgp.run())]
        try:
            yield made
        finally:
            await made.bgp.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
