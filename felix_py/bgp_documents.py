"""BGP's sessions as documents: one line for each peer and family, and one session whole."""

from collections.abc import Iterable, Iterator

from bgp.notification import words
from bgp.policy_report import TermReport
from bgp.report import FamilyReport, PeerReport
from bgp.types import Endpoint, Notification, Open
from felix_py.documents import Document, time


def peer_rows(report: PeerReport) -> Iterator[Document]:
    """Yield one session as lines of `felixctl bgp peers`, one for each family that it carries."""
    for family in report.families:
        yield {**_about(report), **_counts(family), **_trouble(report)}


def peer(report: PeerReport, policies: tuple[Iterable[TermReport], Iterable[TermReport]]) -> Document:
    """Return everything about one session.

    Args:
        report: of the session.
        policies: the terms of its import and its export policy, in order.
    """
    inward, outward = policies
    return {
        **_about(report),
        "received": report.received,
        "accepted": report.accepted,
        "rejected": report.rejected,
        "advertised": report.advertised,
        "stale": report.stale,
        **_trouble(report),
        "why": report.settings.why,
        "malformedUpdates": report.malformed,
        **_connection(report),
        "families": [_family(each) for each in report.families],
        "capabilities": {
            "sent": _capabilities(report.open_sent),
            "received": _capabilities(report.open_received),
            "common": list(report.capabilities_in_common),
        },
        "messages": {"sent": dict(report.sent), "received": dict(report.received_messages)},
        "gracefulRestart": {"state": report.restart, "endOfRIB": report.end_of_rib, "stale": report.stale},
        "lastNotification": {
            "sent": words(report.notification_sent) if report.notification_sent else None,
            "received": words(report.notification_received) if report.notification_received else None,
        },
        "notifications": {
            "sent": _notification(report.notification_sent),
            "received": _notification(report.notification_received),
        },
        "policies": {"import": [_term(each) for each in inward], "export": [_term(each) for each in outward]},
        "history": [
            {"time": time(change.at), "state": str(change.state), "cause": change.cause} for change in report.history
        ],
    }


def _about(report: PeerReport) -> Document:
    return {
        "address": str(report.settings.address),
        "name": report.settings.name,
        "asNumber": report.settings.asn,
        "type": report.settings.kind,
        "state": str(report.state),
        "since": time(report.since),
        "remoteRouterID": str(report.remote_router_id) if report.remote_router_id else None,
        "flaps": report.flaps,
    }


def _counts(family: FamilyReport) -> Document:
    return {
        "family": str(family.family),
        "received": family.received,
        "accepted": family.accepted,
        "rejected": family.rejected,
        "advertised": family.advertised,
        "stale": family.stale,
    }


def _trouble(report: PeerReport) -> Document:
    return {
        "lastError": report.last_error,
        "lastErrorCause": str(report.fault.cause) if report.fault else None,
        "lastErrorTime": time(report.fault_at),
    }


def _connection(report: PeerReport) -> Document:
    settings = report.settings
    return {
        "connection": {
            "local": str(report.local) if report.local else None,
            "remote": str(report.remote or Endpoint(settings.address, settings.port)),
            "dialledBy": {True: "us", False: "the peer", None: None}[report.dialled],
            "weOnlyListen": settings.passive,
            "password": settings.password is not None,
            "ttlSecurity": settings.ttl_hops,
        },
        "routerID": {
            "local": str(report.local_router_id),
            "remote": str(report.remote_router_id) if report.remote_router_id else None,
        },
        "holdTime": {
            "offered": settings.hold_time,
            "received": report.open_received.hold_time if report.open_received else None,
            "negotiated": report.hold_time,
            "keepalive": report.keepalive,
            "keepaliveConfigured": settings.keepalive,
        },
    }


def _family(family: FamilyReport) -> Document:
    return {
        **_counts(family),
        "endOfRIB": family.end_of_rib,
        "keptIfItRestarts": family.kept_by_us,
        "preserved": family.preserved,
        "staleUntil": time(family.stale_until),
    }


def _capabilities(offered: Open | None) -> list[str]:
    return list(offered.capabilities) if offered else []


def _notification(said: Notification | None) -> Document | None:
    if said is None:
        return None
    return {
        "code": said.code,
        "subcode": said.subcode,
        "words": words(said),
        "text": said.text or None,
        "data": said.data or None,
    }


def _term(term: TermReport) -> Document:
    return {
        "filter": term.filter,
        "list": term.list,
        "rule": term.rule,
        "term": term.term,
        "action": term.action,
        "hits": term.hits,
    }
