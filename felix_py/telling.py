"""What one turn did, as log events: one line for each thing that happened, and one for many of the same kind."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path

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


def tell(done: Done, engine: RouteEngine, known: tuple[str, ...] = ()) -> Counter[str]:
    """Log what a turn did; return how many repairs there were, by cause.

    Args:
        done: the turn.
        engine: to decode with.
        known: problems of the turn before, which are not told again.
    """
    if done.resync_cause != "start":
        _links(done.links)
    if done.resync_cause is not None:
        _resync(done.resync_cause, round(done.resync_seconds, 4))
    if done.news.causes["events lost"]:
        log.info("kernel.events_lost", events=done.news.events)
    for step in done.report.done:
        _step(step)
    for why in sentences(done.report, engine):
        if why not in known:
            log.warning("step.refused", reason=why)
    return _routes(done.report.routes, engine, done.wish.chosen)


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


def _resync(cause: str, seconds: float) -> None:
    if cause == "resync":  # by the clock, which tells nobody anything
        log.debug("kernel.resync", cause=cause, seconds=seconds)
    else:
        log.info("kernel.resync", cause=cause, seconds=seconds)


def _links(changes: Iterable[LinkChange]) -> None:
    """Say what happened to each interface since the last turn, in one line however often it flapped."""
    of_index: dict[int, list[LinkChange]] = {}
    for change in changes:
        of_index.setdefault(change.index, []).append(change)
    for index, several in of_index.items():
        what = dict.fromkeys(news for change in several for news in change.news())
        often = {"changes": len(several)} if len(several) > 1 else {}
        log.info("link.changed", device=several[-1].name, index=index, what=", ".join(what), **often)


def _step(step: Step) -> None:
    match step:
        case PutSysctl(path, value):
            log.info("sysctl.put", path=path, value=value)
        case PutTunnel(tunnel):
            log.info("tunnel.put", device=tunnel.name, local=str(tunnel.local), mtu=tunnel.mtu)
        case DeleteTunnel(name):
            log.info("tunnel.delete", device=name)
        case PutPodLink(name, link):
            log.info("link.put", device=name, mtu=link.mtu)
        case PutFilterTable(table, replaced, cause):
            what = filter_table.difference(table, replaced)
            log.info("netfilter.put", table=filter_table.NAME, what=what, cause=cause)
        case DeleteFilterTable():
            log.info("netfilter.delete", table=filter_table.NAME)
        case PutGuard(wanted, replaced):
            log.info("guard.put", what=guard.difference(wanted, replaced))
        case DeleteGuard():
            log.info("guard.delete")


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


def _routes(outcome: Outcome, engine: RouteEngine, chosen: Mapping[RouteKey, Candidate]) -> Counter[str]:
    causes = Counter(chain.from_iterable(batch.causes for batch in outcome.batches))
    repairs = Counter({cause: count for cause, count in causes.items() if cause in CAUSES_OF_REPAIR})
    if len(outcome) <= MANY:
        for written in outcome.writes:
            _route(written, engine, chosen)
    else:
        _many(outcome, repairs.total())
    names = {index: link.name for index, link in engine.books.links.items()}
    for put in outcome.next_hops:
        entry = next_hop_codec.decode(put.body, names)
        log.info("next_hop.put", id=put.number, hop=str(entry[1]) if entry else "")
    for number in outcome.next_hops_gone:
        log.info("next_hop.delete", id=number)
    for name, other in outcome.conflicts.items():
        log.warning("route.conflict", dst=_key(name, engine), reason=engine.in_the_way(other))
    for name in outcome.contested:
        quarrel = engine.books.damping.quarrels[name]
        who = process(quarrel.port)
        log.warning("route.contested", dst=_key(name, engine), changes=quarrel.disturbances, by=who)
    for name in outcome.calm:
        log.info("route.calm", dst=_key(name, engine))
    return repairs


def _many(outcome: Outcome, repaired: int) -> None:
    deleted = sum(batch.new.count(None) for batch in outcome.batches)
    put = len(outcome) - deleted
    if put:
        log.info("routes.put", count=put, repaired=repaired)
    if deleted:
        log.info("routes.delete", count=deleted)


def _route(written: Written, engine: RouteEngine, chosen: Mapping[RouteKey, Candidate]) -> None:
    entry = engine.readable(written.new or written.old or b"")
    if entry is None:
        return
    key, route = entry
    fields: dict[str, str | None] = {"dst": str(key), "route": str(route)}
    if written.new is None:
        log.info("route.delete", **fields, cause=written.cause)
        return
    winner = chosen.get(key)
    if winner is not None and winner.kind is Kind.WORKLOAD:
        fields["pod"] = winner.origin
    before = engine.readable(written.old) if written.old is not None else None
    fields["was"] = str(before[1]) if before is not None else None
    if written.cause in CAUSES_OF_REPAIR:
        log.info("route.repaired", **fields, cause=written.cause)
    else:
        log.info("route.put", **fields, cause="wanted")


def process(port: int, root: Callable[[int], Path] = lambda number: Path("/proc") / str(number) / "comm") -> str:
    """Name the process behind a netlink port: for most programs the port is their process ID."""
    try:
        return f"process {port} ({root(port).read_text().strip()})"
    except OSError:
        return f"netlink port {port}, whose process is gone"
