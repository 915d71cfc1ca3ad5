"""Events of the real kernel: each told once, with who did it; our own, and a burst too large, cost nothing."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from socket import if_nametoindex

import pytest
from wire_lab import ADD, REPLACE, ROUTER, encode, hosts, in_a_namespace, ip, of, settled, until

from felix_py.kernel import next_hop_codec, watch
from felix_py.kernel.messages import messages
from felix_py.kernel.netlink_socket import open_socket, receive, subscribe
from felix_py.kernel.objects import Link, NextHop, NextHopObject
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.watch import Watch
from felix_py.kernel.wire import (
    AddressEvent,
    EventsLost,
    LinkEvent,
    Mode,
    NextHopEvent,
    ParameterEvent,
    ProgramEvent,
    RouteEvent,
    Verb,
    WireBroken,
)

pytestmark = pytest.mark.netns

ELSEWHERE = replace(ROUTER, via=IPv4Address("172.31.1.13"))


@in_a_namespace
def test_changes_by_others_are_told_with_who_did_what() -> None:
    wire, other = settled(Rtnetlink()), Rtnetlink()
    first, second = encode("10.65.0.0/26"), encode("10.65.0.0/26", ELSEWHERE)
    other.write(Verb.NEW_ROUTE, ADD, [first])
    other.write(Verb.NEW_ROUTE, REPLACE, [second])
    other.write(Verb.NEW_ROUTE, Mode.CREATE | Mode.APPEND, [first])
    other.write(Verb.DELETE_ROUTE, Mode.NONE, [second])
    assert list(wire.events()) == [
        RouteEvent(Verb.NEW_ROUTE, Mode.CREATE | Mode.EXCLUSIVE, other.port, first),
        RouteEvent(Verb.NEW_ROUTE, Mode.REPLACE, other.port, second),
        RouteEvent(Verb.NEW_ROUTE, Mode.CREATE | Mode.APPEND, other.port, first),
        RouteEvent(Verb.DELETE_ROUTE, Mode.NONE, other.port, second),
    ]
    assert list(wire.events()) == []


@in_a_namespace
def test_our_own_writes_come_back_to_others_only() -> None:
    wire, other = settled(Rtnetlink()), settled(Rtnetlink())
    hop = NextHopObject(NextHop(IPv4Address("172.31.1.12"), "eth0", onlink=True))
    wire.write(Verb.NEW_NEXT_HOP, ADD, [next_hop_codec.encode(7, hop, {"eth0": if_nametoindex("eth0")})])
    wire.write(
        Verb.NEW_ROUTE, ADD, [encode("10.65.0.0/26"), encode("fd00:65::/64", replace(ROUTER, via=None, onlink=False))]
    )
    wire.write(Verb.DELETE_ROUTE, Mode.NONE, [encode("10.65.0.0/26")])
    wire.write(Verb.DELETE_NEXT_HOP, Mode.NONE, [next_hop_codec.by_number(7)])
    assert list(wire.events()) == []
    assert [(event.verb, event.port) for event in other.events()] == [
        (Verb.NEW_NEXT_HOP, wire.port),
        (Verb.NEW_ROUTE, wire.port),
        (Verb.NEW_ROUTE, wire.port),
        (Verb.DELETE_ROUTE, wire.port),
        (Verb.DELETE_NEXT_HOP, wire.port),
    ]


@in_a_namespace
def test_a_large_write_of_ours_does_not_fill_the_queue_of_events() -> None:
    wire = settled(Rtnetlink(event_buffer=4096))
    wire.write(Verb.NEW_ROUTE, ADD, hosts(5000))
    assert list(wire.events()) == []


@in_a_namespace
def test_after_opening_anew_the_new_port_is_ours() -> None:
    wire, other = settled(Rtnetlink()), Rtnetlink()
    wire.reopen()
    wire.write(Verb.NEW_ROUTE, ADD, [encode("10.65.0.0/26")])
    other.write(Verb.NEW_ROUTE, ADD, [encode("10.65.1.0/26")])
    assert [event.port for event in wire.events()] == [other.port]


STORY = """
link add eth1 type veth peer name far1
link set eth1 up
link set far1 up
addr add 172.31.2.11/24 dev eth1
addr add fd00:32::11/64 dev eth1 nodad
route add 10.66.0.0/24 via 172.31.2.12
route add 10.66.0.0/24 via 172.31.2.13 table 1000
route add local 10.67.0.1 dev lo table local
route add blackhole 10.68.0.0/24 table 252
route add fd00:66::/64 via fd00:32::12
nexthop add id 9 via 172.31.2.12 dev eth1
route add 10.69.0.0/24 nhid 9
nexthop del id 9
addr del 172.31.2.11/24 dev eth1
link set eth1 mtu 1400
link set eth1 down
link set eth1 name eth2
link del eth2
"""


@in_a_namespace
def test_the_filter_drops_our_own_and_the_local_table_and_nothing_else() -> None:
    wire = settled(Rtnetlink())
    everything = open_socket()
    for group in watch.GROUPS:
        subscribe(everything, group)
    filtered = Watch(wire.port)
    ip(STORY)
    wire.write(Verb.NEW_ROUTE, ADD, hosts(10))
    ip("route del 10.0.0.3/32")
    heard = []
    while (data := receive(everything)) is not None:
        heard += messages(data)
    allowed = []
    while (data := receive(filtered._socket)) is not None:
        allowed += messages(data)
    # Carriers come when the kernel finds the time, perhaps between the two readings.
    expected = [
        (kind, port, body)
        for kind, _, _, port, body in heard
        if not (kind in (24, 25) and (port == wire.port or body[4] == 255))
    ]
    assert [(kind, port, body) for kind, _, _, port, body in allowed][: len(expected)] == expected
    assert {kind for kind, *_ in expected} == {16, 17, 20, 21, 24, 25, 80, 104, 105, 81}
    assert len(expected) < len(heard) - 10
    assert any(body[4] == 255 for kind, _, _, _, body in heard if kind == 24), "else nothing was shown"


@in_a_namespace
def test_the_life_of_an_interface() -> None:
    wire = settled(Rtnetlink())
    ip("link add cali1 type veth peer name pod1")
    index = if_nametoindex("cali1")
    link = Link("cali1", index, 1500, up=False, running=False)

    def told(heard: list[object]) -> list[LinkEvent]:
        return [event for event in of(LinkEvent, heard) if event.link.index == index]

    assert told(wire.events()) == [LinkEvent(link)]
    ip("link set cali1 mtu 1400\nlink set cali1 name cali2\nlink set cali2 up")
    steps = [(event.link.name, event.link.mtu, event.link.up) for event in told(wire.events())]
    assert list(dict.fromkeys(steps)) == [("cali1", 1400, False), ("cali2", 1400, False), ("cali2", 1400, True)]
    running = Link("cali2", index, 1400, up=True, running=True)
    ip("link set pod1 up")
    until(wire, lambda heard: LinkEvent(running) in heard)
    ip("link set pod1 down")
    until(wire, lambda heard: LinkEvent(replace(running, running=False)) in heard)
    ip("link set cali2 down\nlink del cali2")
    heard = told(wire.events())
    assert LinkEvent(replace(running, up=False, running=False)) in heard
    assert [event.gone for event in heard].count(True) == 1
    assert heard[-1].gone


@in_a_namespace
def test_addresses_come_and_go() -> None:
    wire = settled(Rtnetlink())
    index = if_nametoindex("eth0")
    ip("addr add 10.65.0.1/32 dev eth0\naddr del 10.65.0.1/32 dev eth0")
    assert of(AddressEvent, wire.events()) == [
        AddressEvent(index, "10.65.0.1/32"),
        AddressEvent(index, "10.65.0.1/32", gone=True),
    ]


@in_a_namespace
def test_ipv6_addresses_come_and_go_but_for_link_local_ones() -> None:
    wire = settled(Rtnetlink())
    index = if_nametoindex("eth0")
    ip("addr add fe80::65/64 dev eth0 nodad\naddr add fd00:65::1/128 dev eth0 nodad")
    heard = until(wire, lambda heard: AddressEvent(index, "fd00:65::1/128") in heard)
    ip("addr del fe80::65/64 dev eth0\naddr del fd00:65::1/128 dev eth0")
    heard += until(wire, lambda heard: AddressEvent(index, "fd00:65::1/128", gone=True) in heard)
    assert {event.address for event in of(AddressEvent, heard)} == {"fd00:65::1/128"}


@in_a_namespace
def test_parameters_name_their_interface() -> None:
    wire = settled(Rtnetlink())
    for path in ("eth0/proxy_arp", "default/rp_filter", "all/rp_filter"):
        parameter = Path("/proc/sys/net/ipv4/conf") / path
        parameter.write_text("0" if parameter.read_text().strip() == "1" else "1")
    heard = of(ParameterEvent, wire.events())
    assert list(dict.fromkeys(heard)) == [
        ParameterEvent(if_nametoindex("eth0")),
        ParameterEvent(-2),
        ParameterEvent(-1),
    ]


@in_a_namespace
def test_programs_that_others_remove_name_their_interface() -> None:
    subprocess.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"], check=True)
    wire = settled(Rtnetlink())
    subprocess.run(["tc", "qdisc", "del", "dev", "eth0", "clsact"], check=True)
    assert ProgramEvent(if_nametoindex("eth0")) in of(ProgramEvent, wire.events())


@in_a_namespace
def test_next_hop_objects_come_and_go() -> None:
    wire, other = settled(Rtnetlink()), Rtnetlink()
    hop = NextHopObject(NextHop(IPv4Address("172.31.1.12"), "eth0", onlink=True))
    body = next_hop_codec.encode(7, hop, {"eth0": if_nametoindex("eth0")})
    other.write(Verb.NEW_NEXT_HOP, ADD, [body])
    other.write(Verb.DELETE_NEXT_HOP, Mode.NONE, [next_hop_codec.by_number(7)])
    new, gone = wire.events()
    assert (new.verb, new.port, next_hop_codec.normalised(new.body)) == (Verb.NEW_NEXT_HOP, other.port, body)
    assert (gone.verb, gone.port, next_hop_codec.number_of(gone.body)) == (Verb.DELETE_NEXT_HOP, other.port, 7)
    assert isinstance(new, NextHopEvent)


@in_a_namespace
def test_a_burst_that_is_too_large_is_told_once_and_later_events_arrive() -> None:
    wire, other = settled(Rtnetlink(event_buffer=4096)), Rtnetlink()
    other.write(Verb.NEW_ROUTE, ADD, hosts(1000))
    heard = wire.events()
    assert heard.count(EventsLost()) == 1
    assert 1 < len(heard) < 1000, "what had room is told as well"
    assert list(wire.events()) == []
    other.write(Verb.NEW_ROUTE, ADD, [encode("10.65.0.0/26")])
    assert [event.body for event in wire.events()] == [encode("10.65.0.0/26")]


@in_a_namespace
def test_a_storm_holds_nobody_for_long() -> None:
    wire, other = settled(Rtnetlink()), Rtnetlink()
    watch.LIMIT = 300
    other.write(Verb.NEW_ROUTE, ADD, hosts(1000))
    assert [len(wire.events()) for _ in range(5)] == [300, 300, 300, 100, 0]


@in_a_namespace
def test_pieces_lose_nothing_and_keep_the_order() -> None:
    wire, other = settled(Rtnetlink()), Rtnetlink()
    several = hosts(2 * watch.FEW + 1)
    other.write(Verb.NEW_ROUTE, ADD, several)
    heard = wire.events()
    assert [event.body for event in heard] == several
    assert list(wire.events()) == []


@in_a_namespace
def test_while_pieces_are_read_others_compute() -> None:
    """A thread that asks for the interpreter amid a look gets it between two pieces, and not after its time is up."""
    sys.setswitchinterval(10)  # so that none is taken away
    wire, other = settled(Rtnetlink()), Rtnetlink()
    other.write(Verb.NEW_ROUTE, ADD, hosts(watch.FEW))
    asking, got, looking = threading.Event(), list[int](), list[int]()

    def ask() -> None:
        while asking.is_set():
            got.append(len(looking))
            time.sleep(0)

    asking.set()
    thread = threading.Thread(target=ask)
    thread.start()
    looking.append(1)
    assert len(wire.events()) == watch.FEW
    looking.append(2)
    asking.clear()
    thread.join()
    assert got.count(1) > watch.FEW // watch.PIECE // 2


@in_a_namespace
def test_after_a_loss_the_queue_is_emptied_whatever_the_limit() -> None:
    wire, other = settled(Rtnetlink(event_buffer=65_536)), Rtnetlink()
    watch.LIMIT = 10
    other.write(Verb.NEW_ROUTE, ADD, hosts(5000))
    heard = wire.events()
    assert heard[0] == EventsLost()
    assert len(heard) == 11
    other.write(Verb.NEW_ROUTE, ADD, [encode("10.65.0.0/26")])
    assert [event.body for event in wire.events()] == [encode("10.65.0.0/26")]


@in_a_namespace
def test_a_closed_socket_is_broken_until_it_is_opened_anew() -> None:
    wire, other = settled(Rtnetlink()), Rtnetlink()
    wire.watch.close()
    with pytest.raises(WireBroken, match="reading events failed: Bad file descriptor"):
        wire.events()
    wire.reopen()
    other.write(Verb.NEW_ROUTE, ADD, [encode("10.65.0.0/26")])
    assert len(wire.events()) == 1


@in_a_namespace
def test_nothing_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    wire = Rtnetlink()
    for _ in range(10):
        wire.reopen()
    wire.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
