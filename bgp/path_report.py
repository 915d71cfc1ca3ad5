"""Paths as people read them: what peers said, before and after policy, and what we tell each of them, and why."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from bgp.decision import ONLY_PATH, Contender
from bgp.exporting import Export
from bgp.policy import Accepted, Refusal
from bgp.rib import Told, in_order
from bgp.session import Session
from bgp.speaker import Speaker
from bgp.types import FAMILY, Attributes, IPAddress, IPNetwork, Path

NEXT_HOP = "next hop"
"""The rule that a path loses by which leads nowhere (RFC 4271 section 9.1.2)."""


@dataclass(frozen=True, slots=True)
class RouteReport:
    """One path of an Adj-RIB-In.

    Attributes:
        attributes: as import policy leaves them.
        received: as the peer told them.
        decided_by: the rule of a filter, or the reason of a refusal, that decided; empty where nothing had to be.
        accepted: by the import policy.
        refusal: the policy's reason against it.
        best: it is the path of the Loc-RIB.
        equal: it is as good as that one, and takes its share of the flows.
        eligible: it is accepted, and its next hop can be reached.
        rule: which rule made it the best, or which one it lost by; None for a refused path.
        against: who told the path that it was compared with there; None where there was none.
        why: the same with the values that were compared.
    """

    prefix: IPNetwork
    peer: IPAddress
    peer_name: str
    attributes: Attributes
    received: Attributes
    external: bool
    router_id: IPv4Address
    accepted: bool
    refusal: str | None
    decided_by: str
    best: bool
    equal: bool
    eligible: bool
    rule: str | None
    against: IPAddress | None
    why: str | None
    stale: bool


@dataclass(frozen=True, slots=True)
class AdvertisedReport:
    """A prefix that a peer is told, or is not.

    Attributes:
        attributes: as the peer sees them, or as we have them where it is not told.
        told: the peer is told it.
        source: who told it to us; None where it is our own.
        decided_by: the rule of an export filter, or the reason of a refusal; empty where nothing had to be decided.
        reason: why it is told, or why not, in words.
    """

    prefix: IPNetwork
    attributes: Attributes
    told: bool
    source: IPAddress | None
    decided_by: str
    reason: str


def routes(speaker: Speaker, peer: IPAddress | None = None, prefix: IPNetwork | None = None) -> tuple[RouteReport, ...]:
    """Report what peers said, or one of them, by prefix; of one prefix where one is given."""
    sessions = [each for each in speaker.sessions.values() if peer in (None, each.settings.address)]
    found = (
        _route(speaker, session, each)
        for session in sessions
        for each in (session.adj_rib_in.entries if prefix is None else {prefix} & session.adj_rib_in.entries.keys())
    )
    return tuple(sorted(found, key=lambda route: (in_order(route.prefix), not route.best, str(route.peer))))


def advertised(speaker: Speaker, peer: IPAddress, prefix: IPNetwork | None = None) -> tuple[AdvertisedReport, ...]:
    """Report what one peer has been told; nothing while its session is down."""
    session = speaker.sessions.get(peer)
    if session is None or not session.established:
        return ()
    export, told = Export(speaker.settings, speaker.loc_rib), session.adj_rib_out.told
    wanted = told if prefix is None else {prefix} & told.keys()
    return tuple(
        _told(speaker, session, each, told[each], export.why(session, each)) for each in sorted(wanted, key=in_order)
    )


def withheld(speaker: Speaker, peer: IPAddress, prefix: IPNetwork | None = None) -> tuple[AdvertisedReport, ...]:
    """Report which best paths and prefixes of ours one peer is not told, and why."""
    session = speaker.sessions.get(peer)
    if session is None or not session.established:
        return ()
    every = speaker.loc_rib.best.keys() | speaker.settings.announcements
    left = (every if prefix is None else every & {prefix}) - session.adj_rib_out.told.keys()
    return tuple(_withheld(speaker, session, each) for each in sorted(left, key=in_order))


def _told(
    speaker: Speaker, session: Session, prefix: IPNetwork, attributes: Attributes, outcome: Accepted | Refusal | None
) -> AdvertisedReport:
    source = _source(speaker, prefix)
    said = replace(attributes, next_hop=attributes.next_hop or _ourselves(speaker, session, prefix))
    rule = outcome.rule if outcome is not None else ""
    plain = "block of this node" if source is None else f"best path, from {source}"
    reason = f"{plain}; accepted by {rule}" if rule else plain
    return AdvertisedReport(prefix, said, told=True, source=source, decided_by=rule, reason=reason)


def _withheld(speaker: Speaker, session: Session, prefix: IPNetwork) -> AdvertisedReport:
    source, outcome = _source(speaker, prefix), _outcome(speaker, session, prefix)
    attributes = speaker.loc_rib.best[prefix].path.attributes if source is not None else Attributes(next_hop=None)
    decided_by, reason = outcome if isinstance(outcome, tuple) else (outcome.rule or str(outcome.reason), str(outcome))
    return AdvertisedReport(prefix, attributes, told=False, source=source, decided_by=decided_by, reason=reason)


def _outcome(speaker: Speaker, session: Session, prefix: IPNetwork) -> Refusal | tuple[str, str]:
    """Say what stands against telling a prefix, down to what policy is not even asked about."""
    family = FAMILY[prefix.version]
    if family not in session.settings.carried:
        return "family", f"the session does not carry {family}"
    if speaker.settings.leaving:
        return "leaving", "we are about to go, and tell nothing any more"
    if prefix in speaker.settings.announcements:
        outcome = session.export_policy.own(prefix)
    else:
        told = speaker.loc_rib.best[prefix].path
        path = _path(prefix, told)
        clients = {peer.address for peer in speaker.settings.peers if peer.client}
        outcome = session.export_policy.learned(path, from_client=told.peer in clients)
    return outcome if isinstance(outcome, Refusal) else ("", "it is about to be told")


def _path(prefix: IPNetwork, told: Contender) -> Path:
    return Path(prefix, told.peer, told.attributes, told.external, told.router_id, told.stale)


def _source(speaker: Speaker, prefix: IPNetwork) -> IPAddress | None:
    """Return who told us the path that others are told; None for a prefix of our own, which goes first."""
    best = None if prefix in speaker.settings.announcements else speaker.loc_rib.best.get(prefix)
    return best.path.peer if best is not None else None


def _ourselves(speaker: Speaker, session: Session, prefix: IPNetwork) -> IPAddress | None:
    """Return the next hop that stands for us: our end of the connection, or our address of the prefix's family."""
    if session.local is not None and session.local.address.version == prefix.version:
        return session.local.address
    return {4: speaker.settings.local_address, 6: speaker.settings.local_address6}[prefix.version]


