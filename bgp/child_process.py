"""One process that is spoken to in lines, from its start to its end; nothing that is written to it ever waits."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping

from bgp.supervision import Questions

AT_ONCE = 1 << 14
"""Bytes that are taken at once: some 200 UPDATEs of one prefix each, or 3,000 prefixes that share their attributes, so
that nobody else waits long for us."""

GOODBYE = 2.0
"""Seconds that a child may take to end when its input is closed; it takes 30 ms."""


class Child:
    """One process of exabgp_child, from its start to its end.

    Attributes:
        questions: whether it lives.
    """

    def __init__(self, process: asyncio.subprocess.Process, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.questions = Questions()
        self.on_purpose = False
        self._process = process
        self._reason: str | None = None
        self._last_words: deque[str] = deque(maxlen=5)
        self._listening = asyncio.create_task(self._listen_to_errors(), name="bgp stderr")

    @classmethod
    async def start(cls, command: tuple[str, ...], environment: Mapping[str, str]) -> "Child":
        """Start the process; its own session, so that Ctrl-C on a terminal reaches only us."""
        pipe = asyncio.subprocess.PIPE
        inherited = {name: value for name, value in os.environ.items() if not name.lower().startswith("exabgp")}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=inherited | dict(environment), start_new_session=True
        )
        return cls(process, environment)

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def write(self, *lines: str) -> None:
        """Put lines on their way; nothing ever waits here."""
        if self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write("".join(f"{line}\n" for line in lines).encode("ascii"))

    async def output(self) -> AsyncIterator[bytes]:
        """Yield what the child writes, as it comes, until it ends."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        while data := await self._process.stdout.read(AT_ONCE):
            yield data
            await asyncio.sleep(0)  # a read that finds something does not wait: others would have to, for a whole table

    def close(self, reason: str) -> None:
        """Ask the child to end, by closing its input."""
        self.on_purpose = True
        self._reason = self._reason or reason
        if self._process.stdin:
            self._process.stdin.close()

    def kill(self, reason: str) -> None:
        """End the child at once."""
        self._reason = self._reason or reason
        if self._process.returncode is None:
            self._process.kill()

    async def end(self, reason: str | None = None) -> str:
        """See the child off; return why it ended."""
        if reason:
            self.close(reason)
        try:
            await asyncio.wait_for(self._process.wait(), GOODBYE)
        except TimeoutError:
            self.kill("it did not end when its input was closed")
            await self._process.wait()
        await self._listening
        return self._reason or exit_reason(self._process.returncode, self._last_words)

    async def _listen_to_errors(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        while data := await self._process.stderr.read(1 << 14):
            self._last_words.extend(line for line in data.decode("utf-8", "replace").splitlines() if line.strip())


def exit_reason(status: int | None, last_words: deque[str]) -> str:
    """Say why a process ended: its signal, or its status and the last line that it wrote to standard error."""
    if status is not None and status < 0:
        return f"killed by signal {-status}"
    words = f": {last_words[-1].strip()}" if last_words else ""
    return f"exit status {status}{words}"
