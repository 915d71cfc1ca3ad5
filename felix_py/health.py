"""Health: is the agent alive (if not, start it anew), is the node ready for pods (if not, send none), and why not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

PATIENCE = 30.0
"""Seconds that a part may go on failing before a new start is worth what it costs; most faults heal by then."""

Readiness = Callable[[], str | None]
"""Says in one sentence why the node is not ready for pods; None when it is, as far as this check knows."""


class Check(NamedTuple):
    """One answer of one check: `reason` is None where all is well, `note` what is worth saying although it is."""

    name: str
    reason: str | None
    note: str = ""

    def __str__(self) -> str:
        """Write it as Kubernetes' own components do."""
        if self.reason is not None:
            return f"[-]{self.name} failed: {self.reason}"
        return f"[+]{self.name} ok{f' ({self.note})' if self.note else ''}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all checks say together."""

    checks: tuple[Check, ...]

    @property
    def well(self) -> bool:
        """No check failed."""
        return all(check.reason is None for check in self.checks)


class Trouble(NamedTuple):
    """A part has been failing since `since`; `reason` is the latest."""

    since: float
    reason: str


@dataclass(slots=True)
class Health:
    """What is known of the agent's loops and parts. Times are seconds on any clock that only goes forward.

    Whoever asks over HTTP is answered by the loop itself: one that hangs answers nothing, which probes take for a no.

    Attributes:
        started: when the loops began; a loop that never turned is measured from there.
        watchdogs: seconds within which each loop has to turn, by its name; longer than it may rest.
        readiness: what has to hold for a ready node, by name.
    """

    started: float
    watchdogs: Mapping[str, float]
    readiness: Mapping[str, Readiness] = field(default_factory=dict)
    _turned: dict[str, float] = field(default_factory=dict)
    _troubles: dict[str, Trouble | None] = field(default_factory=dict)

    def beat(self, name: str, now: float) -> None:
        """Note that a loop has turned.

        Raises:
            KeyError: for a loop without a watchdog.
        """
        _ = self.watchdogs[name]
        self._turned[name] = now

    def fail(self, name: str, reason: str, now: float) -> None:
        """Note that a part failed, or fails still."""
        before = self._troubles.get(name)
        self._troubles[name] = Trouble(before.since if before else now, reason)

    def well(self, name: str, now: float) -> None:  # noqa: ARG002 - all three take the time, so that callers need not think
        """Note that a part works."""
        self._troubles[name] = None

    def live(self, now: float) -> Verdict:
        """Judge whether the agent works: every loop turns, and nothing has been failing for longer than PATIENCE."""
        loops = (self._loop(name, within, now) for name, within in self.watchdogs.items())
        return Verdict((*loops, *(_part(name, trouble, now) for name, trouble in tuple(self._troubles.items()))))

    def ready(self) -> Verdict:
        """Judge whether pods may come."""
        return Verdict(tuple(Check(name, ask()) for name, ask in self.readiness.items()))

    def _loop(self, name: str, within: float, now: float) -> Check:
        rest = now - self._turned.get(name, self.started)
        return Check(name, f"has not turned for {rest:.0f} s, {within:.0f} s are allowed" if rest > within else None)


def _part(name: str, trouble: Trouble | None, now: float) -> Check:
    if trouble is None:
        return Check(name, None)
    lasting = now - trouble.since
    sentence = f"{trouble.reason}, for {lasting:.0f} s"
    return Check(name, sentence) if lasting > PATIENCE else Check(name, None, f"failing: {sentence}")


def page(verdict: Verdict, probe: str, *, verbose: bool) -> str:
    """Write a verdict for people: one line a check where it is asked for or bad, else `ok`."""
    if verdict.well and not verbose:
        return "ok\n"
    end = f"{probe} check {'passed' if verdict.well else 'failed'}"
    return "".join(f"{line}\n" for line in (*verdict.checks, end))
