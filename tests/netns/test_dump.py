"""Reading the real kernel's tables: whole, of one table only, and whatever others do meanwhile."""

import multiprocessing
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from socket import if_nametoindex
from typing import Any

import pytest
from wire_lab import ADD, BLACKHOLE, IPV6, ROUTER, SECONDS, encode, hosts, in_a_namespace, ip, settled

from felix_py.kernel import next_hop_codec, route_codec
from felix_py.kernel.dump import Answers, Reader
from felix_py.kernel.objects import Link, NextHop, NextHopObject, Route
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Family, Mode, Verb, WireBroken
from felix_py.kernel.writer import Writer

pytestmark = pytest.mark.netns

MAIN, OTHER = 254, 1000


def ours(bodies: list[bytes]) -> list[bytes]:
    return [route_codec.normalised(body) for body in bodies if route_codec.protocol_of(body) == 80]


@in_a_namespace
def test_of_a_dump_the_kernel_gives_one_table_only() -> None:
    wire = Rtnetlink()
    main, other = hosts(300), hosts(200, table=OTHER)
    assert wire.write(Verb.NEW_ROUTE, ADD, [*main, *other]) == {}
    assert ours(wire.dump_routes(Family.IPV4, MAIN)) == main
    assert wire.dump_routes(Family.IPV4, OTHER) == other
    assert {body[4] for body in wire.dump_routes(Family.IPV4, 255)} == {255}
    assert wire.dump_routes(Family.IPV4, 4242) == [], "a table that does not exist is empty"


@in_a_namespace
def test_ipv6_tables_are_told_apart_too() -> None:
    ip(IPV6)
    wire = Rtnetlink()
    gateway = Route(via=IPv6Address("fd00:31::12"), device="eth0")
    main, other = encode("fd00:65::/64", gateway), encode("fd00:65::/64", gateway, OTHER)
    assert wire.write(Verb.NEW_ROUTE, ADD, [main, other]) == {}
    assert ours(wire.dump_routes(Family.IPV6, MAIN)) == [main]
    assert ours(wire.dump_routes(Family.IPV6, OTHER)) == [other]
    assert wire.dump_routes(Family.IPV6, 4242) == []


@in_a_namespace
def test_twenty_thousand_routes_of_all_lengths_come_back_byte_for_byte() -> None:
    wire = Rtnetlink()
    legs = Route(hops=tuple(NextHop(IPv4Address("172.31.1.12") + leg, "eth0", onlink=True) for leg in range(3)))
    kinds = (ROUTER, ROUTER, BLACKHOLE, ROUTER, legs, Route(via=ROUTER.via, device="eth0", onlink=True, mtu=1400))
    bodies = [hosts(1, kinds[number % 6], first=str(IPv4Address("10.0.0.0") + number))[0] for number in range(2000)]
    bodies += hosts(18_000, first="10.1.0.0")
    assert wire.write(Verb.NEW_ROUTE, ADD, bodies) == {}
    assert ours(wire.dump_routes(Family.IPV4, MAIN)) == bodies


@in_a_namespace
def test_a_reading_that_was_cut_short_is_not_taken_for_the_next() -> None:
    Writer().write(Verb.NEW_ROUTE, ADD, [*hosts(5000), *hosts(10, table=OTHER)])
    with Reader() as reader:
        receive = reader._receive
        parts: Iterator[bytes | None] = iter((receive, receive))

        def interrupted() -> bytes | None:
            for part in parts:
                return part()
            raise KeyboardInterrupt

        reader._receive = interrupted
        with pytest.raises(KeyboardInterrupt):
            reader.routes(Family.IPV4, MAIN)
        reader._receive = receive.__func__.__get__(reader)
        assert reader.routes(Family.IPV4, OTHER) == hosts(10, table=OTHER)
        assert len(ours(reader.routes(Family.IPV4, MAIN))) == 5000


def flap(bodies: list[bytes], stop: "multiprocessing.synchronize.Event") -> None:
    writer = Writer()
    while not stop.is_set():
        writer.write(Verb.DELETE_ROUTE, Mode.NONE, bodies)
        writer.write(Verb.NEW_ROUTE, ADD, bodies)


