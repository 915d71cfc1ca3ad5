"""Writing to the real kernel: every change has its own result, and a write that broke is known to have broken."""

import errno
import signal
import socket
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from socket import if_nametoindex

import pytest
from wire_lab import (
    ADD,
    BLACKHOLE,
    IPV6,
    NEW_NETWORK,
    NEW_USER,
    NOWHERE,
    REPLACE,
    ROUTER,
    encode,
    hosts,
    in_a_namespace,
    ip,
    run,
    settled,
)

from felix_py.kernel import next_hop_codec, route_codec
from felix_py.kernel.messages import HEADER, REQUEST
from felix_py.kernel.netlink_socket import MAXIMUM_SEQUENCE
from felix_py.kernel.objects import NextHop, NextHopObject, Route, RouteKey
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Family, Mode, Refusal, Verb, WireBroken
from felix_py.kernel.writer import Writer

pytestmark = pytest.mark.netns

ELSEWHERE = replace(ROUTER, via=IPv4Address("172.31.1.13"))


def pods(wire: Rtnetlink) -> list[bytes]:
    """Return the routes of 10.0.0.0/8 in the main table."""
    bodies = wire.dump_routes(Family.IPV4, 254)
    return [body for body in bodies if body[20:24] == struct.pack("=HH", 8, 1) and body[24] == 10]


@in_a_namespace
def test_of_a_thousand_changes_exactly_the_seven_bad_ones_are_refused() -> None:
    wire = Rtnetlink()
    bodies = hosts(1000)
    bad = {
        0: encode("10.0.0.0/32", NOWHERE),
        1: bodies[1][:4],
        17: encode("10.0.0.17/32", Route(device="eth0", mtu=1400, through=4711)),
        500: bodies[500].replace(struct.pack("=I", if_nametoindex("eth0")), struct.pack("=I", 4711)),
        501: bodies[502],  # then 502 is there already
        998: b"\x02\x21" + bodies[998][2:],
        999: encode("10.0.3.231/32", NOWHERE),
    }
    for position, body in bad.items():
        bodies[position] = body
    refused = wire.write(Verb.NEW_ROUTE, ADD, bodies)
    assert refused == {
        0: Refusal(errno.ENETUNREACH, "Network is unreachable: Nexthop has invalid gateway"),
        1: Refusal(errno.EINVAL, "Invalid argument"),
        17: Refusal(errno.EINVAL, "Invalid argument: Nexthop id does not exist"),
        500: Refusal(errno.ENODEV, "No such device: Nexthop device required for onlink"),
        502: Refusal(errno.EEXIST, "File exists"),
        998: Refusal(errno.EINVAL, "Invalid argument: Invalid prefix length"),
        999: Refusal(errno.ENETUNREACH, "Network is unreachable: Nexthop has invalid gateway"),
    }
    assert len(pods(wire)) == 993


@in_a_namespace
def test_positions_hold_across_several_sends() -> None:
    wire = Rtnetlink()
    bodies = hosts(2500)
    for position in (0, 999, 1000, 1999, 2000, 2499):
        bodies[position] = encode("10.99.0.0/32", NOWHERE)
    assert list(wire.write(Verb.NEW_ROUTE, ADD, bodies)) == [0, 999, 1000, 1999, 2000, 2499]
    assert len(pods(wire)) == 2494
    assert wire.write(Verb.DELETE_ROUTE, Mode.NONE, hosts(2500)) == {}, "what was never there is gone already"
    assert pods(wire) == []


@in_a_namespace
def test_changes_too_large_for_one_send_keep_their_order() -> None:
    wire = Rtnetlink()
    legs = tuple(
        NextHop(IPv4Address("172.31.1.12") + leg, "eth0", onlink=True) for level in range(8) for leg in range(9)
    )
    wide = Route(hops=legs)
    bodies = hosts(400, wide)
    bodies[399] = bodies[0]
    assert sum(map(len, bodies)) > 2 * 212_992, "more than a queue of the usual size takes"
    assert wire.write(Verb.NEW_ROUTE, ADD, bodies) == {399: Refusal(errno.EEXIST, "File exists")}
    assert pods(wire) == bodies[:399]


