"""Who attaches pods in `make bench NAME=cni`: felix-cni before a whole agent, and the reference plugins of Debian.

Each has a host of its own, a network namespace, and is called by the same small program as a runtime would.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
import cni_lab
from cni_agent import AgentHost, prepare
from spaces import unshare

REFERENCE = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins puts them."""

REST, IDLE = 0.3, 0.93
"""Seconds in which processors have to be idle, and for which share of them."""

DEADLINE = 60.0


class Namespaces:
    """Network namespaces for pods, without names: each is a descriptor of this process."""

    def __init__(self, count: int) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.descriptors: list[int] = []
        for _ in range(count):
            thread = threading.Thread(target=self._make)
            thread.start()
            thread.join()
        self.paths = [f"/proc/{os.getpid()}/fd/{each}" for each in self.descriptors]

    def _make(self) -> None:
        unshare()
        self.descriptors.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        for each in self.descriptors:
            os.close(each)


@dataclass(frozen=True)
class Called:
    """What many calls took: each, in milliseconds and in no order, and all of them together, in seconds."""

    each: tuple[float, ...]
    seconds: float


@dataclass
class Party:
    """One plugin on its host."""

    name: str
    plugin: Path
    host: str
    caller: Path
    configuration: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def call(self, command: str, pods: Iterable[tuple[str, str]], at_once: int = 1) -> Called:
        """Call the plugin for containers with their namespaces, so many at once."""
        words = ["ip", "netns", "exec", self.host, self.caller, self.plugin, self.configuration, command, at_once]
        lines = "".join(f"{container} {netns}\n" for container, netns in pods)
        done = subprocess.run(
            list(map(str, words)),
            input=lines,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **self.environment},
        )
        *answers, (total, _) = (line.split() for line in done.stdout.splitlines())
        refused = sum(status != "0" for _, status in answers)
        if refused:
            raise RuntimeError(f"{self.name}: {command} failed {refused} times of {len(answers)}")
        return Called(tuple(int(took) / 1000 for took, _ in answers), int(total) / 1e6)

    def settle(self, pods: int) -> float:
        """Wait until the host has so many pods' interfaces; return the seconds that this took."""
        began = time.monotonic()
        while self.interfaces() != pods:
            if time.monotonic() - began > DEADLINE:
                raise RuntimeError(f"{self.name}: {self.interfaces()} interfaces of pods and not {pods}")
            time.sleep(0.002)
        return time.monotonic() - began

    def interfaces(self) -> int:
        listed = subprocess.run(
            ["ip", "-n", self.host, "-br", "link", "show", "type", "veth"], capture_output=True, text=True, check=True
        )
        return sum(not line.startswith(("eth0", "eth0peer")) for line in listed.stdout.splitlines())


def rest() -> None:
    """Wait until the kernel is through with what the party before has left to it, and nothing else works either."""
    deadline = time.monotonic() + DEADLINE
    idle, passed = _idle()
    while time.monotonic() < deadline:
        time.sleep(REST)
        before, (idle, passed) = (idle, passed), _idle()
        if idle - before[0] >= IDLE * (passed - before[1]):
            return
    raise RuntimeError("the machine is not idle: figures would be of what else runs on it")


def _idle() -> tuple[int, int]:
    """Return how long all processors together were idle, and how long they were there, in ticks (proc_stat(5))."""
    user, nice, system, idle, *others = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return idle, user + nice + system + idle + sum(others)


def compiled(folder: Path) -> Path:
    """Compile the program that calls plugins."""
    program = folder / "caller"
    subprocess.run(["gcc", "-O2", "-pthread", "-o", program, Path(__file__).with_name("caller.c")], check=True)
    return program


@contextmanager
def felix(folder: Path, caller: Path) -> Iterator[Party]:
    """Give felix-cni, and an agent that serves it."""
    folder.mkdir()
    with cni_lab.host(folder, kind=AgentHost, before=prepare) as host:
        configuration = _written(folder, {"cniVersion": "1.0.0", "name": "pods", "type": "felix-cni"})
        environment = {"FELIX_CNI_SOCKET": str(host.socket)}
        yield Party("felix-cni", cni_lab.SHIM, host.name, caller, configuration, environment)


@contextmanager
def reference(kind: str, folder: Path, caller: Path) -> Iterator[Party]:
    """Give a plugin of the reference implementation, with host-local for addresses."""
    folder.mkdir()
    name = f"fcni{os.getpid()}{kind}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        ipam = {"type": "host-local", "subnet": "10.66.0.0/16", "dataDir": str(folder / "addresses")}
        more: dict[str, Any] = {"bridge": "br0", "isGateway": True} if kind == "bridge" else {}
        document = {"cniVersion": "1.0.0", "name": "pods", "type": kind, "mtu": 1400, "ipam": ipam, **more}
        yield Party(f"{kind}+host-local", REFERENCE / kind, name, caller, _written(folder, document))
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "configuration.json"
    path.write_text(json.dumps(document))
    return path
