"""The userspace driver as the agent sees it: start the process, find the one that runs already, tell it what to do."""

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from ipip import links
from ipip.tunnel import Facts, Tunnel, TunnelRefused

ROOT = Path(__file__).resolve().parent
SOURCES = ("userspace.py", "carrier.py", "queues.py", "batch.py", "messages.py", "header.py", "offload.so")
"""What the process is made of; another text is another version, and a process of another version is replaced."""

START = "import sys; sys.path.append(sys.argv.pop(1)); from ipip.userspace import main; sys.exit(main(sys.argv[1:]))"
"""`python -m ipip.userspace`, but without site-packages and runpy: 1.5 MB less."""

PROCESS_NAME = "felix-ipip"

ANSWER_SECONDS = 1.0
"""A healthy process answers within a millisecond; one that is stopped or stuck is replaced."""

START_SECONDS = 10.0
"""Python starts in 0.05 s here; a guest on an emulated processor took 1.5 s."""


class Process:
    """One carrier process per network namespace, reached through a socket in the run directory."""

    kind = "tun"

    def __init__(self, run_directory: Path) -> None:
        self._said: dict[str, Any] = {}
        self._facts = Facts()
        self._socket = run_directory / "ipip.sock"
        self._log = run_directory / "ipip.log"
        self.version = version(ROOT / name for name in SOURCES)

    def ours(self, link: links.Link) -> bool:
        """Say whether this driver could have made the device."""
        return link.kind == self.kind

    def facts(self, name: str, _link: links.Link) -> Facts:
        """Say what the process does; nothing where none of this version answers."""
        status = self._status(name)
        if status is None or status["local"] is None:
            return Facts()
        said = {key: status[key] for key in ("local", "routes", "allowed")}
        if said != self._said:  # parsing 10,000 routes takes 60 ms, and they rarely change between two readings
            self._said, self._facts = said, parsed(said)
        return self._facts

    def put(self, tunnel: Tunnel) -> None:
        """Have the process run with these settings.

        Raises:
            TunnelRefused: when it does not start or does not take them.
        """
        status, patience = self._status(tunnel.name), ANSWER_SECONDS
        if status is None:
            self._end(tunnel.name)
            self._start(tunnel.name)
            status, patience = {}, START_SECONDS  # it answers once its helpers have started, too
        wanted = settings(tunnel)
        if any(status.get(key) != value for key, value in wanted.items()):
            answer = self._ask({"command": "configure", **wanted}, patience)
            if answer is None or "error" in answer:
                why = "no answer" if answer is None else answer["error"]
                raise TunnelRefused(f"the process of {tunnel.name} did not take its settings ({why}); see {self._log}")

    def delete(self, name: str) -> None:
        """End the process and remove its device."""
        self._end(name)
        link = links.read(name)
        if link is not None and link.kind == self.kind:
            links.remove(link.index)
        self._socket.unlink(missing_ok=True)

    def counters(self, name: str) -> Mapping[str, int]:
        """Return what was carried and dropped since the process started."""
        status = self._status(name)
        return {} if status is None else status["counters"]

    def _status(self, name: str) -> dict[str, Any] | None:
        """Return what our process says of itself; None where it is missing, stuck or of another version."""
        status = self._ask({"command": "status"})
        if status is None or (status.get("version"), status.get("device")) != (self.version, name):
            return None
        return status

    def _ask(self, request: Mapping[str, object], patience: float = ANSWER_SECONDS) -> dict[str, Any] | None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(patience)
                sock.connect(str(self._socket))
                sock.sendall(json.dumps(request).encode() + b"\n")
                with sock.makefile("rb") as answers:
                    answer = json.loads(answers.readline())
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def _start(self, name: str) -> None:
        command = [sys.executable, "-I", "-S", "-c", START, str(ROOT.parent), name]
        command += [str(self._socket), str(self._log), self.version]
        try:
            self._socket.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=START_SECONDS,
                check=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip().rpartition("\n")[2] or f"exit status {error.returncode}"
            raise TunnelRefused(f"{name} cannot be made in userspace: {why}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TunnelRefused(f"the process of {name} did not start: {error}") from error

    def _end(self, name: str) -> None:
        """End whatever holds the device: asked first, then killed; of this network namespace only."""
        holders = tuple(_processes(name))
        if holders:
            self._ask({"command": "stop"})
        for process in holders:
            _wait_or_kill(process)


def version(files: Iterable[Path]) -> str:
    """Return what changes with the content of these files; one that is missing counts as empty."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.exists())).hexdigest()[:12]


def settings(tunnel: Tunnel) -> dict[str, object]:
    """Return a tunnel as the process's control protocol writes it."""
    return {
        "local": str(tunnel.local),
        "routes": [[str(network), str(node)] for network, node in sorted(tunnel.routes)],
        "allowed": [str(node) for node in sorted(tunnel.allowed)],
    }


def parsed(said: Mapping[str, Any]) -> Facts:
    """Return what `settings` wrote, as the process gave it back."""
    routes = frozenset((IPv4Network(network), IPv4Address(node)) for network, node in said["routes"])
    return Facts(IPv4Address(said["local"]), routes, frozenset(map(IPv4Address, said["allowed"])))


def _processes(name: str) -> Iterator[int]:
    """Yield the carrier processes of a device in this thread's network namespace."""
    here = Path("/proc/thread-self/ns/net").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if (entry / "comm").read_text().strip() != PROCESS_NAME:
                continue
            ours = (entry / "ns/net").readlink() == here
            if ours and name.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                yield int(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked


def _wait_or_kill(process: int) -> None:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        if not ended.poll(ANSWER_SECONDS * 1000):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended.poll(ANSWER_SECONDS * 1000)
    finally:
        os.close(descriptor)
