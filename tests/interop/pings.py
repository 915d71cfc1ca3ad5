"""A stream of pings, and which of them were not answered."""

import re
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from daemons import until

from bgp.types import IPAddress

INTERVAL = "0.01"
"""Seconds between two."""


class Pings:
    """Runs for as long as its context lasts.

    Attributes:
        lost: numbers of those that were not answered although a later one was; known when the context has ended.
    """

    def __init__(self, namespace: str, target: IPAddress, record: Path) -> None:
        self._command = ["ip", "netns", "exec", namespace, "ping", "-n", "-i", INTERVAL, str(target)]
        self._record = record
        self._process: subprocess.Popen[bytes] | None = None
        self.lost: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        with self._record.open("wb") as output:
            self._process = subprocess.Popen(self._command, stdout=output)
        self.more(1)
        return self

    def more(self, count: int) -> None:
        """Wait until so many more have been answered."""
        before = len(self._answered())
        until(lambda: len(self._answered()) >= before + count, f"{count} more pings are answered")

    def _answered(self) -> list[int]:
        return [int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", self._record.read_text())]

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10)
        answered = self._answered()
        self.lost = frozenset(range(1, max(answered, default=0) + 1)) - frozenset(answered)
