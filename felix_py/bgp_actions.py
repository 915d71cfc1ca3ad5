"""What people may ask of BGP through the local API: of one session, and of the node as a whole."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from bgp.exabgp_process import BgpService
from bgp.speaker_words import Enabled, RefreshAsked, ResetAsked
from bgp.types import IPAddress
from felix_py import bgp_answers, maintenance
from felix_py.agent import Agent
from felix_py.api import Answer
from felix_py.maintenance import Maintenance, Presence
from felix_py.maintenance_file import MaintenanceFile

PRESENCES: Mapping[str, Presence] = {
    "drain": Presence.DRAINING,
    "leave": Presence.LEFT,
    "undrain": Presence.SERVING,
}
"""What people may want of the node."""

LASTING: Mapping[str, Callable[[Maintenance, IPAddress, str], Maintenance]] = {
    "disable": Maintenance.with_disabled,
    "enable": lambda before, peer, _: before.without_disabled(peer),
}
"""What people may want of a session until they take it back."""

AT_ONCE: Mapping[str, Callable[[IPAddress, str], Enabled | ResetAsked | RefreshAsked]] = {
    "enable": lambda peer, _: Enabled(peer),
    "reset": ResetAsked,
    "refresh": lambda peer, _: RefreshAsked(peer),
}
"""What people may want of a session at that moment; the text is for the people on the other side."""

VERBS = tuple(dict.fromkeys((*LASTING, *AT_ONCE)))

log = structlog.get_logger()


class BgpActions:
    """Does what is asked for of one node."""

    def __init__(self, agent: Agent, speaker: BgpService, standing: MaintenanceFile) -> None:
        self._agent = agent
        self._speaker = speaker
        self._standing = standing

    async def act(self, parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer POST /v1/bgp/VERB and /v1/bgp/peers/ADDRESS/VERB, both with ?message=TEXT."""
        message = query.get("message", "")
        match parts:
            case ("drain",) if query.get("until") == "restart":
                return self._of_node("drain", message, passing=True)
            case (verb,) if verb in PRESENCES:
                return self._of_node(verb, message)
            case ("peers", address, verb) if verb in VERBS:
                return self._of_session(address, verb, message)
        known = f"/v1/bgp/VERB with {', '.join(PRESENCES)}, and /v1/bgp/peers/ADDRESS/VERB with {', '.join(VERBS)}"
        return 404, {"error": f"known are {known}"}

    def _of_node(self, verb: str, message: str, *, passing: bool = False) -> Answer:
        log.info("bgp.node.asked", verb=verb, message=message)
        before, now = self._standing.value, datetime.now(UTC)
        wanted = before.until_restart(message, now) if passing else before.with_presence(PRESENCES[verb], message, now)
        self._want(wanted)
        return 200, {"asked": verb, **self._outcome()}

    def _of_session(self, address: str, verb: str, message: str) -> Answer:
        found = bgp_answers.session(self._speaker, address)
        if isinstance(found, tuple):
            return found
        peer = found.settings.address
        log.info("bgp.session.asked", peer=str(peer), verb=verb, message=message)
        if verb in LASTING:
            self._want(LASTING[verb](self._standing.value, peer, message))
        if verb in AT_ONCE:
            self._speaker.tell(AT_ONCE[verb](peer, message))
        return 200, {"peer": str(peer), "asked": verb, **(self._outcome() if verb in LASTING else {})}

    def _want(self, wanted: Maintenance) -> None:
        self._standing.put(wanted)
        self._agent.configure_bgp()

    def _outcome(self) -> dict[str, Any]:
        return {"maintenance": maintenance.shown(self._standing.value), "problem": self._standing.problem}
