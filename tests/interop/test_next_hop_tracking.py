"""Next hops with the real agent, BIRD and the kernel: lost and found again, down to what clients are told."""

import contextlib
import itertools
import statistics
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

import pytest
from daemons import PLAIN, Daemon, Neighbour
from felix_node import OWN_AS, FelixNode, configuration, node, peer, pool
from interop_lab import D1, D2, D2_BLOCK, D3, N1, Lab, stays, until

from bgp.types import Attributes
from bgp.waiting import SELECTION_DEFERRAL

pytestmark = pytest.mark.interop

SHARED = IPv4Network("10.65.20.0/26")
BEYOND, WAY = IPv4Address("10.9.77.1"), "10.9.77.0/24"
"""The better path's next hop, and the only route of the host that leads there."""

GATEWAY = "192.0.2.254"
CLUSTER = IPv4Address("9.9.9.9")
QUICK = 0.5
"""Seconds that a change may take on a machine that does other things too; alone it takes some milliseconds."""


class Change(NamedTuple):
    """A line of `ip monitor route`: when, and what."""

    at: float
    words: tuple[str, ...]

    @property
    def prefix(self) -> str:
        return self.words[1] if self.words[0] == "Deleted" else self.words[0]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab("bird", tmp_path)
    try:
        yield made
    finally:
        made.down()


@contextlib.contextmanager
def watched(lab: Lab, directory: Path) -> Iterator[Callable[[], list[Change]]]:
    """Watch n1's table; give a function that returns every change so far, with its time."""
    record = directory / "changes"
    command = ["ip", "-ts", "-4", "-n", lab.namespace("n1"), "monitor", "route"]
    markers = (f"198.51.100.{number}" for number in itertools.count(1))
    with record.open("wb") as output, subprocess.Popen(command, stdout=output) as watcher:

        def marked() -> str:
            marker = next(markers)
            lab.ip("n1", "route", "add", "blackhole", marker)
            lab.ip("n1", "route", "del", "blackhole", marker)
            return f"Deleted blackhole {marker} "

        def changes() -> list[Change]:
            last = marked()
            until(lambda: last in record.read_text(), "ip monitor has written all that was before")
            lines = [line.split() for line in record.read_text().splitlines() if " blackhole 198.51.100." not in line]
            return [Change(datetime.fromisoformat(at.strip("[]")).timestamp(), tuple(words)) for at, *words in lines]

        try:
            until(lambda: bool(marked()) and bool(record.stat().st_size), "ip monitor sees what we do")
            yield changes
        finally:
            watcher.kill()


def second_uplink(lab: Lab) -> None:
    """Give n1 another interface, and by it the way to the better path's next hop."""
    lab.ip("n1", "link", "add", "eth1", "type", "veth", "peer", "name", "beyond", "netns", lab.namespace("wire"))
    lab.ip("wire", "link", "set", "beyond", "up")
    lab.ip("n1", "address", "add", "192.0.2.1/24", "dev", "eth1")
    lab.ip("n1", "link", "set", "eth1", "up")
    lab.ip("n1", "route", "add", WAY, "via", GATEWAY)


@pytest.fixture
def reflecting(lab: Lab) -> tuple[FelixNode, dict[str, Daemon]]:
    """Our node as the reflector of three; the first two announce one prefix, and the first one's path is the better."""
    routers = {name: lab.daemon(name, OWN_AS, Neighbour(N1, OWN_AS)) for name in ("d1", "d2", "d3")}
    for number, name in enumerate(routers, 11):  # BIRD takes no path over iBGP whose next hop is on none of its links
        lab.ip(name, "address", "add", f"10.9.77.{number}/24", "dev", "eth0")
    routers["d1"].announce({SHARED: Attributes(next_hop=BEYOND, local_preference=200)})
    routers["d2"].announce({SHARED: Attributes(next_hop=None, local_preference=100), D2_BLOCK: PLAIN})
    ours = lab.stopped_felix("n1")
    second_uplink(lab)
    peers = (peer(address, OWN_AS) for address in (D1, D2, D3))
    ours.start(configuration(), node("n1", N1, routeReflectorClusterID=str(CLUSTER)), pool(), *peers)
    until(lambda: ours.gateways(SHARED) == {GATEWAY}, "the better path is in the kernel")
    until(partial(next_hop_at, routers["d3"], BEYOND), "and the clients are told it")
    until(lambda: ours.forwards(D2_BLOCK), "the other one is there, too")
    return ours, routers


