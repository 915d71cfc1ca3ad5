"""Nodes of ours against each other: the real agents, in a mesh, dying and returning."""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from felix_node import FelixNode, block, configuration, node, pool
from interop_lab import ADDRESSES, BLOCKS, N1, N2, Lab, six, until

pytestmark = [pytest.mark.interop, pytest.mark.matrix]

EVERYTHING = (
    configuration(mesh=True),
    *(node(name, ADDRESSES[name]) for name in BLOCKS),
    *(block(name, cidr) for name, cidr in BLOCKS.items()),
    pool(),
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab("bird", tmp_path)  # no daemon is asked for here
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def mesh(lab: Lab) -> tuple[FelixNode, FelixNode]:
    """Two nodes that have each other's block."""
    one, two = lab.stopped_felix("n1"), lab.stopped_felix("n2")
    lab.together(lambda: one.start(*EVERYTHING), lambda: two.start(*EVERYTHING))
    until(lambda: one.forwards(BLOCKS["n2"]) and two.forwards(BLOCKS["n1"]), "the nodes have each other's block")
    return one, two


def test_one_of_the_two_dials(mesh: tuple[FelixNode, FelixNode]) -> None:
    one, two = mesh
    assert one.session(N2)["connection"]["dialledBy"] == "the peer"
    assert two.session(N1)["connection"]["dialledBy"] == "us"
    assert (one.session(N2)["flaps"], two.session(N1)["flaps"]) == (0, 0)


def test_a_new_block_is_in_the_other_kernel_at_once(mesh: tuple[FelixNode, FelixNode]) -> None:
    one, two = mesh
    extra = IPv4Network("10.65.3.0/26")
    for each in (one, two):
        each.apply(*EVERYTHING, block("n1", extra))
    assert until(lambda: two.forwards(extra), "the new block is in the other kernel") < 1
    for each in (one, two):
        each.apply(*EVERYTHING)
    assert until(lambda: not two.forwards(extra), "the block is gone again") < 1
    assert two.session(N1)["flaps"] == 0


def test_an_agent_killed_five_times_costs_neither_kernel_a_route(mesh: tuple[FelixNode, FelixNode], lab: Lab) -> None:
    one, two = mesh
    with lab.route_events("n1") as first, lab.route_events("n2") as second:
        for number in range(1, 6):
            one.kill()
            until(lambda: not two.established(N1), f"death {number} is noticed")
            one.start()
            until(lambda: _settled(one) and _settled(two), f"all is as before after death {number}", within=15)
        assert (first(), second()) == ("", "")


def test_both_agents_killed_together_cost_no_route(mesh: tuple[FelixNode, FelixNode], lab: Lab) -> None:
    one, two = mesh
    with lab.route_events("n1") as first, lab.route_events("n2") as second:
        lab.together(one.kill, two.kill)
        lab.together(one.start, two.start)
        until(lambda: _settled(one) and _settled(two), "all is as before", within=15)
        assert (first(), second()) == ("", "")


def test_a_mesh_of_both_versions_of_ip_carries_each_over_its_own_session(lab: Lab) -> None:
    blocks6 = {name: IPv6Network(f"fd65::{name[1]}:0/122") for name in BLOCKS}
    both = (
        configuration(mesh=True),
        *(node(name, ADDRESSES[name], ipv6Address=f"{six(ADDRESSES[name])}/64") for name in BLOCKS),
        *(block(name, cidr) for each in (BLOCKS, blocks6) for name, cidr in each.items()),
        *(pool(), pool(IPv6Network("fd65::/48"))),
    )
    one, two = lab.stopped_felix("n1"), lab.stopped_felix("n2")
    lab.together(lambda: one.start(*both), lambda: two.start(*both))
    until(lambda: one.forwards(BLOCKS["n2"]) and two.forwards(BLOCKS["n1"]), "the nodes have each other's IPv4 block")
    until(lambda: one.forwards(blocks6["n2"]) and two.forwards(blocks6["n1"]), "and each other's IPv6 block")
    assert (one.gateways(BLOCKS["n2"]), one.gateways(blocks6["n2"])) == ({str(N2)}, {str(six(N2))})
    assert [each["family"] for each in one.session(N2)["families"]] == ["ipv4 unicast"]
    assert [each["family"] for each in one.session(six(N2))["families"]] == ["ipv6 unicast"]
    for each in (one, two):
        each.apply(*(document for document in both if document["spec"].get("cidr") != str(blocks6["n1"])))
    until(lambda: not two.forwards(blocks6["n1"]), "a block that is taken away leaves the other kernel")
    assert two.forwards(BLOCKS["n1"])
    assert one.route(blocks6["n1"]) is None, "and its blackhole leaves its own"
    assert (two.session(N1)["flaps"], two.session(six(N1))["flaps"]) == (0, 0)


def _settled(each: FelixNode) -> bool:
    """Say whether the other side has said everything, and nothing is left of before."""
    session = each.session(N2 if each.name == "n1" else N1)
    facts = (session["state"], session["gracefulRestart"]["endOfRIB"], session["stale"])
    return facts == ("Established", True, 0)
