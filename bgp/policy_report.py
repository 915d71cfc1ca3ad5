"""The policies of a session as people read them: every term, in the order of asking, with what it decides now.

A term's hits are the prefixes over which it decides at this moment: of import policy those of the Adj-RIB-In, of export
policy our own and the best paths of the Loc-RIB. They are found when somebody asks, and cost nothing before.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bgp import filters
from bgp.export_policy import CHECKS
from bgp.policy import ATTRIBUTE_CHECKS, PREFIX_CHECKS, Accepted, Reason, Refusal
from bgp.prefix_table import Version
from bgp.rib import Told
from bgp.session import Session
from bgp.speaker import Speaker
from bgp.types import FAMILY, IPNetwork, Path

Action: TypeAlias = Literal["Accept", "Reject"]

UNTOUCHED, OWN, PASSED_ON = "nothing objects", "our own prefix", "passed on"
"""The terms at the end of the tables, which accept."""

PASSED_ON_TERM, NOT_PASSED_ON_TERM = f"{PASSED_ON}: we reflect routes", str(Reason.NOT_PASSED_ON)


@dataclass(frozen=True, slots=True)
class TermReport:
    """One term of a policy.

    Attributes:
        term: what it asks for, in words.
        filter: the name of the BGPFilter that it is of; None for what is built in.
        list: the filter's list, as `importV4`.
        rule: its number in that list, from 1.
        hits: prefixes over which it decides now.
    """

    term: str
    action: Action
    hits: int
    filter: str | None = None
    list: str | None = None
    rule: int | None = None


def groups(session: Session) -> Mapping[int, tuple[Told, int]]:
    """Return what a peer says, each with how many prefixes it says this of, by identity: the table has few of them."""
    entries = session.adj_rib_in.entries.values()
    # By identity, and without a step of Python for each: there may be 100,000 prefixes, and a scrape asks this.
    counts, kept = Counter(map(id, entries)), dict(zip(map(id, entries), entries, strict=True))
    return {identity: (kept[identity], count) for identity, count in counts.items()}


def imported(session: Session) -> tuple[TermReport, ...]:
    """Return the terms of a session's import policy with their hits."""
    hits: Counter[str] = Counter()
    for told, count in groups(session).values():
        hits[told.decided_by or UNTOUCHED] += count
    return (
        *(_built_in(check.reason, hits) for check in ATTRIBUTE_CHECKS),
        *_of_filters(session, "import", hits),
        *(_built_in(check.reason, hits) for check in PREFIX_CHECKS),
        TermReport(UNTOUCHED, "Accept", hits[UNTOUCHED]),
    )


def exported(speaker: Speaker, session: Session) -> tuple[TermReport, ...]:
    """Return the terms of a session's export policy with their hits, whether the session is up or not."""
    hits: Counter[str] = Counter()
    for outcome, count in (*_own(speaker, session), *_learned(speaker, session)):
        hits[outcome] += count
    last = (
        TermReport(PASSED_ON_TERM, "Accept", hits[PASSED_ON])
        if speaker.settings.cluster_id is not None
        else TermReport(NOT_PASSED_ON_TERM, "Reject", hits[NOT_PASSED_ON_TERM])
    )
    return (
        _built_in(Reason.TOLD_BY_PEER, hits),
        *(_built_in(reason, hits) for reason, _ in CHECKS),
        *_of_filters(session, "export", hits),
        TermReport(OWN, "Accept", hits[OWN]),
        last,
    )


def _built_in(reason: Reason, hits: Mapping[str, int]) -> TermReport:
    return TermReport(str(reason), "Reject", hits[str(reason)])


def _of_filters(session: Session, direction: filters.Direction, hits: Mapping[str, int]) -> Iterator[TermReport]:
    for each in session.import_policy.peer.filters:
        for version in _versions(session):
            for number, (words, rule) in enumerate(each.rules(direction, version), 1):
                term = str(rule) if each.exists else "it does not exist"
                action: Action = "Accept" if rule.action is filters.Action.ACCEPT else "Reject"
                yield TermReport(term, action, hits[words], each.name, f"{direction}V{version}", number)


def _versions(session: Session) -> tuple[Version, ...]:
    versions: tuple[Version, ...] = (4, 6)
    return tuple(version for version in versions if FAMILY[version] in session.settings.carried)


def _own(speaker: Speaker, session: Session) -> Iterator[tuple[str, int]]:
    for prefix in () if speaker.settings.leaving else speaker.settings.announcements:
        if FAMILY[prefix.version] in session.settings.carried:
            yield _decided_by(session.export_policy.own(prefix), OWN), 1


def _learned(speaker: Speaker, session: Session) -> Iterator[tuple[str, int]]:
    """Yield what decides over best paths, and over how many: of those with the same path one is asked, if it may be."""
    if speaker.settings.leaving:
        return
    policy = session.export_policy
    clients = {peer.address for peer in speaker.settings.peers if peer.client}
    for prefix, count in _samples(speaker, session):
        told = speaker.loc_rib.best[prefix].path
        path = Path(prefix, told.peer, told.attributes, told.external, told.router_id, told.stale)
        yield _decided_by(policy.learned(path, from_client=told.peer in clients), PASSED_ON), count


def _samples(speaker: Speaker, session: Session) -> Iterable[tuple[IPNetwork, int]]:
    """Return prefixes of best paths, each with the number of those for which it stands: no rule tells them apart."""
    own, carried = speaker.settings.announcements, session.settings.carried
    listed = {
        version: any(True for each in session.export_policy.peer.filters for _ in each.rules("export", version))
        for version in _versions(session)
    }
    counts: dict[tuple[int, int], int] = {}
    first: dict[tuple[int, int], IPNetwork] = {}
    for prefix, best in speaker.loc_rib.best.items():
        version = prefix.version
        if FAMILY[version] not in carried or prefix in own:
            continue
        key = (version, id(prefix) if listed[version] else id(best))
        counts[key] = counts.get(key, 0) + 1
        first.setdefault(key, prefix)
    return [(first[key], count) for key, count in counts.items()]


def _decided_by(outcome: Accepted | Refusal, otherwise: str) -> str:
    if isinstance(outcome, Refusal):
        return outcome.rule or str(outcome.reason)
    return outcome.rule or otherwise
