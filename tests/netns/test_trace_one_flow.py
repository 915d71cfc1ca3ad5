"""One flow followed through a real lab: rules and filters that choose by protocol and port are found for it alone."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from labs import Called, felix_lab, lab_name, on_machine, standing

from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAME = lab_name("flows")

HTTP, HTTP_UDP = ("--proto", "tcp", "--port", "80"), ("--proto", "udp", "--port", "80")


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of this file; each leaves it as it was."""
    with standing(NAME) as lab:
        yield lab


def on(machine: str, *words: str) -> str:
    """Run a command on a machine; it has to succeed."""
    called = on_machine(NAME, machine, *words)
    assert called.status == 0, called.error
    return called.out


def trace(*words: str) -> dict[str, Any]:
    """Let felix-lab follow a packet."""
    called = felix_lab(NAME, "trace", *words, "-o", "json")
    assert called.status in (0, 1), called.error
    found: dict[str, Any] = json.loads(called.out)
    assert called.status == (0 if found["delivered"] else 1)
    return found


def machines(document: dict[str, Any]) -> list[str]:
    return [hop["machine"] for hop in document["hops"]]


def notes(document: dict[str, Any]) -> list[str]:
    return [note for hop in document["hops"] for leg in hop["legs"] for note in leg["notes"]]


@contextmanager
def _filtered(machine: str, rule: str) -> Iterator[None]:
    on(machine, "nft", f"table inet other {{ chain forward {{ type filter hook forward priority 0; {rule}; }}; }}")
    try:
        yield
    finally:
        on(machine, "nft", "delete", "table", "inet", "other")


@contextmanager
def _another_way(machine: str, rule: str, *routes: str) -> Iterator[None]:
    on(machine, "ip", "rule", "add", "pref", "100", *rule.split())
    for each in routes:
        on(machine, "ip", "route", "add", *each.split(), "table", "100")
    try:
        yield
    finally:
        on(machine, "ip", "rule", "del", "pref", "100")
        for each in routes:
            on(machine, "ip", "route", "del", *each.split(), "table", "100")


def test_a_filter_on_a_node_ends_the_flow_that_it_names_and_no_other() -> None:
    with _filtered("b2", "tcp dport { 80, 8080-8090 } drop"):
        web, high = trace("a1-pod1", "b2-pod3", *HTTP), trace("client", "b2-pod3", "--proto", "tcp", "--port", "8085")
        others = [
            trace("a1-pod1", "b2-pod3", *words)
            for words in (HTTP_UDP, ("--proto", "tcp", "--port", "443"), ("--proto", "icmp"), ("--proto", "47"))
        ]
        plain = trace("a1-pod1", "b2-pod3")
    reason = "b2: chain inet other forward drops it: `tcp dport { 80, 8080-8090 } drop`"
    assert [(found["delivered"], found["reason"]) for found in (web, high)] == [(False, reason)] * 2
    assert machines(web) == ["a1-pod1", "a1", "tor", "b2"]
    assert [(found["delivered"], notes(found)) for found in others] == [(True, [])] * 4
    assert plain["delivered"] is True
    assert [note.split("; ")[-1] for note in notes(plain)] == ["give --proto, and --port where it has ports"]


def test_a_rule_of_iptables_is_found_as_well() -> None:
    rule = ["FORWARD", "-p", "tcp", "-m", "multiport", "--dports", "80,443", "-j", "REJECT"]
    on("tor", "iptables", "-A", *rule)
    try:
        web, other = trace("client", "b2-pod3", *HTTP), trace("client", "b2-pod3", *HTTP_UDP)
    finally:
        on("tor", "iptables", "-D", *rule)
    assert web["reason"].startswith("tor: chain ip filter FORWARD drops it: `")
    assert (other["delivered"], notes(other)) == (True, [])


def test_a_filter_does_not_see_the_ports_inside_a_tunnel() -> None:
    with _filtered("tor", "tcp dport 80 drop"):
        found = trace("a1-pod1", "b2-pod3", *HTTP)
    assert (found["delivered"], notes(found)) == (True, [])
    assert found["hops"][2]["legs"][0]["packet"]["inner"]["destinationPort"] == 80


