"""What people want of BGP on this node until they take it back: it drains, it has left, sessions are disabled.

It is kept over restarts as JSON, but for a drain that ends with the agent; `maintenance_file` has the file.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from types import NoneType
from typing import Any

from bgp.speaker_words import SpeakerSettings
from felix_py.model import IPAddress

VERSION = 1
"""Of the document; one that has another is not understood."""

TIME = "%Y-%m-%dT%H:%M:%SZ"
"""RFC 3339, in UTC, to the second."""


class Presence(StrEnum):
    """How much of the network's traffic a node wants."""

    SERVING = "serving"
    DRAINING = "draining"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What people want now.

    Attributes:
        presence: `draining`: what we announce ranks last, and says so (RFC 8326); `left`: nothing is announced, and the
            sessions are closed for good when the agent stops.
        since: when the node began to drain; None while it serves.
        message: why, for people here and, when the sessions are closed, on the other side (RFC 9003).
        disabled: peers with whom no session is held, with what their people are told.
        passing: the node drains because its agent is being stopped, and serves again with the next one.
    """

    presence: Presence = Presence.SERVING
    since: datetime | None = None
    message: str = ""
    disabled: Mapping[IPAddress, str] = field(default_factory=dict)
    passing: bool = False

    def with_presence(self, presence: Presence, message: str, at: datetime) -> "Maintenance":
        """Drain, leave, or serve again; who drains already keeps its time, and its words unless there are new ones."""
        if presence is Presence.SERVING:
            return Maintenance(disabled=self.disabled)
        since = (self.since or at).replace(microsecond=0)
        return replace(self, presence=presence, since=since, message=message or self.message, passing=False)

    def until_restart(self, message: str, at: datetime) -> "Maintenance":
        """Drain until the agent is started again; what people have asked for themselves outlasts that."""
        if self.presence is not Presence.SERVING:
            return self
        return replace(self.with_presence(Presence.DRAINING, message, at), passing=True)

    def lasting(self) -> "Maintenance":
        """Return what the next agent is to know of it."""
        return Maintenance(disabled=self.disabled) if self.passing else self

    def with_disabled(self, peer: IPAddress, message: str) -> "Maintenance":
        """Hold no session with a peer."""
        return replace(self, disabled={**self.disabled, peer: message})

    def without_disabled(self, peer: IPAddress) -> "Maintenance":
        """Hold a session with a peer again."""
        return self.among(each for each in self.disabled if each != peer)

    def among(self, peers: Iterable[IPAddress]) -> "Maintenance":
        """Forget the peers that are not among these."""
        kept = set(peers)
        return replace(self, disabled={peer: message for peer, message in self.disabled.items() if peer in kept})

    def applied(self, settings: SpeakerSettings) -> SpeakerSettings:
        """Return the settings of the resources as people want them for now."""
        return replace(
            settings,
            peers=tuple(replace(peer, disabled=self.disabled.get(peer.address)) for peer in settings.peers),
            draining=self.presence is not Presence.SERVING,
            leaving=self.presence is Presence.LEFT,
            farewell=self.message,
        )

    def sentence(self) -> str | None:
        """Say it of the node in one sentence; None where it serves."""
        why = f": {self.message}" if self.message else ""
        match self.presence:
            case Presence.SERVING:
                return None
            case Presence.DRAINING if self.passing:
                return f"drains until the agent is started again, what it announces ranks last{why}"
            case Presence.DRAINING:
                return f"drains, what it announces ranks last{why}; `felixctl bgp undrain` ends it"
            case Presence.LEFT:
                return f"has left and announces nothing{why}; `felixctl bgp undrain` brings it back"


def shown(maintenance: Maintenance) -> dict[str, Any]:
    """Return it as felixctl has it."""
    return {**document(maintenance), "sentence": maintenance.sentence()}


def document(maintenance: Maintenance) -> dict[str, Any]:
    """Return it as the file has it."""
    return {
        "presence": str(maintenance.presence),
        "since": f"{maintenance.since:{TIME}}" if maintenance.since else None,
        "message": maintenance.message,
        "disabled": {str(peer): message for peer, message in maintenance.disabled.items()},
    }


def encode(maintenance: Maintenance) -> str:
    """Return the text of the file."""
    return json.dumps({"version": VERSION, **document(maintenance.lasting())}, indent=2) + "\n"


def decode(text: str) -> Maintenance:
    """Read the text of the file.

    Raises:
        ValueError: it is none that we wrote; the sentence says in which way.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError(f"it is no document of version {VERSION}")
    since = _part(found, "since", (str, NoneType))
    return Maintenance(
        Presence(_part(found, "presence", str)),
        datetime.strptime(since, TIME).replace(tzinfo=UTC) if since else None,
        _part(found, "message", str),
        {ip_address(peer): str(words) for peer, words in _part(found, "disabled", dict).items()},
    )


def _part(found: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = found.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r}")  # noqa: TRY004 - the file is damaged; nobody called us with it
    return value
