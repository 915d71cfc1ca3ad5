"""Programs that watch while something happens: tcpdump, `ip monitor`, a running ping; and what their output means."""

import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from felix_py.lab import machines
from felix_py.lab.state import Lab, Refused

DEADLINE = 5.0
"""Seconds until a watcher must be ready, or have seen what it waits for."""


class Watcher:
    """A program that runs somewhere in the lab and prints lines."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        # A pipe that nobody reads fills up, and the program waits: a ping would stop sending, and seem to lose nothing.
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=self._out, stderr=subprocess.PIPE, env=machines.environment()
        )

    def wait_for_complaint(self, text: str) -> None:
        """Wait until the program says this on its standard error."""
        assert self._process.stderr is not None  # noqa: S101 - a pipe, by the constructor
        said = b""
        deadline = time.monotonic() + DEADLINE
        while text.encode() not in said:
            ready, _, _ = select.select([self._process.stderr], [], [], max(0.0, deadline - time.monotonic()))
            part = self._process.stderr.read1() if ready else b""  # type: ignore[attr-defined]
            if not part:
                raise Refused(f"`{' '.join(self.words)}` did not start: {said.decode(errors='replace').strip()}")
            said += part

    def wait_for_netlink(self) -> None:
        """Wait until the program listens to the kernel's events: it has a netlink socket with groups."""
        table = Path("/proc", str(self._process.pid), "net", "netlink")
        deadline = time.monotonic() + DEADLINE
        while not any(_listens(line, self._process.pid) for line in table.read_text().splitlines()):
            if time.monotonic() > deadline:
                raise Refused(f"`{' '.join(self.words)}` did not start")
            time.sleep(0.005)

    def lines(self) -> tuple[str, ...]:
        """Wait until the program ends by itself, and return what it printed."""
        try:
            self._process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            return self.stop()
        return self._printed()

    def stop(self) -> tuple[str, ...]:
        """End the program as Ctrl-C does, and return what it printed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        return self._printed()

    def close(self) -> None:
        """End it, and forget what it printed."""
        self.stop()
        self._out.close()

    def _printed(self) -> tuple[str, ...]:
        self._out.seek(0)
        return tuple(self._out.read().decode(errors="replace").splitlines())


def _listens(line: str, process: int) -> bool:
    """Judge a line of /proc/net/netlink: socket, protocol (0 is NETLINK_ROUTE), port, groups as hexadecimal."""
    fields = line.split()
    return fields[1:3] == ["0", str(process)] and int(fields[3], 16) != 0


@contextmanager
def running(words: Sequence[str]) -> Iterator[Watcher]:
    """Start a watcher, and end it whatever happens."""
    watcher = Watcher(words)
    try:
        yield watcher
    finally:
        watcher.close()


def route_monitor(lab: Lab, name: str, versions: Collection[int] = (4,)) -> list[str]:
    """Return the command that prints every change of a machine's routes, of IPv4 or of both, with its time."""
    family = [] if len(versions) > 1 else ["-4"]
    return ["ip", *family, "-n", lab.namespace(name), "-ts", "monitor", "route"]


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """A line of `ip -ts monitor route`."""

    at: datetime
    text: str

    @property
    def deleted(self) -> bool:
        """Say whether the route went."""
        return self.text.startswith("Deleted ")

    def is_about(self, prefix: str) -> bool:
        """Say whether it is about this prefix; `ip` leaves the /32 or /128 of a host route out."""
        words = self.text.removeprefix("Deleted ").split()
        return prefix.removesuffix("/32" if "." in prefix else "/128") in words[:2]


EVENT = re.compile(r"\[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+)\] (.*)")


def route_events(lines: Sequence[str]) -> tuple[RouteEvent, ...]:
    """Read the output of `ip -ts monitor route`."""
    matches = filter(None, map(EVENT.match, lines))
    return tuple(RouteEvent(datetime.fromisoformat(match[1]), match[2].strip()) for match in matches)


def repair_milliseconds(events: Sequence[RouteEvent], prefix: str) -> float | None:
    """Return the time from the deletion of a route until it was there again; None when it did not come back."""
    about = [event for event in events if event.is_about(prefix)]
    gone = next((event for event in about if event.deleted), None)
    if gone is None:
        return None
    back = next((event for event in about if not event.deleted and event.at >= gone.at), None)
    return (back.at - gone.at).total_seconds() * 1000 if back else None


@dataclass(frozen=True, slots=True)
class PingSummary:
    """What ping(8) said in the end.

    Attributes:
        transmitted: packets up to the last one that was answered: whoever interrupts ping may do so while an answer is
            on its way, and that one is not lost.
        received: how many of them were answered.
    """

    transmitted: int
    received: int
    line: str


SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received.*")
ANSWER = re.compile(r".* icmp_seq=(\d+) ttl=")


def ping_summary(lines: Sequence[str]) -> PingSummary:
    """Read the output of ping, with a line for each answer.

    Raises:
        Refused: when it holds no summary.
    """
    match = next(filter(None, map(SUMMARY.match, lines)), None)
    if match is None:
        raise Refused(f"ping gave no summary: {' '.join(lines) or 'nothing'}")
    answered = {int(answer[1]) for answer in map(ANSWER.match, lines) if answer is not None}
    transmitted, last = int(match[1]), max(answered, default=int(match[1]))
    if last == transmitted:
        return PingSummary(last, len(answered), match[0])
    under_way = f"; {transmitted - last} on its way when ping was interrupted"
    return PingSummary(last, len(answered), f"{last} packets transmitted, {len(answered)} received{under_way}")
