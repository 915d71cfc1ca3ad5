"""A network namespace for one test, and what the tests of the wire to the real kernel do in it."""

import ctypes
import multiprocessing
import os
import select
import subprocess
import traceback
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from socket import if_nametoindex

from felix_py.kernel.objects import MAIN_TABLE, Route, RouteKey, RouteType
from felix_py.kernel.route_codec import Encoder
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Event, Mode

SECONDS = 20.0
"""How long anything may take before a test fails; nothing waits that long when all is well."""

NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000
ADD, REPLACE = Mode.CREATE | Mode.EXCLUSIVE, Mode.CREATE | Mode.REPLACE

SET_UP = """
link set lo up
link add eth0 type veth peer name far0
link set far0 addrgenmode none up
link set eth0 addrgenmode none up
addr add 172.31.1.11/24 dev eth0
"""

IPV6 = "addr add fd00:31::11/64 dev eth0 nodad"
"""Apart from the rest: of an IPv6 address the kernel tells when it finds the time, perhaps in the middle of a test."""

ROUTER = Route(via=IPv4Address("172.31.1.12"), device="eth0", onlink=True)
NOWHERE = Route(via=IPv4Address("192.0.2.1"), device="eth0")
"""The kernel refuses it: no address of the device says that the gateway is there."""

BLACKHOLE = Route(RouteType.BLACKHOLE)


def in_a_namespace(case: Callable[[], None]) -> Callable[[], None]:
    """Make a test of it that runs in a child, in a network namespace of its own; it fails with the child's trace."""

    def test() -> None:
        run(case)

    test.__name__ = case.__name__
    return test


def run(case: Callable[[], None], namespaces: int = NEW_NETWORK) -> None:
    """Run a case in namespaces of its own."""
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_child, args=(case, namespaces, answer))
    process.start()
    try:
        trouble = answer.get(timeout=3 * SECONDS)
    finally:
        process.join(timeout=SECONDS)
    assert not trouble, trouble


def _child(case: Callable[[], None], namespaces: int, answer: "multiprocessing.Queue[str]") -> None:
    try:
        unshare(namespaces)
        Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("1")
        ip(SET_UP)
        case()
        answer.put("")
    except BaseException:  # noqa: BLE001 - carried to the parent, which fails with it
        answer.put(traceback.format_exc())


def unshare(namespaces: int) -> None:
    """Take namespaces of this process's own; Python 3.12 has os.unshare."""
    user = os.geteuid()
    if ctypes.CDLL(None, use_errno=True).unshare(namespaces):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    if namespaces & NEW_USER:
        # Without a user, a program that we start would have no capabilities.
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")


def ip(commands: str) -> str:
    """Let somebody else do something: `ip` with these lines; it has happened when this returns."""
    done = subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def encode(prefix: str, route: Route = ROUTER, table: int = MAIN_TABLE, metric: int = 0) -> bytes:
    """Return the body of one route."""
    key = RouteKey(ip_network(prefix), table, metric=metric)
    return Encoder({name: if_nametoindex(name) for name in route.devices})(key, route)


def hosts(count: int, route: Route = ROUTER, table: int = MAIN_TABLE, first: str = "10.0.0.0") -> list[bytes]:
    """Return the bodies of routes to this many single addresses in a row."""
    encoder = Encoder({name: if_nametoindex(name) for name in route.devices})
    start = int(IPv4Address(first))
    return [encoder(RouteKey(ip_network(start + number), table), route) for number in range(count)]


def until(wire: Rtnetlink, holds: Callable[[list[Event]], bool]) -> list[Event]:
    """Read events until something holds: of carriers, the kernel tells when it finds the time."""
    heard = list(wire.events())
    while not holds(heard):
        ready, _, _ = select.select([wire.watch], [], [], SECONDS)
        assert ready, f"not in {SECONDS} s; heard {heard}"
        heard += wire.events()
    return heard


def settled(wire: Rtnetlink) -> Rtnetlink:
    """Wait until both ends of the veth pair have a carrier, and forget what was heard."""
    while not all(link.running for link in wire.dump_links() if link.name != "lo"):
        ready, _, _ = select.select([wire.watch], [], [], SECONDS)
        assert ready, f"no carrier in {SECONDS} s"
        wire.events()
    wire.events()
    return wire


def of(kind: type[Event], heard: Iterable[Event]) -> list[Event]:
    """Return the events of one kind."""
    return [each for each in heard if isinstance(each, kind)]
