"""One small process for each machine with a daemon: holds the machine's namespaces and keeps its daemon running.

`python -m felix_py.lab.supervisor NAME NETNS DIRECTORY [--bind SOURCE:TARGET]... [--again WORD] -- COMMAND...`

`--again` adds a word to the command for every start but the first.

SIGUSR1 kills the daemon and holds it down, SIGUSR2 lets it run again, SIGTERM stops both. In DIRECTORY: `log` takes
what the daemon says, `supervisor.pid` and `daemon.pid` name the processes; the latter is empty while none runs.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from felix_py.lab import namespaces

PAUSE_FIRST, PAUSE_LAST = 0.1, 5.0
"""Seconds until a dead daemon is started again: at first, and after doubling for each quick death at most."""

LONG_LIFE = 5.0
"""Seconds of life after which a death is no quick one."""

GRACE = 3.0
"""Seconds that a daemon has to stop by itself."""

SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}


@dataclass(slots=True)
class Pause:
    """How long to wait before the next start."""

    seconds: float = PAUSE_FIRST

    def after_life_of(self, lived: float) -> float:
        """Return the pause after a daemon that lived so many seconds."""
        self.seconds = PAUSE_FIRST if lived >= LONG_LIFE else self.seconds
        pause, self.seconds = self.seconds, min(self.seconds * 2, PAUSE_LAST)
        return pause


class Supervisor:
    """Runs one command over and over."""

    def __init__(self, directory: Path, command: Sequence[str], again: Sequence[str] = ()) -> None:
        self._directory = directory
        self._command = list(command)
        self._again = again
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due: float | None = 0.0
        self._pause = Pause()

    def run(self) -> int:
        """Keep the daemon running until SIGTERM; return the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._note("supervisor.pid", str(os.getpid()))
        while True:
            if self._due is not None and self._due <= time.monotonic():
                self._start()
            wait = 3600.0 if self._due is None else max(0.0, self._due - time.monotonic())
            arrived = signal.sigtimedwait(SIGNALS, wait)
            if arrived is None:
                continue
            if arrived.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._stop()
                return 0
            self._handle(arrived.si_signo)

    def _handle(self, number: int) -> None:
        self._reap()
        if number == signal.SIGUSR1:
            if self._child is not None:
                self._child.kill()
                self._child.wait()
                self._child = None
            self._due = None
            self._note("daemon.pid", "")
        elif number == signal.SIGUSR2 and self._child is None:
            self._pause = Pause()
            self._due = 0.0

    def _start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_unblock,  # noqa: PLW1509 - one thread
            )
        self._command, self._again = [*self._command, *self._again], ()
        self._started, self._due = time.monotonic(), None
        self._note("daemon.pid", str(self._child.pid))

    def _reap(self) -> None:
        if self._child is None or self._child.poll() is None:
            return
        now = time.monotonic()
        pause = self._pause.after_life_of(now - self._started)
        self._say(f"{self._command[0]} ended with status {self._child.returncode}; it starts again in {pause:.1f} s")
        self._child, self._due = None, now + pause
        self._note("daemon.pid", "")

    def _stop(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _say(self, sentence: str) -> None:
        with (self._directory / "log").open("a") as log:
            log.write(f"felix-lab: {sentence}\n")

    def _note(self, name: str, text: str) -> None:
        """Write a file so that no reader ever sees half of it."""
        partial = self._directory / f".{name}"
        partial.write_text(text)
        partial.replace(self._directory / name)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def enter(name: str, namespace: str, binds: Sequence[str]) -> None:
    """Move this process into a machine's network namespace, and into mount and UTS namespaces of its own."""
    descriptor = os.open(namespaces.NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(descriptor, namespaces.CLONE_NEWNET)
    os.close(descriptor)
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS)
    # Slave, not private: the names of pods that come and go must appear here, and nothing of ours outside.
    namespaces.mount("none", "/", None, namespaces.MS_REC | namespaces.MS_SLAVE)
    # A fresh sysfs shows this namespace's interfaces, as in `ip netns exec`. A container may forbid it; the host's /sys
    # stays then, and nothing of ours depends on it.
    with contextlib.suppress(PermissionError):
        namespaces.mount(name, "/sys", "sysfs", 0)
    for bind in binds:
        source, _, target = bind.partition(":")
        namespaces.mount(source, target, None, namespaces.MS_BIND)
    namespaces.sethostname(name)


def main(arguments: Sequence[str]) -> int:
    """Run as described above."""
    split = arguments.index("--")
    parser = argparse.ArgumentParser(prog="felix_py.lab.supervisor")
    for name in ("name", "namespace", "directory"):
        parser.add_argument(name)
    parser.add_argument("--bind", action="append", default=[])
    parser.add_argument("--again", action="append", default=[])
    options = parser.parse_args(arguments[:split])
    enter(options.name, options.namespace, options.bind)
    return Supervisor(Path(options.directory), arguments[split + 1 :], options.again).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