def _route(speaker: Speaker, session: Session, prefix: IPNetwork) -> RouteReport:
    told, best = session.adj_rib_in.entries[prefix], speaker.loc_rib.best.get(prefix)
    is_best = best is not None and told.refusal is None and best.path == told
    lost = next((each for each in best.beaten if each.path == told), None) if best else None
    verdict = best if is_best else lost
    unreachable = _unreachable(speaker, told)
    rule, why = (verdict.rule, verdict.reason) if verdict else (NEXT_HOP if unreachable else None, unreachable)
    if is_best and rule == ONLY_PATH and len(speaker.loc_rib.contests[prefix].paths) > 1:
        rule, why = NEXT_HOP, f"{NEXT_HOP}: only this one's can be reached"
    closest = best.beaten[0].path if is_best and best is not None and best.beaten else lost.to if lost else None
    return RouteReport(
        prefix=prefix,
        peer=told.peer,
        peer_name=session.settings.name,
        attributes=told.attributes,
        received=told.received,
        external=told.external,
        router_id=told.router_id,
        accepted=told.refusal is None,
        refusal=str(told.refusal) if told.refusal else None,
        decided_by=told.decided_by,
        best=is_best,
        equal=best is not None and told.refusal is None and told in best.equal,
        eligible=told.refusal is None and unreachable is None,
        rule=rule,
        against=closest.peer if closest else None,
        why=why,
        stale=told.stale,
    )


def _unreachable(speaker: Speaker, told: Told) -> str | None:
    """Say why packets cannot be sent by an accepted path; None where they can."""
    next_hop = told.attributes.next_hop
    if told.refusal is not None or next_hop is None or next_hop not in speaker.loc_rib.obstacles:
        return None
    return f"{NEXT_HOP}: {next_hop} cannot be reached: {speaker.loc_rib.obstacles[next_hop]}"
