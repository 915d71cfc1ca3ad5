"""Follows one kind at the API server, as a table: what happened, and whether to list or to watch next, when, and why.

A kind is listed once and then watched from the revision of the list on. Bookmarks move that revision on while nothing
changes, so that a connection which ends is taken up where it was; only who was away for too long (410 Gone) lists again
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

from dataclasses import dataclass
from enum import StrEnum

BACK_OFF_FIRST, BACK_OFF_LAST = 0.1, 1.2
"""Seconds between attempts to reach a server that is away: first, and after doubling. The last one is short, since
nodes are to be right within 2 s of its return, and an attempt that is refused costs next to nothing."""

BUSY_FIRST, BUSY_LAST = 0.25, 30.0
"""The same towards a server that answers and cannot serve: there, attempts cost something."""

REFUSED = 5.0
"""Seconds until a server that refused is asked again: somebody has to change something first."""

SHORT_LIVED = 1.0
"""Seconds; a watch that ended sooner is taken for one that failed, or a broken proxy would be asked without rest."""

JITTER = 0.25
"""Of each wait, at most: nodes that lost the same server do not come back in one moment."""


class Cause(StrEnum):
    """What became of a request."""

    LISTED = "listed"
    MOVED = "moved"
    """A change or a bookmark: the revision is another one."""
    ENDED = "ended"
    GONE = "gone"
    BROKEN = "broken"
    GARBLED = "garbled"
    BUSY = "busy"
    DENIED = "denied"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"
    """The server has no such kind."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class News:
    """What happened.

    Attributes:
        revision: of a list, a change or a bookmark.
        lasted: seconds that the watch had been open when it ended.
        after: seconds that the server asks us to wait (Retry-After).
        words: what the server, or the library, said.
    """

    cause: Cause
    revision: str | None = None
    lasted: float = 0.0
    after: float = 0.0
    words: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far we are with a kind.

    Attributes:
        revision: where the next watch begins; None where a list comes first.
        failed: why the last request failed; None where it did not.
        failures: how many failed for that reason, one after the other.
    """

    revision: str | None = None
    failed: Cause | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Next:
    """What comes next: a watch where the standing has a revision, else a list.

    Attributes:
        wait: seconds until then.
        reason: why, in words for the log.
        renew: who we are is to be read anew first: a token or a certificate may have been replaced.
    """

    standing: Standing
    wait: float = 0.0
    reason: str = ""
    renew: bool = False


class Then(StrEnum):
    """What comes after a failure."""

    WATCH = "watch"
    """From where we were."""
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a cause leads to.

    Attributes:
        first, last: seconds to wait after the first failure, and after many; 0 for no wait.
        reason: why.
        renew: see `Next`.
    """

    then: Then
    first: float
    last: float
    reason: str
    renew: bool = False


NO_KIND = "the server has no such kind; apply its definition (deploy/kubernetes/crds)"

FORGOTTEN = "the server has forgotten our revision (410 Gone), so all is listed again"
STRANGERS = "the server does not know us; credentials are read anew"

RULES = {
    Cause.ENDED: Rule(Then.WATCH, 0, 0, "the server ended the watch, as it does now and then"),
    Cause.GONE: Rule(Then.LIST, 0, 0, FORGOTTEN),
    Cause.BROKEN: Rule(Then.WATCH, BACK_OFF_FIRST, BACK_OFF_LAST, "the connection failed"),
    Cause.GARBLED: Rule(Then.LIST, BUSY_FIRST, BUSY_LAST, "the answer was no JSON, so all is listed again"),
    Cause.BUSY: Rule(Then.WATCH, BUSY_FIRST, BUSY_LAST, "the server cannot serve now"),
    Cause.DENIED: Rule(Then.WATCH, BUSY_FIRST, REFUSED, STRANGERS, renew=True),
    Cause.FORBIDDEN: Rule(Then.WATCH, REFUSED, REFUSED, "we lack the right", renew=True),
    Cause.UNKNOWN: Rule(Then.LIST, REFUSED, REFUSED, NO_KIND),
    Cause.REFUSED: Rule(Then.LIST, REFUSED, BUSY_LAST, "the server refused the request"),
}  # fmt: skip
"""By cause; LISTED and MOVED are progress and stand in `after`."""


def after(standing: Standing, news: News, jitter: float) -> Next:
    """Return what comes next.

    Args:
        standing: how far we were.
        news: what happened.
        jitter: a random number from 0 to 1.
    """
    if news.cause in (Cause.LISTED, Cause.MOVED):
        return Next(Standing(news.revision or standing.revision), reason=news.cause)
    cause = news.cause
    if cause is Cause.ENDED and news.lasted < SHORT_LIVED:
        cause = Cause.BUSY
    if cause is Cause.GONE and standing.revision is None:
        cause = Cause.BUSY  # a list that is gone while it is read, page by page, begins anew, and not without rest
    rule = RULES[cause]
    # Another reason is progress: a server that has just come back is not left alone for as long as one that was away.
    failures = standing.failures + 1 if standing.failed is cause else 1
    wait = min(rule.first * 2.0 ** min(failures - 1, 16), rule.last) if rule.first else 0.0
    # API servers that start ask for 5 s and are ready after 2; one that means it says so again.
    wait = max(wait, min(news.after, 2 * wait)) * (1 + JITTER * jitter)
    words = f"{rule.reason}: {news.words}" if news.words else rule.reason
    standing = Standing(standing.revision if rule.then is Then.WATCH else None, cause, failures)
    return Next(standing, wait, words, rule.renew)


STATUSES = {401: Cause.DENIED, 403: Cause.FORBIDDEN, 404: Cause.UNKNOWN, 410: Cause.GONE, 429: Cause.BUSY}
SERVER_ERROR = 500


def cause_of(status: int) -> Cause:
    """Return what an HTTP status that is no success means."""
    return STATUSES.get(status, Cause.BUSY if status >= SERVER_ERROR else Cause.REFUSED)