@in_a_namespace
def test_what_a_new_route_may_do_is_said_by_its_mode() -> None:
    wire = Rtnetlink()
    first, second = encode("10.65.0.0/26"), encode("10.65.0.0/26", ELSEWHERE)
    assert wire.write(Verb.NEW_ROUTE, Mode.REPLACE, [first]) == {0: Refusal(errno.ENOENT, "No such file or directory")}
    assert wire.write(Verb.NEW_ROUTE, ADD, [first]) == {}
    assert wire.write(Verb.NEW_ROUTE, ADD, [second]) == {0: Refusal(errno.EEXIST, "File exists")}
    assert pods(wire) == [first]
    assert wire.write(Verb.NEW_ROUTE, Mode.CREATE | Mode.APPEND, [second]) == {}
    assert pods(wire) == [first, second]
    assert wire.write(Verb.DELETE_ROUTE, Mode.NONE, [first]) == {}
    assert pods(wire) == [second]
    assert wire.write(Verb.NEW_ROUTE, REPLACE, [first]) == {}
    assert pods(wire) == [first]


@in_a_namespace
def test_ipv6_routes_are_written_and_read_back_alike() -> None:
    ip(IPV6)
    wire = Rtnetlink()
    gateway = Route(via=IPv6Address("fd00:31::12"), device="eth0")
    bodies = [encode(f"fd00:65:{number:x}::/64", gateway) for number in range(1, 500)]
    assert wire.write(Verb.NEW_ROUTE, ADD, [*bodies, bodies[3]]) == {499: Refusal(errno.EEXIST, "File exists")}
    found = map(route_codec.normalised, wire.dump_routes(Family.IPV6, 254))
    assert [body for body in found if route_codec.protocol_of(body) == 80] == bodies
    assert wire.write(Verb.DELETE_ROUTE, Mode.NONE, [*bodies, *bodies]) == {}


@in_a_namespace
def test_the_kernels_words_name_the_attribute_that_it_did_not_like() -> None:
    wire = Rtnetlink()
    body = encode("10.65.0.0/26") + struct.pack("=HHBxxx", 5, 15, 254)  # a table number of one byte
    (refusal,) = wire.write(Verb.NEW_ROUTE, ADD, [body]).values()
    assert refusal.code == errno.ERANGE
    assert refusal.text.endswith(" (attribute 15 at byte 44 of the body)"), refusal.text


@in_a_namespace
def test_a_body_of_odd_length_shifts_no_other() -> None:
    ip(IPV6)
    wire = Rtnetlink()
    preference = struct.pack("=HHB", 5, 20, 1)
    gateway = Route(via=IPv6Address("fd00:31::12"), device="eth0")
    bodies = [encode(f"fd00:65:{number:x}::/64", gateway) + preference for number in range(1, 9)]
    assert wire.write(Verb.NEW_ROUTE, ADD, bodies) == {}
    assert sum(route_codec.protocol_of(body) == 80 for body in wire.dump_routes(Family.IPV6, 254)) == 8


@in_a_namespace
def test_deleting_a_next_hop_that_is_gone_is_done() -> None:
    wire = Rtnetlink()
    body = next_hop_codec.encode(
        7, NextHopObject(NextHop(IPv4Address("172.31.1.12"), "eth0", onlink=True)), {"eth0": if_nametoindex("eth0")}
    )
    gone = next_hop_codec.by_number(7)
    assert wire.write(Verb.NEW_NEXT_HOP, ADD, [body, body]) == {1: Refusal(errno.EEXIST, "File exists")}
    assert wire.write(Verb.DELETE_NEXT_HOP, Mode.NONE, [gone, gone]) == {}
    assert wire.dump_next_hops() == []


@in_a_namespace
def test_nothing_to_write_is_no_send() -> None:
    wire = Rtnetlink()
    wire.close()
    assert wire.write(Verb.NEW_ROUTE, ADD, []) == {}


@in_a_namespace
def test_sequence_numbers_start_anew_where_32_bits_end() -> None:
    writer = Writer()
    for sequence in (MAXIMUM_SEQUENCE - 2500, MAXIMUM_SEQUENCE - 1, MAXIMUM_SEQUENCE):
        writer._sequence = sequence
        bodies = hosts(3000)
        bodies[1700] = encode("10.99.0.0/32", NOWHERE)
        assert list(writer.write(Verb.NEW_ROUTE, REPLACE, bodies)) == [1700]
        assert writer._sequence <= 3000


@in_a_namespace
def test_answers_that_an_interrupted_write_left_are_nobodys() -> None:
    writer = Writer()
    bad = encode("10.99.0.0/32", NOWHERE)
    writer._socket.send(HEADER.pack(HEADER.size + len(bad), Verb.NEW_ROUTE, REQUEST | ADD, writer._take(1), 0) + bad)
    assert writer.write(Verb.NEW_ROUTE, ADD, hosts(3)) == {}


