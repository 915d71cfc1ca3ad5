"""BGP's paths as documents: what peers said, before and after policy, and what each is told; all with the reason."""

from collections.abc import Iterable, Iterator

from bgp.path_report import AdvertisedReport, RouteReport
from bgp.types import Attributes
from felix_py.documents import Document


def path(report: RouteReport) -> Document:
    """Return a path as import policy leaves it, with the verdict; `received` holds what policy has changed."""
    return {
        **_source(report),
        **attributes(report.attributes),
        "accepted": report.accepted,
        "best": report.best,
        "equal": report.equal,
        "eligible": report.eligible,
        "stale": report.stale,
        "decidedBy": report.decided_by or None,
        "rule": report.rule,
        "against": str(report.against) if report.against else None,
        "reason": report.why if report.accepted else report.refusal,
        "received": None if report.attributes == report.received else attributes(report.received),
    }


def paths(reports: Iterable[RouteReport]) -> list[Document]:
    """Return paths, each with its verdict."""
    return [path(report) for report in reports]


def by_prefix(reports: Iterable[RouteReport]) -> dict[str, list[Document]]:
    """Return paths, each with its verdict, by the prefix that they lead to."""
    found: dict[str, list[Document]] = {}
    for report in reports:
        found.setdefault(str(report.prefix), []).append(path(report))
    return found


def paths_as_told(reports: Iterable[RouteReport]) -> list[Document]:
    """Return paths as peers told them, before any policy."""
    return [{**_source(report), **attributes(report.received), "stale": report.stale} for report in reports]


def advertised(reports: Iterable[AdvertisedReport]) -> list[Document]:
    """Return what one peer is told, or is not, each with the reason."""
    return [
        {
            "prefix": str(report.prefix),
            **attributes(report.attributes),
            "told": report.told,
            "from": str(report.source) if report.source else None,
            "decidedBy": report.decided_by or None,
            "reason": report.reason,
        }
        for report in reports
    ]


def attributes(said: Attributes) -> Document:
    """Return what a path says of itself, every attribute by its name; what is not there is null or empty."""
    aggregator = said.aggregator
    return {
        "nextHop": str(said.next_hop) if said.next_hop else None,
        "asPath": list(_as_path(said)),
        "origin": said.origin.name,
        "localPreference": said.local_preference,
        "med": said.med,
        "communities": [f"{high}:{low}" for high, low in said.communities],
        "largeCommunities": [":".join(map(str, each)) for each in said.large_communities],
        "extendedCommunities": [each.hex() for each in said.extended_communities],
        "originatorID": str(said.originator_id) if said.originator_id else None,
        "clusterList": list(map(str, said.cluster_list)),
        "atomicAggregate": said.atomic_aggregate,
        "aggregator": {"asNumber": aggregator[0], "routerID": str(aggregator[1])} if aggregator else None,
        "unrecognized": [
            {"flags": flags, "code": code, "value": value.hex()} for flags, code, value in said.unrecognized
        ],
    }


def _source(report: RouteReport) -> Document:
    return {
        "prefix": str(report.prefix),
        "peer": str(report.peer),
        "peerName": report.peer_name,
        "external": report.external,
        "routerID": str(report.router_id),
    }


def _as_path(said: Attributes) -> Iterator[int | list[int]]:
    for hop in said.as_path:
        yield hop if isinstance(hop, int) else sorted(hop)
