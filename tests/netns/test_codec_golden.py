"""Our bytes against those of `ip` and the kernel, in both directions: what we encode is what dumps and events say."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

import pytest
from codec_lab import (
    CREATE,
    DELETE_NEXT_HOP,
    DELETE_ROUTE,
    EXCLUSIVE,
    GET_NEIGHBOUR,
    NEW_NEIGHBOUR,
    NEW_NEXT_HOP,
    NEW_ROUTE,
    Lab,
    laboratory,
)
from ip_forms import E0, E1, FORMS, OBJECTS, command, hop, key, via

from felix_py.kernel import neighbour_codec, next_hop_codec
from felix_py.kernel.objects import (
    Neighbour,
    NextHop,
    Route,
    RouteKey,
    Scope,
)
from felix_py.kernel.route_codec import (
    Encoder,
    bpf_encapsulation,
    decode,
    identity,
    identity_of,
    leaves_by,
    normalised,
)

pytestmark = pytest.mark.netns

_T = TypeVar("_T")
Work = Callable[[Callable[[Lab], _T]], _T]

ADD = CREATE | EXCLUSIVE


@pytest.fixture(scope="module")
def in_lab() -> Iterator[Work[None]]:
    with laboratory() as run:
        yield run


def one_of(route: Route, leg: NextHop) -> Route:
    """Return a route of several next hops as if it had this one only."""
    plain = replace(route, hops=(), via=leg.via, device=leg.device, onlink=leg.onlink)
    return replace(plain, encapsulation=leg.encapsulation)


@pytest.mark.parametrize("words", FORMS)
def test_ip_the_kernel_and_we_say_the_same(in_lab: Work[None], words: str) -> None:
    form, route = FORMS[words]

    def both_ways(lab: Lab) -> None:
        ours = Encoder(lab.indexes)(form, route)
        lab.heard()
        lab.ip(command(words))
        assert [normalised(body).hex() for _, body in lab.heard()] == [ours.hex()]
        assert [normalised(body).hex() for body in lab.routes()] == [ours.hex()]
        assert [identity(body) for body in lab.routes()] == [identity_of(form)]
        shown = lab.shown()
        assert lab.send(DELETE_ROUTE, 0, ours) == 0
        assert lab.shown() == ""
        gone = lab.heard()
        if form.dst.version == 6 and len(route.hops) > 1:  # the kernel takes away one leg after the other
            assert [decode(body, lab.names) for _, body in gone] == [(form, one_of(route, leg)) for leg in route.hops]
        else:
            assert [(kind, normalised(body).hex()) for kind, body in gone] == [(DELETE_ROUTE, ours.hex())]
        assert lab.send(NEW_ROUTE, ADD, ours) == 0
        assert lab.shown() == shown
        assert [normalised(body).hex() for body in lab.routes()] == [ours.hex()]
        assert [normalised(body).hex() for _, body in lab.heard()] == [ours.hex()]
        assert lab.send(DELETE_ROUTE, 0, ours) == 0

    in_lab(both_ways)


@pytest.mark.parametrize("words", FORMS)
def test_what_the_kernel_says_is_understood(in_lab: Work[None], words: str) -> None:
    form, route = FORMS[words]

    def read(lab: Lab) -> None:
        encode = Encoder(lab.indexes)
        assert lab.send(NEW_ROUTE, ADD, encode(form, route)) == 0
        bodies = lab.routes()
        assert lab.send(DELETE_ROUTE, 0, encode(form, route)) == 0
        plain = route if len(route.hops) != 1 else one_of(route, route.hops[0])
        plain = plain if (plain.mtu or 0) < 65520 else replace(plain, mtu=65520)
        assert [decode(body, lab.names) for body in bodies] == [(form, plain)]

    in_lab(read)


def test_scope_means_nothing_to_ipv6(in_lab: Work[None]) -> None:
    def put(lab: Lab) -> None:
        body = Encoder(lab.indexes)(key("fd10::5/128"), Route(device=E0, scope=Scope.LINK))
        assert lab.send(NEW_ROUTE, ADD, body) == 0
        assert list(map(normalised, lab.routes())) == [body]
        assert lab.send(DELETE_ROUTE, 0, body) == 0

    in_lab(put)


LOST_CARRIER = [
    "10.1.0.5 dev e0 scope link",
    "10.1.0.0/24 via 10.9.9.9 dev e0 onlink",
    "10.3.0.0/24 nexthop via 172.31.1.2 dev e0 weight 3 nexthop via 172.30.2.9 dev e1 onlink weight 256",
    "fd10::5 dev e0",
    "fd10::/64 nexthop via fd01::2 dev e0 weight 3 nexthop via fd02::2 dev e1 weight 256",
]


@pytest.mark.parametrize("words", LOST_CARRIER)
def test_a_lost_carrier_changes_nothing_in_the_bytes(in_lab: Work[None], words: str) -> None:
    form, route = FORMS[words]

    def without_carrier(lab: Lab) -> None:
        ours = Encoder(lab.indexes)(form, route)
        lab.ip("link set f0 down")
        try:
            assert lab.send(NEW_ROUTE, ADD, ours) == 0
            bodies = lab.routes()
            assert lab.send(DELETE_ROUTE, 0, ours) == 0
        finally:
            lab.ip("link set f0 up")
            lab.heard()
        assert bodies != [ours]
        assert [normalised(body) for body in bodies] == [ours]
        assert leaves_by(bodies[0], lab.indexes[E0])
        assert not leaves_by(bodies[0], lab.indexes["f0"])

    in_lab(without_carrier)


@pytest.mark.parametrize("words", OBJECTS)
def test_next_hop_objects_both_ways(in_lab: Work[None], words: str) -> None:
    number, entry = OBJECTS[words]

    def both_ways(lab: Lab) -> None:
        lab.ip("nexthop add id 101 via 172.31.1.2 dev e0 proto 80")
        lab.ip("nexthop add id 102 via 172.31.2.2 dev e1 proto 80")
        lab.heard()
        members = lab.next_hops()
        ours = next_hop_codec.encode(number, entry, lab.indexes)
        try:
            lab.ip(f"nexthop add {words} proto 80")
            shown = lab.ip("-d nexthop show")
            assert [next_hop_codec.normalised(body).hex() for _, body in lab.heard()] == [ours.hex()]
            assert next_hop_codec.normalised(others(lab, members)[0]).hex() == ours.hex()
            assert next_hop_codec.decode(others(lab, members)[0], lab.names) == (number, entry)
            lab.ip(f"nexthop del id {number}")
            lab.heard()
            assert lab.send(NEW_NEXT_HOP, ADD, ours) == 0
            assert lab.ip("-d nexthop show") == shown
            assert [next_hop_codec.normalised(body).hex() for _, body in lab.heard()] == [ours.hex()]
            assert lab.send(DELETE_NEXT_HOP, 0, next_hop_codec.by_number(number)) == 0
            assert others(lab, members) == []
        finally:
            lab.ip("nexthop flush")
            lab.heard()

    in_lab(both_ways)


def others(lab: Lab, known: list[bytes]) -> list[bytes]:
    return [body for body in lab.next_hops() if body not in known]


def test_a_blackhole_object_is_none_of_ours(in_lab: Work[None]) -> None:
    def blackhole(lab: Lab) -> None:
        lab.ip("nexthop add id 5 blackhole")
        assert [next_hop_codec.decode(body, lab.names) for body in lab.next_hops()] == [None]
        lab.ip("nexthop flush")
        lab.heard()

    in_lab(blackhole)


THROUGH = [
    pytest.param(key("10.5.0.0/24"), Route(through=5), id="onlink gateway"),
    pytest.param(key("10.5.0.0/24"), Route(through=7), id="device"),
    pytest.param(key("10.5.0.0/24"), Route(through=8), id="IPv4 by IPv6 gateway"),
    pytest.param(key("10.5.0.0/24"), Route(through=10), id="encapsulation"),
    pytest.param(key("10.5.0.0/24", metric=4), Route(through=11, mtu=1400), id="group"),
    pytest.param(key("fd10::/64"), Route(through=9), id="IPv6 gateway"),
    pytest.param(key("fd10::/64"), Route(through=13, mtu=1400), id="IPv6 group"),
]


@pytest.mark.parametrize("compatible", ["0", "1"])
@pytest.mark.parametrize(("form", "route"), THROUGH)
def test_a_route_through_an_object_in_both_modes(
    in_lab: Work[None], form: RouteKey, route: Route, compatible: str
) -> None:
    def through(lab: Lab) -> None:
        lab.parameter("net/ipv4/nexthop_compat_mode", compatible)
        for words in ("id 101 via 172.31.1.2 dev e0", "id 102 via 172.31.2.2 dev e1", *OBJECTS, "id 13 group 8/9"):
            lab.ip(f"nexthop add {words} proto 80")
        lab.heard()
        ours = Encoder(lab.indexes)(form, route)
        try:
            lab.ip(command(f"{form.dst} nhid {route.through} metric {form.metric}") + f" mtu {route.mtu or 0}")
            assert [normalised(body).hex() for _, body in lab.heard()] == [ours.hex()]
            shown = lab.shown()
            assert lab.send(DELETE_ROUTE, 0, ours) == 0
            assert lab.shown() == ""
            assert lab.send(NEW_ROUTE, ADD, ours) == 0
            assert [normalised(body).hex() for body in lab.routes()] == [ours.hex()]
            assert lab.shown() == shown
            assert [decode(body, lab.names) for body in lab.routes()] == [(form, route)]
        finally:
            lab.ip("nexthop flush")
            lab.parameter("net/ipv4/nexthop_compat_mode", "1")
            lab.heard()

    in_lab(through)


def load_program() -> int:
    """Load the BPF program `return 0` for routes by bpf(2), and return its descriptor."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    lwt_xmit = 12
    wish = struct.pack("=IIQQIIQ", lwt_xmit, 2, ctypes.addressof(instructions), ctypes.addressof(licence), 0, 0, 0)
    descriptor: int = ctypes.CDLL(None, use_errno=True).syscall(321, 5, wish, len(wish))
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    return descriptor


