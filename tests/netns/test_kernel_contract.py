"""One suite for the kernel and for the fake that the unit tests use: whoever passes it behaves the same to the loop."""

import multiprocessing
import os
import subprocess
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest
from builders import link
from fakes import FakeKernel

from felix_py.kernel.netlink import Kernel
from felix_py.kernel.objects import (
    DeleteRoute,
    KernelState,
    PutRoute,
    PutSysctl,
    Route,
    RouteKey,
    RouteType,
    Scope,
)
from felix_py.turn import KernelTable
from ipip.tunnel import Tunnel

pytestmark = pytest.mark.netns

BLOCK = RouteKey(IPv4Network("10.65.0.0/26"))
POD = RouteKey(IPv4Network("10.65.0.5/32"))
REMOTE = RouteKey(IPv4Network("10.65.1.0/26"))
BLACKHOLE = Route(RouteType.BLACKHOLE)
TO_POD = Route(device="cali1", scope=Scope.LINK)
DIRECT = Route(via=IPv4Address("172.31.1.12"), device="eth0", onlink=True)
STATIC = Route(via=IPv4Address("172.31.1.99"), device="eth0", onlink=True, protocol=4)


@dataclass(frozen=True)
class NoTunnels:
    """A device driver on a node that wants no tunnel."""

    def read(self, name: str) -> Tunnel | None:
        assert name == "tunl0"
        return None

    def put(self, tunnel: Tunnel) -> None:
        raise AssertionError(tunnel)

    def delete(self, name: str) -> None:
        raise AssertionError(name)


Case = Callable[[KernelTable], None]


def table(kernel: KernelTable) -> dict[RouteKey, Route]:
    """Return what stands in the pools' ranges; the real kernel has routes of its own beside."""
    pool = IPv4Network("10.65.0.0/16")
    found = kernel.table(kernel.links())
    return {key: route for key, route in found.items() if isinstance(key.dst, IPv4Network) and key.dst.subnet_of(pool)}


def what_is_put_is_read_back(kernel: KernelTable) -> None:
    plan = (PutRoute(BLOCK, BLACKHOLE), PutRoute(POD, TO_POD), PutRoute(REMOTE, DIRECT))
    assert kernel.carry_out(plan).failed == ()
    assert table(kernel) == {BLOCK: BLACKHOLE, POD: TO_POD, REMOTE: DIRECT}


def a_put_replaces_what_stands_there(kernel: KernelTable) -> None:
    other = Route(via=IPv4Address("172.31.1.13"), device="eth0", onlink=True)
    kernel.carry_out((PutRoute(REMOTE, DIRECT), PutRoute(REMOTE, other, replaces=DIRECT)))
    assert table(kernel) == {REMOTE: other}


def one_refusal_stops_no_other(kernel: KernelTable) -> None:
    lost = PutRoute(POD, Route(device="cali9", scope=Scope.LINK))
    report = kernel.carry_out((lost, PutRoute(REMOTE, DIRECT)))
    assert report.failed == ((lost, "cali9 does not exist"),)
    assert report.done == (PutRoute(REMOTE, DIRECT),)
    assert table(kernel) == {REMOTE: DIRECT}


def a_device_that_is_down_is_named(kernel: KernelTable) -> None:
    step = PutRoute(POD, Route(device="cali2", scope=Scope.LINK))
    assert kernel.carry_out((step,)).failed == ((step, "cali2 is down"),)


def deleting_is_exact_and_repeatable(kernel: KernelTable) -> None:
    kernel.carry_out((PutRoute(REMOTE, STATIC),))
    report = kernel.carry_out((DeleteRoute(REMOTE, DIRECT), DeleteRoute(REMOTE, DIRECT)))
    assert report.failed == ()
    assert table(kernel) == {REMOTE: STATIC}, "a route of somebody else under the same key stays"


def others_routes_are_occupants(kernel: KernelTable) -> None:
    kernel.carry_out((PutRoute(REMOTE, STATIC), PutRoute(POD, TO_POD)))
    read = kernel.read(KernelState({REMOTE: DIRECT}), kernel.table(kernel.links()))
    assert read.occupants == {REMOTE: STATIC}
    assert read.routes == {POD: TO_POD}


def parameters_are_read_as_they_are_written(kernel: KernelTable) -> None:
    path = "net/ipv4/conf/cali1/proxy_arp"
    kernel.carry_out((PutSysctl(path, "1"),))
    assert kernel.read(KernelState(sysctls={path: "1"}), {}).sysctls == {path: "1"}


CASES = [
    what_is_put_is_read_back,
    a_put_replaces_what_stands_there,
    one_refusal_stops_no_other,
    a_device_that_is_down_is_named,
    deleting_is_exact_and_repeatable,
    others_routes_are_occupants,
    parameters_are_read_as_they_are_written,
]
named = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.replace("_", " "))


@named
def test_fake(case: Case) -> None:
    interfaces = (link("lo"), link("eth0", "172.31.1.11/24"), link("cali1"), link("cali2", up=False))
    case(FakeKernel({each.name: each for each in interfaces}))


SET_UP = """
link set lo up
link add eth0 type veth peer name far0
link set far0 up
link set eth0 up
addr add 172.31.1.11/24 dev eth0
link add cali1 type veth peer name pod1
link set pod1 up
link set cali1 up
link add cali2 type veth peer name pod2
"""


def in_a_namespace(case: Case, answer: "multiprocessing.Queue[str]") -> None:
    os.unshare(os.CLONE_NEWNET) if hasattr(os, "unshare") else unshare_network()
    try:
        # sysfs and procfs of the new namespace: /proc/sys/net follows the process by itself.
        subprocess.run(["ip", "-batch", "-"], input=SET_UP, text=True, check=True)
        kernel = Kernel(NoTunnels(), OSError)
        case(kernel)
        kernel.close()
        answer.put("")
    except BaseException:  # noqa: BLE001 - carried to the parent, which fails with it
        answer.put(traceback.format_exc())


def unshare_network() -> None:
    import ctypes  # noqa: PLC0415 - Python 3.12 has os.unshare

    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@named
def test_kernel(case: Case) -> None:
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=in_a_namespace, args=(case, answer))
    process.start()
    trouble = answer.get(timeout=20)
    process.join(timeout=20)
    assert not trouble, trouble
