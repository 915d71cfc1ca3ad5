"""What one turn did, as log events: one line for each thing that happened, and one for many of the same kind."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import structlog

from bgp.speaker_words import NextHops
from felix_py.calc.candidates import Candidate, Kind
from felix_py.kernel import filter_table, guard, next_hop_codec
from felix_py.kernel.engine import RouteEngine
from felix_py.kernel.interfaces import LinkChange
from felix_py.kernel.kernel import Report
from felix_py.kernel.objects import (
    DeleteFilterTable,
    DeleteGuard,
    DeleteTunnel,
    PutFilterTable,
    PutGuard,
    PutPodLink,
    PutSysctl,
    PutTunnel,
    Route,
    RouteKey,
    Step,
)
from felix_py.kernel.outcome import Outcome, Written
from felix_py.knowledge import Done

MANY = 100
"""Routes of one turn that get a line each; of more only the number is told, for a log is to be read."""

CAUSES_OF_REPAIR = (
    "route deleted",
    "route changed",
    "next hop deleted",
    "link deleted",
    "link changed",
    "address deleted",
    "address added",
    "parameter changed",
    "events lost",
    "events out of order",
    "a route that was not known",
    "socket failed",
    "resync",
)
"""What others do that makes us repair, as counted; in the order in which one is named when several happened at once."""

log = structlog.get_logger()


class Saying(NamedTuple):
    """One line of the log, not written yet."""

    level: str
    event: str
    fields: Mapping[str, object]


def info(event: str, **fields: object) -> Saying:
    """Say what is as it should be."""
    return Saying("info", event, fields)


def warning(event: str, **fields: object) -> Saying:
    """Say what somebody should look at."""
    return Saying("warning", event, fields)


def sayings(done: Done, engine: RouteEngine, known: tuple[str, ...] = ()) -> list[Saying]:
    """Return what there is to say of a turn.

    Args:
        done: the turn.
        engine: to decode with, as it is right after the turn.
        known: problems of the turn before, which are not told again.
    """
    found: list[Saying] = []
    if done.resync_cause != "start":
        found += _links(done.links)
    if done.resync_cause is not None:
        found.append(_resync(done.resync_cause, round(done.resync_seconds, 4)))
    if done.news.causes["events lost"]:
        found.append(info("kernel.events_lost", events=done.news.events))
    found += filter(None, map(_step, done.report.done))
    found += [warning("step.refused", reason=why) for why in sentences(done.report, engine) if why not in known]
    return [*found, *_routes(done.report.routes, engine, done.wish.chosen)]


def say(several: Iterable[Saying]) -> None:
    """Log them; what each takes is the longest part of it, so that nobody should wait meanwhile."""
    for each in several:
        getattr(log, each.level)(each.event, **each.fields)


def repairs(outcome: Outcome) -> Counter[str]:
    """Count the repairs of a turn, by cause."""
    causes = Counter(chain.from_iterable(batch.causes for batch in outcome.batches))
    return Counter({cause: count for cause, count in causes.items() if cause in CAUSES_OF_REPAIR})


def tell_of_next_hops(before: NextHops, now: NextHops) -> None:
    """Log which next hops can no longer be reached, and which can again."""
    lost = [next_hop for next_hop in now.obstacles if next_hop not in before.obstacles]
    back = [next_hop for next_hop in before.obstacles if next_hop in now.interfaces]
    if len(lost) + len(back) > MANY:
        log.info("bgp.next_hops.changed", unreachable=len(lost), reachable=len(back))
        return
    for next_hop in lost:
        log.info("bgp.next_hop.unreachable", next_hop=str(next_hop), reason=now.obstacles[next_hop])
    for next_hop in back:
        log.info("bgp.next_hop.reachable", next_hop=str(next_hop), device=now.interfaces[next_hop])


def tell_of_pod(routes: Mapping[RouteKey, Route], pod: str) -> None:
    """Log the routes of a pod that was attached without a turn."""
    for key, route in routes.items():
        log.info("route.put", dst=str(key), route=str(route), pod=pod, was=None, cause="wanted")


def _resync(cause: str, seconds: float) -> Saying:
    # By the clock, which tells nobody anything.
    return Saying("debug" if cause == "resync" else "info", "kernel.resync", {"cause": cause, "seconds": seconds})


def _links(changes: Iterable[LinkChange]) -> Iterator[Saying]:
    """Say what happened to each interface since the last turn, in one line however often it flapped."""
    of_index: dict[int, list[LinkChange]] = {}
    for change in changes:
        of_index.setdefault(change.index, []).append(change)
    for index, several in of_index.items():
        what = dict.fromkeys(news for change in several for news in change.news())
        often = {"changes": len(several)} if len(several) > 1 else {}
        yield info("link.changed", device=several[-1].name, index=index, what=", ".join(what), **often)


def _step(step: Step) -> Saying | None:
    match step:
        case PutSysctl(path, value):
            found = info("sysctl.put", path=path, value=value)
        case PutTunnel(tunnel):
            found = info("tunnel.put", device=tunnel.name, local=str(tunnel.local), mtu=tunnel.mtu)
        case DeleteTunnel(name):
            found = info("tunnel.delete", device=name)
        case PutPodLink(name, link):
            found = info("link.put", device=name, mtu=link.mtu)
        case PutFilterTable(table, replaced, cause):
            what = filter_table.difference(table, replaced)
            found = info("netfilter.put", table=filter_table.NAME, what=what, cause=cause)
        case DeleteFilterTable():
            found = info("netfilter.delete", table=filter_table.NAME)
        case PutGuard(wanted, replaced):
            found = info("guard.put", what=guard.difference(wanted, replaced))
        case DeleteGuard():
            found = info("guard.delete")
        case _:
            return None
    return found


def sentences(report: Report, engine: RouteEngine) -> tuple[str, ...]:
    """Say in one sentence for each refused step what was refused and why."""
    steps = (f"{_object(step)}: {why}" for step, why in report.failed)
    routes = (
        f"route {_key(name, engine)}: {hold.refusal.text}"
        for name, hold in report.routes.refused.items()
        if hold.refusal is not None and not hold.passing
    )
    objects = (
        f"next-hop object {number}: {hold.refusal.text}"
        for number, hold in engine.books.next_hops.refused.items()
        if hold.refusal is not None and not hold.passing
    )
    return (*steps, *routes, *objects)


def unguarded(report: Report) -> str | None:
    """Say why the packet filter or the pods' guard could not be made as it should be; None where both are well."""
    return next((why for step, why in report.failed if isinstance(step, PutFilterTable | PutGuard)), None)


