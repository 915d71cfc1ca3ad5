"""Gathers the page of one agent: what felixctl is told, as tables, without holding the kernel's thread for long."""

from collections.abc import Mapping
from functools import partial
from itertools import islice

from bgp.exabgp_process import BgpService
from felix_py.agent import Agent
from felix_py.api import Answer
from felix_py.handlers import Handlers
from felix_py.journal import Journal
from felix_py.kernel.objects import KernelRefused, RouteKey
from felix_py.news import News
from felix_py.page import rows
from felix_py.page.tables import Tables
from felix_py.turn import Turns

PATIENCE = 1.0
"""Seconds after which the journal is looked at although no news rang: faults of resources are told there only."""

PART = 500
"""Routes that are described at a time, some 5 ms: between two parts the kernel's thread repairs what others break."""

MOST_ROUTES = 10_000
"""Routes on a page, those that are not as they should be first; of more, the page says how many it leaves out."""

EVENTS = 200
"""Newest entries of the journal on a page."""


class AgentSource:
    """The tables of one node (`feed.Source`)."""

    def __init__(self, agent: Agent, speaker: BgpService, answers: Handlers, news: News, journal: Journal) -> None:
        self._agent = agent
        self._speaker = speaker
        self._answers = answers
        self._news = news
        self._journal = journal
        self._seen = (0, 0)

    async def changed(self) -> None:
        """Wait until something that is shown may have changed since it was gathered."""
        while self._seen == (self._news.number, self._journal.last):
            await self._news.changed(self._seen[0], PATIENCE)

    async def gather(self) -> Tables:
        """Return everything as it is now."""
        self._seen = (self._news.number, self._journal.last)
        return await self._gathered()

    async def _gathered(self) -> Tables:
        agent, me, reports = self._agent, self._agent.node_name, self._speaker.peers()
        _, status = await self._answers.status((), {})
        assert isinstance(status, dict)  # noqa: S101 - pages are of another server
        routes = await self._routes(agent)
        left_out = len(agent.picture.desired.chosen) - len(routes)
        nodes = rows.nodes(agent.cluster, me, {**status, "routesLeftOut": max(0, left_out)})
        return {
            "about": {"page": {"title": me}},
            "nodes": {**rows.routers(agent.cluster, reports), **nodes},
            "sessions": rows.sessions(me, reports),
            "tunnels": await agent.ask(lambda turns: rows.tunnels(me, turns.wish.chosen, self._answers.driver)),
            "routes": routes,
            "events": rows.events(me, self._journal.newest(EVENTS)),
        }

    async def _routes(self, agent: Agent) -> rows.Rows:
        moment = agent.moment(0.0)
        base = moment.timestamp() if moment is not None else 0.0
        keys = await agent.ask(_keys)
        found: rows.Rows = {}
        for start in range(0, len(keys), PART):
            part = keys[start : start + PART]
            found |= await agent.ask(partial(rows.routes, agent.node_name, part, base))
        return found

    async def ask(self, node: str, resource: str, query: Mapping[str, str]) -> Answer:
        """Answer more about a route or a session of this node."""
        if node != self._agent.node_name:
            return 404, {"error": f"this is the page of {self._agent.node_name}; ask {node} itself"}
        name, *parts = resource.split("/")
        return await {"routes": self._answers.routes, "bgp": self._answers.bgp}[name](tuple(parts), query)

    async def document(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer /v1/page: the same tables for whoever shows several nodes on one page."""
        try:
            return 200, {"node": self._agent.node_name, "tables": await self._gathered()}
        except KernelRefused as refusal:
            return 503, {"error": f"the kernel could not be read: {refusal}"}


def _keys(turns: Turns) -> list[RouteKey]:
    """Return the routes to show: what is not as it should be, then the others, as many as there is room for."""
    first = turns.unsettled()
    others = (key for key in turns.wish.chosen if key not in first)
    return [*first, *islice(others, max(0, MOST_ROUTES - len(first)))]
