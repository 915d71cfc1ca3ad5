"""What a turn says: one line for each thing, one for many; the process behind a quarrel."""

import os
from collections import Counter
from ipaddress import IPv4Address, IPv4Network

from engine_node import EngineNode
from structlog.testing import capture_logs

from felix_py.calc.candidates import Candidate, Kind, Rank
from felix_py.calc.desired import Desired
from felix_py.kernel.kernel import News
from felix_py.kernel.objects import KernelState, Link, Route, RouteKey
from felix_py.kernel.wire import Mode, Verb
from felix_py.knowledge import Done
from felix_py.telling import MANY, process, repairs, say, sayings

ETH0 = Link("eth0", 3, 1500, up=True, running=True, addresses=frozenset({"172.31.1.11/24"}))


def via(last: int, protocol: int = 80) -> Route:
    return Route(via=IPv4Address(f"172.31.1.{last}"), device="eth0", protocol=protocol)


def wish(count: int, last: int = 12) -> KernelState:
    return KernelState({RouteKey(IPv4Network((0x0A410000 + number * 64, 26))): via(last) for number in range(count)})


def said(node: EngineNode, want: KernelState) -> tuple[list[tuple[str, str | None]], Counter[str]]:
    """Take a turn; return event and destination of each line, and the repairs."""
    node.turn(want)
    with capture_logs() as lines:
        say(sayings(Done(Desired(), News(), report=node.reports[-1]), node.kernel.routes))
    counted = repairs(node.reports[-1].routes)
    return [(line["event"], line.get("dst")) for line in lines], counted


def test_each_route_has_its_line() -> None:
    node = EngineNode(ETH0)
    assert said(node, wish(2)) == ([("route.put", "10.65.0.0/26"), ("route.put", "10.65.0.64/26")], Counter())
    assert said(node, wish(1)) == ([("route.delete", "10.65.0.64/26")], Counter())
    assert said(node, wish(1)) == ([], Counter())


def test_the_route_of_a_pod_names_it() -> None:
    node, want = EngineNode(ETH0), wish(2)
    first, second = want.routes
    pod = Candidate(want.routes[first], Kind.WORKLOAD, Rank.WORKLOAD, "default/web-0", "it is on this node")
    block = Candidate(want.routes[second], Kind.REMOTE, Rank.REMOTE_BLOCK, "bgp 172.31.1.12", "it was learned")
    node.turn(want)
    with capture_logs() as lines:
        done = Done(Desired(chosen={first: pod, second: block}), News(), report=node.reports[-1])
        say(sayings(done, node.kernel.routes))
    assert [(line["dst"], line.get("pod")) for line in lines] == [(str(first), "default/web-0"), (str(second), None)]


def test_many_routes_have_one_line() -> None:
    node = EngineNode(ETH0)
    lines, _ = said(node, wish(MANY + 1))
    assert lines == [("routes.put", None)]
    lines, _ = said(node, wish(0))
    assert lines == [("routes.delete", None)]


def test_a_repair_says_what_stood_there() -> None:
    node = EngineNode(ETH0)
    node.settle(wish(1))
    node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE | Mode.REPLACE, RouteKey(IPv4Network("10.65.0.0/26")), via(99, 3))
    lines, found = said(node, wish(1))
    assert lines == [("route.repaired", "10.65.0.0/26")]
    assert found == Counter({"route changed": 1})


def test_a_conflict_names_the_remedy() -> None:
    node = EngineNode(ETH0)
    node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, RouteKey(IPv4Network("10.65.0.0/26")), via(99, 4))
    node.turn(wish(1))
    with capture_logs() as lines:
        say(sayings(Done(Desired(), News(), report=node.reports[-1]), node.kernel.routes))
    assert [(line["event"], line["reason"]) for line in lines] == [
        (
            "route.conflict",
            (
                "a route of protocol static stands there (via 172.31.1.99 dev eth0); "
                "remove it with `ip route del 10.65.0.0/26 proto static`"
            ),
        )
    ]


def test_a_quarrel_is_told_once_and_so_is_its_end() -> None:
    node, want = EngineNode(ETH0), wish(1)
    node.settle(want)
    lines = []
    for _ in range(12):
        node.host.foreign(Verb.DELETE_ROUTE, Mode.NONE, RouteKey(IPv4Network("10.65.0.0/26")), via(12))
        lines += said(node, want)[0]
    events = Counter(event for event, _ in lines)
    assert events["route.contested"] == 1
    assert 8 <= events["route.repaired"] <= 9
    node.now += 60
    assert said(node, want)[0] == [("route.calm", "10.65.0.0/26"), ("route.repaired", "10.65.0.0/26")][::-1]


def test_the_process_behind_a_port_has_its_name() -> None:
    assert process(os.getpid()).startswith(f"process {os.getpid()} (")
    assert process(2**22 + 1) == "netlink port 4194305, whose process is gone"
