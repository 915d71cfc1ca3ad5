"""What is worked out about VXLAN without any I/O: hardware addresses, gateways, MTUs, and the order of changes."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from felix_py.kernel.objects import DeleteTunnel, KernelState, PutTunnel
from felix_py.kernel.reconcile import after_routes, parameters_and_tunnels
from vxlan import entries
from vxlan.entries import BRIDGE, INET, INET6, Entry
from vxlan.tunnel import Vxlan, before_routes, differences, gateway, link_local, mac_of, mtu

A, B = "66:00:00:00:00:0a", "66:00:00:00:00:0b"
NODE_A, NODE_B = IPv4Address("172.31.1.12"), IPv4Address("172.31.2.11")
BOTH = Vxlan(
    IPv4Address("172.31.1.11"),
    1450,
    4096,
    4789,
    "66:00:00:00:00:01",
    forwarding=frozenset({(A, NODE_A), (B, NODE_B)}),
    neighbours=frozenset({(A, NODE_A), (B, NODE_B)}),
)
ONLY_A = replace(BOTH, forwarding=frozenset({(A, NODE_A)}), neighbours=frozenset({(A, NODE_A)}))


def test_hardware_addresses_are_those_that_calico_works_out() -> None:
    # The first bytes of `printf node-1 | sha1sum` and `printf node-1-v6 | sha1sum`, behind 66, the letter f.
    assert [mac_of("node-1", 4), mac_of("node-1", 6)] == ["66:b3:68:28:39:8e", "66:24:ac:63:df:6c"]


def test_a_hardware_address_is_local_and_of_one_interface() -> None:
    first = int(mac_of("any", 4)[:2], 16)
    assert (first & 0b10, first & 0b01) == (0b10, 0)


def test_gateways() -> None:
    assert link_local("ee:ee:ee:ee:ee:ee") == IPv6Address("fe80::ecee:eeff:feee:eeee")
    assert gateway(NODE_A, A) == NODE_A
    assert gateway(IPv6Address("fd31:1::12"), A) == IPv6Address("fe80::6400:ff:fe00:a")


@pytest.mark.parametrize(
    ("underlay", "version", "inner"),
    [(1500, 4, 1450), (1500, 6, 1430), (9000, 4, 8950), (600, 4, 576), (1300, 6, 1280)],
)
def test_mtu(underlay: int, version: int, inner: int) -> None:
    assert mtu(underlay, version) == inner


@pytest.mark.parametrize(
    "entry", [Entry(INET, A, NODE_A), Entry(INET6, B, IPv6Address("fe80::1")), Entry(BRIDGE, A, IPv6Address("fd31::1"))]
)
def test_entries_are_read_as_written(entry: Entry) -> None:
    assert entries.decode(entries.encode(entry, 7)) == (entry, True)


@pytest.mark.parametrize("body", [b"", bytes(12), entries.encode(Entry(INET, A, NODE_A), 7)[:-8]])
def test_what_names_no_hardware_address_is_no_entry(body: bytes) -> None:
    assert entries.decode(body) is None


def test_what_routes_may_lead_to_stays_until_they_have_moved() -> None:
    want, have = KernelState(tunnels={BOTH.name: ONLY_A}), KernelState(tunnels={BOTH.name: BOTH})
    assert list(parameters_and_tunnels(want, have)) == []
    assert list(after_routes(want, have)) == [PutTunnel(ONLY_A)]
    assert list(parameters_and_tunnels(have, want)) == [PutTunnel(BOTH)]
    assert list(after_routes(have, want)) == []


def test_a_device_is_made_before_routes_and_removed_after_them() -> None:
    some, none = KernelState(tunnels={BOTH.name: BOTH}), KernelState()
    assert list(parameters_and_tunnels(some, none)) == [PutTunnel(BOTH)]
    assert list(parameters_and_tunnels(none, some)) == []
    assert list(after_routes(none, some)) == [DeleteTunnel(BOTH.name)]


def test_a_node_that_moves_replaces_its_entry_and_one_that_changes_its_hardware_address_its_neighbour() -> None:
    moved = replace(ONLY_A, forwarding=frozenset({(A, NODE_B)}))
    assert before_routes(moved, ONLY_A) == moved
    other = replace(ONLY_A, forwarding=frozenset({(B, NODE_A)}), neighbours=frozenset({(B, NODE_A)}))
    both = before_routes(other, ONLY_A)
    assert both.forwarding == {(A, NODE_A), (B, NODE_A)}
    assert both.neighbours == {(B, NODE_A)}


def test_differences_are_named() -> None:
    assert differences(BOTH, BOTH) == {}
    assert differences(BOTH, replace(ONLY_A, up=False)).keys() == {"forwarding", "neighbours", "up"}
