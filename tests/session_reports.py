"""Reports of a speaker that has heard of its peers what a test says."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from bgp_builders import ME, offered, settings

from bgp import report
from bgp.peering import PeerSettings
from bgp.report import PeerReport
from bgp.speaker import Speaker
from bgp.speaker_words import WireStarted
from bgp.types import Endpoint, OpenReceived, OpenSent, PeerUp
from bgp.wall_clock import Clock

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
"""Second 60 on the speaker's clock."""


def heard(*peers: PeerSettings, up: Iterable[Any] = (), into: Speaker | None = None, now: float = 1) -> Speaker:
    """Return a speaker, or one that is there already, whose sessions with these addresses come up."""
    made = into or Speaker(settings(*peers), now=0)
    if into is None:
        made.on(WireStarted(), now=0)
    for address in up:
        asn = made.sessions[address].settings.asn
        made.on(OpenSent(address, offered()), now=now)
        made.on(OpenReceived(address, offered(asn, address)), now=now)
        made.on(PeerUp(address, 90, Endpoint(ME, 40000), Endpoint(address, 179), dialled=True), now=now)
    return made


def reports(speaker: Speaker) -> tuple[PeerReport, ...]:
    """Report its sessions at noon."""
    return report.peers(speaker, Clock(60, NOON), counted=False)
