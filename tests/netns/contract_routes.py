"""What both kernels do with routes: who is refused, what replaces what, what is told. Each case is one rule."""

import errno
from ipaddress import IPv4Address, IPv4Network

from contract_labs import ADD, APPEND, BEFORE, REPLACE, Lab

from felix_py.kernel import route_codec
from felix_py.kernel.objects import NextHop, Route, RouteKey, RouteType, Scope
from felix_py.kernel.wire import Family, Mode, Verb

BLOCK = RouteKey(IPv4Network("10.65.0.0/26"))
POD = RouteKey(IPv4Network("10.65.0.5/32"))
REMOTE = RouteKey(IPv4Network("10.65.1.0/26"))
BLACKHOLE = Route(RouteType.BLACKHOLE)
TO_POD = Route(device="cali1", scope=Scope.LINK)


def via(last: int, device: str = "eth0", protocol: int = 80) -> Route:
    return Route(via=IPv4Address(f"172.31.1.{last}"), device=device, onlink=True, protocol=protocol)


A, B, C, STATIC = via(12), via(13), via(14), via(99, protocol=4)
NEW, DELETE = Verb.NEW_ROUTE, Verb.DELETE_ROUTE
EXCLUSIVE_NEWS = Mode.CREATE | Mode.EXCLUSIVE


def what_is_put_is_read_back_byte_for_byte(lab: Lab) -> None:
    entries = ((BLOCK, BLACKHOLE), (POD, TO_POD), (REMOTE, A))
    assert lab.put(ADD, *entries) == {}
    assert [lab.raw(key) for key, _ in entries] == [[lab.body(*entry)] for entry in entries]


def every_kind_of_route_is_read_back(lab: Lab) -> None:
    legs = (NextHop(A.via, "eth0", onlink=True), NextHop(B.via, "cali1", onlink=True, weight=3))
    kinds = (
        Route(RouteType.UNREACHABLE),
        Route(RouteType.THROW),
        Route(RouteType.PROHIBIT),
        Route(via=A.via, device="eth0", source=IPv4Address("172.31.1.11"), mtu=1400),
        Route(hops=legs),
    )
    for number, route in enumerate(kinds):
        key = RouteKey(IPv4Network(f"10.66.{number}.0/24"), metric=number)
        lab.add(key, route)
        assert lab.raw(key) == [lab.body(key, route)], route


def exclusive_meets_what_stands_there_whatever_its_protocol(lab: Lab) -> None:
    lab.add(REMOTE, STATIC)
    assert lab.put(ADD, (REMOTE, A)) == {0: (errno.EEXIST, "File exists")}
    assert lab.stack(REMOTE) == [STATIC]


def the_identity_is_prefix_table_tos_and_metric(lab: Lab) -> None:
    keys = (
        REMOTE,
        RouteKey(REMOTE.dst, metric=5),
        RouteKey(REMOTE.dst, tos=16),
        RouteKey(REMOTE.dst, table=1000),
        RouteKey(IPv4Network("10.65.1.0/27")),
    )
    assert lab.put(ADD, *((key, A) for key in keys)) == {}
    assert [lab.stack(key) for key in keys] == [[A]] * len(keys)


def replace_takes_the_first_whatever_its_protocol(lab: Lab) -> None:
    lab.add(REMOTE, STATIC, B)
    assert lab.code(REPLACE, REMOTE, A) == 0
    assert lab.stack(REMOTE) == [A, B]


def replace_adds_where_nothing_stands(lab: Lab) -> None:
    assert lab.code(Mode.REPLACE, REMOTE, A) == errno.ENOENT, "without CREATE"
    assert lab.code(REPLACE, REMOTE, A) == 0
    assert lab.stack(REMOTE) == [A]


def replacing_the_same_is_done_and_tells_nothing(lab: Lab) -> None:
    lab.add(REMOTE, A)
    lab.events()
    assert lab.foreign(NEW, REPLACE, lab.body(REMOTE, A)) == [0]
    assert lab.route_events() == []


def replace_does_not_bring_forward_what_stands_behind(lab: Lab) -> None:
    lab.add(REMOTE, STATIC, A)
    assert lab.code(REPLACE, REMOTE, A) == errno.EEXIST
    assert lab.stack(REMOTE) == [STATIC, A]


