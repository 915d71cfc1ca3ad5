"""What happens to a whole node that is disturbed: it heals by itself, or says in one sentence what is wrong."""

import pytest
from lab_node import NAME, REMOTE, on_a1, on_pod, pod, problems, route_events, routes, settled
from labs import eventually, felix_lab, on_machine

from felix_py.lab import health, machines, pods
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("healthy_afterwards")]

TROUBLE = [
    pytest.param(["ip", "route", "flush", "proto", "80"], id="every route of ours flushed"),
    pytest.param(["ip", "route", "del", REMOTE], id="a route deleted"),
    pytest.param(["ip", "route", "replace", REMOTE, "via", "172.31.1.1"], id="a route replaced by another tool"),
    pytest.param(["ip", "link", "del", "tunl0"], id="tunnel deleted"),
    pytest.param(["ip", "link", "set", "tunl0", "down"], id="tunnel down"),
    pytest.param(["ip", "link", "set", "tunl0", "mtu", "1300"], id="tunnel with another MTU"),
    pytest.param(["ip", "addr", "flush", "dev", "tunl0"], id="tunnel without its address"),
    pytest.param(["tc", "qdisc", "del", "dev", "eth0", "clsact"], id="tunnel's program removed from the uplink"),
    pytest.param(["tc", "filter", "del", "dev", "tunl0", "egress"], id="tunnel's program removed from its device"),
    pytest.param(["sh", "-c", "ip link set eth0 down; ip link set eth0 up"], id="uplink down and up"),
]


@pytest.mark.parametrize("words", TROUBLE)
def test_heals_by_itself(words: list[str], lab: Lab) -> None:
    process = machines.daemon(lab.of_node("a1"))
    on_a1(*words)
    # An uplink that was down has lost its default route; a host's own network configuration would put it back.
    on_a1("ip", "route", "replace", "default", "via", "172.31.1.1")
    assert eventually(settled), on_machine(NAME, "a1", "felixctl", "routes").out
    assert machines.daemon(lab.of_node("a1")) == process, "the agent healed it, and was not restarted for it"


def test_a_foreign_static_route_stays_and_is_reported_with_its_remedy() -> None:
    on_a1("ip", "route", "replace", REMOTE, "via", "172.31.1.1", "proto", "static")
    try:
        assert eventually(lambda: routes()[REMOTE]["state"] == "missing")
        assert routes()[REMOTE]["reason"] == (
            "a route of protocol static stands there (via 172.31.1.1 dev eth0); "
            "remove it with `ip route del 10.65.2.0/26 proto static`"
        )
    finally:
        on_a1("ip", "route", "del", REMOTE, "proto", "static")
    assert eventually(settled)


def test_a_drifted_parameter_is_set_again_at_once() -> None:
    path = f"/proc/sys/net/ipv4/conf/{pod()['device']}/proxy_arp"
    on_a1("sh", "-c", f"echo 0 > {path}")
    assert eventually(lambda: on_a1("cat", path).strip() == "1", 2)


def test_without_a_default_route_pods_still_find_their_gateway() -> None:
    on_a1("ip", "route", "del", "default")
    try:
        assert eventually(lambda: routes().get("169.254.1.1/32", {}).get("state") == "installed")
        # A pod of another runtime has no permanent neighbour: it asks by ARP, and the host must answer.
        on_pod("ip", "neigh", "del", "169.254.1.1", "dev", "eth0")
        on_pod("ping", "-c1", "-W2", "10.65.1.1")  # the same rack: nothing leads to the other one now
        assert "lladdr ee:ee:ee:ee:ee:ee" in on_pod("ip", "neigh", "show", "169.254.1.1")
    finally:
        on_a1("ip", "route", "replace", "default", "via", "172.31.1.1")
    assert eventually(lambda: "169.254.1.1/32" not in routes())


def test_an_uplink_without_its_address_is_named_and_heals() -> None:
    on_a1("ip", "addr", "del", "172.31.1.11/24", "dev", "eth0")
    try:
        assert eventually(
            lambda: routes()["10.65.1.0/26"]["reason"] == "no interface has this node's address 172.31.1.11/24"
        ), problems()
    finally:
        on_a1("ip", "addr", "add", "172.31.1.11/24", "dev", "eth0")
        on_a1("ip", "route", "replace", "default", "via", "172.31.1.1")
    assert eventually(settled)


def test_a_pod_that_lost_its_interface_is_named_and_harms_no_other(lab: Lab) -> None:
    prefix, interface = pod()["prefix"], pod()["device"]
    on_a1("ip", "link", "del", interface)
    assert eventually(lambda: pod()["state"] == "missing")
    assert f"{prefix} is missing: {interface} does not exist" in problems()
    assert on_machine(NAME, "a1-pod2", "ping", "-c1", "-W2", "10.65.2.1").status == 0
    attach_again(lab, "a1-pod1")
    assert eventually(settled)


def attach_again(lab: Lab, name: str) -> None:
    """Have the container runtime remove and attach a pod again."""
    pod = pods.Pod(name, lab.topology().pods[name].name)
    pods.detach(lab, [pod])
    pods.attach(lab, [pod])


def test_an_agent_killed_and_started_again_writes_nothing(lab: Lab) -> None:
    before = machines.daemon(lab.of_node("a1"))
    with route_events(lab, "a1") as mine, route_events(lab, "b1") as neighbour:
        assert felix_lab(NAME, "fail", "a1.agent").status == 0
        assert eventually(lambda: machines.daemon(lab.of_node("a1")) not in (None, before))
        assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 30)
        assert mine.stop() == ()
        assert neighbour.stop() == ()