@in_a_namespace
def test_each_of_several_writes_on_their_way_has_its_own_refusals() -> None:
    wire = Rtnetlink()
    wire._writer._batch = 400
    parts = [hosts(1000, first=first) for first in ("10.1.0.0", "10.2.0.0", "10.3.0.0")]
    for part, place in zip(parts, (0, 500, 999), strict=True):
        part[place] = encode("10.99.0.0/32", NOWHERE)
    results = [wire.start(Verb.NEW_ROUTE, ADD, part) for part in parts]
    assert [list(result()) for result in results] == [[0], [500], [999]]
    assert [list(result()) for result in results] == [[0], [500], [999]], "whoever asks again hears the same"
    assert len(pods(wire)) == 2997
    assert wire.write(Verb.NEW_ROUTE, REPLACE, hosts(3)) == {}


@in_a_namespace
def test_a_write_on_its_way_that_breaks_says_so_and_those_behind_it_do() -> None:
    wire = Rtnetlink()
    wire._writer.close()
    results = [wire.start(Verb.NEW_ROUTE, ADD, hosts(3)) for _ in range(2)]
    for result in results:
        with pytest.raises(WireBroken, match=r"^writing 3 changes failed: Bad file descriptor"):
            result()
    wire.reopen()
    assert wire.start(Verb.NEW_ROUTE, ADD, hosts(3))() == {}


@in_a_namespace
def test_a_socket_that_is_closed_is_broken_until_it_is_opened_anew() -> None:
    wire = Rtnetlink()
    wire._writer.close()
    with pytest.raises(WireBroken, match=r"^writing 3 changes failed: Bad file descriptor; the sockets have to be"):
        wire.write(Verb.NEW_ROUTE, ADD, hosts(3))
    wire.reopen()
    assert wire.write(Verb.NEW_ROUTE, ADD, hosts(3)) == {}
    assert pods(wire) == hosts(3)


@in_a_namespace
def test_refusals_that_found_no_room_leave_it_unknown_what_was_done() -> None:
    wire = Rtnetlink()
    wire._writer._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with pytest.raises(WireBroken, match=r"^writing 500 changes failed: No buffer space available"):
        wire.write(Verb.NEW_ROUTE, ADD, hosts(500, NOWHERE))
    wire.reopen()
    assert len(wire.write(Verb.NEW_ROUTE, ADD, hosts(500, NOWHERE))) == 500


@in_a_namespace
def test_a_missing_last_answer_leaves_it_unknown_what_was_done() -> None:
    wire = Rtnetlink()
    # A message longer than the send: the kernel drops it, and with it the rest, without a word.
    wire._writer._socket.send(HEADER.pack(4000, Verb.NEW_ROUTE, REQUEST, 1, 0) + hosts(1)[0])
    with pytest.raises(WireBroken, match="did not answer the last of 1 changes, so it is unknown"):
        wire._writer._answers(1, 1)


@in_a_namespace
def test_a_small_queue_has_room_for_all_refusals_of_a_batch() -> None:
    writer = Writer(buffer=106_496)  # doubled by the kernel: net.core.rmem_default
    bodies = [*hosts(1500, NOWHERE), *hosts(1500, BLACKHOLE, first="10.2.0.0")]
    assert list(writer.write(Verb.NEW_ROUTE, ADD, bodies)) == list(range(1500))


def without_privilege() -> None:
    wire = Rtnetlink()
    assert list(wire.write(Verb.NEW_ROUTE, ADD, [*hosts(1500, NOWHERE), *hosts(500)])) == list(range(1500))
    assert pods(wire) == hosts(500)


def test_root_of_a_user_namespace_may_not_force_a_buffer_and_writes_all_the_same() -> None:
    try:
        run(without_privilege, NEW_USER | NEW_NETWORK)
    except AssertionError as failure:
        if "unshare: " in str(failure):
            pytest.skip("needs user namespaces: sysctl user.max_user_namespaces=100")
        raise


@in_a_namespace
def test_a_signal_in_the_middle_of_a_large_write_loses_nothing() -> None:
    wire = Rtnetlink()
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        assert wire.write(Verb.NEW_ROUTE, ADD, hosts(20_000)) == {}
        assert len(pods(wire)) == 20_000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert rung


@in_a_namespace
def test_port_is_the_one_by_which_others_know_us() -> None:
    wire, other = settled(Rtnetlink()), Rtnetlink()
    other.write(Verb.NEW_ROUTE, ADD, [encode("10.65.0.0/26")])
    assert [event.port for event in wire.events()] == [other.port]
    assert wire.port != other.port
    assert RouteKey(ip_network("10.65.0.0/26")) == route_codec.decode(pods(wire)[0], {})[0]