@contextmanager
def flapping(bodies: list[bytes]) -> Iterator[None]:
    """Let another process delete and add these routes all the while."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    process = context.Process(target=flap, args=(bodies, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(timeout=10)
        assert process.exitcode == 0


@in_a_namespace
def test_ipv4_dumps_hold_whole_routes_only_while_the_table_changes() -> None:
    Writer().write(Verb.NEW_ROUTE, ADD, hosts(5000))
    known = set(hosts(5000))
    with Reader() as reader, flapping(hosts(100, first="10.0.8.0")):
        for _ in range(30):
            found = ours(reader.routes(Family.IPV4, MAIN))
            assert known.issuperset(found)
            assert len(found) >= 4000, "short by some of those that change, and by those beside them"
    with Reader() as reader:
        assert ours(reader.routes(Family.IPV4, MAIN)) == hosts(5000)


@in_a_namespace
def test_ipv6_dumps_hold_whole_routes_only_while_the_table_changes() -> None:
    ip(IPV6)
    gateway = Route(via=IPv6Address("fd00:31::12"), device="eth0")
    steady = [encode(f"fd00:65:{number:x}::/64", gateway) for number in range(1, 2000)]
    restless = [encode(f"fd00:66:{number:x}::/64", gateway) for number in range(1, 100)]
    Writer().write(Verb.NEW_ROUTE, ADD, steady)
    with Reader() as reader, flapping(restless):
        for _ in range(30):
            assert {*steady, *restless}.issuperset(ours(reader.routes(Family.IPV6, MAIN)))
    with Reader() as reader:
        assert set(steady).issubset(ours(reader.routes(Family.IPV6, MAIN)))


@contextmanager
def coming_and_going(name: str) -> Iterator[None]:
    """Let another process make and remove an interface all the while."""
    lines = f"link add {name} type veth peer name {name}-far\nlink del {name}\n" * 2000
    with tempfile.TemporaryFile("w+") as commands:
        commands.write(lines)
        commands.seek(0)
        with subprocess.Popen(["ip", "-batch", "-"], stdin=commands) as process:
            try:
                yield
                assert process.poll() is None, "nothing came and went any more"
            finally:
                process.kill()


@in_a_namespace
def test_a_listing_that_the_kernel_calls_interrupted_is_read_again() -> None:
    ip("".join(f"link add cali{number} type veth peer name far-{number}\n" for number in range(80)))
    interrupted = 0
    with Reader() as reader, coming_and_going("restless"):
        read_once = reader._read_once

        def counted(*question: Any) -> Answers:
            nonlocal interrupted
            interrupted += 1
            answers = read_once(*question)
            interrupted -= 1
            return answers

        reader._read_once = counted
        deadline = time.monotonic() + SECONDS
        while not interrupted:
            assert time.monotonic() < deadline, f"no reading was interrupted in {SECONDS} s"
            names = {link.name for link in reader.links()}
            assert {f"cali{number}" for number in range(80)} < names


@in_a_namespace
def test_next_hop_objects_are_read_back() -> None:
    wire = Rtnetlink()
    assert wire.dump_next_hops() == []
    hop = NextHopObject(NextHop(IPv4Address("172.31.1.12"), "eth0", onlink=True))
    body = next_hop_codec.encode(7, hop, {"eth0": if_nametoindex("eth0")})
    wire.write(Verb.NEW_NEXT_HOP, ADD, [body])
    assert list(map(next_hop_codec.normalised, wire.dump_next_hops())) == [body]


@in_a_namespace
def test_interfaces_are_read_with_their_addresses() -> None:
    wire = settled(Rtnetlink())
    ip(IPV6)
    ip("addr add 10.65.0.1/32 dev eth0\naddr add 10.9.0.1 peer 10.9.0.2/32 dev far0\nlink set far0 mtu 1400")
    ip("link add spare type veth peer name far1")
    found = {link.name: link for link in wire.dump_links()}
    eth0 = {"172.31.1.11/24", "10.65.0.1/32", "fd00:31::11/64"}
    assert found == {
        "lo": Link("lo", 1, 65536, up=True, running=True, addresses=frozenset({"127.0.0.1/8"})),
        "eth0": Link("eth0", if_nametoindex("eth0"), 1500, up=True, running=True, addresses=frozenset(eth0)),
        "far0": Link("far0", if_nametoindex("far0"), 1400, up=True, running=True, addresses=frozenset({"10.9.0.1/32"})),
        "spare": Link("spare", if_nametoindex("spare"), 1500, up=False, running=False),
        "far1": Link("far1", if_nametoindex("far1"), 1500, up=False, running=False),
    }


@in_a_namespace
def test_more_interfaces_are_read_than_one_part_of_a_dump_holds() -> None:
    wire = Rtnetlink()
    pairs = [(f"cali{number}", f"far-{number}", f"10.1.0.{number}/32") for number in range(80)]
    ip("".join(f"link add {name} type veth peer name {far}\naddr add {own} dev {name}\n" for name, far, own in pairs))
    found = {link.name: link.addresses for link in wire.dump_links()}
    assert [found[name] for name, _, _ in pairs] == [{own} for _, _, own in pairs]
    assert len(found) == 163


@in_a_namespace
def test_a_closed_socket_is_broken_until_it_is_opened_anew() -> None:
    wire = Rtnetlink()
    wire._reader.close()
    with pytest.raises(WireBroken, match=r"^reading the routes of table 254 failed: Bad file descriptor"):
        wire.dump_routes(Family.IPV4, MAIN)
    wire.reopen()
    assert wire.dump_routes(Family.IPV4, MAIN) != []


@in_a_namespace
def test_what_the_kernel_refuses_to_tell_is_not_taken_for_an_empty_table() -> None:
    with (
        Reader() as reader,
        pytest.raises(WireBroken, match=r"^the kernel refused to tell the moons: Invalid argument"),
    ):
        reader._read(26, struct.pack("=BBBBBBBBI", 2, 7, 7, 7, 7, 7, 7, 7, 7), 24, "moons")
