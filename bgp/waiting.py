"""What a speaker waits for, and for how long: peers that have not said everything, and what is due when."""

from collections.abc import Collection

from bgp import keeping
from bgp.keeping import END_OF_RIB_WAIT, RESTART_TIME
from bgp.session import SILENT_WAIT, Session

SELECTION_DEFERRAL = 10.0
"""Seconds after a start for which the paths of some peers decide nothing while others have not said theirs; RFC 4724
section 4.1 calls it Selection_Deferral_Timer, and leaves the value to us. Living peers are up in three."""


def converged(sessions: Collection[Session], started: float, now: float) -> bool:
    """Say whether a prefix without a path has none: every peer has said everything, or had the time to."""
    return now - started >= RESTART_TIME or all(session.said_everything(now) for session in sessions)


def selecting(sessions: Collection[Session], started: float, now: float) -> bool:
    """Say whether what is known of paths is enough to choose by; before that, one that restarts keeps its routes.

    It does not wait for those who have just started too, for they wait for it (RFC 4724 section 4.1).
    """
    late = now - started >= SELECTION_DEFERRAL
    return late or all(session.said_everything(now) or session.new for session in sessions)


def arrived(sessions: Collection[Session], since: float, now: float) -> bool:
    """Say whether the paths of all peers are known, or were waited for long enough: the dead say nothing."""
    return now - since >= SELECTION_DEFERRAL or all(_has_told(session, now) for session in sessions)


def _has_told(session: Session, now: float) -> bool:
    """Say whether all that a peer has to say is known: from this session, not from one that ended."""
    told = session.end_of_rib or (session.silent and now - session.since >= SILENT_WAIT)
    return session.why_not is not None or (session.established and told)


def ready_to_end(sessions: Collection[Session], started: float, now: float) -> bool:
    """Say whether one who passes on what peers tell has told everything that there is to tell.

    Before that its End-of-RIB would have peers take what it cannot tell yet for gone. It does not wait for those who
    have just started too, for they wait for it (RFC 4724 section 4.1).
    """
    late = now - started >= END_OF_RIB_WAIT
    return late or all(session.said_everything(now) or session.new for session in sessions)


def settled(sessions: Collection[Session]) -> bool:
    """Say whether every session that is wanted is up, and its peer has said everything that it announces an end of."""
    wanted = [session for session in sessions if session.why_not is None]
    return all(session.established and (session.end_of_rib or session.silent) for session in wanted)


def hold_times(sessions: Collection[Session]) -> list[int]:
    """Return after how many seconds of silence each peer that has a session takes us for dead; 0 is never."""
    return [session.hold_time for session in sessions if session.established and session.hold_time is not None]


def deadline(sessions: Collection[Session], started: float, *, end_of_rib_due: bool) -> float | None:
    """Return when time itself changes something next; None while it does not.

    Args:
        sessions: all.
        started: when the speaker did.
        end_of_rib_due: peers wait for our End-of-RIB.
    """
    timers = [keeping.deadline(session) for session in sessions]
    timers += [session.closed.until for session in sessions if session.closed]
    if end_of_rib_due:
        silent = (session for session in sessions if session.silent and not session.complete)
        timers += [started + END_OF_RIB_WAIT, *(session.since + SILENT_WAIT for session in silent)]
    return min((each for each in timers if each is not None), default=None)
