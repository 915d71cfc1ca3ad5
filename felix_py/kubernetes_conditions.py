"""Conditions of a node's CalicoNodeStatus, as Kubernetes has them: `kubectl wait` waits for them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

SESSIONS = "SessionsEstablished"
"""Every BGP session of the node is established; also where it has none."""

RESOURCES = "ResourcesAccepted"
"""The node's agent acts upon every resource as it is written, and has all the rights that it needs."""

NAMED = 3
"""Faults that a message has in full; the others are counted."""

LONGEST = 1024
"""Characters of a message: `kubectl describe` shows all of it."""


Status = Literal["True", "False"]
"""As Kubernetes writes it."""


class Judgement(NamedTuple):
    """What is said of one condition.

    Attributes:
        status: whether it is as it should be.
        reason: one word.
        message: for people; empty where there is nothing to say.
    """

    status: Status
    reason: str
    message: str = ""


Judgements = Mapping[str, Judgement]
"""By the condition's type."""


def judged(established: int, others: int, last_error: str | None, faults: Sequence[str]) -> Judgements:
    """Judge how a node is.

    Args:
        established: sessions that are.
        others: sessions that are not.
        last_error: why one of those is not.
        faults: what is wrong with resources, one sentence each.
    """
    return {SESSIONS: _sessions(established, others, last_error), RESOURCES: _resources(faults)}


def _sessions(established: int, others: int, last_error: str | None) -> Judgement:
    if others:
        return Judgement("False", "NotEstablished", last_error or f"{others} of {established + others} are not")
    return Judgement("True", "Established" if established else "NoPeers")


def _resources(faults: Sequence[str]) -> Judgement:
    if not faults:
        return Judgement("True", "Accepted")
    rest = len(faults) - NAMED
    text = "; ".join(faults[:NAMED]) + (f" (and {rest} more)" if rest > 0 else "")
    return Judgement("False", "Faulty", text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def conditions(judgements: Judgements, before: Sequence[Mapping[str, Any]], now: str) -> list[dict[str, Any]]:
    """Return conditions as they are written.

    Args:
        judgements: how the node is.
        before: conditions as they were written last: the moment of one that has not changed is kept.
        now: the moment, in RFC 3339.
    """
    known = {each.get("type"): each for each in before}
    made = []
    for kind, judgement in judgements.items():
        status, old = judgement.status, known.get(kind, {})
        since = old.get("lastTransitionTime", now) if old.get("status") == status else now
        condition = {"type": kind, "status": status, "reason": judgement.reason, "message": judgement.message}
        made.append({**condition, "lastTransitionTime": since})
    return made
