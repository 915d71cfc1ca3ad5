"""What the local API answers to each question: the agent's, the speaker's and the tunnel's documents put together."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from bgp.exabgp_process import BgpService
from bgp.speaker import SpeakerSettings
from bgp.types import SessionState
from felix_py import (
    __version__,
    bgp_answers,
    bgp_documents,
    bgp_path_documents,
    documents,
    maintenance,
    tunnel_documents,
)
from felix_py.agent import Agent
from felix_py.api import Answer, Handler
from felix_py.bgp_actions import BgpActions
from felix_py.calc import sessions
from felix_py.calc.candidates import Candidate
from felix_py.ipam_answers import IpamAnswers
from felix_py.kernel.guard_choice import Choice
from felix_py.kernel.objects import KernelRefused, RouteKey, Tunnel
from felix_py.maintenance_file import MaintenanceFile
from felix_py.news import News
from felix_py.trace_answers import TraceAnswers
from felix_py.turn import Turns
from ipip.device import Device
from vxlan.device import Device as VxlanDevice
from vxlan.tunnel import Vxlan

OFF = "off: the settings say bgp: Disabled, and routes to other nodes come from the datastore"

DRIVERS = {None: None, "none": None, "vxlan": VxlanDevice.driver}
"""What carries the packets of a route by its encapsulation, but for IP in IP, of which there are several."""


async def _refuse(_parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
    """Answer that nothing can be asked of BGP."""
    return 400, {"error": "BGP is off on this node; give bgp: Enabled in felix.yaml and start the agent anew"}


class Handlers:
    """Answers for one node."""

    def __init__(
        self,
        agent: Agent,
        speaker: BgpService,
        devices: tuple[Device, VxlanDevice],
        standing: MaintenanceFile,
        news: News,
        ipam: IpamAnswers,
        guard: Choice,
    ) -> None:
        self._agent = agent
        self._speaker = speaker
        self._ipip, self._vxlan = devices
        self._standing = standing
        self._news = news
        self._traces = TraceAnswers(agent, self._ipip)
        self._ipam = ipam
        self._guard = guard

    def all(self) -> Mapping[str, Handler]:
        """Return each handler by the name after /v1/."""
        return {
            "status": self.status,
            "routes": self._news.waiting(self.routes),
            "bgp": self._news.waiting(self.bgp),
            "endpoints": self.endpoints,
            "tunnels": self.tunnels,
            "pools": self._ipam.pools,
            "blocks": self._ipam.blocks,
            "ipam": self._ipam.ipam,
            "plan": self.plan,
            "trace": self._traces.trace,
            "nodes": self._traces.nodes,
        }

    def actions(self) -> Mapping[str, Handler]:
        """Return what may be asked to be done, by the name after /v1/."""
        bgp = BgpActions(self._agent, self._speaker, self._standing).act if self._agent.config.bgp else _refuse
        return {"bgp": bgp, "ipam": self._ipam.release}

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
        tunnels = [tunnel_documents.short(each) | self._carried(each) for each in self._wanted_tunnels()]
        extra = {
            "version": __version__,
            "pid": os.getpid(),
            "bgp": {
                "established": established,
                "configured": len(peers),
                "asNumber": settings.asn if (settings := self._settings()) else None,
                "childPid": self._speaker.child_pid,
                "respawns": self._speaker.respawns,
                "off": self._off(),
                **self._maintenance(),
            },
            "guard": self._guard._asdict(),
            "podMTU": self._agent.picture.desired.pod_mtu._asdict(),
            "tunnel": next(iter(tunnels), None),
            "tunnels": tunnels,
        }
        document = partial(documents.status, self._agent, extra=extra, problems=problems)
        return 200, await self._agent.ask(document)

    def _maintenance(self) -> dict[str, Any]:
        return {"maintenance": maintenance.shown(self._standing.value)}

    def _settings(self) -> SpeakerSettings | None:
        return sessions.settings(self._agent.cluster, self._agent.node_name)

    def _off(self) -> str | None:
        return None if self._agent.config.bgp else OFF

    def _wanted_tunnels(self) -> tuple[Tunnel, ...]:
        """Return the tunnels that this node wants, IP in IP first."""
        return tuple(sorted(self._agent.picture.desired.state.tunnels.values(), key=lambda each: each.name))

    def _carried(self, wanted: Tunnel) -> dict[str, str]:
        """Say what carries a tunnel's packets, and why that."""
        device: Device | VxlanDevice = self._vxlan if isinstance(wanted, Vxlan) else self._ipip
        return {"driver": device.driver, "why": device.why}

    async def routes(self, _parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer which routes there are, and why, down to BGP's own verdicts."""
        which = query.get("which", "all")
        if which not in ("all", "kernel", "rib"):
            return 400, {"error": f"which is {which!r}; give all, kernel or rib"}
        prefix = bgp_answers.prefix(query["prefix"]) if "prefix" in query else None
        if isinstance(prefix, str):
            return 400, {"error": prefix}
        asked = str(prefix) if prefix else None  # of many spellings, ours
        whole = "brief" not in query
        try:
            document = await self._agent.ask(
                partial(documents.routes, self._agent, which=which, prefix=asked, whole=whole)
            )
        except KernelRefused as refusal:
            return 503, {"error": f"the kernel could not be read: {refusal}"}
        if not whole:
            return 200, document
        paths = bgp_path_documents.by_prefix(self._speaker.routes(prefix=prefix))
        for row in document["routes"]:
            row["driver"] = self.driver(row["encapsulation"])
            row["paths"] = paths.get(row["prefix"], []) if row["kind"] == "remote" else []
        return 200, document

    def driver(self, encapsulation: str | None) -> str | None:
        """Return what carries packets of an encapsulation."""
        return DRIVERS.get(encapsulation, self._ipip.driver)

    async def bgp(self, parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer about sessions and paths."""
        match parts:
            case ("peers",):
                return 200, self._peers()
            case ("peers", address):
                return await bgp_answers.peer(self._speaker, address)
            case ("routes",):
                return bgp_answers.paths(self._speaker, query)
        return 404, {"error": "known are /v1/bgp/peers, /v1/bgp/peers/ADDRESS and /v1/bgp/routes"}

    def _peers(self) -> dict[str, Any]:
        settings = self._settings()
        return {
            "node": self._agent.node_name,
            "asNumber": settings.asn if settings else None,
            "routerID": str(settings.router_id) if settings else None,
            "converged": self._speaker.converged(),
            "problem": self._speaker.problem,
            "off": self._off(),
            **self._maintenance(),
            "peers": [row for peer in self._speaker.peers() for row in bgp_documents.peer_rows(peer)],
        }

    async def endpoints(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer which pods are here."""
        return 200, await self._agent.ask(partial(documents.endpoints, self._agent))

    async def tunnels(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer what carries encapsulated packets here, and what became of them."""
        return 200, await self._agent.ask(self._tunnels)

    def _tunnels(self, turns: Turns) -> dict[str, Any]:
        """Run this where the kernel is read and written, as everything that touches the device."""
        wish = turns.wish
        rows = [self._row(each, wish.chosen) | self._carried(each) for _, each in sorted(wish.state.tunnels.items())]
        return {"node": self._agent.node_name, "tunnels": rows}

    def _row(self, wanted: Tunnel, chosen: Mapping[RouteKey, Candidate]) -> dict[str, Any]:
        device: Device | VxlanDevice = self._vxlan if isinstance(wanted, Vxlan) else self._ipip
        return tunnel_documents.tunnel(wanted, device.read(wanted.name), device.counters(wanted.name), chosen)

    async def plan(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer what a turn would do now."""
        try:
            return 200, await self._agent.planned(documents.plan)
        except KernelRefused as refusal:
            return 503, {"error": f"the kernel could not be read: {refusal}"}
