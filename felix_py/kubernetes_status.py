"""What kubectl shows of a node's BGP sessions: the status of its CalicoNodeStatus, and when it is written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from bgp.peering import Kind
from bgp.report import PeerReport
from bgp.types import SessionState
from felix_py.kubernetes_conditions import conditions, judged
from felix_py.model import NodeName
from felix_py.resources import API_VERSION

KIND = "CalicoNodeStatus"
"""Calico's kind, one for each node, with the Node's name: the node writes it itself, and nobody has to ask for it."""

PATH = f"/apis/{API_VERSION}/caliconodestatuses"

MOST_PEERS = 100
"""Peers of a family that are listed, those without a session first: an object is to be small; the counts are whole."""

TYPES: Mapping[Kind, str] = {
    "mesh": "NodeMesh",
    "global": "GlobalPeer",
    "node": "NodePeer",
    "reverse": "NodePeer",
    "rr-client": "NodePeer",
}
"""Calico's words for why a session is held."""

FIRST, LAST = 5.0, 60.0
"""Seconds between two writes: while all was quiet before, and while sessions keep changing."""

QUIET = 60.0
"""Seconds without a write after which the next change is written soon."""

REFRESH = 600.0
"""Seconds after which it is written although nothing has changed: what is older nobody writes any more."""

SPREAD = 0.25
"""Of each wait, at most: nodes that lose the same reflector do not write in one moment."""


class Mark(NamedTuple):
    """What has to be another one before a session's status is written anew: not what every attempt to dial changes."""

    name: str
    asn: int
    kind: Kind
    established: bool
    flaps: int
    cause: str | None


Marks = Mapping[str, Mark]
"""By the peer's address."""


def marks(reports: Iterable[PeerReport]) -> Marks:
    """Return what matters of each session."""
    return {
        str(each.settings.address): Mark(
            each.settings.name,
            each.settings.asn,
            each.settings.kind,
            established(each),
            each.flaps,
            str(each.fault.cause) if each.fault else None,
        )
        for each in reports
    }


def established(report: PeerReport) -> bool:
    """Say whether the session stands."""
    return report.state is SessionState.ESTABLISHED


def owned(node: NodeName, uid: str) -> dict[str, Any]:
    """Return the object without its status; it goes when the Node goes.

    Args:
        node: whose it is.
        uid: of the Node object.
    """
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
    metadata = {"name": node, "labels": {"app.kubernetes.io/part-of": "felix-py"}, "ownerReferences": [owner]}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {"node": node, "classes": ["BGP"]}}


def document(
    node: NodeName,
    reports: Iterable[PeerReport],
    now: datetime,
    faults: Sequence[str] = (),
    before: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the object with its status, as it is applied to the status subresource.

    Args:
        node: whose it is.
        reports: of its sessions.
        now: the moment.
        faults: what is wrong with resources, one sentence each.
        before: conditions as they were written last.
    """
    several = tuple(reports)
    up = sum(map(established, several))
    bgp: dict[str, Any] = {"numberEstablished": up, "numberNotEstablished": len(several) - up}
    for version in (4, 6):
        of_family = [each for each in several if each.settings.address.version == version]
        up = sum(map(established, of_family))
        bgp[f"numberEstablishedV{version}"] = up
        bgp[f"numberNotEstablishedV{version}"] = len(of_family) - up
        bgp[f"peersV{version}"] = [_peer(each) for each in sorted(of_family, key=_rank)[:MOST_PEERS]]
    error = _last_error(several)
    judgements = judged(bgp["numberEstablished"], bgp["numberNotEstablished"], error, faults)
    known = conditions(judgements, before, _time(now))
    status = {"lastUpdated": _time(now), "lastError": error, "conditions": known, "bgp": bgp}
    shown = {name: value for name, value in status.items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": node}, "status": shown}


def _rank(report: PeerReport) -> tuple[bool, int]:
    return established(report), int(report.settings.address)


def _peer(report: PeerReport) -> dict[str, Any]:
    peer: dict[str, Any] = {
        "peerIP": str(report.settings.address),
        "name": report.settings.name,
        "asNumber": report.settings.asn,
        "type": TYPES[report.settings.kind],
        "state": str(report.state),
        "since": _time(report.since),
    }
    if report.last_error is not None:
        peer["lastError"] = report.last_error
    return peer


def _last_error(reports: Iterable[PeerReport]) -> str | None:
    """Return why there is no session with one of the peers, the one of which there is something to say the latest."""
    down = [each for each in reports if not established(each)]
    told = [each for each in down if each.fault_at is not None]
    if not told:
        return None
    latest = max(told, key=lambda each: (each.fault_at, -int(each.settings.address)))
    others = f" (and {len(down) - 1} more)" if len(down) > 1 else ""
    return f"{latest.settings.address}: {latest.last_error}{others}"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Pace:
    """When the next write may be, and when it must.

    Attributes:
        allowed: not before this moment, on the caller's clock.
        gap: seconds between the last write and that moment.
        refresh: although nothing has changed, at this moment.
    """

    allowed: float = 0.0
    gap: float = FIRST
    refresh: float = 0.0

    def wait(self, now: float, *, changed: bool) -> float:
        """Return the seconds until a write is due; 0 where it is."""
        return max(0.0, (self.allowed if changed else self.refresh) - now)

    def written(self, now: float, jitter: float, *, well: bool) -> "Pace":
        """Return the pace after a write.

        Args:
            now: the moment of the write.
            jitter: a random number from 0 to 1.
            well: the server took it.
        """
        quiet = well and now - self.allowed >= QUIET
        gap = FIRST if quiet else min(self.gap * 2, LAST)
        spread = 1 + SPREAD * jitter
        return Pace(now + gap * spread, gap, now + REFRESH * spread)
