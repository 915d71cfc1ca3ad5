"""A speaker with one peer, which comes up and announces; what several files of tests have it live through."""

from typing import Any

from bgp_builders import B1, HELPED, attributes, network, offered, peer, settings

from bgp.speaker import Speaker
from bgp.speaker_words import (
    Effect,
    SpeakerSettings,
    WireStarted,
)
from bgp.types import (
    GracefulRestart,
    IPAddress,
    OpenReceived,
    PeerUp,
    UpdateReceived,
)

MESH = settings(peer(B1, name="b1"))


def started(wanted: SpeakerSettings = MESH) -> Speaker:
    speaker = Speaker(wanted, now=0)
    speaker.on(WireStarted(), now=0)
    return speaker


def come_up(
    speaker: Speaker, address: IPAddress = B1, *, now: float = 1, restart: GracefulRestart | None = HELPED
) -> tuple[Effect, ...]:
    speaker.on(OpenReceived(address, offered(restart=restart)), now=now)
    return speaker.on(PeerUp(address, 90), now=now)


def announce(speaker: Speaker, address: IPAddress = B1, prefix: str = "10.65.2.0/26", **others: Any) -> None:
    told = UpdateReceived(address, (network(prefix),), attributes=attributes(str(address), **others))
    speaker.on(told, now=others.pop("now", 2))


def best_peer(speaker: Speaker, prefix: str = "10.65.2.0/26") -> tuple[IPAddress, bool] | None:
    best = speaker.loc_rib.best.get(network(prefix))
    return (best.path.peer, best.path.stale) if best else None
