"""A lab with both versions of IP, up: everybody reaches everybody by both, failures heal, and agents die at no cost."""

import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import eventually, felix_lab, lab_name, on_machine, standing

from felix_py.lab import health, machines, watching
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAME = lab_name("dual")
DUAL = Path(__file__).parents[2] / "deploy" / "lab" / "dual-stack.yaml"


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of this file; each leaves it as it was."""
    with standing(NAME, "--topology", str(DUAL)) as lab:
        yield lab


def on(machine: str, *words: str) -> str:
    called = on_machine(NAME, machine, *words)
    assert called.status == 0, called.error
    return called.out


def routes(node: str, *options: str) -> dict[str, dict[str, object]]:
    """Return a node's routes by prefix, well or not."""
    said = on_machine(NAME, node, "felixctl", "routes", *options, "-o", "json").out
    return {row["prefix"]: row for row in json.loads(said)["routes"]}


def converged(lab: Lab) -> bool:
    return health.not_converged(lab, lab.topology()) == []


def test_status_tells_that_all_is_well() -> None:
    called = felix_lab(NAME, "status")
    assert called.status == 0, called.out
    assert called.out.count("8 of 8 sessions") == 4
    assert "8 routes learned" in called.out


def test_everybody_reaches_everybody_by_both() -> None:
    called = felix_lab(NAME, "ping")
    assert called.status == 0, called.out
    assert "IPv4: 272 of 272 pings answered" in called.out
    assert "IPv6: 272 of 272 pings answered" in called.out


def test_one_pings_another_by_both() -> None:
    called = felix_lab(NAME, "ping", "a1-pod1", "b2-pod3")
    assert called.status == 0, called.out
    assert called.out.count("3 packets transmitted, 3 received") == 2


def test_ipv6_goes_straight_between_the_racks_where_ipv4_goes_through_the_tunnel() -> None:
    found = routes("a1")
    assert (found["10.65.2.0/26"]["encapsulation"], found["10.65.2.0/26"]["device"]) == ("ipip", "tunl0")
    assert (found["fd65::2:0/122"]["encapsulation"], found["fd65::2:0/122"]["device"]) == ("none", "eth0")
    assert found["fd65::2:0/122"]["nextHop"] == "fd31:1::1", "tor, which has learned where the block is"
    assert found["fd65::1:0/122"]["nextHop"] == "fd31:1::12", "in the same rack"
    assert {row["state"] for row in found.values()} == {"installed"}


def test_a_prefix_may_be_spelled_as_one_likes() -> None:
    assert list(routes("a1", "fd65:0:0:0:0:0:2:0/122")) == ["fd65::2:0/122"]
    told = json.loads(on("a1", "felixctl", "bgp", "routes", "fd65:0::2:0/122", "-o", "json"))["routes"]
    assert [(row["prefix"], row["nextHop"], row["best"]) for row in told] == [("fd65::2:0/122", "fd31:2::11", True)]
    refused = on_machine(NAME, "a1", "felixctl", "routes", "fd65::2:1/122")
    assert refused.status != 0
    assert "prefix is 'fd65::2:1/122', which has bits beyond its length; give fd65::2:0/122" in refused.error


def test_what_a_peer_is_told_has_the_next_hop_of_its_own_version() -> None:
    rows = json.loads(on("a1", "felixctl", "bgp", "routes", "--advertised", "fd31:1::1", "-o", "json"))["routes"]
    assert [(row["prefix"], row["nextHop"]) for row in rows if row["told"]] == [("fd65::/122", "fd31:1::11")]
    withheld = {row["prefix"]: row["reason"] for row in rows if not row["told"]}
    assert withheld["10.65.0.0/26"] == "the session does not carry ipv4 unicast"
    assert "fd65::/122" not in withheld


def test_pods_are_shown_with_both_addresses() -> None:
    pods = json.loads(on("a1", "felixctl", "endpoints", "-o", "json"))["endpoints"]
    assert [pod["state"] for pod in pods] == ["routed"] * 3
    assert {tuple(address.version for address in map(_address, pod["addresses"])) for pod in pods} == {(4, 6)}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


def test_forwarding_that_somebody_switched_off_is_back_at_once() -> None:
    on("a1", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
    assert eventually(lambda: on("a1", "sysctl", "-n", "net.ipv6.conf.all.forwarding") == "1\n")
    parameters = (f"net.ipv6.conf.{link}.forwarding" for link in _veths("a1"))
    assert eventually(lambda: set(on("a1", "sysctl", "-n", *parameters).split()) <= {"1"})


def _veths(node: str) -> list[str]:
    names = [each["ifname"] for each in json.loads(on(node, "ip", "-j", "link"))]
    return [name for name in names if name.startswith("cali")]


def test_an_ipv6_route_deleted_by_hand_is_back_at_once(lab: Lab) -> None:
    for prefix in ("fd65::1:0/122", "fd65::2:0/122", "fd65::/122"):
        with watching.running(watching.route_monitor(lab, "a1", (4, 6))) as monitor:
            monitor.wait_for_netlink()
            on("a1", "ip", "-6", "route", "del", prefix)
            assert eventually(lambda: converged(lab))
            events = watching.route_events(monitor.stop())
        took = watching.repair_milliseconds([*map(_without_type, events)], prefix)
        assert took is not None, events
        assert took < 1000


def _without_type(event: watching.RouteEvent) -> watching.RouteEvent:
    return watching.RouteEvent(event.at, event.text.replace("blackhole ", ""))


def test_a_cable_that_is_pulled_heals_for_both(lab: Lab) -> None:
    assert felix_lab(NAME, "fail", "a1.uplink").status == 0
    broken = felix_lab(NAME, "ping")
    assert broken.status == 1
    assert broken.out.count("lost: ") == 2
    felix_lab(NAME, "heal")
    assert eventually(lambda: converged(lab)), felix_lab(NAME, "status").out
    # Sessions may outlive the cut; the kernel's own IPv6 neighbours come back a moment later.
    assert eventually(lambda: felix_lab(NAME, "ping").status == 0)


def test_an_address_that_goes_takes_its_routes_along_and_brings_them_back(lab: Lab) -> None:
    on("a1", "ip", "addr", "del", "fd31:1::11/64", "dev", "eth0")
    assert eventually(
        lambda: routes("a1")["fd65::1:0/122"]["reason"] == "no interface has this node's address fd31:1::11/64"
    )
    assert routes("a1")["10.65.1.0/26"]["state"] == "installed"
    on("a1", "ip", "addr", "add", "fd31:1::11/64", "dev", "eth0", "nodad")
    on("a1", "ip", "-6", "route", "replace", "default", "via", "fd31:1::1", "dev", "eth0")
    assert eventually(lambda: converged(lab)), felix_lab(NAME, "status").out


def test_an_agent_that_is_killed_costs_no_route_of_either_version(lab: Lab) -> None:
    # The kernel adds an interface's own link-local routes once it has found no other with the address: a second or two.
    assert eventually(lambda: not any("tentative" in on(name, "ip", "-6", "address") for name in ("a1", "tor")))
    here, there = (watching.route_monitor(lab, name, (4, 6)) for name in ("a1", "tor"))
    with watching.running(here) as on_node, watching.running(there) as on_router:
        for monitor in (on_node, on_router):
            monitor.wait_for_netlink()
        before = machines.daemon(lab.of_node("a1"))
        felix_lab(NAME, "fail", "a1.agent")
        assert eventually(lambda: machines.daemon(lab.of_node("a1")) not in (None, before) and converged(lab))
        assert [watching.route_events(monitor.stop()) for monitor in (on_node, on_router)] == [(), ()]
