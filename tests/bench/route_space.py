"""Where the route benchmarks run: namespaces of their own, sets of routes, the engine, and a count by `ip`."""

import ctypes
import gc
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from felix_py.kernel.kernel import Kernel, Report
from felix_py.kernel.objects import KernelState, Route, RouteKey
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.rtnetlink import Rtnetlink

SIZE = int(os.environ.get("SIZE") or 100_000)
"""Routes where a table is full; every other number of routes and samples becomes smaller with it."""

FULL = 100_000
"""The size for which the promises are made."""

NEW_NETWORK = 0x40000000
"""CLONE_NEWNET, include/uapi/linux/sched.h; Python has unshare and setns from 3.12 on."""

POOL = IPv4Network("10.128.0.0/9")
NODE, FAR = IPv4Address("172.31.1.11"), IPv4Address("172.31.1.12")
ONE_LINK = f"""
link set lo up
link add eth0 type veth peer name far0
link set far0 up
link set eth0 up
addr add {NODE}/24 dev eth0
"""
OVER_FAR = Route(via=FAR, device="eth0", onlink=True)

Result = TypeVar("Result")


def scaled(number: int, least: int = 1) -> int:
    """Return as many of these as SIZE asks for."""
    return max(least, number * SIZE // FULL)


class Space:
    """A network namespace; it ends with `close`, its sockets and its processes."""

    def __init__(self, *lines: str) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _call("unshare", NEW_NETWORK)
        self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _call("setns", home, NEW_NETWORK)
        os.close(home)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        with self.entered():
            ip_batch("\n".join(lines))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, and the programs that it starts, be inside."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _call("setns", self._descriptor, NEW_NETWORK)
        try:
            yield
        finally:
            _call("setns", home, NEW_NETWORK)
            os.close(home)

    def close(self) -> None:
        os.close(self._descriptor)


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


@contextmanager
def inside(*lines: str) -> Iterator[Space]:
    """Be in a namespace that was set up by these lines for `ip -batch`."""
    space = Space(*lines)
    try:
        with space.entered():
            yield space
    finally:
        space.close()


def ip_batch(lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


def counted() -> int:
    """Return how many routes of the pool are in the kernel, as `ip route` says."""
    command = ["ip", "-4", "route", "show", "root", str(POOL)]
    return subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")


def require(count: int, found: int, what: str) -> None:
    """Hold a run to what it is measured for: refused or missing routes would make it fast."""
    if found != count:
        raise AssertionError(f"{what}: {found} routes, and not {count}")


def await_all(who: str, count: int, seconds: float = 10.0) -> None:
    """See that this many routes are there, now or soon."""
    end = time.monotonic() + seconds
    while counted() != count and time.monotonic() < end:
        time.sleep(0.01)
    require(count, counted(), who)


def empty() -> None:
    """Take every route of the pool away."""
    with suppress(subprocess.CalledProcessError):  # there is none
        subprocess.run(["ip", "route", "flush", "root", str(POOL)], check=True, capture_output=True)
    require(0, counted(), "after a flush")


def prefixes(count: int) -> list[IPv4Network]:
    """Return this many blocks of the pool, each of 64 addresses."""
    first = int(POOL.network_address)
    return [IPv4Network((first + number * 64, 26)) for number in range(count)]


def wish(networks: Iterable[IPv4Network], route: Route = OVER_FAR) -> dict[RouteKey, Route]:
    return {RouteKey(network): route for network in networks}


class NoTunnels:
    """For who has no tunnels; `kernel.kernel.TunnelDevice`."""

    def read(self, _name: str) -> None:
        """Find none."""

    def put(self, tunnel: object) -> None:
        raise AssertionError(f"nobody wants {tunnel}")

    def delete(self, name: str) -> None:
        raise AssertionError(f"there is no {name}")


class NoParameters:
    """For who sets no parameters; `kernel.kernel.Parameters`."""

    def read(self, _paths: Iterable[str]) -> dict[str, str]:
        return {}

    def write(self, path: str, value: str) -> None:
        raise AssertionError(f"nobody sets {path} to {value}")


@contextmanager
def engine() -> Iterator[Kernel]:
    """Be the kernel's one owner: everything that the agent has between its wish and the kernel, having read once."""
    wire = Rtnetlink()
    try:
        kernel = Kernel(wire, NoTunnels(), OSError, NoParameters(), NoPurger())
        kernel.catch_up(time.monotonic())
        kernel.resync()
        yield kernel
    finally:
        wire.close()


def make(kernel: Kernel, state: KernelState) -> Report:
    """Make it so, and see that nothing was refused and nothing is left to do."""
    now = time.monotonic()
    report = kernel.make(state, now)
    if report.failed or report.routes.refused or report.routes.broken or kernel.routes.is_due(now):
        raise AssertionError(f"refused {len(report.routes.refused)}, {report.failed} {report.routes.broken}")
    return report


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that some work took, and its result; what the garbage of others costs is not counted."""
    gc.collect()
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def memory(process: int | str = "self") -> Mapping[str, float]:
    """Return what /proc/PID/status says of memory in MiB, as VmRSS and VmHWM."""
    status = Path("/proc", str(process), "status").read_text()
    return {name: int(kib) / 1024 for name, kib in re.findall(r"^(Vm\w+):\s+(\d+) kB", status, re.MULTILINE)}
