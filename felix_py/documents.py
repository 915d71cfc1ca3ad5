"""The agent's last turn as documents: what the local API answers and felixctl prints, with the loop's own objects.

What looks at routes takes `turns` and runs in the kernel's thread, by `agent.ask(partial(documents.routes, agent))`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from felix_py.agent import Agent
from felix_py.calc.candidates import Candidate, Kind, Lost
from felix_py.kernel import ownership
from felix_py.kernel.engine import Intention, Standing
from felix_py.kernel.objects import Route, RouteKey, Step
from felix_py.kernel.reconcile import in_words
from felix_py.kernel.wire import Family
from felix_py.model import WorkloadEndpoint
from felix_py.turn import Turns

Document = dict[str, Any]


def time(moment: datetime | None) -> str | None:
    """Write a time as RFC 3339 does, in UTC, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


Moment = Callable[[float], Any]
"""Writes a moment of the loop's clock as whoever asks reads times."""


def routes(
    agent: Agent, turns: Turns, *, which: str = "all", prefix: str | None = None, whole: bool = True
) -> Document:
    """Return the routes of this node.

    Args:
        agent: whose last turn is described.
        turns: its turns at the kernel.
        which: `all` is what we want and what is ours; `kernel` what the main tables hold now, whoever owns it; `rib`
            what we want, installed or not.
        prefix: only this one.
        whole: with the reasons; otherwise what a line of a table needs.

    Raises:
        WireBroken: when the kernel could not be read.
    """
    if which == "kernel":
        rows = [row for row in _kernel_routes(turns) if prefix in (None, row["prefix"])]
    else:
        brief = Briefs(turns, moments(agent))
        keys = (key for key in keys_of(turns, rib_only=which == "rib") if prefix is None or prefix == str(key))
        rows = [_row(key, turns, brief) if whole else brief(key) for key in keys]
    return {"node": agent.node_name, "inSync": agent.cluster.in_sync and agent.turns > 0, "routes": rows}


def keys_of(turns: Turns, *, rib_only: bool = False) -> list[RouteKey]:
    """Return the identities of the routes that we want, and of those that are ours although nobody wants them."""
    keys = set(turns.wish.chosen)
    return sorted(keys if rib_only else keys | turns.unwanted(), key=_order)


def moments(agent: Agent) -> Moment:
    """Return what writes moments as RFC 3339 does, all of them by one reading of the clock."""
    base = agent.moment(0.0)
    assert base is not None  # noqa: S101 - only no moment has no time of day
    return lambda at: time(base + timedelta(seconds=at))


def _order(key: RouteKey) -> tuple[int, int, int, int]:
    return key.dst.version, int(key.dst.network_address), key.dst.prefixlen, key.metric


def _row(key: RouteKey, turns: Turns, brief: "Briefs") -> Document:
    winner, installed = turns.wish.chosen.get(key), turns.installed(turns.standing(key))
    wanted = turns.wish.state.routes.get(key, winner.route) if winner else None
    return {
        **brief(key),
        "wanted": str(wanted) if wanted else None,
        "installed": str(installed) if installed else None,
        "why": list(_why(winner)) if winner else ["nobody wants it any more"],
        "candidates": _candidates(winner, turns.wish.lost.get(key, ())) if winner else [],
    }


class Briefs:
    """Writes what a line of a table says of a route; what many routes have in common it writes once.

    Args:
        turns: of the agent; to be called in the kernel's thread, and thrown away when the question is answered.
        moment: how times are written.
    """

    def __init__(self, turns: Turns, moment: Moment) -> None:
        self._turns = turns
        self._moment = moment
        self._ways: dict[int, Document] = {}
        self._times: dict[float, Any] = {}

    def __call__(self, key: RouteKey) -> Document:
        """Write one."""
        turns = self._turns
        winner, standing = turns.wish.chosen.get(key), turns.standing(key)
        # To decode what the kernel holds takes longest, and nobody needs it of a route that is as it should be.
        installed = turns.installed(standing) if winner is None or standing.reason is not None else None
        state, reason = _state(winner, standing, installed)
        way = _way(None, installed or Route()) if winner is None else self._way_of(winner)
        since = self._time(standing.since) if standing.since is not None else None
        return {"prefix": str(key), **way, "since": since, "state": state, "reason": reason}

    def _way_of(self, winner: Candidate) -> Document:
        # One candidate is the same object for all prefixes that it is wanted for, and the wish keeps it alive.
        way = self._ways.get(id(winner))
        if way is None:
            way = self._ways[id(winner)] = _way(winner, winner.route)
        return way

    def _time(self, at: float) -> Any:
        if at not in self._times:
            self._times[at] = self._moment(at)
        return self._times[at]