def next_hop_at(router: Daemon, expected: IPv4Address) -> bool:
    """Say whether a client has the prefix with this next hop, and with no other."""
    return {seen.attributes.next_hop for seen in router.routes().get(SHARED, ())} == {expected}


def states(ours: FelixNode) -> dict[str, tuple[str, bool]]:
    """Return of each path to the prefix, by its next hop: the reason, and whether it is eligible."""
    return {path["nextHop"]: (path["reason"], path["eligible"]) for path in ours.paths(SHARED)}


@pytest.mark.alone
def test_a_lost_route_to_the_next_hop_moves_the_prefix_within_milliseconds_and_moves_it_once(
    lab: Lab, reflecting: tuple[FelixNode, dict[str, Daemon]], tmp_path: Path, record_property: Callable[..., None]
) -> None:
    ours, routers = reflecting
    with watched(lab, tmp_path) as changes:
        for _ in range(5):
            lab.ip("n1", "route", "del", WAY)
            until(lambda: ours.gateways(SHARED) == {str(D2)}, "the other path takes over")
            until(partial(next_hop_at, routers["d3"], D2), "the clients are told of the other path")
            lab.ip("n1", "route", "add", WAY, "via", GATEWAY)
            until(lambda: ours.gateways(SHARED) == {GATEWAY}, "the better path is back")
            until(partial(next_hop_at, routers["d3"], BEYOND), "and the clients are told so")
        stays(lambda: ours.gateways(SHARED) == {GATEWAY}, 0.3, "it is at rest")
        seen = changes()
    # One change of the underlay, one of ours: nothing is removed in between, and nothing comes twice.
    assert [change.prefix for change in seen] == [WAY, str(SHARED)] * 10
    assert [change.words[0] for change in seen if change.prefix == str(SHARED)] == [str(SHARED)] * 10
    took = [after.at - before.at for before, after in zip(seen[::2], seen[1::2], strict=True)]
    record_property("milliseconds", round(statistics.median(took) * 1000, 1))
    assert statistics.median(took) < QUICK, took
    assert [ours.session(address)["flaps"] for address in (D1, D2, D3)] == [0, 0, 0]


def test_an_interface_that_goes_down_gives_way_to_the_other_path(
    lab: Lab, reflecting: tuple[FelixNode, dict[str, Daemon]], tmp_path: Path
) -> None:
    ours, routers = reflecting
    with watched(lab, tmp_path) as changes:
        lab.ip("n1", "link", "set", "eth1", "down")
        assert until(lambda: ours.gateways(SHARED) == {str(D2)}, "the other path takes over") < QUICK
        until(partial(next_hop_at, routers["d3"], D2), "the clients are told of the other path")
        why = f"next hop: {BEYOND} cannot be reached: no route leads to next hop {BEYOND}"
        assert states(ours) == {str(BEYOND): (why, False), str(D2): ("next hop: only this one's can be reached", True)}
        lab.ip("n1", "link", "set", "eth1", "up")
        stays(lambda: ours.gateways(SHARED) == {str(D2)}, 0.3, "the interface alone leads nowhere")
        lab.ip("n1", "route", "add", WAY, "via", GATEWAY)
        assert until(lambda: ours.gateways(SHARED) == {GATEWAY}, "the better path is back") < QUICK
        until(partial(next_hop_at, routers["d3"], BEYOND), "and the clients are told so")
        moved = [change for change in changes() if change.prefix == str(SHARED)]
    assert [change.words[0] for change in moved] == [str(SHARED)] * 2, "it came twice, by either path"


def test_without_another_path_the_clients_lose_the_prefix_and_people_see_why(
    lab: Lab, reflecting: tuple[FelixNode, dict[str, Daemon]]
) -> None:
    ours, routers = reflecting
    routers["d2"].withdraw(SHARED)
    until(lambda: len(ours.paths(SHARED)) == 1, "one path is left")
    lab.ip("n1", "route", "del", WAY)
    until(lambda: not ours.forwards(SHARED), "it is out of the kernel")
    for name in ("d2", "d3"):
        until(lambda name=name: not routers[name].has(SHARED), "the clients have lost it")  # type: ignore[misc]
    row = ours.route(SHARED)
    assert row is not None
    assert (row["state"], row["reason"]) == ("missing", f"no route leads to next hop {BEYOND}")
    assert [(path["best"], path["eligible"]) for path in row["paths"]] == [(False, False)]
    lab.ip("n1", "route", "add", WAY, "via", GATEWAY)
    until(lambda: ours.gateways(SHARED) == {GATEWAY}, "it is back in the kernel")
    for name in ("d2", "d3"):
        until(partial(next_hop_at, routers[name], BEYOND), "the clients have it again")