def _object(step: Step) -> str:
    match step:
        case PutTunnel(tunnel):
            words = f"tunnel {tunnel.name}"
        case DeleteTunnel(name):
            words = f"tunnel {name}"
        case PutSysctl(path, _):
            words = f"sysctl {path}"
        case PutPodLink(name, link):
            words = f"MTU {link.mtu} of {name}"
        case PutFilterTable() | DeleteFilterTable():
            words = f"nftables table {filter_table.NAME}"
        case PutGuard() | DeleteGuard():
            words = "guard of pods' interfaces"
        case other:
            words = f"route {other.key}"
    return words


def _key(identity: bytes, engine: RouteEngine) -> str:
    body = engine.books.wish.bodies.get(identity) or next(iter(engine.books.stack(identity)), None)
    entry = engine.readable(body) if body is not None else None
    return str(entry[0]) if entry is not None else identity.hex()


def _routes(outcome: Outcome, engine: RouteEngine, chosen: Mapping[RouteKey, Candidate]) -> Iterator[Saying]:
    if len(outcome) <= MANY:
        yield from filter(None, (_route(written, engine, chosen) for written in outcome.writes))
    else:
        yield from _many(outcome, repairs(outcome).total())
    names = {index: link.name for index, link in engine.books.links.items()} if outcome.next_hops else {}
    for put in outcome.next_hops:
        entry = next_hop_codec.decode(put.body, names)
        yield info("next_hop.put", id=put.number, hop=str(entry[1]) if entry else "")
    for number in outcome.next_hops_gone:
        yield info("next_hop.delete", id=number)
    for name, other in outcome.conflicts.items():
        yield warning("route.conflict", dst=_key(name, engine), reason=engine.in_the_way(other))
    for name in outcome.contested:
        quarrel = engine.books.damping.quarrels[name]
        yield warning("route.contested", dst=_key(name, engine), changes=quarrel.disturbances, by=process(quarrel.port))
    for name in outcome.calm:
        yield info("route.calm", dst=_key(name, engine))


def _many(outcome: Outcome, repaired: int) -> Iterator[Saying]:
    deleted = sum(batch.new.count(None) for batch in outcome.batches)
    put = len(outcome) - deleted
    if put:
        yield info("routes.put", count=put, repaired=repaired)
    if deleted:
        yield info("routes.delete", count=deleted)


def _route(written: Written, engine: RouteEngine, chosen: Mapping[RouteKey, Candidate]) -> Saying | None:
    entry = engine.readable(written.new or written.old or b"")
    if entry is None:
        return None
    key, route = entry
    fields: dict[str, str | None] = {"dst": str(key), "route": str(route)}
    if written.new is None:
        return info("route.delete", **fields, cause=written.cause)
    winner = chosen.get(key)
    if winner is not None and winner.kind is Kind.WORKLOAD:
        fields["pod"] = winner.origin
    before = engine.readable(written.old) if written.old is not None else None
    fields["was"] = str(before[1]) if before is not None else None
    if written.cause in CAUSES_OF_REPAIR:
        return info("route.repaired", **fields, cause=written.cause)
    return info("route.put", **fields, cause="wanted")


def process(port: int, root: Callable[[int], Path] = lambda number: Path("/proc") / str(number) / "comm") -> str:
    """Name the process behind a netlink port: for most programs the port is their process ID."""
    try:
        return f"process {port} ({root(port).read_text().strip()})"
    except OSError:
        return f"netlink port {port}, whose process is gone"
