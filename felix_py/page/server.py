"""The paths of a page: the page itself, its files, its feed, and one route or session whole when somebody asks."""

from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from pathlib import PurePath

from felix_py.api import Answer, Asker, Flow, Handler, Page, Stream, Text
from felix_py.page import gate
from felix_py.page.feed import Feed, Full
from felix_py.page.gate import Reach

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types of our files; one of another kind is not served."""

UNCACHED = {"Cache-Control": "no-cache"}
"""A page of before an update would not understand the feed of after it."""

Asked = Callable[[str, str, Mapping[str, str]], Awaitable[Answer]]
"""Asks a node for a resource of its local API: the node's name, the path after /v1/, the query."""


class PageServer:
    """The handlers of one page.

    Args:
        feed: what is shown, and what changes.
        ask: how a node is asked for more about one of its routes or sessions.
        reach: to whom the page is served.
    """

    def __init__(self, feed: Feed, ask: Asked, reach: Reach) -> None:
        self._feed = feed
        self._ask = ask
        self._reach = reach
        self._files = _files()

    def all(self) -> Mapping[str, Handler]:
        """Return each handler by its path; the page itself is the one without a name."""
        return {} if self._reach is Reach.DISABLED else {"": self._index, "page": self._page}

    def admit(self, name: str, asker: Asker) -> Answer | None:
        """Refuse who may not look at the page; other paths are none of its business."""
        refused = gate.refusal(self._reach, asker.host, asker.address) if name in self.all() else None
        return None if refused is None else (403, {"error": refused})

    async def _index(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Page:
        return 200, self._files["index.html"]

    async def _page(self, parts: tuple[str, ...], query: Mapping[str, str]) -> Answer | Page | Flow:
        match parts:
            case ("feed",):
                try:
                    return 200, Stream("text/event-stream", self._feed.messages(), {**gate.HEADERS, **UNCACHED})
                except Full as full:
                    return 503, {"error": str(full)}
            case ("route", node):
                return await self._ask(node, "routes", {"prefix": query.get("prefix", "")})
            case ("session", node, address):
                return await self._ask(node, f"bgp/peers/{address}", {})
            case (name,) if name in self._files:
                return 200, self._files[name]
        return 404, {"error": "known are /page/feed, /page/route/NODE?prefix=PREFIX, /page/session/NODE/ADDRESS"}


def _files() -> Mapping[str, Text]:
    """Read every file of the page, once: there are some 60 kB of them."""
    folder = resources.files("felix_py.page") / "static"
    return {
        each.name: Text(TYPES[suffix], each.read_bytes(), {**gate.HEADERS, **UNCACHED})
        for each in folder.iterdir()
        if (suffix := PurePath(each.name).suffix) in TYPES
    }
