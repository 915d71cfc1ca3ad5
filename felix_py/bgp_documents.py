"""BGP's reports as documents: sessions, one session whole, and paths with the verdict on each."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

from bgp.report import PeerReport, RouteReport
from bgp.types import Attributes, IPNetwork, Open
from felix_py.documents import Document, time


def peer_row(report: PeerReport) -> Document:
    """Return one session as a line of `felixctl bgp peers`."""
    return {
        "address": str(report.settings.address),
        "name": report.settings.name,
        "asNumber": report.settings.asn,
        "type": report.settings.kind,
        "state": str(report.state),
        "since": time(report.since),
        "family": ", ".join(report.settings.carried),
        "received": report.received,
        "accepted": report.accepted,
        "rejected": report.rejected,
        "advertised": report.advertised,
        "stale": report.stale,
        "lastError": report.last_error,
    }


def peer(report: PeerReport) -> Document:
    """Return everything about one session."""
    return {
        **peer_row(report),
        "why": report.settings.why,
        "flaps": report.flaps,
        "connection": {
            "local": str(report.local) if report.local else None,
            "remote": str(report.remote) if report.remote else f"{report.settings.address}:{report.settings.port}",
            "dialledBy": {True: "us", False: "the peer", None: None}[report.dialled],
            "weOnlyListen": report.settings.passive,
        },
        "routerID": {
            "local": str(report.local_router_id),
            "remote": str(report.remote_router_id) if report.remote_router_id else None,
        },
        "holdTime": {
            "offered": report.settings.hold_time,
            "received": report.open_received.hold_time if report.open_received else None,
            "negotiated": report.hold_time,
            "keepalive": report.keepalive,
        },
        "capabilities": {
            "sent": _capabilities(report.open_sent),
            "received": _capabilities(report.open_received),
            "common": list(report.capabilities_in_common),
        },
        "messages": {"sent": dict(report.sent), "received": dict(report.received_messages)},
        "gracefulRestart": {"state": report.restart, "endOfRIB": report.end_of_rib, "stale": report.stale},
        "lastNotification": {"sent": report.notification_sent, "received": report.notification_received},
        "history": [
            {"time": time(change.at), "state": str(change.state), "cause": change.cause} for change in report.history
        ],
    }


def _capabilities(offered: Open | None) -> list[str]:
    return list(offered.capabilities) if offered else []


def paths(reports: Iterable[RouteReport], prefix: str | None = None) -> list[Document]:
    """Return paths, those of one prefix where one is given, each with the verdict and its reason."""
    wanted = ip_network(prefix) if prefix else None
    return [_path(report) for report in reports if wanted in (None, report.prefix)]


def _path(report: RouteReport) -> Document:
    attributes = report.attributes
    return {
        "prefix": str(report.prefix),
        "nextHop": str(attributes.next_hop) if attributes.next_hop else None,
        "peer": str(report.peer),
        "peerName": report.peer_name,
        "asPath": list(_as_path(attributes)),
        "origin": attributes.origin.name,
        "localPreference": attributes.local_preference,
        "med": attributes.med,
        "communities": [f"{high}:{low}" for high, low in attributes.communities],
        "largeCommunities": [":".join(map(str, each)) for each in attributes.large_communities],
        "accepted": report.accepted,
        "best": report.best,
        "equal": report.equal,
        "eligible": report.eligible,
        "stale": report.stale,
        "reason": report.why if report.accepted else report.refusal,
    }


def _as_path(attributes: Attributes) -> Iterator[int | list[int]]:
    for hop in attributes.as_path:
        yield hop if isinstance(hop, int) else sorted(hop)


def advertised(prefixes: Iterable[IPNetwork], next_hops: Mapping[int, str | None]) -> list[Document]:
    """Return what one peer is sent; `next_hops` are this node's addresses, by version of IP."""
    reason = "block of this node"
    return [{"prefix": str(prefix), "nextHop": next_hops.get(prefix.version), "reason": reason} for prefix in prefixes]
