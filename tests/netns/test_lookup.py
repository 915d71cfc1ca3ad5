"""Questions about single packets and neighbours, asked of a real kernel: the answers, and what is refused."""

import os
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from joined import joined
from spaces import Space

from felix_py.kernel.lookup import Lookup
from felix_py.kernel.lookup_codec import NEIGHBOUR_STATES, Found
from felix_py.kernel.objects import RouteType
from felix_py.kernel.wire import Refusal
from felix_py.model import IPAddress
from felix_py.trace import sight

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def here() -> Iterator[Space]:
    """A host with a neighbour that answers (.2), and routes of several kinds."""
    with joined() as (here, there):
        there.ip("address add 192.0.2.2/24 dev eth0", "address add 2001:db8::2/64 dev eth0 nodad", "link set eth0 up")
        here.ip(
            "address add 192.0.2.1/24 dev eth0",
            "address add 2001:db8::1/64 dev eth0 nodad",
            "link set eth0 mtu 1400 up",
            "route add 198.51.100.0/24 via 192.0.2.2 mtu 1300",
            "route add blackhole 203.0.113.0/24",
            "route add unreachable 203.0.113.128/25",
            "route add 10.0.0.0/8 nexthop via 192.0.2.2 nexthop via 192.0.2.3",
            "route add 10.6.0.0/16 via inet6 2001:db8::2 dev eth0",
            "route add 2001:db8:1::/48 via 2001:db8::2",
            "route add blackhole 2001:db8:2::/48",
        )
        here.parameter("ipv4/conf/all/forwarding", "1")
        yield here


@pytest.fixture
def lookup(here: Space) -> Iterator[Lookup]:
    lookup = here.do(Lookup)
    yield lookup
    lookup.close()


def ask(here: Space, lookup: Lookup, destination: str, source: str | None = None, device: str | None = None) -> object:
    names = here.do(socket.if_nameindex)
    index = next((number for number, name in names if name == device), 0)
    return lookup.route(ip_address(destination), ip_address(source) if source else None, index, dict(names))


def via(text: str | None) -> IPAddress | None:
    return ip_address(text) if text else None


@pytest.mark.parametrize(
    ("destination", "prefix", "device", "gateway", "source", "mtu", "weights"),
    [
        pytest.param("192.0.2.2", "192.0.2.0/24", "eth0", None, "192.0.2.1", None, 1, id="on the link"),
        pytest.param("198.51.100.9", "198.51.100.0/24", "eth0", "192.0.2.2", "192.0.2.1", 1300, 1, id="a router"),
        pytest.param("10.6.0.1", "10.6.0.0/16", "eth0", "2001:db8::2", "192.0.2.1", None, 1, id="through IPv6"),
        pytest.param("2001:db8:1::1", "2001:db8:1::/48", "eth0", "2001:db8::2", "2001:db8::1", None, 1, id="IPv6"),
    ],
)  # fmt: skip
def test_the_way_of_a_packet_is_found(
    here: Space,
    lookup: Lookup,
    destination: str,
    prefix: str,
    device: str,
    gateway: str | None,
    source: str,
    mtu: int | None,
    weights: int,
) -> None:
    found = ask(here, lookup, destination)
    assert isinstance(found, Found)
    assert (found.prefix, found.type, found.device) == (ip_network(prefix), RouteType.UNICAST, device)
    assert (found.via, found.source, found.mtu, found.weights) == (via(gateway), via(source), mtu, weights)


