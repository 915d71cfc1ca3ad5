"""What a check of `felixctl doctor` says: how things stand, what was found, and how it is put right."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check.

    Attributes:
        detail: what was found, in a sentence.
        fix: what to do about it, in a sentence; empty where there is nothing to do.
    """

    state: State
    detail: str
    fix: str = ""


def ok(detail: str) -> Finding:
    """Return that all is well."""
    return Finding(State.OK, detail)


def skipped(detail: str) -> Finding:
    """Return that there was nothing to look at, and why."""
    return Finding(State.SKIPPED, detail)
