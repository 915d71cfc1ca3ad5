"""A packet followed through a real lab: every machine is asked, and every way to die is found where it is."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from labs import Called, eventually, felix_lab, lab_name, standing

from felix_py.lab import tracing
from felix_py.lab.machines import enter, environment
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAME = lab_name("trace")


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of this file; each leaves it as it was."""
    with standing(NAME) as lab:
        yield lab


def on(machine: str, *words: str) -> str:
    """Run a command on a machine; it has to succeed."""
    command = [*enter(Lab(NAME), machine), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def trace(*words: str) -> dict[str, Any]:
    source, target, *size = words
    return dict(tracing.trace(Lab(NAME), Lab(NAME).topology(), source, target, int(size[1]) if size else None))


def node_trace(node: str, *words: str) -> Called:
    command = [*enter(Lab(NAME), node), "felixctl", "trace", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    return Called(done.returncode, done.stdout, done.stderr)


def machines(document: dict[str, Any]) -> list[str]:
    return [hop["machine"] for hop in document["hops"]]


def last(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["hops"][-1]["legs"][-1]
    return found


def test_a_pod_of_another_rack_is_reached_through_the_tunnel_and_the_router_and_all_five_were_asked() -> None:
    found = trace("a1-pod1", "b2-pod3")
    assert found["delivered"] is True
    assert machines(found) == ["a1-pod1", "a1", "tor", "b2", "b2-pod3"]
    assert all(hop["asked"] for hop in found["hops"])
    assert found["mtu"] == 1480
    wraps, sends = found["hops"][1]["legs"]
    assert (wraps["from"], wraps["prefix"], wraps["device"]) == ("bgp 172.31.2.12 (b2)", "10.65.3.0/26", "tunl0")
    assert "outside this node's subnet" in " ".join(wraps["why"])
    assert wraps["tunnel"].startswith("ipip by ")
    assert wraps["tunnel"].endswith(", 172.31.1.11 to 172.31.2.12")
    assert (sends["device"], sends["mtu"], sends["packet"]["inner"]["destination"]) == ("eth0", 1500, "10.65.3.3")
    assert [leg["verdict"] for leg in found["hops"][3]["legs"]] == ["decapsulated", "forwarded"]
    assert found["hops"][3]["legs"][1]["from"] == "default/b2-pod3"


def test_a_pod_of_the_same_rack_is_reached_without_router_and_tunnel() -> None:
    found = trace("a1-pod1", "a2-pod1")
    assert machines(found) == ["a1-pod1", "a1", "a2", "a2-pod1"]
    assert [leg["tunnel"] for hop in found["hops"] for leg in hop["legs"]] == [None] * 4


def test_the_world_outside_reaches_a_pod_by_what_bgp_taught_the_router() -> None:
    found = trace("client", "b2-pod3")
    assert machines(found) == ["client", "tor", "b2", "b2-pod3"]
    assert found["hops"][1]["legs"][0]["protocol"] == "bird"


def test_a_table_names_who_gave_each_route() -> None:
    called = felix_lab(NAME, "trace", "a1-pod1", "b2-pod3", "--why")
    assert called.status == 0
    assert "bgp 172.31.2.12 (b2)" in called.out
    assert "proto kernel" in called.out
    assert "a1: because best path of BGP, from 172.31.2.12 (b2)" in called.out
    assert called.out.endswith("delivered: 10.65.3.3 is here (packets of up to 1480 bytes)\n")


# --- where it dies


@contextmanager
def _healed() -> Iterator[None]:
    """Wait after a fault until the way is as before: carriers take a moment, and routes their time after them."""
    try:
        yield
    finally:
        assert eventually(lambda: bool(trace("a1-pod1", "b2-pod3")["delivered"]))


@contextmanager
def _changed(machine: str, there: list[str], back: list[str]) -> Iterator[None]:
    with _healed():
        on(machine, *there)
        try:
            yield
        finally:
            on(machine, *back)


@contextmanager
def _route_back_elsewhere() -> Iterator[None]:
    strict = "net.ipv4.conf.rack-a.rp_filter"
    route = ["ip", "route", "add", "172.31.1.11/32", "dev", "outside"]
    with _changed("tor", ["sysctl", "-qw", f"{strict}=1"], ["sysctl", "-qw", f"{strict}=0"]):
        on("tor", *route)
        try:
            yield
        finally:
            on("tor", "ip", "route", "del", *route[3:])


@contextmanager
def _rule(machine: str, hook: str, rule: str, policy: str = "accept") -> Iterator[None]:
    chain = f"table inet other {{ chain {hook} {{ type filter hook {hook} priority 0; policy {policy}; {rule}; }}; }}"
    with _changed(machine, ["nft", chain], ["nft", "delete", "table", "inet", "other"]):
        yield


@contextmanager
def _no_arp() -> Iterator[None]:
    arp = ["ip", "link", "set", "eth0", "arp"]
    with _changed("b2", [*arp, "off"], [*arp, "on"]):
        on("tor", "ip", "neigh", "flush", "dev", "rack-b", "nud", "all")
        yield


DEATHS = [
    pytest.param(None, ("a1-pod1", "8.8.8.8"), "tor", "no route leads to 8.8.8.8", id="no route"),
    pytest.param(
        None,
        ("a1-pod1", "10.65.2.60"),
        "b1",
        "it ends in a blackhole, 10.65.2.0/26: block b1 is here, and no pod has 10.65.2.60",
        id="the blackhole of a block",
    ),
    pytest.param(
        _route_back_elsewhere,
        ("a1-pod1", "b2-pod3"),
        "tor",
        "rp_filter of rack-a is strict: 172.31.1.11 came in there, but the route back to it leaves by outside",
        id="reverse path filter",
    ),
    pytest.param(
        lambda: _rule("tor", "forward", "meta l4proto 4 drop"),
        ("a1-pod1", "b2-pod3"),
        "tor",
        "chain inet other forward drops it: `meta l4proto 4 drop`",
        id="a router's filter drops the tunnel",
    ),
    pytest.param(
        lambda: _rule("a1", "forward", 'iifname "eth0" accept', "drop"),
        ("a1-pod1", "a2-pod1"),
        "a1",
        "chain inet other forward drops what no rule of it accepts",
        id="a firewall that drops by default",
    ),
    pytest.param(
        lambda: _changed(
            "tor", ["ip", "link", "set", "rack-b", "mtu", "1400"], ["ip", "link", "set", "rack-b", "mtu", "1500"]
        ),
        ("a1-pod1", "b2-pod3", "--size", "1480"),
        "tor",
        "1500 bytes with don't fragment do not fit rack-b, whose MTU is 1400",
        id="too large for the underlay",
    ),
    pytest.param(
        lambda: _changed("b2-pod3", ["ip", "link", "set", "eth0", "down"], ["ip", "link", "set", "eth0", "up"]),
        ("a1-pod1", "b2-pod3"),
        "b2",
        " has no carrier",
        id="the pod's interface is down",
    ),
    pytest.param(
        lambda: _changed("tor", ["ip", "link", "set", "rack-b", "down"], ["ip", "link", "set", "rack-b", "up"]),
        ("a1-pod1", "b2-pod3"),
        "tor",
        "no route leads to 172.31.2.12",
        id="the router's interface is down",
    ),
    pytest.param(
        _no_arp,
        ("a1-pod1", "b2-pod3"),
        "tor",
        "172.31.2.12 does not answer ARP on rack-b: neighbour incomplete",
        id="a neighbour that does not answer",
    ),
    pytest.param(
        lambda: _changed(
            "tor",
            ["sysctl", "-qw", "net.ipv4.conf.rack-a.forwarding=0"],
            ["sysctl", "-qw", "net.ipv4.conf.rack-a.forwarding=1"],
        ),
        ("a1-pod1", "b2-pod3"),
        "tor",
        "this machine does not forward what comes in by rack-a: net/ipv4/conf/rack-a/forwarding is 0",
        id="a router that does not forward",
    ),
]


@pytest.mark.parametrize(("broken", "ends", "at", "reason"), DEATHS)
def test_where_a_packet_dies_is_named_with_the_reason(broken: Any, ends: tuple[str, ...], at: str, reason: str) -> None:
    with ExitStack() as stack:
        if broken is not None:
            stack.enter_context(broken())
        found = trace(*ends)
    assert found["delivered"] is False
    assert machines(found)[-1] == at
    assert reason in last(found)["reason"]
    assert found["reason"].startswith(f"{at}: ")


def test_a_packet_that_dies_is_the_exit_status() -> None:
    called = felix_lab(NAME, "trace", "a1-pod1", "10.65.2.60", "-o", "json")
    assert called.status == 1
    assert json.loads(called.out)["delivered"] is False


def test_what_was_healed_is_delivered_again() -> None:
    assert trace("a1-pod1", "b2-pod3")["delivered"] is True


def test_a_pulled_cable_is_found_at_its_machine() -> None:
    with _healed():
        felix_lab(NAME, "fail", "b2.uplink")
        try:
            found = trace("a1-pod1", "b2-pod3")
        finally:
            felix_lab(NAME, "heal")
    assert found["delivered"] is False
    assert "eth0 has no carrier" in found["reason"] or "172.31.2.12 does not answer ARP" in found["reason"]


def test_the_way_says_how_large_a_packet_it_takes() -> None:
    with _changed(
        "tor", ["ip", "link", "set", "rack-b", "mtu", "1400"], ["ip", "link", "set", "rack-b", "mtu", "1500"]
    ):
        assert trace("a1-pod1", "b2-pod3")["mtu"] == 1380


def test_a_rule_that_is_not_understood_is_a_note_and_no_verdict() -> None:
    with _rule("tor", "forward", "limit rate over 1/second drop"):
        found = trace("a1-pod1", "b2-pod3")
    assert found["delivered"] is True
    assert "is beyond what trace understands" in found["hops"][2]["legs"][0]["notes"][0]


def test_a_node_whose_agent_is_silent_is_asked_all_the_same(lab: Lab) -> None:
    socket = lab.of_node("b2") / "run" / "agent.sock"
    socket.rename(socket.with_suffix(".away"))
    try:
        found = trace("a1-pod1", "b2-pod3")
    finally:
        socket.with_suffix(".away").rename(socket)
    assert found["delivered"] is True
    assert last({"hops": found["hops"][3:4]})["from"] is None
    assert "its agent could not be asked" in found["hops"][3]["legs"][0]["notes"][0]


def test_unknown_ends_are_refused_with_what_there_is() -> None:
    called = felix_lab(NAME, "trace", "a1-pod9", "b2")
    assert called.status == 2
    assert called.error.startswith("felix-lab: a1-pod9 is nobody in this lab who sends packets; there are ")


# --- by a node's own felixctl


def test_a_node_alone_marks_what_it_infers() -> None:
    called = node_trace("a1", "default/a1-pod1", "10.65.3.3", "-o", "json")
    found = json.loads(called.out)
    assert (called.status, found["delivered"]) == (0, None)
    assert [(hop["machine"], hop["asked"]) for hop in found["hops"]] == [
        ("a1", True),
        ("172.31.1.1", False),
        ("b2", False),
    ]
    assert "Inferred: it takes it out of the tunnel and has block 10.65.3.0/26" in found["hops"][2]["inferred"]


def test_a_node_asks_others_by_the_command_that_it_is_given() -> None:
    ask = f"felix-lab --name {NAME} exec {{node}}"
    called = node_trace("a1", "a1-pod1", "10.65.3.3", "--ask", ask, "-o", "json")
    found = json.loads(called.out)
    assert found["delivered"] is True, called.out
    assert [hop["machine"] for hop in found["hops"] if hop["asked"]] == ["a1", "b2", "10.65.3.3"]
    assert found["hops"][2]["legs"][0]["verdict"] == "decapsulated"


def test_a_command_that_fails_is_no_answer() -> None:
    called = node_trace("a1", "10.65.1.1", "--ask", "false", "-o", "json")
    assert json.loads(called.out)["hops"][-1]["inferred"].startswith("a2 gave no answer: 1. Inferred: ")


def test_a_dead_end_of_this_node_is_its_exit_status() -> None:
    called = node_trace("a1", "a1-pod1", "10.65.0.60")
    assert called.status == 1
    assert "no pod has 10.65.0.60" in called.out


def test_a_route_that_cannot_be_installed_is_named() -> None:
    up = ["sh", "-c", "ip link set eth0 up; ip route replace default via 172.31.1.1"]
    with _changed("a1", ["ip", "link", "set", "eth0", "down"], up):
        called = node_trace("a1", "a1-pod1", "10.65.3.3")
    assert called.status == 1
    assert "no route leads to 10.65.3.3; 10.65.3.0/26, of bgp 172.31.2.12 (b2), is not installed: " in called.out


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        pytest.param(("nobody",), 1, "a1 knows no pod or node named nobody", id="an unknown name"),
        pytest.param(
            ("10.65.3.3", "10.65.0.1"), 2, "10.65.3.3 is on b2, and a trace begins here, on a1", id="elsewhere"
        ),
        pytest.param(("8.8.8.8", "10.65.0.1"), 2, "8.8.8.8 is no pod or node", id="a stranger"),
        pytest.param((), 2, "trace takes [SRC] DST", id="no end at all"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_a_sentence(words: tuple[str, ...], status: int, sentence: str) -> None:
    called = node_trace("a1", *words)
    assert called.status == status
    assert sentence in called.error


def test_nodes_are_listed_with_their_blocks() -> None:
    command = [*enter(Lab(NAME), "a1"), "felixctl", "nodes"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["NAME", "ADDRESSES", "AS", "BLOCKS"],
        ["a1", "172.31.1.11/24", "64512", "10.65.0.0/26"],
        ["a2", "172.31.1.12/24", "64512", "10.65.1.0/26"],
        ["b1", "172.31.2.11/24", "64512", "10.65.2.0/26"],
        ["b2", "172.31.2.12/24", "64512", "10.65.3.0/26"],
    ]


def test_the_api_refuses_rubbish_with_the_field(lab: Lab) -> None:
    socket = str(lab.of_node("a1") / "run" / "agent.sock")
    question = '{"packet":{"destination":"10.65.3.300"}}'
    words = [
        "curl",
        "-sG",
        "--unix-socket",
        socket,
        "http://localhost/v1/trace",
        "--data-urlencode",
        f"question={question}",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "error": "question is no question: destination is '10.65.3.300'; give an IP address"
    }
