"""Wish and fact in, steps out."""

from ipaddress import IPv4Address, IPv4Network

from felix_py.kernel.objects import DeleteRoute, KernelState, PutRoute, PutSysctl, Route, RouteKey, RouteType
from felix_py.kernel.reconcile import conflicts, plan

BLOCK = RouteKey(IPv4Network("10.65.0.0/26"))
REMOTE = RouteKey(IPv4Network("10.65.1.0/26"))
BLACKHOLE = Route(RouteType.BLACKHOLE)
DIRECT = Route(via=IPv4Address("172.31.1.12"), device="eth0")
TUNNELLED = Route(via=IPv4Address("172.31.1.12"), device="tunl0", onlink=True)


def test_nothing_to_do_is_no_step() -> None:
    state = KernelState({BLOCK: BLACKHOLE}, sysctls={"net/ipv4/ip_forward": "1"})
    assert plan(state, state) == ()


def test_additions_come_before_deletions() -> None:
    want, have = KernelState({REMOTE: DIRECT}), KernelState({BLOCK: BLACKHOLE})
    assert plan(want, have) == (PutRoute(REMOTE, DIRECT), DeleteRoute(BLOCK, BLACKHOLE))


def test_a_change_replaces_in_place() -> None:
    want, have = KernelState({REMOTE: TUNNELLED}), KernelState({REMOTE: DIRECT})
    assert plan(want, have) == (PutRoute(REMOTE, TUNNELLED, replaces=DIRECT),)


def test_drifted_parameter_is_set_again() -> None:
    want = KernelState(sysctls={"net/ipv4/conf/cali1/proxy_arp": "1"})
    have = KernelState(sysctls={"net/ipv4/conf/cali1/proxy_arp": "0"})
    assert plan(want, have) == (PutSysctl("net/ipv4/conf/cali1/proxy_arp", "1"),)


def test_an_administrators_route_stays_and_is_reported() -> None:
    static = Route(via=IPv4Address("172.31.1.99"), device="eth0", protocol=4)
    want, have = KernelState({REMOTE: DIRECT}), KernelState(occupants={REMOTE: static})
    assert plan(want, have) == ()
    assert conflicts(want, have) == {
        REMOTE: "a route of protocol static stands there (via 172.31.1.99 dev eth0); "
        "remove it with `ip route del 10.65.1.0/26 proto static`"
    }


def test_a_route_left_by_a_tool_is_taken_over() -> None:
    boot = Route(via=IPv4Address("172.31.1.99"), device="eth0", protocol=3)
    want, have = KernelState({REMOTE: DIRECT}), KernelState(occupants={REMOTE: boot})
    assert plan(want, have) == (PutRoute(REMOTE, DIRECT, replaces=boot),)
