"""Conditions of a node's status: what they say, and since when."""

from collections.abc import Sequence

import pytest

from felix_py.kubernetes_conditions import LONGEST, RESOURCES, SESSIONS, Judgement, conditions, judged

NOON, LATER = "2026-11-26T12:00:00Z", "2026-11-26T12:10:00Z"
FAULT = "IPPool default: spec.cidr: is taken"


@pytest.mark.parametrize(
    ("established", "others", "error", "expected"),
    [
        (2, 0, None, Judgement("True", "Established")),
        (0, 0, None, Judgement("True", "NoPeers")),
        (1, 1, "172.31.1.1: reset", Judgement("False", "NotEstablished", "172.31.1.1: reset")),
        (1, 2, None, Judgement("False", "NotEstablished", "2 of 3 are not")),
    ],
)
def test_sessions(established: int, others: int, error: str | None, expected: Judgement) -> None:
    assert judged(established, others, error, ())[SESSIONS] == expected


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ((), Judgement("True", "Accepted")),
        ((FAULT,), Judgement("False", "Faulty", FAULT)),
        (("a", "b", "c"), Judgement("False", "Faulty", "a; b; c")),
        (("a", "b", "c", "d", "e"), Judgement("False", "Faulty", "a; b; c (and 2 more)")),
    ],
)
def test_resources(faults: Sequence[str], expected: Judgement) -> None:
    assert judged(1, 0, None, faults)[RESOURCES] == expected


def test_a_message_is_short_however_long_a_fault_is() -> None:
    message = judged(1, 0, None, ("x" * 5000,))[RESOURCES].message
    assert len(message) == LONGEST
    assert message.endswith("…")


def test_the_moment_is_that_of_the_change() -> None:
    first = conditions(judged(1, 0, None, ()), (), NOON)
    assert [(each["type"], each["status"], each["lastTransitionTime"]) for each in first] == [
        (SESSIONS, "True", NOON),
        (RESOURCES, "True", NOON),
    ]
    second = conditions(judged(0, 1, "gone", ()), first, LATER)
    assert [(each["status"], each["lastTransitionTime"]) for each in second] == [("False", LATER), ("True", NOON)]
    # another reason is no transition
    third = conditions(judged(0, 1, "reset", ()), second, "2026-11-26T12:20:00Z")
    assert (third[0]["message"], third[0]["lastTransitionTime"]) == ("reset", LATER)


def test_conditions_of_other_kinds_and_without_a_moment_are_no_obstacle() -> None:
    before = [{"type": "Other", "status": "True"}, {"type": SESSIONS, "status": "True"}, {}]
    assert [each["lastTransitionTime"] for each in conditions(judged(1, 0, None, ()), before, NOON)] == [NOON, NOON]
