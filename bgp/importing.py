"""What a peer says, judged by import policy: prefixes that are judged alike share one object."""

from collections.abc import Iterable, Iterator, Sequence

from bgp.policy import Accepted, Refusal
from bgp.rib import LocRib, Told
from bgp.session import Session
from bgp.speaker_words import PathsRefused
from bgp.types import UNKNOWN_ROUTER, Attributes, IPAddress, IPNetwork

MOST_REMEMBERED = 256
"""Different things that a peer says of which each stays one object; what comes beyond that makes copies."""


def judged(
    session: Session, prefixes: Sequence[IPNetwork], attributes: Attributes, *, external: bool
) -> Iterator[tuple[Told, Sequence[IPNetwork]]]:
    """Yield what a peer says of prefixes and policy makes of it, each time with all prefixes that it holds for."""
    session.heard_of(attributes.next_hop)
    for outcome, alike in session.import_policy.weigh_all(prefixes, attributes):
        yield _told(session, attributes, outcome, external=external), alike


def _told(session: Session, attributes: Attributes, outcome: Accepted | Refusal, *, external: bool) -> Told:
    known = session.told.get(id(outcome))
    if known is not None and known[1].received is attributes:
        return known[1]
    opened = session.open_received
    router_id = opened.router_id if opened else UNKNOWN_ROUTER
    address = session.settings.address
    if isinstance(outcome, Refusal):
        return Told(address, attributes, attributes, outcome, external=external, router_id=router_id)
    told = Told(address, outcome.attributes, attributes, None, outcome.rule, external, router_id)
    if len(session.told) >= MOST_REMEMBERED:
        session.told.clear()
    # The outcome is kept, so that no other can take its place in memory.
    session.told[id(outcome)] = outcome, told
    return told


def refusals(session: Session, prefixes: Iterable[IPNetwork]) -> Iterator[PathsRefused]:
    """Say which of these prefixes are refused now."""
    found: dict[Refusal, list[IPNetwork]] = {}
    for prefix in prefixes:
        told = session.adj_rib_in.entries.get(prefix)
        if told is not None and told.refusal is not None:
            found.setdefault(told.refusal, []).append(prefix)
    for refusal, alike in found.items():
        yield PathsRefused(session.settings.address, tuple(alike), refusal)


def next_hops(loc_rib: LocRib, sessions: Iterable[Session]) -> frozenset[IPAddress]:
    """Return the next hops of which it matters whether they can be reached, and by which interface."""
    # A filter that asks for the interface refuses a path until somebody has told it: that one is in no Loc-RIB.
    asked = [each.next_hops for each in sessions if each.import_policy.peer.asks_for_interface]
    return loc_rib.next_hops.union(*asked) if asked else loc_rib.next_hops