def _way(winner: Candidate | None, route: Route) -> Document:
    return {
        "kind": str(winner.kind) if winner else "unwanted",
        "nextHop": str(route.via) if route.via else None,
        "nextHops": [{"nextHop": str(hop.via), "device": hop.device, "weight": hop.weight} for hop in route.hops],
        "device": route.device,
        "encapsulation": str(winner.encapsulation.encapsulation) if winner and winner.encapsulation else None,
        "from": winner.origin if winner else "-",
    }


def _state(winner: Candidate | None, standing: Standing, installed: Route | None) -> tuple[str, str | None]:
    """Judge one route, the first line that fits: state, and the reason where there is one to tell."""
    if winner is None:
        return "differs", f"is in the kernel and not wanted: {standing.reason}"
    if winner.obstacle is not None:
        return "missing", winner.obstacle
    if standing.reason is None:
        stale = "kept for graceful restart until BGP says it again"
        return ("stale", stale) if winner.stale else ("installed", None)
    if installed is None or installed.protocol != ownership.ROUTE_PROTOCOL:
        return "missing", standing.reason
    return "differs", f"the kernel has {installed}: {standing.reason}"


def _why(winner: Candidate) -> Iterator[str]:
    yield winner.rule
    if winner.encapsulation is not None:
        yield winner.encapsulation.why
    yield from winner.notes
    if winner.obstacle is not None:
        yield winner.obstacle


def _candidates(winner: Candidate, lost: Iterable[Lost]) -> list[Document]:
    return [
        _candidate(winner, "chosen"),
        *(_candidate(each.candidate, f"loses by {each.rule}: {each.reason}") for each in lost),
    ]


def _candidate(candidate: Candidate, verdict: str) -> Document:
    return {
        "route": str(candidate.route),
        "kind": str(candidate.kind),
        "from": candidate.origin,
        "rule": candidate.rule,
        "encapsulation": candidate.encapsulation.why if candidate.encapsulation else None,
        "obstacle": candidate.obstacle,
        "rank": candidate.rank.name.lower().replace("_", " "),
        "won": verdict == "chosen",
        "verdict": verdict,
    }


def _kernel_routes(turns: Turns) -> Iterator[Document]:
    """Describe everything in the main tables, read at this moment, whoever owns it."""
    for family in Family:
        for key, route, ours in sorted(turns.kernel.table(family), key=lambda item: _order(item[0])):
            winner = turns.wish.chosen.get(key)
            yield {
                "prefix": str(key),
                "kind": str(winner.kind) if ours and winner else _kind(route),
                "nextHop": str(route.via) if route.via else None,
                "nextHops": [
                    {"nextHop": str(hop.via), "device": hop.device, "weight": hop.weight} for hop in route.hops
                ],
                "device": route.device,
                "encapsulation": None,
                "from": f"proto {ownership.protocol_name(route.protocol)}",
                "since": None,
                "state": "installed" if ours else "foreign",
                "reason": None,
                "wanted": None,
                "installed": str(route),
                "why": ["ours, by its protocol or its device"] if ours else ["somebody else's: left alone"],
                "candidates": [],
            }


def _kind(route: Route) -> str:
    return str(Kind.BLACKHOLE) if route.type.name == "BLACKHOLE" else "-"