def append_puts_behind_and_create_in_front(lab: Lab) -> None:
    lab.add(REMOTE, A)
    assert [lab.code(APPEND, REMOTE, B), lab.code(BEFORE, REMOTE, C)] == [0, 0]
    assert lab.stack(REMOTE) == [C, A, B]


def the_same_route_does_not_stand_twice(lab: Lab) -> None:
    lab.add(REMOTE, A, B)
    assert [lab.code(APPEND, REMOTE, A), lab.code(BEFORE, REMOTE, B)] == [errno.EEXIST] * 2
    assert lab.code(APPEND, REMOTE, via(12, protocol=4)) == 0, "it is another one by its protocol"


def append_without_create_adds_nothing(lab: Lab) -> None:
    assert lab.code(Mode.APPEND, REMOTE, A) == errno.ENOENT
    assert lab.stack(REMOTE) == []


def delete_is_exact(lab: Lab) -> None:
    lab.add(REMOTE, A, STATIC)
    for other in (via(12, protocol=4), via(13), via(12, device="cali1"), BLACKHOLE):
        assert lab.delete(REMOTE, other) == {}, "deleting what is gone is done"
        assert lab.stack(REMOTE) == [A, STATIC], other
    assert lab.delete(REMOTE, STATIC) == {}
    assert lab.stack(REMOTE) == [A], "what stands behind can be deleted"


def delete_by_device_takes_whatever_leaves_by_it(lab: Lab) -> None:
    """A request without gateway fits every gateway: one for a route that is gone takes another of the same protocol."""
    lab.add(REMOTE, STATIC, A, B)
    lab.delete(REMOTE, Route(device="eth0"))
    assert lab.stack(REMOTE) == [STATIC, B]


def delete_compares_scope_source_and_mtu_that_it_names(lab: Lab) -> None:
    route = Route(via=A.via, device="eth0", source=IPv4Address("172.31.1.11"), mtu=1400)
    lab.add(REMOTE, route)
    for other in (
        Route(via=A.via, device="eth0", mtu=1300),
        Route(via=A.via, device="eth0", source=IPv4Address("172.31.1.12")),
        Route(via=A.via, device="eth0", scope=Scope.LINK),
    ):
        lab.delete(REMOTE, other)
        assert lab.stack(REMOTE) == [route], other
    lab.delete(REMOTE, Route(via=A.via, device="eth0"))
    assert lab.stack(REMOTE) == []


def delete_without_metric_takes_any_metric_in_ipv4(lab: Lab) -> None:
    """Metric 0 is not said in the request, and what a request does not say fits everything."""
    other = RouteKey(REMOTE.dst, metric=7)
    lab.add(REMOTE, A)
    lab.add(other, A)
    lab.delete(REMOTE, A)
    assert (lab.stack(REMOTE), lab.stack(other)) == ([], [A])
    lab.delete(REMOTE, A)
    assert lab.stack(other) == []


def delete_with_metric_takes_only_that_metric(lab: Lab) -> None:
    lab.add(RouteKey(REMOTE.dst, metric=7), A)
    lab.delete(RouteKey(REMOTE.dst, metric=8), A)
    assert lab.stack(RouteKey(REMOTE.dst, metric=7)) == [A]


def delete_of_multipath_compares_legs_in_order_and_not_their_weights(lab: Lab) -> None:
    legs = NextHop(A.via, "eth0", onlink=True), NextHop(B.via, "eth0", onlink=True, weight=2)
    route = Route(hops=legs)
    lab.add(REMOTE, route)
    for other in (Route(hops=legs[::-1]), via(13), BLACKHOLE):
        lab.delete(REMOTE, other)
        assert lab.stack(REMOTE) == [route], other
    lab.delete(REMOTE, Route(hops=(legs[0], NextHop(B.via, "eth0", onlink=True, weight=9))))
    assert lab.stack(REMOTE) == []


