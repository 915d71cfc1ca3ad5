"""What both kernels do with next-hop objects: what goes with them, what they go with, and what is told."""

import errno
from ipaddress import IPv4Address

from contract_ipv6 import A6, SIX
from contract_labs import ADD, APPEND, REPLACE, Lab
from contract_links import SECOND
from contract_routes import DELETE, REMOTE, A, B, via

from felix_py.kernel import next_hop_codec, route_codec
from felix_py.kernel.objects import NextHop, NextHopObject, Route
from felix_py.kernel.wire import AddressEvent, LinkEvent, Mode, NextHopEvent, Verb

ONE, TWO, GROUP = 5, 6, 20
VIA_ETH0 = NextHopObject(NextHop(A.via, "eth0", onlink=True))
VIA_CALI1 = NextHopObject(NextHop(B.via, "cali1", onlink=True))
BOTH = NextHopObject(group=((ONE, 1), (TWO, 3)))
THROUGH = Route(through=ONE)


def put_object(lab: Lab, mode: Mode, number: int, entry: NextHopObject) -> int:
    """Put an object; return the errno, 0 where it was taken."""
    body = next_hop_codec.encode(number, entry, lab.indexes)
    answer = lab.wire.write(Verb.NEW_NEXT_HOP, mode, [body]).get(0)
    return answer.code if answer else 0


def objects(lab: Lab) -> dict[int, bytes]:
    found = map(next_hop_codec.normalised, lab.wire.dump_next_hops())
    return {next_hop_codec.number_of(body): body for body in found}


def with_objects(lab: Lab) -> dict[int, bytes]:
    """Make two objects and their group; return all that there are."""
    for number, entry in ((ONE, VIA_ETH0), (TWO, VIA_CALI1), (GROUP, BOTH)):
        assert put_object(lab, ADD, number, entry) == 0
    return objects(lab)


def objects_are_read_back(lab: Lab) -> None:
    with_objects(lab)
    wanted = {ONE: VIA_ETH0, TWO: VIA_CALI1, GROUP: BOTH}
    assert objects(lab) == {number: next_hop_codec.encode(number, each, lab.indexes) for number, each in wanted.items()}
    assert put_object(lab, ADD, ONE, VIA_ETH0) == errno.EEXIST
    assert put_object(lab, Mode.REPLACE, 99, VIA_ETH0) == errno.ENOENT


def refusals_of_objects_say_why(lab: Lab) -> None:
    with_objects(lab)
    hop = NextHop(A.via, "cali2", onlink=True)
    gone = next_hop_codec.encode(30, NextHopObject(NextHop(A.via, "gone", onlink=True)), {"gone": 9999})
    bodies = [
        next_hop_codec.encode(number, entry, lab.indexes)
        for number, entry in (
            (30, NextHopObject(hop)),
            (30, NextHopObject(NextHop(IPv4Address("10.9.9.9"), "eth0"))),
            (30, NextHopObject(group=((ONE, 1), (66, 1)))),
            (ONE, NextHopObject(group=((TWO, 1),))),
            (GROUP, VIA_ETH0),
        )
    ]
    answers = lab.wire.write(Verb.NEW_NEXT_HOP, REPLACE, [*bodies, gone])
    assert [answers[position].text for position in range(6)] == [
        "Network is down: Nexthop device is not up",
        "Network is unreachable: Nexthop has invalid gateway",
        "Invalid argument: Invalid nexthop id",
        "Invalid argument: Can not replace a nexthop with a nexthop group.",
        "Invalid argument: Can not replace a nexthop group with a nexthop.",
        "Invalid argument: Invalid device index",
    ]


def routes_through_objects_are_read_back_in_both_modes(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, THROUGH)
    lab.add(SECOND, Route(through=GROUP))
    bodies = [lab.body(REMOTE, THROUGH), lab.body(SECOND, Route(through=GROUP))]
    told_more = [lab.raw(key)[0] for key in (REMOTE, SECOND)]
    assert told_more != bodies
    assert [route_codec.normalised(body) for body in told_more] == bodies
    lab.parameter("net/ipv4/nexthop_compat_mode", "0")
    assert [lab.raw(key)[0] for key in (REMOTE, SECOND)] == bodies


def replacing_an_object_is_one_event_where_nobody_needs_more(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, THROUGH)
    lab.add(SECOND, THROUGH)
    lab.events()
    other = next_hop_codec.encode(ONE, NextHopObject(NextHop(via(77).via, "eth0", onlink=True)), lab.indexes)
    assert lab.foreign(Verb.NEW_NEXT_HOP, REPLACE, other) == [0]
    told = lab.changes()
    assert len(told) == 3, "by default one for each route as well"
    assert {event.port for event in told} == {lab.foreign_port}
    lab.parameter("net/ipv4/nexthop_compat_mode", "0")
    lab.events()
    assert lab.foreign(Verb.NEW_NEXT_HOP, REPLACE, other) == [0]
    (event,) = lab.changes()
    assert isinstance(event, NextHopEvent)
    assert (event.verb, event.port) == (Verb.NEW_NEXT_HOP, lab.foreign_port)
    assert next_hop_codec.normalised(event.body) == other