def endpoints(agent: Agent, turns: Turns) -> Document:
    """Return the workload endpoints of this node, each with its state."""
    local = [each for each in agent.cluster.of(WorkloadEndpoint) if each.node == agent.node_name]
    return {"node": agent.node_name, "endpoints": [_endpoint(each, turns) for each in local]}


def _endpoint(endpoint: WorkloadEndpoint, turns: Turns) -> Document:
    states = set(_states(endpoint, turns))
    wrong = sorted(f"{state}: {reason}" for state, reason in states if state != "installed")
    return {
        "name": endpoint.name,
        "addresses": [str(network.network_address) for network in endpoint.networks],
        "interface": endpoint.interface,
        "pod": endpoint.pod or None,
        "containerID": endpoint.container_id or None,
        "state": "; ".join(wrong) or ("routed" if states else "not seen yet"),
    }


def _states(endpoint: WorkloadEndpoint, turns: Turns) -> Iterator[tuple[str, str | None]]:
    for key in map(RouteKey, endpoint.networks):
        winner = turns.wish.chosen.get(key)
        if winner is not None:
            standing = turns.standing(key)
            yield _state(winner, standing, turns.installed(standing))


def plan(steps: Iterable[Step], intentions: Iterable[Intention], turns: Turns) -> Document:
    """Return each step in words, in the order in which it would be done, with why, and what it waits for."""
    rows = [(*in_words(step), "differs from what was read", "now") for step in steps]
    for intention in intentions:
        rows += _intended(intention, turns)
    for key, obstacle in turns.wish.waiting.items():
        winner = turns.wish.chosen[key]
        rows.append(("add route", str(key), str(winner.route), winner.rule, f"waits: {obstacle}"))
    return {"steps": [dict(zip(("action", "object", "detail", "why", "when"), row, strict=True)) for row in rows]}


def _intended(intention: Intention, turns: Turns) -> Iterator[tuple[str, str, str, str, str]]:
    """Describe what the engine would do about one identity, or why it cannot."""
    verdict, hold = intention.verdict, intention.hold
    when = "now" if hold is None else f"waits: {hold.reason(turns.now())}"
    for step in turns.steps(intention):
        yield *in_words(step), verdict.rule, when
    if verdict.in_the_way is not None and (entry := turns.kernel.routes.readable(verdict.in_the_way)) is not None:
        reason = turns.kernel.routes.in_the_way(verdict.in_the_way)
        yield "leave route", str(entry[0]), str(entry[1]), verdict.rule, f"waits: {reason}"


def status(agent: Agent, turns: Turns, *, extra: Mapping[str, Any], problems: tuple[str, ...]) -> Document:
    """Return the node's health in short; whoever has more to say hands it in.

    Args:
        agent: whose last turn is described.
        turns: its turns at the kernel.
        extra: documents of the other parts, by name.
        problems: what the other parts find wrong, one sentence each.
    """
    rows = list(map(Briefs(turns, moments(agent)), sorted(turns.unsettled(), key=_order)))
    wrong = tuple(f"{row['prefix']} is {row['state']}: {row['reason']}" for row in rows if row["state"] in BAD)
    counts = {state: count for state, count in turns.states().items() if count and state != "contested"}
    in_sync = agent.cluster.in_sync and agent.turns > 0
    every = (
        *(() if in_sync else ("not in sync yet: the datastore was not read to its end",)),
        *agent.faults,
        *wrong,
        *turns.quarrels(),
        *agent.picture.problems,
        *problems,
    )
    return {
        "node": agent.node_name,
        "inSync": in_sync,
        "healthy": not every,
        "startedAt": time(agent.started_at),
        "turns": agent.turns,
        "repairs": dict(agent.repairs),
        "routes": {"installed": 0, **counts},
        "resources": _kinds(agent),
        **extra,
        "problems": list(dict.fromkeys(every)),
    }


BAD = frozenset({"missing", "differs"})
"""States of a route that make a node unhealthy; stale ones still forward."""


def _kinds(agent: Agent) -> dict[str, int]:
    found: dict[str, int] = {}
    for key in agent.cluster.resources:
        found[key.kind] = found.get(key.kind, 0) + 1
    return dict(sorted(found.items()))