def test_of_several_next_hops_one_is_taken_and_all_are_counted(here: Space, lookup: Lookup) -> None:
    found = ask(here, lookup, "10.0.0.1")
    assert isinstance(found, Found)
    assert found.weights == 2
    assert found.via in (IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3"))


def test_an_address_of_the_host_is_local(here: Space, lookup: Lookup) -> None:
    found = ask(here, lookup, "192.0.2.1", "192.0.2.2", "eth0")
    assert isinstance(found, Found)
    assert (found.type, found.device, found.prefix) == (RouteType.LOCAL, None, ip_network("192.0.2.1/32"))


@pytest.mark.parametrize(
    ("destination", "source", "device", "code"),
    [
        pytest.param("203.0.113.1", None, None, 22, id="a blackhole"),
        pytest.param("203.0.113.129", None, None, 113, id="an unreachable route"),
        pytest.param("172.16.0.1", None, None, 101, id="no route"),
        pytest.param("2001:db8:2::1", None, None, 22, id="a blackhole of IPv6"),
        pytest.param("198.51.100.9", "192.0.2.1", "eth0", 22, id="our own address from outside"),
    ],
)
def test_what_goes_nowhere_is_refused(
    here: Space, lookup: Lookup, destination: str, source: str | None, device: str | None, code: int
) -> None:
    refused = ask(here, lookup, destination, source, device)
    assert isinstance(refused, Refusal)
    assert refused.code == code


def test_routes_that_reject_are_listed_by_their_kind(lookup: Lookup) -> None:
    assert list(lookup.rejecting(RouteType.BLACKHOLE, 4)) == [ip_network("203.0.113.0/24")]
    assert list(lookup.rejecting(RouteType.UNREACHABLE, 4)) == [ip_network("203.0.113.128/25")]
    assert list(lookup.rejecting(RouteType.BLACKHOLE, 6)) == [ip_network("2001:db8:2::/48")]


@pytest.mark.parametrize("address", [IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2")])
def test_a_neighbour_that_nobody_knows_is_looked_for(here: Space, lookup: Lookup, address: IPAddress) -> None:
    here.run("ip", "neigh", "flush", "dev", "eth0", "nud", "all")
    index = here.do(socket.if_nametoindex, "eth0")
    assert NEIGHBOUR_STATES[lookup.neighbour(address, index)] == "reachable"
    assert len(lookup.mac(address, index) or b"") == 6


def test_a_neighbour_that_does_not_answer_is_waited_for_a_moment_only(here: Space, lookup: Lookup) -> None:
    index, began = here.do(socket.if_nametoindex, "eth0"), time.monotonic()
    assert NEIGHBOUR_STATES[lookup.neighbour(IPv4Address("192.0.2.77"), index)] == "incomplete"
    assert time.monotonic() - began < 1.0
    assert lookup.mac(IPv4Address("192.0.2.77"), index) is None


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        pytest.param(("/nowhere/nft",), "nft is not installed; apt-get install nftables", id="no nft"),
        pytest.param(("false",), "nft refused: ", id="nft refuses"),
        pytest.param(("sleep", "9"), "nft did not answer: ", id="nft hangs"),
    ],
)
def test_filters_that_cannot_be_read_are_said_to_be_so(
    here: Space, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setattr(sight, "NFT", command)
    monkeypatch.setattr(sight, "DEADLINE", 0.2)
    with here.do(sight.KernelSight) as seen:
        assert str(seen.unfiltered).startswith(sentence)
        assert (seen.table, seen.chains, "eth0" in seen.links) == (None, (), True)


def test_filters_of_this_namespace_are_read(here: Space) -> None:
    other = "table inet other { chain f { type filter hook forward priority 0; policy drop; ip protocol 4 drop; }; }"
    here.run("nft", other)
    here.run("nft", 'table inet felix { set pods { type ifname; elements = { "cali1" }; }; }')
    try:
        with here.do(sight.KernelSight) as seen:
            assert [(str(each), each.policy, each.lines) for each in seen.chains] == [
                ("inet other f", "drop", ("ip protocol 4 drop",))
            ]
            assert seen.table is not None
            assert seen.table.elements == {"pods": frozenset({'"cali1"'})}
    finally:
        here.run("nft", "flush", "ruleset")


def test_the_node_behind_a_hardware_address_is_found_in_the_forwarding_table(here: Space, lookup: Lookup) -> None:
    here.ip(
        "link add vxlan0 type vxlan id 4096 dstport 4789 local 192.0.2.1 dev eth0 nolearning",
        "link set vxlan0 up",
        "neigh add 10.65.3.0 lladdr 02:00:00:00:00:03 dev vxlan0 nud permanent",
    )
    try:
        here.run("bridge", "fdb", "add", "02:00:00:00:00:04", "dev", "vxlan0", "dst", "192.0.2.4")
        here.run("bridge", "fdb", "add", "02:00:00:00:00:03", "dev", "vxlan0", "dst", "192.0.2.3")
        with here.do(sight.KernelSight) as seen:
            assert seen.forwarding(IPv4Address("10.65.3.0"), "vxlan0") == IPv4Address("192.0.2.3")
            assert seen.forwarding(IPv4Address("10.65.9.0"), "vxlan0") is None
        index = here.do(socket.if_nametoindex, "vxlan0")
        assert lookup.forwarding(bytes.fromhex("020000000005"), index) is None
    finally:
        here.ip("link del vxlan0")