@pytest.mark.parametrize("lost", [True, False], ids=["unreachable", "reachable"])
def test_a_killed_agent_comes_back_to_the_same_choice_and_no_route_ever_moves(
    lost: bool,  # noqa: FBT001 - a parameter of the test
    lab: Lab,
    reflecting: tuple[FelixNode, dict[str, Daemon]],
    tmp_path: Path,
) -> None:
    ours, _ = reflecting
    if lost:
        lab.ip("n1", "route", "del", WAY)
        until(lambda: ours.gateways(SHARED) == {str(D2)}, "the other path takes over")
    with watched(lab, tmp_path) as changes:
        for _ in range(3):
            ours.kill()
            ours.start()
            until(partial(at_rest, ours), "all sessions are as before", within=20)
        assert changes() == []
    assert ours.gateways(SHARED) == ({str(D2)} if lost else {GATEWAY})


def restarted_without_the_better_one(lab: Lab, ours: FelixNode) -> None:
    """Kill our agent and start it again, while the peer with the better path cannot be reached."""
    lab.ip("wire", "link", "set", "d1", "down")
    ours.kill()
    ours.start()


def test_a_restarted_agent_moves_no_route_while_a_peer_that_may_say_better_has_not_spoken(
    lab: Lab, reflecting: tuple[FelixNode, dict[str, Daemon]], tmp_path: Path
) -> None:
    ours, _ = reflecting
    with watched(lab, tmp_path) as changes:
        restarted_without_the_better_one(lab, ours)
        until(lambda: [path["nextHop"] for path in ours.paths(SHARED)] == [str(D2)], "the worse path is told first")
        why = "what was kept from before the restart goes before what some peers say while others have not spoken yet"
        until(lambda: verdicts(ours)[-1:] == [f"loses by rank: {why}"], "it changes nothing, and people see why")
        lab.ip("wire", "link", "set", "d1", "up")
        until(partial(at_rest, ours), "all sessions are as before", within=20)
        assert changes() == []
    assert ours.gateways(SHARED) == {GATEWAY}


def test_a_restarted_agent_does_not_wait_for_ever_for_a_peer_that_is_gone(
    lab: Lab, reflecting: tuple[FelixNode, dict[str, Daemon]], tmp_path: Path
) -> None:
    ours, _ = reflecting
    with watched(lab, tmp_path) as changes:
        restarted_without_the_better_one(lab, ours)
        until(lambda: ours.gateways(SHARED) == {str(D2)}, "the other path takes over", within=SELECTION_DEFERRAL + 5)
        moved = [change.words[0] for change in changes() if change.prefix == str(SHARED)]
    assert moved == [str(SHARED)], "in one step"


def verdicts(ours: FelixNode) -> list[str]:
    """Return the verdict on every candidate for the prefix, the winner's first."""
    row = ours.route(SHARED)
    return [candidate["verdict"] for candidate in row["candidates"]] if row else []


def at_rest(ours: FelixNode) -> bool:
    """Say whether every peer has said everything again, and every route is in place and fresh."""
    sessions = [ours.session(address) for address in (D1, D2, D3)]
    told = all(each["state"] == "Established" and each["gracefulRestart"]["endOfRIB"] for each in sessions)
    return told and {row["state"] for row in ours.ask("routes")["routes"]} == {"installed"}


def test_a_filter_asks_for_the_interface_by_which_the_next_hop_is_reached(
    lab: Lab, reflecting: tuple[FelixNode, dict[str, Daemon]]
) -> None:
    ours, _ = reflecting
    not_eth1 = {"kind": "BGPFilter", "metadata": {"name": "not-eth1"}, "apiVersion": "projectcalico.org/v3"}
    rules = [{"action": "Reject", "interface": "eth1"}, {"action": "Accept"}]
    peers = (peer(address, OWN_AS, filters=["not-eth1"]) for address in (D1, D2, D3))
    ours.apply(
        configuration(),
        node("n1", N1, routeReflectorClusterID=str(CLUSTER)),
        pool(),
        {**not_eth1, "spec": {"importV4": rules}},
        *peers,
    )
    until(lambda: ours.gateways(SHARED) == {str(D2)}, "the path by eth1 is refused")
    lab.ip("n1", "route", "replace", WAY, "via", str(D3))
    until(lambda: ours.gateways(SHARED) == {str(D3)}, "the same path is reached by eth0 now, and accepted")
    lab.ip("n1", "route", "replace", WAY, "via", GATEWAY)
    until(lambda: ours.gateways(SHARED) == {str(D2)}, "and refused again by eth1")
