"""Planned work on a node: it drains, it leaves, it comes back; and what people asked for outlives the agent."""

import json
import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from daemons import PLAIN, Neighbour
from felix_node import OWN_AS, Document, FelixNode, block, configuration, node, peer, pool
from interop_lab import ADDRESSES, BLOCKS, D1, D1_BLOCK, N1, N2, N3, TOR_AS, Lab, stays, until
from scenarios.registry import base

pytestmark = pytest.mark.interop

SHARED, TARGET = IPv4Network("10.65.20.0/26"), IPv4Address("10.65.20.5")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab("bird", tmp_path)
    try:
        yield made
    finally:
        made.down()


def way(lab: Lab, name: str) -> set[str]:
    """Return the next hops that a machine's kernel has for the shared block, whoever put them there."""
    rows = json.loads(lab.ip(name, "-j", "route", "show", "exact", str(SHARED)) or "[]")
    return {hop["gateway"] for row in rows for hop in row.get("nexthops", [row])}


def echoes(lab: Lab, name: str) -> int:
    """Return how many pings have reached a machine."""
    command = ["ip", "netns", "exec", lab.namespace(name), "nstat", "-asz", "IcmpInEchos"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(re.findall(r"IcmpInEchos +(\d+)", shown)[0])


def two_ways(lab: Lab) -> tuple[FelixNode, FelixNode]:
    """Return two nodes that have the same block and answer for it; a third node and a router send there."""
    nodes = [node(name, ADDRESSES[name]) for name in ("n1", "n2", "n3")]

    def documents(name: str) -> tuple[Document, ...]:
        own = () if name == "n3" else (block(name, SHARED), peer(D1, OWN_AS))
        return (configuration(mesh=True), pool(), *nodes, *own)

    lab.daemon("d1", OWN_AS, Neighbour(N1, OWN_AS), Neighbour(N2, OWN_AS), forwards=True)
    found = {name: lab.stopped_felix(name) for name in ("n1", "n2", "n3")}
    for name in ("n1", "n2"):
        lab.ip(name, "address", "add", f"{TARGET}/32", "dev", "lo")
    lab.together(*(lambda each=each: each.start(*documents(each.name)) for each in found.values()))
    until(lambda: way(lab, "n3") == {str(N1), str(N2)}, "the third node has both ways")
    until(lambda: way(lab, "d1"), "the router has a way")
    return found["n1"], found["n2"]


def test_a_drained_node_is_left_by_traffic_and_undrained_it_returns_without_a_lost_packet(lab: Lab) -> None:
    one, two = two_ways(lab)
    with lab.pings("n3", TARGET) as first, lab.pings("d1", TARGET) as second:
        for drained, other in ((one, N2), (two, N1)):
            drained.do("bgp", "drain", message="a new board")
            until(lambda other=other: way(lab, "n3") == way(lab, "d1") == {str(other)}, "all go the other way")
            before = echoes(lab, drained.name)
            first.more(20)
            second.more(20)
            assert echoes(lab, drained.name) - before <= 2, "what was under way, at most"
            assert drained.established(N3, D1)
            drained.do("bgp", "undrain")
            until(lambda: way(lab, "n3") == {str(N1), str(N2)}, "the third node has both ways again")
            assert drained.session(N3)["flaps"] == 0
        first.more(20)
        second.more(20)
    assert (first.lost, second.lost) == (frozenset(), frozenset())


def test_draining_says_so_here_and_on_the_wire_and_outlives_the_agent(lab: Lab) -> None:
    router = lab.daemon("d1", OWN_AS, Neighbour(N1, OWN_AS))
    ours = lab.felix("n1", *base("n1", peer(D1, OWN_AS)))
    until(lambda: router.has(BLOCKS["n1"]), "our block is in the router's table")
    said = ours.felixctl("bgp", "drain", "--message", "a new board")
    assert (said.returncode, said.stdout.partition(" (")[0]) == (
        0,
        "this node drains, what it announces ranks last: a new board; `felixctl bgp undrain` ends it",
    )

    def ranks_last() -> bool:
        attributes = router.routes()[BLOCKS["n1"]][0].attributes
        return (attributes.communities, attributes.local_preference) == (((65535, 0),), 0)

    until(ranks_last, "the router sees it")
    for command in (("status",), ("bgp", "peers")):
        assert "this node drains" in ours.felixctl(*command).stdout
    for end in (ours.kill, ours.stop):
        end()
        stays(ranks_last, 0.3, "the router keeps our path, which still ranks last")
        ours.start()
        until(lambda: ours.established(D1) and ours.session(D1)["gracefulRestart"]["endOfRIB"], "the session is back")
        assert ranks_last()
    assert "announces as usual" in ours.felixctl("bgp", "undrain").stdout
    until(lambda: router.routes()[BLOCKS["n1"]][0].attributes.communities == (), "all is as before")
    assert router.routes()[BLOCKS["n1"]][0].attributes.local_preference == 100


def test_a_drain_until_the_restart_ranks_last_through_the_agents_end_and_not_after_its_next_start(lab: Lab) -> None:
    router = lab.daemon("d1", OWN_AS, Neighbour(N1, OWN_AS))
    ours = lab.felix("n1", *base("n1", peer(D1, OWN_AS)))
    until(lambda: router.has(BLOCKS["n1"]), "our block is in the router's table")
    said = ours.felixctl("bgp", "drain", "--until-restart", "--message", "an update")
    assert said.stdout.startswith(
        "this node drains until the agent is started again, what it announces ranks last: an update ("
    )

    def preference() -> int | None:
        return router.routes()[BLOCKS["n1"]][0].attributes.local_preference

    until(lambda: preference() == 0, "the router sees it")
    ours.stop()
    stays(lambda: preference() == 0, 0.3, "the router keeps our path, which still ranks last")
    ours.start()
    until(lambda: preference() == 100, "the next agent announces as usual")


def test_who_leaves_is_forgotten_at_once_and_its_peers_are_told_why_when_it_stops(lab: Lab) -> None:
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, restart_time=120))
    router.announce({D1_BLOCK: PLAIN})
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS)))
    until(lambda: ours.forwards(D1_BLOCK) and router.has(BLOCKS["n1"]), "both have each other's block")
    left = ours.felixctl("bgp", "leave", "--wait", "0.2", "--message", "a new board")
    assert (left.returncode, "has left and announces nothing: a new board" in left.stdout) == (0, True)
    until(lambda: not router.has(BLOCKS["n1"]), "our block is withdrawn")
    assert ours.established(D1)
    assert ours.forwards(D1_BLOCK), "pods that are still here reach everybody"
    ours.stop()
    until(lambda: "a new board" in router.process.log(), "the router's people read why")
    assert ours.forwards(D1_BLOCK), "a stopped agent leaves the kernel as it is"
    ours.start()
    until(lambda: ours.established(D1), "the session is back")
    stays(lambda: not router.has(BLOCKS["n1"]), 0.5, "nothing is announced before somebody says so")
    ours.felixctl("bgp", "undrain")
    until(lambda: router.has(BLOCKS["n1"]), "all is as before")


