"""The agent's objects as rows of a page: nodes, sessions, tunnels, routes and events, each under a key that lasts."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bgp.report import PeerReport
from felix_py import documents
from felix_py.calc.candidates import Candidate
from felix_py.kernel.objects import RouteKey
from felix_py.model import BlockAffinity, Node, NodeName, WorkloadEndpoint
from felix_py.page.tables import Row
from felix_py.state import ClusterState
from felix_py.turn import Turns

Rows = dict[str, Row]

NODE, ROUTER = "node", "router"
"""Kinds of machines on a page; a lab adds hosts."""


def nodes(cluster: ClusterState, me: NodeName, status: Mapping[str, Any]) -> Rows:
    """Return a row for each node of the cluster; of this one with what its status says."""
    blocks: dict[str, list[str]] = {}
    for affinity in cluster.of(BlockAffinity):
        if affinity.confirmed:
            blocks.setdefault(affinity.node, []).append(str(affinity.cidr))
    known = {node.name: node for node in cluster.of(Node)} | ({} if cluster.node(me) else {me: Node(me)})
    default = cluster.bgp().as_number
    return {
        name: {
            "kind": NODE,
            "name": name,
            "rack": _subnet(node),
            "addresses": [str(each) for each in node.addresses],
            "asNumber": node.as_number or default,
            "blocks": sorted(blocks.get(name, [])),
            "asked": name == me,
            **(_health(cluster, me, status) if name == me else {}),
        }
        for name, node in known.items()
    }


def _subnet(node: Node) -> str:
    """Return what groups nodes: those of one subnet reach each other without a router."""
    address = node.address or node.address6
    return str(address.network) if address is not None else "address unknown"


def _health(cluster: ClusterState, me: NodeName, status: Mapping[str, Any]) -> dict[str, Any]:
    bgp = status["bgp"]
    return {
        "version": status["version"],
        "inSync": status["inSync"],
        "healthy": status["healthy"],
        "problems": status["problems"],
        "routes": status["routes"],
        "routesLeftOut": status["routesLeftOut"],
        "sessions": {"established": bgp["established"], "configured": bgp["configured"], "off": bgp["off"]},
        "podMTU": status["podMTU"]["value"],
        "tunnels": [{name: each[name] for name in ("device", "driver")} for each in status["tunnels"]],
        "pods": sum(each.node == me for each in cluster.of(WorkloadEndpoint)),
    }


def routers(cluster: ClusterState, reports: Iterable[PeerReport]) -> Rows:
    """Return a row for each peer that is no node of the cluster, by its address."""
    ours = {address for node in cluster.of(Node) for address in node.addresses}
    return {
        str(each.settings.address): {
            "kind": ROUTER,
            "name": each.settings.name,
            "rack": "",
            "addresses": [str(each.settings.address)],
            "asNumber": each.settings.asn,
            "blocks": [],
            "asked": False,
        }
        for each in reports
        if each.settings.address not in ours
    }


def sessions(me: NodeName, reports: Iterable[PeerReport]) -> Rows:
    """Return a row for each session of this node."""
    return {
        f"{me} {each.settings.address}": {
            "node": me,
            "peer": str(each.settings.address),
            "name": each.settings.name,
            "asNumber": each.settings.asn,
            "type": each.settings.kind,
            "state": str(each.state),
            "since": round(each.since.timestamp()),
            "received": each.received,
            "accepted": each.accepted,
            "advertised": each.advertised,
            "stale": each.stale,
            "flaps": each.flaps,
            "lastError": each.last_error,
        }
        for each in reports
    }


def tunnels(me: NodeName, chosen: Mapping[RouteKey, Candidate], drivers: Callable[[str], str | None]) -> Rows:
    """Return a row for each node that this one sends encapsulated packets to, and by what.

    Args:
        me: this node.
        chosen: the winners of all prefixes.
        drivers: what carries packets, by the encapsulation.
    """
    found: dict[str, dict[str, Any]] = {}
    for winner in chosen.values():
        if winner.encapsulation is None or winner.encapsulation.encapsulation == "none":
            continue
        encapsulation = str(winner.encapsulation.encapsulation)
        for remote in [winner.route.via] if winner.route.via else [hop.via for hop in winner.route.hops]:
            row = found.setdefault(
                f"{me} {remote} {encapsulation}",
                {
                    "node": me,
                    "remote": str(remote),
                    "encapsulation": encapsulation,
                    "driver": drivers(encapsulation),
                    "device": winner.device,
                    "prefixes": 0,
                    "obstacle": None,
                },
            )
            row["prefixes"] += 1
            row["obstacle"] = row["obstacle"] or winner.obstacle
    return dict(found)


def routes(me: NodeName, keys: Iterable[RouteKey], base: float, turns: Turns) -> Rows:
    """Return a row for each of these routes; to be called in the kernel's thread.

    Args:
        me: this node.
        keys: of the routes.
        base: the time of day, in seconds since 1970, at which the loop's clock was 0.
        turns: of the agent.
    """
    rows: Rows = {}
    brief = documents.Briefs(turns, lambda at: round(base + at))
    for key in keys:
        row = brief(key)
        hops = row.pop("nextHops")
        if hops:
            row["nextHop"] = ",".join(dict.fromkeys(hop["nextHop"] for hop in hops))
            row["device"] = ",".join(dict.fromkeys(hop["device"] for hop in hops))
        rows[f"{me} {row['prefix']}"] = {"node": me, **row}
    return rows


def events(me: NodeName, entries: Iterable[Mapping[str, Any]]) -> Rows:
    """Return a row for each entry of the journal."""
    return {f"{me} {entry['id']}": {"node": me, **entry} for entry in entries}