def one_refusal_stops_no_other(lab: Lab) -> None:
    lab.add(BLOCK, A)
    entries = ((POD, Route(device="cali2", scope=Scope.LINK)), (REMOTE, A), (BLOCK, B), (POD, TO_POD))
    answers = lab.put(ADD, *entries)
    assert {position: answer.code for position, answer in answers.items()} == {0: errno.ENETDOWN, 2: errno.EEXIST}
    assert [lab.stack(key) for key in (BLOCK, REMOTE, POD)] == [[A], [A], [TO_POD]]


def refusals_say_why(lab: Lab) -> None:
    gone = route_codec.Encoder({"gone": 9999})
    elsewhere = IPv4Address("172.99.0.1")
    asked = (
        lab.body(POD, Route(device="cali2", scope=Scope.LINK)),
        lab.body(POD, via(12, device="cali2")),
        lab.body(POD, Route(via=elsewhere, device="eth0")),
        lab.body(POD, Route(via=IPv4Address("172.31.1.12"), device="cali1")),
        lab.body(POD, via(11)),
        lab.body(POD, Route(device="cali1", source=elsewhere)),
        lab.body(POD, Route()),
        lab.body(POD, Route(through=77)),
        gone(POD, Route(device="gone", scope=Scope.LINK)),
        gone(POD, Route(via=IPv4Address("172.31.1.12"), device="gone", onlink=True)),
    )
    answers = lab.wire.write(Verb.NEW_ROUTE, ADD, asked)
    assert [answers[position].text for position in range(len(asked))] == [
        "Network is down: Device for nexthop is not up",
        "Network is down: Nexthop device is not up",
        "Network is unreachable: Nexthop has invalid gateway",
        "Network is unreachable: Nexthop has invalid gateway",
        "Invalid argument: Nexthop has invalid gateway",
        "Invalid argument: Invalid prefsrc address",
        "No such device",
        "Invalid argument: Nexthop id does not exist",
        "No such device",
        "No such device: Nexthop device required for onlink",
    ]
    assert lab.stack(POD) == []


def a_refusal_for_the_route_comes_before_one_for_its_place(lab: Lab) -> None:
    lab.add(POD, TO_POD)
    assert lab.code(ADD, POD, Route(device="cali2", scope=Scope.LINK)) == errno.ENETDOWN
    assert lab.code(REPLACE, POD, Route(device="cali2", scope=Scope.LINK)) == errno.ENETDOWN
    assert lab.stack(POD) == [TO_POD]


def a_gateway_needs_a_subnet_or_onlink(lab: Lab) -> None:
    elsewhere = IPv4Address("172.99.0.1")
    assert lab.code(ADD, REMOTE, Route(via=elsewhere, device="eth0")) == errno.ENETUNREACH
    assert lab.code(ADD, REMOTE, Route(via=elsewhere, device="eth0", onlink=True)) == 0
    lab.add(RouteKey(IPv4Network("10.70.0.1/32")), TO_POD)
    assert lab.code(ADD, BLOCK, Route(via=IPv4Address("10.70.0.1"), device="cali1")) == 0, "or a route of the device"


def an_unknown_table_is_empty(lab: Lab) -> None:
    assert [lab.wire.dump_routes(family, 4000) for family in Family] == [[], []]
    assert lab.delete(RouteKey(REMOTE.dst, table=4000), A) == {}


def changes_of_others_are_told_with_their_port(lab: Lab) -> None:
    lab.foreign_route(NEW, ADD, REMOTE, A)
    lab.foreign_route(NEW, APPEND, REMOTE, B)
    lab.foreign_route(NEW, BEFORE, REMOTE, C)
    lab.foreign_route(NEW, REPLACE, REMOTE, STATIC)
    lab.foreign_route(DELETE, Mode.NONE, REMOTE, A)
    assert lab.stack(REMOTE) == [STATIC, B]
    port = lab.foreign_port
    assert lab.route_events() == [
        (NEW, EXCLUSIVE_NEWS, port, A),
        (NEW, Mode.CREATE | Mode.APPEND, port, B),
        (NEW, Mode.CREATE, port, C),
        (NEW, Mode.REPLACE, port, STATIC),
        (DELETE, Mode.NONE, port, A),
    ]


def our_own_changes_are_not_told(lab: Lab) -> None:
    lab.add(REMOTE, A, B)
    lab.put(REPLACE, (REMOTE, C))
    lab.delete(REMOTE, B)
    assert lab.route_events() == []
