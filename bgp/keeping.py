"""What is kept of a peer that is gone or tells everything again, and until when: graceful restart, route refresh.

Each function returns the prefixes of which something else holds now. Sources: RFC 4724 section 4.2 (helper), section
4.1 (restarter), RFC 7313 (enhanced route refresh).
"""

from collections.abc import Iterable
from typing import assert_never

from bgp.session import Session, Unconfirmed
from bgp.types import FAMILY, Family, IPNetwork, RefreshStage

RESTART_TIME = 120
"""Seconds that we ask peers to keep our paths while we restart, and keep theirs; BIRD's and Calico's value."""

END_OF_RIB_WAIT = 60.0
"""Seconds after a session is back until what the peer has not said again is swept, if it never says End-of-RIB."""

REFRESH_WAIT = 300.0
"""Seconds that a peer has to tell everything again after it has said that it begins to; what it has not told again by
then is forgotten, and no End-of-RIB waited for (RFC 7313 section 4 leaves the time to us)."""


def lost(session: Session, until: float | None, *, by_us: bool) -> list[IPNetwork]:
    """A session is gone: keep what may be kept, marked as stale, and forget the rest.

    Args:
        session: the one that was established.
        until: when what is kept is swept; None keeps nothing.
        by_us: it is us who restart, so that nothing is the peer's fault.
    """
    table = session.adj_rib_in
    session.ended.clear()
    session.unconfirmed.clear()
    if until is None:
        changed = table.clear()
    elif by_us:
        changed = table.mark_stale()
    else:
        # A peer that restarts again before it has said something again does not mean it any more.
        changed = table.sweep() + table.drop(frozenset(Family) - session.restartable) + table.mark_stale()
    session.keep_until = until if table.entries else None
    return changed


def back(session: Session, now: float, *, by_us: bool) -> list[IPNetwork]:
    """A session is up again: give the peer time to say everything again, if what it said may still be used."""
    # A peer that lost its forwarding state, or does not name the family any more, must not be sent packets for it.
    trusted = frozenset(Family) if by_us else session.kept_forwarding
    changed = session.adj_rib_in.sweep(frozenset(Family) - trusted)
    session.keep_until = now + END_OF_RIB_WAIT if session.adj_rib_in.stale else None
    return changed


def ended(session: Session, family: Family) -> list[IPNetwork]:
    """The peer has said everything of a family."""
    session.ended.add(family)
    session.complete = session.complete or session.end_of_rib
    changed = session.adj_rib_in.sweep((family,))
    if session.keep_until is not None and not session.adj_rib_in.stale:
        session.keep_until = None
    return changed


def refreshed(session: Session, family: Family, stage: RefreshStage, now: float) -> list[IPNetwork]:
    """The peer begins to tell everything of a family again, or has done so; to be asked for it is the wire's matter."""
    match stage:
        case RefreshStage.REQUEST:
            return []
        case RefreshStage.BEGIN:
            there = {prefix for prefix in session.adj_rib_in.entries if FAMILY[prefix.version] is family}
            session.unconfirmed[family] = Unconfirmed(there, now + REFRESH_WAIT)
            return []
        case RefreshStage.END:
            # An end without a beginning says nothing (RFC 7313 section 4).
            waiting = session.unconfirmed.pop(family, None)
            return session.adj_rib_in.withdraw(waiting.prefixes) if waiting else []
        case _:
            assert_never(stage)


def said_again(session: Session, prefixes: Iterable[IPNetwork]) -> None:
    """The peer has announced prefixes, which are no news perhaps, but hold."""
    for waiting in session.unconfirmed.values():
        waiting.prefixes.difference_update(prefixes)


def due(session: Session, now: float) -> list[IPNetwork]:
    """Time has passed: forget what had to be confirmed by now."""
    changed: list[IPNetwork] = []
    if session.keep_until is not None and session.keep_until <= now:
        session.keep_until = None
        changed += session.adj_rib_in.sweep()
    for family, waiting in tuple(session.unconfirmed.items()):
        if waiting.until <= now:
            changed += refreshed(session, family, RefreshStage.END, now)
    return changed


def deadline(session: Session) -> float | None:
    """Return when something is due if nothing happens; None while nothing is."""
    timers = (session.keep_until, *(waiting.until for waiting in session.unconfirmed.values()))
    return min((each for each in timers if each is not None), default=None)
