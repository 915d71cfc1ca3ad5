"""Events on a Node for its BGP sessions: what has happened since the last look, and which Events to write, and when.

A session that comes and goes again and again is one Event that counts, and many that share a fate are one together:
etcd keeps each for an hour, and a reflector's death is the same news at every node.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from zlib import crc32

from bgp.report import PeerReport, StateChange
from bgp.types import SessionState
from felix_py.kubernetes_status import Mark, Marks, established
from felix_py.model import NodeName

PATH = "/api/v1/namespaces/default/events"
"""Events about what is in no namespace are in `default`; the API server takes them nowhere else."""

MANY = 5
"""Sessions of one look that get an Event each; more share one."""

SERIES = 600.0
"""Seconds; what happens again within them is counted by the same Event, and is another Event later."""

AGAIN = 60.0
"""Seconds between two writes of one Event, however often its session comes and goes."""

BURST, REFILL = 20, 15.0
"""Writes at once, and seconds until another one is allowed."""

RETRY = 30.0
"""Seconds without a write after the server has not taken one."""

KEPT, MOST = 3600.0, 200
"""Seconds for which what the server could not be told is kept, as it would keep it itself; and Events at most."""

LONGEST_MESSAGE = 1000
"""Characters; peers may say much in a NOTIFICATION."""


class Reason(StrEnum):
    """What happened, as `kubectl get events` shows it."""

    UP = "BGPSessionUp"
    DOWN = "BGPSessionDown"


TYPES = {Reason.UP: "Normal", Reason.DOWN: "Warning"}


@dataclass(frozen=True, slots=True)
class Happening:
    """Sessions with one peer that came, or went, since the last look.

    Attributes:
        peer: in words; empty for several peers together.
        times: how often.
        at: when, the last time.
        cause: in words; empty where there is nothing to say.
    """

    reason: Reason
    peer: str
    times: int
    at: datetime
    cause: str = ""

    @property
    def message(self) -> str:
        """The sentence of the Event."""
        what = "is established" if self.reason is Reason.UP else "is lost"
        cause = f": {self.cause}" if self.cause else ""
        return f"session with {self.peer} {what}{cause}"[:LONGEST_MESSAGE]


def happenings(before: Marks, reports: Iterable[PeerReport], now: datetime) -> Iterator[Happening]:
    """Say what has happened since these marks were taken."""
    known = set()
    for report in reports:
        address = str(report.settings.address)
        known.add(address)
        was = before.get(address)
        if was is None or was.flaps > report.flaps:  # another session by the same name
            was = Mark("", 0, "mesh", established=False, flaps=0, cause=None)
        losses = report.flaps - was.flaps
        gains = losses + established(report) - was.established
        peer = _words(address, report.settings.name, report.settings.asn)
        if losses:
            last = _last_loss(report)
            yield Happening(Reason.DOWN, peer, losses, last.at if last else now, last.cause if last else "")
        if gains:
            yield Happening(Reason.UP, peer, gains, report.since if established(report) else now)
    for address, mark in before.items():
        if mark.established and address not in known:
            yield Happening(Reason.DOWN, _words(address, mark.name, mark.asn), 1, now, "it is configured no more")


def _words(address: str, name: str, asn: int) -> str:
    return f"{address}{f' ({name})' if name not in ('', address) else ''}, AS {asn},"


def _last_loss(report: PeerReport) -> StateChange | None:
    pairs = zip(report.history, report.history[1:], strict=False)
    losses = [after for before, after in pairs if before.state is SessionState.ESTABLISHED]
    return losses[-1] if losses else None


def together(found: Iterable[Happening]) -> Iterator[Happening]:
    """Put those of one reason together where they are many."""
    several = tuple(found)
    for reason in Reason:
        same = [each for each in several if each.reason is reason]
        if len(same) <= MANY:
            yield from same
            continue
        first = same[0]
        peers = f"{len(same)} peers, as {first.peer}"
        yield replace(first, peer=peers, times=1, at=max(each.at for each in same))


@dataclass(frozen=True, slots=True)
class Series:
    """One Event, as it is to be.

    Attributes:
        key: for one reason and peer there is one Event at a time.
        message: of the last time.
        first, last: when it happened.
        count: how often.
        told: how often the server knows of.
        name: of the object; None while there is none.
        heard: when the last news of it came, on the caller's clock.
        written: when it was written last, on the caller's clock.
    """

    key: tuple[Reason, str]
    message: str
    first: datetime
    last: datetime
    count: int
    heard: float
    told: int = 0
    name: str | None = None
    written: float = 0.0

    def due(self) -> float | None:
        """Return the moment from which on it may be written; None where the server knows all of it."""
        if self.told == self.count:
            return None
        return self.written + AGAIN if self.name is not None else 0.0

    def matters(self, now: float) -> bool:
        """Say whether it may still be written or counted on."""
        return now - self.heard < (SERIES if self.told == self.count else KEPT)

    def made(self, node: NodeName, uid: str) -> dict[str, Any]:
        """Return the Event as a new object.

        Args:
            node: whose it is.
            uid: of the Node object.
        """
        reason, _ = self.key
        name = f"{node}.{int(self.first.timestamp() * 1_000_000):x}.{crc32(repr(self.key).encode()):x}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid},
            "reason": str(reason),
            "type": TYPES[reason],
            "source": {"component": "felix-agent", "host": node},
            "reportingComponent": "felix-agent",
            "reportingInstance": node,
            "firstTimestamp": _time(self.first),
            **self.changed(),
        }

    def changed(self) -> dict[str, Any]:
        """Return what changes of the object when it happens again."""
        return {"message": self.message, "lastTimestamp": _time(self.last), "count": self.count}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class EventBook:
    """Which Events there are, and which are to be written; in memory only, no more than two for each peer."""

    def __init__(self) -> None:
        self._series: dict[tuple[Reason, str], Series] = {}
        self._tokens = float(BURST)
        self._counted = 0.0
        self._not_before = 0.0

    def note(self, found: Iterable[Happening], now: float) -> None:
        """Take note of what has happened.

        Args:
            found: since the last time.
            now: on the caller's clock.
        """
        self._series = {key: each for key, each in self._series.items() if each.matters(now)}
        for each in together(found):
            key = each.reason, each.peer
            known = self._series.get(key)
            if known is None:
                made = Series(key, each.message, each.at, each.at, each.times, now)
            else:
                made = replace(known, message=each.message, last=each.at, count=known.count + each.times, heard=now)
            self._series[key] = made
        while len(self._series) > MOST:
            del self._series[next(iter(self._series))]

    def due(self, now: float) -> tuple[Series, ...]:
        """Return what is to be written now, the oldest first."""
        if now < self._not_before:
            return ()
        self._tokens = min(float(BURST), self._tokens + (now - self._counted) / REFILL)
        self._counted = now
        waiting = ((each.due(), each) for each in self._series.values() if each.matters(now))
        found = [each for moment, each in waiting if moment is not None and moment <= now]
        return tuple(found[: int(self._tokens)])

    def wait(self, now: float) -> float | None:
        """Return the seconds until something may be due; None where nothing waits."""
        moments = [moment for each in self._series.values() if (moment := each.due()) is not None]
        if not moments:
            return None
        token = now if self._tokens >= 1 else self._counted + (1 - self._tokens) * REFILL
        return max(min(moments), token, self._not_before) - now

    def wrote(self, series: Series, name: str, now: float) -> None:
        """Take note that the server has this Event now."""
        self._tokens -= 1
        known = self._series.get(series.key)
        if known is not None:
            self._series[series.key] = replace(known, told=series.count, name=name, written=now)

    def refused(self, now: float) -> None:
        """Take note that the server has not taken one."""
        self._not_before = now + RETRY
