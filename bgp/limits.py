"""How many prefixes a peer may tell, and what is done about one that tells more."""

from bgp.faults import Cause
from bgp.session import Closed, Session
from bgp.speaker_words import ManyPrefixes


def warning(session: Session) -> ManyPrefixes | None:
    """Return what is to be said of a peer that tells nearly too many prefixes, once until they have become fewer."""
    limit, prefixes = session.settings.prefix_limit, len(session.adj_rib_in.entries)
    many = limit is not None and prefixes * 100 >= limit.maximum * limit.warning
    first, session.warned = many and not session.warned, many
    return ManyPrefixes(session.settings, prefixes, limit) if first and limit is not None else None


def excess(session: Session, now: float) -> Closed | None:
    """Return why a session has to end; None while the peer tells no more prefixes than it may."""
    limit, prefixes = session.settings.prefix_limit, len(session.adj_rib_in.entries)
    if limit is None or prefixes <= limit.maximum:
        return None
    then = f"`felixctl bgp enable {session.settings.address}` tries again"
    if limit.restart is not None:
        then = f"it is tried again after {limit.restart:g} s"
    sentence = f"the peer told {prefixes} prefixes, and maxPrefixes allows {limit.maximum}; {then}"
    return Closed(sentence, None if limit.restart is None else now + limit.restart, Cause.MAX_PREFIXES)
