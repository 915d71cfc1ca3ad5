"""What both kernels do when interfaces, addresses and next-hop objects come and go: what is lost, and what is told."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from contract_ipv6 import A6, SIX
from contract_labs import ADD, Lab
from contract_routes import BLACKHOLE, BLOCK, DELETE, POD, REMOTE, TO_POD, A, B

from felix_py.kernel import route_codec
from felix_py.kernel.messages import U32
from felix_py.kernel.objects import NextHop, Route, RouteKey, Scope
from felix_py.kernel.wire import AddressEvent, LinkEvent, Mode, ParameterEvent

SECOND = RouteKey(IPv4Network("10.65.2.0/26"))
LEGS = Route(hops=(NextHop(A.via, "eth0", onlink=True), NextHop(B.via, "cali1", onlink=True)))
DEAD, LINKDOWN = 1, 16


def link_told(lab: Lab, name: str) -> list[tuple[bool, bool, bool]]:
    """Return what was told of an interface: up, running, gone; what was said already left out."""
    told = [
        (each.link.up, each.link.running, each.gone)
        for each in lab.events()
        if isinstance(each, LinkEvent) and each.link.name == name
    ]
    return [each for position, each in enumerate(told) if position == 0 or told[position - 1] != each]


def down_loses_ipv4_routes_without_a_word(lab: Lab) -> None:
    lab.add(POD, TO_POD)
    lab.add(RouteKey(POD.dst, table=1000), TO_POD)
    lab.add(BLOCK, BLACKHOLE)
    lab.add(REMOTE, A)
    lab.down("cali1")
    assert lab.route_events() == []
    assert [lab.stack(key) for key in (POD, RouteKey(POD.dst, table=1000), BLOCK, REMOTE)] == [[], [], [BLACKHOLE], [A]]
    lab.up("cali1")
    assert lab.stack(POD) == [], "they do not come back"


def down_is_told_of_the_link(lab: Lab) -> None:
    lab.down("cali1")
    assert link_told(lab, "cali1") == [(False, False, False)]
    assert (lab.link("cali1").up, lab.link("cali1").running) == (False, False)
    lab.up("cali1")
    assert (lab.link("cali1").up, lab.link("cali1").running) == (True, True)


def down_loses_ipv6_routes_and_tells_each(lab: Lab) -> None:
    key = RouteKey(IPv6Network("fd10::5/128"))
    lab.add(key, Route(device="cali1"))
    lab.add(SIX, A6)
    lab.down("cali1")
    assert lab.route_events() == [(DELETE, Mode.NONE, 0, Route(device="cali1"))]
    assert (lab.stack(key), lab.stack(SIX)) == ([], [A6])


def a_leg_that_is_down_is_marked_and_lives_again(lab: Lab) -> None:
    lab.add(REMOTE, LEGS)
    body = lab.body(REMOTE, LEGS)
    lab.down("cali1")
    assert lab.raw(REMOTE) != [body], "flags DEAD and LINKDOWN stand in its leg"
    assert [route_codec.normalised(each) for each in lab.raw(REMOTE)] == [body]
    lab.up("cali1")
    assert lab.raw(REMOTE) == [body]


def a_route_dies_with_its_last_leg(lab: Lab) -> None:
    lab.add(REMOTE, LEGS)
    lab.down("cali1")
    lab.down("eth0")
    assert lab.stack(REMOTE) == []
    assert lab.route_events() == []


def an_ipv6_leg_that_is_down_is_marked_and_dies_with_the_last(lab: Lab) -> None:
    far = Route(via=IPv6Address("fd00:2::1"), device="cali1", onlink=True)
    both = Route(hops=(NextHop(A6.via, "eth0"), NextHop(far.via, "cali1", onlink=True)))
    lab.add(SIX, both)
    lab.down("cali1")
    assert lab.route_events() == []
    assert lab.stack(SIX) == [both]
    lab.down("eth0")
    assert lab.route_events() == [(DELETE, Mode.NONE, 0, A6), (DELETE, Mode.NONE, 0, far)]
    assert lab.stack(SIX) == []


def deleting_a_link_takes_every_route_over_it(lab: Lab) -> None:
    lab.add(POD, TO_POD)
    lab.add(REMOTE, LEGS)
    lab.remove("cali1")
    assert (lab.stack(POD), lab.stack(REMOTE)) == ([], []), "a multipath route too, with all its other legs"


def deleting_a_link_tells_down_and_gone(lab: Lab) -> None:
    lab.add(POD, TO_POD)
    index = lab.link("cali1").index
    lab.remove("cali1")
    events = lab.events()
    told = [event for event in events if isinstance(event, LinkEvent) and event.link.index == index]
    assert [(each.link.up, each.gone) for each in told] == [(False, False), (False, True)]
    assert "cali1" not in lab.indexes


def deleting_a_link_takes_only_its_sibling_in_ipv6(lab: Lab) -> None:
    far = Route(via=IPv6Address("fd00:2::1"), device="cali1", onlink=True)
    lab.add(SIX, Route(hops=(NextHop(A6.via, "eth0"), NextHop(far.via, "cali1", onlink=True))))
    lab.remove("cali1")
    assert lab.stack(SIX) == [A6]
    assert [(verb, port) for verb, _, port, _ in lab.route_events()] == [(DELETE, 0)]


def a_link_made_anew_has_another_index(lab: Lab) -> None:
    before = lab.link("cali1").index
    lab.remove("cali1")
    lab.make("cali1")
    assert lab.link("cali1").index != before
    assert lab.link("cali1").up


def renaming_keeps_index_and_routes(lab: Lab) -> None:
    lab.add(POD, TO_POD)
    index = lab.link("cali1").index
    lab.rename("cali1", "cali9")
    assert lab.link("cali9").index == index
    assert lab.stack(POD) == [Route(device="cali9", scope=Scope.LINK)]
    told = {(each.link.name, each.link.index) for each in lab.events() if isinstance(each, LinkEvent)}
    assert ("cali9", index) in told


def carrier_loss_keeps_plain_routes_and_marks_them(lab: Lab) -> None:
    key = RouteKey(IPv6Network("fd10::5/128"))
    lab.add(POD, TO_POD)
    lab.add(key, Route(device="cali1"))
    lab.add(REMOTE, LEGS)
    bodies = [lab.body(POD, TO_POD), lab.body(key, Route(device="cali1")), lab.body(REMOTE, LEGS)]
    lab.carrier("cali1", on=False)
    raw = [lab.raw(each)[0] for each in (POD, key, REMOTE)]
    assert [U32.unpack_from(body, 8)[0] for body in raw] == [LINKDOWN, LINKDOWN, 0]
    assert raw[2] != bodies[2], "in a multipath route the flag stands in the leg"
    assert [route_codec.normalised(body) for body in raw] == bodies
    assert lab.code(ADD, BLOCK, TO_POD) == 0, "a route may be added meanwhile"
    lab.carrier("cali1", on=True)
    assert [route_codec.normalised(lab.raw(POD)[0]), lab.raw(REMOTE)[0]] == [bodies[0], bodies[2]]


def carrier_loss_is_told_of_the_link_alone(lab: Lab) -> None:
    lab.add(POD, TO_POD)
    told = lab.carrier("cali1", on=False)
    states = [
        (each.link.up, each.link.running) for each in told if isinstance(each, LinkEvent) and each.link.name == "cali1"
    ]
    assert states[-1] == (True, False)
    assert lab.stack(POD) == [TO_POD]


# --- addresses


def the_last_ipv4_address_takes_all_ipv4_routes_without_a_word(lab: Lab) -> None:
    lab.add(REMOTE, A)
    lab.add(POD, TO_POD)
    lab.add(SIX, A6)
    lab.add(BLOCK, LEGS)
    lab.address("del", "eth0", "172.31.1.11/24")
    assert lab.route_events() == []
    assert [lab.stack(key) for key in (REMOTE, POD, SIX)] == [[], [TO_POD], [A6]]
    assert lab.raw(BLOCK) != [lab.body(BLOCK, LEGS)], "of a multipath route the leg is dead"
    lab.address("add", "eth0", "172.31.1.11/24")
    assert lab.stack(REMOTE) == [], "they do not come back"
    assert lab.raw(BLOCK) == [lab.body(BLOCK, LEGS)], "but the leg lives again"


def another_address_left_keeps_the_routes(lab: Lab) -> None:
    lab.add(REMOTE, A)
    lab.address("add", "eth0", "172.31.5.1/24")
    lab.address("del", "eth0", "172.31.1.11/24")
    assert lab.stack(REMOTE) == [A]


def routes_that_prefer_an_address_go_with_it_and_are_told(lab: Lab) -> None:
    preferring = Route(via=A.via, device="eth0", source=IPv4Address("172.31.1.11"))
    lab.address("add", "eth0", "172.31.5.1/24")
    lab.add(REMOTE, preferring)
    lab.add(SECOND, A)
    lab.address("del", "eth0", "172.31.1.11/24")
    assert lab.route_events() == [(DELETE, Mode.NONE, 0, preferring)]
    assert (lab.stack(REMOTE), lab.stack(SECOND)) == ([], [A])


def addresses_are_told_and_bring_the_route_to_their_network(lab: Lab) -> None:
    index = lab.link("cali1").index
    network = RouteKey(IPv4Network("10.77.0.0/24"))
    lab.address("add", "cali1", "10.77.0.1/24")
    connected = Route(device="cali1", scope=Scope.LINK, source=IPv4Address("10.77.0.1"), protocol=2)
    assert lab.stack(network) == [connected]
    assert "10.77.0.1/24" in lab.link("cali1").addresses
    lab.address("del", "cali1", "10.77.0.1/24")
    assert lab.stack(network) == []
    told = [event for event in lab.events() if isinstance(event, AddressEvent)]
    assert told == [AddressEvent(index, "10.77.0.1/24"), AddressEvent(index, "10.77.0.1/24", gone=True)]


def ipv6_addresses_go_with_the_link_and_take_no_routes(lab: Lab) -> None:
    index = lab.link("cali1").index
    lab.address("add", "cali1", "fd10:7::1/64")
    lab.address("add", "cali1", "10.77.0.1/24")
    lab.events()
    lab.down("cali1")
    assert lab.link("cali1").addresses == {"10.77.0.1/24"}
    told = [event for event in lab.events() if isinstance(event, AddressEvent)]
    assert told == [AddressEvent(index, "fd10:7::1/64", gone=True)]
    lab.add(SIX, A6)
    lab.address("del", "eth0", "fd00:1::11/64")
    assert lab.stack(SIX) == [A6]


def parameters_are_told(lab: Lab) -> None:
    index = lab.link("cali1").index
    lab.parameter("net/ipv4/conf/cali1/proxy_arp", "1")
    assert ParameterEvent(index) in lab.events()
    lab.parameter("net/ipv4/conf/all/rp_filter", "2")
    assert ParameterEvent(-1) in lab.events()


def parameters_of_ipv6_are_told(lab: Lab) -> None:
    index = lab.link("cali1").index
    lab.parameter("net/ipv6/conf/cali1/forwarding", "1")
    assert ParameterEvent(index) in lab.events()
    lab.parameter("net/ipv6/conf/all/forwarding", "1")
    assert ParameterEvent(-1) in lab.events()
    lab.parameter("net/ipv6/conf/cali1/accept_ra", "0")
    assert ParameterEvent(index) not in lab.events()