def test_a_disabled_session_outlives_the_agent_until_it_is_enabled_or_its_peer_is_removed(lab: Lab) -> None:
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, passive=False))
    other = lab.daemon("d2", TOR_AS, Neighbour(N1, OWN_AS))
    documents = base("n1", peer(D1, TOR_AS), peer(ADDRESSES["d2"], TOR_AS))
    ours = lab.felix("n1", *documents)
    until(lambda: ours.established(D1, ADDRESSES["d2"]), "both sessions are up")
    ours.felixctl("bgp", "disable", str(D1), "--message", "a new switch")
    until(lambda: not router.session(N1).established, "the session is down")
    until(lambda: "a new switch" in router.process.log(), "the router's people read why")
    ours.kill()
    ours.start()
    until(lambda: ours.established(ADDRESSES["d2"]), "the other session is back")
    assert ours.session(D1)["lastError"] == "administratively down; `felixctl bgp enable 10.9.0.1` brings it back"
    stays(lambda: not ours.established(D1) and not router.session(N1).established, 1, "the session stays down")
    ours.felixctl("bgp", "enable", str(D1))
    until(lambda: ours.established(D1), "it is back")
    ours.felixctl("bgp", "disable", str(D1))
    ours.apply(*base("n1", peer(ADDRESSES["d2"], TOR_AS)))
    until(lambda: ours.session(D1)["state"] == "not configured", "the peer is removed")
    ours.apply(*documents)
    until(lambda: ours.established(D1), "who comes back is not disabled")
    assert other.session(N1).established


def test_the_only_session_that_is_disabled_says_goodbye(lab: Lab) -> None:
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS))
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS)))
    until(lambda: router.has(BLOCKS["n1"]), "our block is in the router's table")
    ours.do("bgp", "peers", str(D1), "disable", message="a new switch")
    until(lambda: "a new switch" in router.process.log(), "the router's people read why")
    ours.do("bgp", "peers", str(D1), "enable")
    until(lambda: router.has(BLOCKS["n1"]), "it is back")