def test_a_flow_takes_the_way_that_a_rule_gives_it_and_no_other_flow_does() -> None:
    with _another_way("tor", "ipproto tcp dport 80 lookup 100", "10.65.3.0/26 via 172.31.2.11"):
        web = trace("client", "b2-pod3", *HTTP)
        others = [trace("client", "b2-pod3", *words) for words in (HTTP_UDP, ("--proto", "tcp", "--port", "81"))]
        plain = trace("client", "b2-pod3")
    assert machines(web) == ["client", "tor", "b1", "b2", "b2-pod3"]
    leg = web["hops"][1]["legs"][0]
    assert (leg["route"], leg["table"]) == ("10.65.3.0/26 via 172.31.2.11 table 100", "100")
    assert leg["why"] == ["rule `100: from all ipproto tcp dport 80 lookup 100` takes it"]
    assert [(machines(found), notes(found)) for found in others] == [(["client", "tor", "b2", "b2-pod3"], [])] * 2
    assert machines(plain) == ["client", "tor", "b2", "b2-pod3"]
    doubt = "may lead it elsewhere: give --proto, and --port where it has ports"
    assert notes(plain) == [f"rule `100: from all ipproto tcp dport 80 lookup 100` {doubt}"]


def test_a_rule_on_a_node_leads_its_pods_flow_another_way_whoever_gave_the_usual_route() -> None:
    with _another_way("a1", "from 10.65.0.0/26 ipproto udp sport 5000-5999 lookup 100", "10.65.3.0/26 via 172.31.1.12"):
        found = trace("a1-pod1", "b2-pod3", "--proto", "udp", "--port", "53", "--source-port", "5300")
        usual = trace("a1-pod1", "b2-pod3", "--proto", "udp", "--port", "53", "--source-port", "6000")
    assert machines(found) == ["a1-pod1", "a1", "a2", "tor", "b2", "b2-pod3"]
    leg = found["hops"][1]["legs"][0]
    assert (leg["table"], leg["from"], leg["prefix"]) == ("100", None, "10.65.3.0/26")
    assert machines(usual) == ["a1-pod1", "a1", "tor", "b2", "b2-pod3"]
    assert usual["hops"][1]["legs"][0]["from"] == "bgp 172.31.2.12 (b2)"


def test_a_rule_that_prohibits_a_flow_is_named() -> None:
    with _another_way("tor", "ipproto tcp dport 80 prohibit"):
        web, other = trace("client", "b2-pod3", *HTTP), trace("client", "b2-pod3", *HTTP_UDP)
    assert web["reason"] == "tor: rule `100: from all ipproto tcp dport 80 prohibit` ends it"
    assert (other["delivered"], notes(other)) == (True, [])


def test_a_protocol_that_no_kernel_is_asked_about_is_followed_and_said() -> None:
    with _another_way("tor", "ipproto sctp lookup 100", "10.65.3.0/26 via 172.31.2.11"):
        found = trace("client", "b2-pod3", "--proto", "sctp", "--port", "80")
    assert machines(found) == ["client", "tor", "b2", "b2-pod3"]
    doubt = "was not judged: a kernel can be asked about tcp, udp and icmp alone"
    assert notes(found) == [f"rule `100: from all ipproto sctp lookup 100` {doubt}"]


# --- by a node's own felixctl


def test_the_flow_is_passed_on_to_the_other_nodes() -> None:
    ask = ("--ask", f"felix-lab --name {NAME} exec {{node}}")
    with _filtered("b2", "tcp dport 80 drop"):
        web = on_machine(NAME, "a1", "felixctl", "trace", "a1-pod1", "10.65.3.3", *HTTP, *ask)
        other = on_machine(NAME, "a1", "felixctl", "trace", "a1-pod1", "10.65.3.3", *HTTP_UDP, *ask, "-o", "json")
    assert web.status == 1
    assert web.out.startswith("10.65.0.1 (a1-pod1) to 10.65.3.3, tcp to port 80\n")
    assert web.out.endswith("dropped: b2: chain inet other forward drops it: `tcp dport 80 drop`\n")
    found = json.loads(other.out)
    assert (other.status, found["delivered"], notes(found)) == (0, True, [])
    assert (found["protocol"], found["sourcePort"], found["destinationPort"]) == ("udp", None, 80)


WRONG = [
    pytest.param(("--port", "80"), "port 80 is of no protocol; give --proto tcp, udp or sctp as well", id="alone"),
    pytest.param(("--proto", "icmp", "--port", "80"), "icmp has no ports, and port 80 was given", id="of ICMP"),
    pytest.param(("--proto", "tcp", "--port", "70000"), "'70000' is no port; give a number from 1 to", id="too large"),
    pytest.param(("--proto", "quic"), "'quic' is no protocol; give tcp, udp, icmp, sctp or a number", id="a protocol"),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG)
def test_what_makes_no_flow_is_refused_in_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    called: list[Called] = [
        on_machine(NAME, "a1", "felixctl", "trace", "a1-pod1", "10.65.3.3", *words),
        felix_lab(NAME, "trace", "a1-pod1", "b2-pod3", *words),
    ]
    for each in called:
        assert (each.status, each.out) == (2, "")
        assert sentence in each.error.splitlines()[-1]
