"""The route-reflector recipe of deploy/route-reflector, its very files: BIRD and FRR beside nodes of ours."""

from collections.abc import Iterator

import pytest
from labs import eventually, felix_lab, lab_name, left_of
from reflector_lab import (
    JOINED,
    RR1,
    RR2,
    TOPOLOGY,
    bgp,
    disabled,
    established,
    join,
    nothing_lost,
    processes,
    reflectors_hold_all,
    run,
)

from felix_py.lab import health, machines
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.bird, pytest.mark.frr]

NAME = lab_name("rr")
RECIPE = TOPOLOGY.parents[1] / "route-reflector"


@pytest.fixture(scope="module")
def brought_up() -> Iterator[Lab]:
    try:
        called = felix_lab(NAME, "up", "--topology", str(TOPOLOGY))
        assert called.status == 0, called.error
        yield Lab(NAME)
    finally:
        felix_lab(NAME, "down")
        for supervisor in JOINED:
            supervisor.wait(10)
        assert left_of(NAME) == []


@pytest.fixture
def lab(brought_up: Lab) -> Iterator[Lab]:
    """Give a lab in which all is well, and wait until it is again; it may have another node then."""
    assert eventually(lambda: reflectors_hold_all(brought_up), 20)
    yield brought_up
    felix_lab(NAME, "heal")
    assert eventually(lambda: well(brought_up), 20), felix_lab(NAME, "status").out


def well(lab: Lab) -> bool:
    return health.not_converged(lab, lab.topology()) == []


@pytest.mark.usefixtures("lab")
def test_everybody_reaches_everybody() -> None:
    called = felix_lab(NAME, "ping")
    assert called.status == 0, called.out


def test_nodes_hold_sessions_with_the_reflectors_and_not_with_each_other(lab: Lab) -> None:
    peers = bgp(lab, "a1", "peers")
    assert {(each["address"], each["state"]) for each in peers} == {
        ("172.31.1.1", "Established"),
        (RR1, "Established"),
        (RR2, "Established"),
    }


def test_the_reflectors_run_the_files_of_the_recipe(lab: Lab) -> None:
    for name, installed, recipe in (
        ("rr1", "/etc/bird/bird.conf", "bird.conf"),
        ("rr2", "/etc/frr/frr.conf", "frr.conf"),
    ):
        assert run(lab, name, "cat", installed) == (RECIPE / recipe).read_text()


@pytest.mark.parametrize("reflector", ["rr1", "rr2"])
def test_a_reflector_keeps_its_machines_own_routes_as_they_are(lab: Lab, reflector: str) -> None:
    routes = run(lab, reflector, "ip", "route").splitlines()
    assert len(routes) == 2, routes
    assert routes[0].startswith("default via 172.31.8.1 dev eth0")
    assert routes[1].startswith("172.31.8.0/24 dev eth0 proto kernel")


def test_the_next_hop_is_the_node_not_the_reflector(lab: Lab) -> None:
    told = bgp(lab, "a1", "routes")
    hops = {(each["peer"], each["nextHop"]) for each in told if each["prefix"] == "10.65.2.0/26"}
    assert hops == {(RR1, "172.31.2.11"), (RR2, "172.31.2.11")}


@pytest.mark.parametrize("killed", [("rr1",), ("rr2",), ("rr1", "rr2")], ids=["BIRD", "FRR", "both at once"])
def test_a_killed_reflector_costs_no_packet_and_comes_back(lab: Lab, killed: tuple[str, ...]) -> None:
    before = processes(lab)
    with nothing_lost(lab, "a1-pod1", "b1-pod1"):
        for name in killed:
            felix_lab(NAME, "fail", f"{name}.bgp")
        assert eventually(lambda: all(processes(lab)[name] not in (None, before[name]) for name in killed))
        assert eventually(lambda: reflectors_hold_all(lab), 30), established(lab)
        assert eventually(lambda: well(lab), 20)


@pytest.mark.parametrize("reflector", ["rr1", "rr2"])
def test_a_reflector_whose_machine_dies_costs_no_packet(lab: Lab, reflector: str) -> None:
    with nothing_lost(lab, "a1-pod1", "b1-pod1"):
        felix_lab(NAME, "fail", reflector)
        assert machines.daemon(lab.of_router(reflector)) is None
    with nothing_lost(lab, "a1-pod1", "b1-pod1"):
        felix_lab(NAME, "heal", reflector)
        assert eventually(lambda: reflectors_hold_all(lab), 30), established(lab)


@pytest.mark.parametrize(("gone", "left"), [(RR1, RR2), (RR2, RR1)])
def test_the_other_reflector_is_enough(lab: Lab, gone: str, left: str) -> None:
    with nothing_lost(lab, "a1-pod1", "b1-pod1"):
        with disabled(lab, *((str(node.name), gone) for node in lab.topology().nodes)):
            assert eventually(lambda: tellers(lab, "a1", "10.65.2.0/26") == {left})
            assert felix_lab(NAME, "ping").status == 0
        assert eventually(lambda: tellers(lab, "a1", "10.65.2.0/26") == {left, gone})


def test_nodes_with_one_reflector_each_hear_of_each_other(lab: Lab) -> None:
    with nothing_lost(lab, "a1-pod1", "b1-pod1"):
        with disabled(lab, ("a1", RR2), ("b1", RR1)):
            assert eventually(lambda: tellers(lab, "a1", "10.65.2.0/26") == {RR1})
            assert eventually(lambda: tellers(lab, "b1", "10.65.0.0/26") == {RR2})
        assert eventually(lambda: reflectors_hold_all(lab), 20)


def tellers(lab: Lab, node: str, prefix: str) -> set[str]:
    """Return who has told a node of a prefix, and may still."""
    return {each["peer"] for each in bgp(lab, node, "routes") if each["prefix"] == prefix}


def test_an_agent_that_dies_moves_no_route_anywhere(lab: Lab) -> None:
    before = machines.daemon(lab.of_node("b1"))
    with nothing_lost(lab, "a1-pod1", "b1-pod1"):
        felix_lab(NAME, "fail", "b1.agent")
        assert eventually(lambda: machines.daemon(lab.of_node("b1")) not in (None, before))
        assert eventually(lambda: well(lab), 20)
        assert eventually(lambda: reflectors_hold_all(lab), 20)


def test_a_node_joins_without_a_word_to_the_reflectors(lab: Lab) -> None:
    before = processes(lab)
    join(lab, "b3", network="rack-b", address="172.31.2.13", blocks=["10.65.4.0/26"], pods=1)
    assert eventually(lambda: well(lab), 20), felix_lab(NAME, "status").out
    assert felix_lab(NAME, "ping").status == 0
    assert tellers(lab, "a1", "10.65.4.0/26") == {RR1, RR2}
    assert processes(lab) == before