def our_own_objects_are_not_told(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, THROUGH)
    put_object(lab, REPLACE, ONE, NextHopObject(NextHop(via(77).via, "eth0", onlink=True)))
    lab.wire.write(Verb.DELETE_NEXT_HOP, Mode.NONE, [next_hop_codec.by_number(ONE)])
    assert lab.changes() == []


def deleting_an_object_takes_its_routes_without_a_word(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, THROUGH)
    lab.add(SECOND, Route(through=GROUP))
    assert lab.foreign(Verb.DELETE_NEXT_HOP, Mode.NONE, next_hop_codec.by_number(ONE)) == [0]
    assert (lab.stack(REMOTE), lab.stack(SECOND)) == ([], [Route(through=GROUP)])
    told = lab.changes()
    assert [(each.verb, next_hop_codec.number_of(each.body)) for each in told if isinstance(each, NextHopEvent)] == [
        (Verb.DELETE_NEXT_HOP, ONE),
        (Verb.NEW_NEXT_HOP, GROUP),
    ], "its groups are told, and are smaller"
    assert len(told) == 2
    assert lab.foreign(Verb.DELETE_NEXT_HOP, Mode.NONE, next_hop_codec.by_number(TWO)) == [0]
    assert (objects(lab), lab.stack(SECOND)) == ({}, []), "an empty group goes"


def deleting_an_object_names_nothing_but_its_id(lab: Lab) -> None:
    with_objects(lab)
    whole = next_hop_codec.encode(ONE, VIA_ETH0, lab.indexes)
    assert lab.wire.write(Verb.DELETE_NEXT_HOP, Mode.NONE, [whole])[0].code == errno.EINVAL
    assert (
        lab.wire.write(Verb.DELETE_NEXT_HOP, Mode.NONE, [next_hop_codec.by_number(ONE), next_hop_codec.by_number(ONE)])
        == {}
    ), "gone is done"


def an_object_and_its_routes_go_with_the_carrier_without_a_word(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, Route(through=TWO))
    lab.add(SECOND, Route(through=GROUP))
    lab.events()
    told = lab.carrier("cali1", on=False)
    assert not [event for event in told if not isinstance(event, LinkEvent | AddressEvent)]
    assert (lab.stack(REMOTE), lab.stack(SECOND)) == ([], [Route(through=GROUP)])
    assert objects(lab).keys() == {ONE, GROUP}
    assert put_object(lab, ADD, TWO, VIA_CALI1) == errno.ENETDOWN, "and cannot come back before the carrier"
    lab.carrier("cali1", on=True)
    assert objects(lab).keys() == {ONE, GROUP}, "nor by itself"
    assert put_object(lab, ADD, TWO, VIA_CALI1) == 0


def an_object_goes_with_its_link(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, Route(through=TWO))
    lab.events()
    lab.down("cali1")
    assert (lab.stack(REMOTE), set(objects(lab))) == ([], {ONE, GROUP})
    assert not [event for event in lab.events() if isinstance(event, NextHopEvent)]


def an_object_outlives_the_last_address(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, THROUGH)
    lab.address("del", "eth0", "172.31.1.11/24")
    assert lab.stack(REMOTE) == [THROUGH], "where plain routes go"


def a_route_through_an_object_is_one_route_of_its_identity(lab: Lab) -> None:
    with_objects(lab)
    lab.add(REMOTE, THROUGH)
    assert lab.code(ADD, REMOTE, THROUGH) == errno.EEXIST
    assert lab.code(APPEND, REMOTE, Route(through=TWO)) == 0
    assert lab.code(REPLACE, REMOTE, A) == 0
    assert lab.stack(REMOTE) == [A, Route(through=TWO)]
    lab.delete(REMOTE, THROUGH)
    assert lab.stack(REMOTE) == [A, Route(through=TWO)], "deleting compares the ID"
    lab.delete(REMOTE, B)
    assert lab.stack(REMOTE) == [A, Route(through=TWO)]


def an_ipv6_route_goes_with_its_object_and_is_told(lab: Lab) -> None:
    assert put_object(lab, ADD, ONE, NextHopObject(NextHop(A6.via, "eth0"))) == 0
    lab.add(SIX, THROUGH)
    lab.events()
    assert lab.foreign(Verb.DELETE_NEXT_HOP, Mode.NONE, next_hop_codec.by_number(ONE)) == [0]
    assert lab.route_events() == [(DELETE, Mode.NONE, 0, THROUGH)]
    assert lab.stack(SIX) == []


def deleting_a_route_through_an_object_that_is_gone_is_refused(lab: Lab) -> None:
    """The route is gone with it, but that is not what the kernel says."""
    with_objects(lab)
    lab.add(REMOTE, THROUGH)
    lab.wire.write(Verb.DELETE_NEXT_HOP, Mode.NONE, [next_hop_codec.by_number(ONE)])
    for key in (REMOTE, SIX):
        assert lab.delete(key, THROUGH) == {0: (errno.EINVAL, "Invalid argument: Nexthop id does not exist")}