def test_a_bpf_program_is_equal_but_for_its_descriptor(in_lab: Work[None]) -> None:
    def program(lab: Lab) -> None:
        descriptor = load_program()
        wrap = bpf_encapsulation(descriptor, "felix")
        encode = Encoder(lab.indexes)
        several = Route(hops=(hop("172.31.1.2", E0, encapsulation=wrap), hop("172.31.2.2", E1)))
        try:
            for form, route in (
                (key("10.6.0.0/24"), via("172.31.1.2", encapsulation=wrap)),
                (key("10.6.1.0/24"), several),
                (key("fd10::/64"), via("fd01::2", encapsulation=wrap)),
            ):
                ours = encode(form, route)
                assert lab.send(NEW_ROUTE, ADD, ours) == 0
                assert "xmit felix" in lab.shown()
                assert [normalised(body).hex() for body in lab.routes()] == [normalised(ours).hex()]
                assert lab.send(DELETE_ROUTE, 0, ours) == 0
        finally:
            os.close(descriptor)
            lab.heard()

    in_lab(program)


NEIGHBOURS = [
    pytest.param(Neighbour(IPv4Address("172.31.1.9"), E0, "aa:bb:cc:dd:ee:0f"), 0, id="permanent"),
    pytest.param(Neighbour(IPv6Address("fd01::9"), E0, "aa:bb:cc:dd:ee:0f"), 0, id="IPv6"),
    pytest.param(Neighbour(IPv4Address("172.31.1.9"), E0, "aa:bb:cc:dd:ee:0f", state=0x40), 0, id="noarp"),
    pytest.param(Neighbour(IPv4Address("169.254.1.1"), E0, proxy=True), 8, id="proxy"),
    pytest.param(Neighbour(IPv6Address("fe80::9"), E1, proxy=True), 8, id="IPv6 proxy"),
]


@pytest.mark.parametrize(("neighbour", "flags"), NEIGHBOURS)
def test_neighbours_are_read_as_written(in_lab: Work[None], neighbour: Neighbour, flags: int) -> None:
    def write(lab: Lab) -> None:
        assert lab.send(NEW_NEIGHBOUR, ADD, neighbour_codec.encode(neighbour, lab.indexes)) == 0
        family = 2 if neighbour.address.version == 4 else 10
        bodies = lab.dump(GET_NEIGHBOUR, struct.pack("=BxxxiHBB", family, 0, 0, flags, 0))
        shown = lab.ip(f"neigh show {'proxy' if neighbour.proxy else 'nud all'} dev {neighbour.device}")
        lab.ip(f"neigh del {'proxy ' if neighbour.proxy else ''}{neighbour.address} dev {neighbour.device}")
        assert neighbour in [neighbour_codec.decode(body, lab.names) for body in bodies]
        assert f"{neighbour.address} {f'lladdr {neighbour.mac}' if neighbour.mac else ''}" in shown

    in_lab(write)
