"""The agent's last turn as documents: what the local API answers and felixctl prints, with the loop's own objects."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from felix_py.agent import Agent
from felix_py.calc.routes import Candidate, Kind
from felix_py.kernel import ownership
from felix_py.kernel.objects import Plan, Route, RouteKey
from felix_py.kernel.reconcile import in_words
from felix_py.model import WorkloadEndpoint
from felix_py.picture import Picture

Document = dict[str, Any]


def time(moment: datetime | None) -> str | None:
    """Write a time as RFC 3339 does, in UTC, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def routes(agent: Agent, *, which: str = "all", prefix: str | None = None) -> Document:
    """Return the routes of this node.

    Args:
        agent: whose last turn is described.
        which: `all` is what we want and what is ours; `kernel` what the main table holds, whoever owns it; `rib`
            what we want, installed or not.
        prefix: only this one.
    """
    listed = _kernel_routes(agent.picture) if which == "kernel" else _our_routes(agent, rib_only=which == "rib")
    chosen = [row for row in listed if prefix in (None, row["prefix"])]
    return {"node": agent.node_name, "inSync": agent.cluster.in_sync and agent.turns > 0, "routes": chosen}


def _our_routes(agent: Agent, *, rib_only: bool) -> Iterator[Document]:
    picture = agent.picture
    keys = set(picture.desired.chosen)
    if not rib_only:
        keys |= set(picture.actual.routes)
    for key in sorted(keys, key=_order):
        yield _row(key, picture, agent.since.get(key))


def _order(key: RouteKey) -> tuple[int, int, int, int]:
    return key.dst.version, int(key.dst.network_address), key.dst.prefixlen, key.metric


def _row(key: RouteKey, picture: Picture, since: datetime | None) -> Document:
    winner = picture.desired.chosen.get(key)
    route = winner.route if winner else picture.actual.routes[key]
    state, reason = _state(key, winner, picture)
    return {
        "prefix": str(key),
        "kind": str(winner.kind) if winner else "unwanted",
        "nextHop": str(route.via) if route.via else None,
        "device": route.device,
        "encapsulation": str(winner.encapsulation.encapsulation) if winner and winner.encapsulation else None,
        "from": winner.origin if winner else "-",
        "since": time(since),
        "state": state,
        "reason": reason,
        "wanted": str(route) if winner else None,
        "installed": str(picture.actual.routes[key]) if key in picture.actual.routes else None,
        "why": list(_why(winner)) if winner else ["nobody wants it any more"],
        "candidates": [_candidate(each, each is winner) for each in picture.desired.candidates.get(key, ())],
    }


def _state(key: RouteKey, winner: Candidate | None, picture: Picture) -> tuple[str, str | None]:
    """Judge one route, the first line that fits: state, and the reason where there is one to tell."""
    actual = picture.actual.routes.get(key)
    if winner is None:
        return "differs", f"is in the kernel and not wanted{_refusal(key, picture)}"
    if winner.obstacle is not None:
        return "missing", winner.obstacle
    if key in picture.conflicts:
        return "missing", picture.conflicts[key]
    if actual is None:
        return "missing", picture.refused.get(key, "not written yet")
    if actual != winner.route:
        return "differs", f"the kernel has {actual}{_refusal(key, picture)}"
    return ("stale", "kept for graceful restart until BGP says it again") if winner.stale else ("installed", None)


def _refusal(key: RouteKey, picture: Picture) -> str:
    return f": {picture.refused[key]}" if key in picture.refused else ""


def _why(winner: Candidate) -> Iterator[str]:
    yield winner.rule
    if winner.encapsulation is not None:
        yield winner.encapsulation.why
    if winner.obstacle is not None:
        yield winner.obstacle


def _candidate(candidate: Candidate, won: bool) -> Document:  # noqa: FBT001 - a fact, passed through
    return {
        "route": str(candidate.route),
        "kind": str(candidate.kind),
        "from": candidate.origin,
        "rule": candidate.rule,
        "encapsulation": candidate.encapsulation.why if candidate.encapsulation else None,
        "obstacle": candidate.obstacle,
        "rank": candidate.rank.name.lower().replace("_", " "),
        "won": won,
    }


def _kernel_routes(picture: Picture) -> Iterator[Document]:
    for key, route in sorted(picture.table.items(), key=lambda item: _order(item[0])):
        ours = ownership.is_ours(route)
        winner = picture.desired.chosen.get(key)
        yield {
            "prefix": str(key),
            "kind": str(winner.kind) if ours and winner else _kind(route),
            "nextHop": str(route.via) if route.via else None,
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


def endpoints(agent: Agent) -> Document:
    """Return the workload endpoints of this node, each with its state."""
    local = [each for each in agent.cluster.of(WorkloadEndpoint) if each.node == agent.node_name]
    return {"node": agent.node_name, "endpoints": [_endpoint(each, agent.picture) for each in local]}


def _endpoint(endpoint: WorkloadEndpoint, picture: Picture) -> Document:
    states = {_state(RouteKey(net), picture.desired.chosen.get(RouteKey(net)), picture)
              for net in endpoint.networks if RouteKey(net) in picture.desired.chosen}  # fmt: skip
    wrong = sorted(f"{state}: {reason}" for state, reason in states if state != "installed")
    return {
        "name": endpoint.name,
        "addresses": [str(network.network_address) for network in endpoint.networks],
        "interface": endpoint.interface,
        "pod": endpoint.pod or None,
        "containerID": endpoint.container_id or None,
        "state": "; ".join(wrong) or ("routed" if states else "not seen yet"),
    }


def plan(steps: Plan) -> Document:
    """Return each step in words, in the order in which it would be done."""
    return {"steps": [dict(zip(("action", "object", "detail"), in_words(step), strict=True)) for step in steps]}


def status(agent: Agent, extra: Mapping[str, Any], problems: tuple[str, ...]) -> Document:
    """Return the node's health in short; whoever has more to say hands it in.

    Args:
        agent: whose last turn is described.
        extra: documents of the other parts, by name.
        problems: what the other parts find wrong, one sentence each.
    """
    rows = routes(agent)["routes"]
    wrong = tuple(f"{row['prefix']} is {row['state']}: {row['reason']}" for row in rows if row["state"] in BAD)
    in_sync = agent.cluster.in_sync and agent.turns > 0
    every = (*(() if in_sync else ("not in sync yet: the datastore was not read to its end",)), *agent.faults, *wrong,
             *agent.picture.problems, *problems)  # fmt: skip
    return {
        "node": agent.node_name,
        "inSync": in_sync,
        "healthy": not every,
        "startedAt": time(agent.started_at),
        "turns": agent.turns,
        "repairs": dict(agent.repairs),
        "routes": _tally(rows),
        "resources": _kinds(agent),
        **extra,
        "problems": list(dict.fromkeys(every)),
    }


BAD = frozenset({"missing", "differs"})
"""States of a route that make a node unhealthy; stale ones still forward."""


def _tally(rows: list[Document]) -> dict[str, int]:
    found: dict[str, int] = {"installed": 0}
    for row in rows:
        found[row["state"]] = found.get(row["state"], 0) + 1
    return found


def _kinds(agent: Agent) -> dict[str, int]:
    found: dict[str, int] = {}
    for key in agent.cluster.resources:
        found[key.kind] = found.get(key.kind, 0) + 1
    return dict(sorted(found.items()))
