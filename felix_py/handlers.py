"""What the local API answers to each question: the agent's, the speaker's and the tunnel's documents put together."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from bgp.exabgp_process import BgpService
from bgp.speaker import SpeakerSettings
from bgp.types import SessionState
from felix_py import __version__, bgp_documents, documents, maintenance
from felix_py.agent import Agent
from felix_py.api import Answer, Handler
from felix_py.bgp_actions import BgpActions
from felix_py.calc import sessions
from felix_py.kernel.objects import KernelRefused
from felix_py.maintenance_file import MaintenanceFile
from felix_py.turn import Turns
from ipip.device import Device

ASKED: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("prefix", ip_network, "a prefix, as 10.65.1.0/26 or fd65::40/122"),
    ("received", ip_address, "a peer's address, as 172.31.1.12"),
    ("advertised", ip_address, "a peer's address, as 172.31.1.12"),
)
"""What may be asked about paths: name, parser, and what to give."""


class Handlers:
    """Answers for one node."""

    def __init__(self, agent: Agent, speaker: BgpService, device: Device, standing: MaintenanceFile) -> None:
        self._agent = agent
        self._speaker = speaker
        self._device = device
        self._standing = standing

    def all(self) -> Mapping[str, Handler]:
        """Return each handler by the name after /v1/."""
        return {
            "status": self.status,
            "routes": self.routes,
            "bgp": self.bgp,
            "endpoints": self.endpoints,
            "tunnels": self.tunnels,
            "plan": self.plan,
        }

    def actions(self) -> Mapping[str, Handler]:
        """Return what may be asked to be done, by the name after /v1/."""
        return {"bgp": BgpActions(self._agent, self._speaker, self._standing).act}

    async def status(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer how the node is."""
        peers = self._speaker.peers()
        down = [
            f"BGP session with {peer.settings.address} ({peer.settings.name}) is {peer.state}"
            + (f": {peer.last_error}" if peer.last_error else "")
            for peer in peers
            if peer.state is not SessionState.ESTABLISHED
        ]
        problems = (*filter(None, (self._speaker.problem, self._standing.problem)), *down)
        established = sum(peer.state is SessionState.ESTABLISHED for peer in peers)
        extra = {
            "version": __version__,
            "pid": os.getpid(),
            "bgp": {
                "established": established,
                "configured": len(peers),
                "asNumber": settings.asn if (settings := self._settings()) else None,
                "childPid": self._speaker.child_pid,
                "respawns": self._speaker.respawns,
                **self._maintenance(),
            },
            "tunnel": self._tunnel(),
        }
        document = partial(documents.status, self._agent, extra=extra, problems=problems)
        return 200, await self._agent.ask(document)

    def _maintenance(self) -> dict[str, Any]:
        return {"maintenance": maintenance.shown(self._standing.value)}

    def _settings(self) -> SpeakerSettings | None:
        return sessions.settings(self._agent.cluster, self._agent.node_name)

    def _tunnel(self) -> dict[str, Any] | None:
        wanted = next(iter(self._agent.picture.desired.state.tunnels.values()), None)
        if wanted is None:
            return None
        return {
            "driver": self._device.driver,
            "why": self._device.why,
            "device": wanted.name,
            "mtu": wanted.mtu,
            "address": str(wanted.address) if wanted.address else None,
        }

    async def routes(self, _parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer which routes there are, and why, down to BGP's own verdicts."""
        which = query.get("which", "all")
        if which not in ("all", "kernel", "rib"):
            return 400, {"error": f"which is {which!r}; give all, kernel or rib"}
        try:
            prefix = str(ip_network(query["prefix"])) if "prefix" in query else None  # of many spellings, ours
        except ValueError:
            return 400, {"error": f"prefix is {query['prefix']!r}; give {ASKED[0][2]}"}
        try:
            document = await self._agent.ask(partial(documents.routes, self._agent, which=which, prefix=prefix))
        except KernelRefused as refusal:
            return 503, {"error": f"the kernel could not be read: {refusal}"}
        received = self._speaker.routes()
        for row in document["routes"]:
            row["driver"] = self._device.driver if row["encapsulation"] == "ipip" else None
            row["paths"] = bgp_documents.paths(received, row["prefix"]) if row["kind"] == "remote" else []
        return 200, document

    async def bgp(self, parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer about sessions and paths."""
        match parts:
            case ("peers",):
                return 200, self._peers()
            case ("peers", address):
                return self._peer(address)
            case ("routes",):
                return self._paths(query)
        return 404, {"error": "known are /v1/bgp/peers, /v1/bgp/peers/ADDRESS and /v1/bgp/routes"}

    def _peers(self) -> dict[str, Any]:
        settings = self._settings()
        return {
            "node": self._agent.node_name,
            "asNumber": settings.asn if settings else None,
            "routerID": str(settings.router_id) if settings else None,
            "converged": self._speaker.converged(),
            "problem": self._speaker.problem,
            **self._maintenance(),
            "peers": [bgp_documents.peer_row(peer) for peer in self._speaker.peers()],
        }

    def _peer(self, address: str) -> Answer:
        reports = {str(peer.settings.address): peer for peer in self._speaker.peers()}
        if address not in reports:
            known = ", ".join(reports) or "none"
            return 404, {"error": f"no session with {address} is configured; configured are {known}"}
        return 200, bgp_documents.peer(reports[address])

    def _paths(self, query: Mapping[str, str]) -> Answer:
        for name, parse, example in ASKED:
            try:
                _ = parse(query[name]) if name in query else None
            except ValueError:
                return 400, {"error": f"{name} is {query[name]!r}; give {example}"}
        if "advertised" in query:
            prefixes = self._speaker.advertised(ip_address(query["advertised"]))
            return 200, {"routes": bgp_documents.advertised(prefixes, self._addresses())}
        reports = (
            self._speaker.received(ip_address(query["received"])) if "received" in query else self._speaker.routes()
        )
        rows = bgp_documents.paths(reports, query.get("prefix"))
        return 200, {"routes": [row for row in rows if row["best"] or "best" not in query]}

    def _addresses(self) -> dict[int, str | None]:
        settings = self._settings()
        own = (settings.local_address, settings.local_address6) if settings else ()
        return {address.version: str(address) for address in own if address is not None}

    async def endpoints(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer which pods are here."""
        return 200, await self._agent.ask(partial(documents.endpoints, self._agent))

    async def tunnels(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer what carries encapsulated packets here, and what became of them."""
        return 200, await self._agent.ask(self._tunnels)

    def _tunnels(self, turns: Turns) -> dict[str, Any]:
        """Run this where the kernel is read and written, as everything that touches the device."""
        wanted = turns.wish.state.tunnels
        rows = [
            documents.tunnel(each, self._device.read(name), self._device.counters(name))
            for name, each in wanted.items()
        ]
        return {
            "node": self._agent.node_name,
            "tunnels": [row | {"driver": self._device.driver, "why": self._device.why} for row in rows],
        }

    async def plan(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer what a turn would do now."""
        try:
            return 200, await self._agent.planned(documents.plan)
        except KernelRefused as refusal:
            return 503, {"error": f"the kernel could not be read: {refusal}"}
