"""Protocol and ports of a packet on its way: what users say, rules of policy routing, rules of filters; pure parts."""

import json
import re
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from fake_sight import FakeSight, found

from felix_py.kernel import flow as flows
from felix_py.kernel import lookup_codec
from felix_py.kernel.base_chains import Chain
from felix_py.kernel.flow import Flow
from felix_py.kernel.rule_codec import Rule
from felix_py.kernel.wire import Refusal
from felix_py.trace import documents, filters, rules
from felix_py.trace.conditions import Passage
from felix_py.trace.documents import Unreadable
from felix_py.trace.filters import Judgement
from felix_py.trace.passing import passing
from felix_py.trace.walk import follow
from felix_py.trace.words import Answer, Leg, Machine, Packet, Question, Verdict

HERE, THERE = IPv4Address("10.65.0.1"), IPv4Address("172.31.1.77")
HTTP, DNS, ANY_TCP, PING = Flow(6, None, 80), Flow(17, 5353, 53), Flow(6), Flow(1)
GRE = Flow(47)


def packet(flow: Flow | None) -> Packet:
    return Packet(HERE, THERE, flow=flow)


# --- what users say


@pytest.mark.parametrize(
    ("text", "number"),
    [("tcp", 6), ("UDP", 17), ("icmp", 1), ("sctp", 132), ("47", 47), ("0", 0), ("255", 255), ("ipv6-icmp", 58)],
)
def test_protocols_have_names_and_numbers(text: str, number: int) -> None:
    assert flows.protocol(text) == number


@pytest.mark.parametrize("text", ["quic", "256", "-1", "", "6.0", "٦"])
def test_what_is_no_protocol_is_refused_in_a_sentence(text: str) -> None:
    sentence = f"{text!r} is no protocol; give tcp, udp, icmp, sctp or a number from 0 to 255"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        flows.protocol(text)


@pytest.mark.parametrize("text", ["0", "70000", "http", "-80", "8O"])
def test_what_is_no_port_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is no port; give a number from 1 to 65535, as 80")):
        flows.port(text)


@pytest.mark.parametrize(
    ("number", "ports", "sentence"),
    [
        pytest.param(None, (None, 80), "port 80 is of no protocol; give --proto tcp, udp or sctp", id="no protocol"),
        pytest.param(None, (5000, None), "port 5000 is of no protocol", id="no protocol, and a source port"),
        pytest.param(1, (None, 80), "icmp has no ports, and port 80 was given", id="ICMP"),
        pytest.param(99, (None, 80), "99 has no ports, and port 80 was given", id="a number"),
    ],
)
def test_ports_are_of_protocols_that_have_them(
    number: int | None, ports: tuple[int | None, int | None], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        flows.flow(number, *ports)


def test_a_flow_is_said_in_words_and_turned_round() -> None:
    assert (str(DNS), str(DNS.back())) == ("udp from port 5353 to port 53", "udp from port 53 to port 5353")
    assert (str(PING), str(PING.of_version(6)), str(HTTP.of_version(6))) == ("icmp", "icmpv6", "tcp to port 80")


@pytest.mark.parametrize("flow", [None, HTTP, DNS, ANY_TCP, PING, GRE, Flow(99)])
def test_a_flow_survives_the_way_as_json(flow: Flow | None) -> None:
    question = Question(Packet(HERE, THERE, packet(flow), "ipip"))
    assert documents.read_question(json.loads(json.dumps(documents.question(question)))) == question


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        pytest.param({"protocol": "quic"}, "'quic' is no protocol", id="protocol"),
        pytest.param({"protocol": "tcp", "destinationPort": 70000}, "'70000' is no port", id="port"),
        pytest.param({"protocol": "tcp", "sourcePort": True}, "'True' is no port", id="no number"),
        pytest.param({"destinationPort": 80}, "port 80 is of no protocol", id="a port alone"),
    ],
)
def test_a_question_about_no_flow_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        documents.read_question({"packet": {"destination": "10.0.0.1", **fields}})


# --- rules of filters


def judged(flow: Flow | None, *lines: str, policy: str = "accept", table: str = "inet other") -> Judgement:
    chain = Chain(table, "forward", "forward", policy, "\n".join(lines))
    return filters.others(Passage(packet(flow), "forward", "eth0", "eth1"), [chain])


@pytest.mark.parametrize(
    ("line", "dropped", "passed"),
    [
        pytest.param("tcp dport 80 drop", [HTTP], [DNS, PING, GRE, Flow(6, 80, 81), Flow(132, 1, 80)], id="a port"),
        pytest.param("tcp dport { 22, 80-90 } drop", [HTTP], [Flow(6, 1, 91), DNS], id="ports"),
        pytest.param("tcp dport >= 80 drop", [HTTP], [Flow(6, None, 79)], id="ports from one on"),
        pytest.param("tcp dport 1-1024 counter packets 3 bytes 9 reject", [HTTP], [Flow(6, 1, 1025)], id="a range"),
        pytest.param("tcp dport != 443 drop", [HTTP], [Flow(6, None, 443), DNS, PING], id="all but one port"),
        pytest.param("udp sport 5353 drop", [DNS], [HTTP, Flow(17, 53, 53)], id="where it comes from"),
        pytest.param("th dport 80 drop", [HTTP, Flow(17, 1, 80)], [DNS, PING], id="of any protocol with ports"),
        pytest.param("meta l4proto 6 drop", [HTTP, ANY_TCP], [DNS, PING], id="a protocol"),
        pytest.param("meta l4proto { tcp, 1 } drop", [HTTP, PING], [DNS, GRE], id="protocols"),
        pytest.param("ip protocol != 17 drop", [HTTP, PING, GRE], [DNS], id="all but one protocol"),
        pytest.param("meta l4proto 17 udp dport { 53, 54 } drop", [DNS], [HTTP, Flow(17, 1, 55)], id="iptables"),
        pytest.param("ip daddr { 172.31.1.1-172.31.1.99, 192.0.2.0/24 } th dport 80 drop", [HTTP], [DNS], id="to"),
    ],
)  # fmt: skip
def test_a_filter_drops_the_flows_that_it_names_and_no_other(
    line: str, dropped: list[Flow], passed: list[Flow]
) -> None:
    for flow in dropped:
        assert judged(flow, line) == Judgement(f"chain inet other forward drops it: `{line}`"), flow
    for flow in passed:
        assert judged(flow, line) == Judgement(), flow


@pytest.mark.parametrize(
    ("flow", "line", "why"),
    [
        pytest.param(None, "tcp dport 80 drop", "give --proto, and --port where it has ports", id="nothing is said"),
        pytest.param(None, "meta l4proto 6 drop", "give --proto, and --port where it has ports", id="nor a protocol"),
        pytest.param(ANY_TCP, "tcp dport 80 drop", "depends on what it carries; give --port", id="no port"),
        pytest.param(HTTP, "tcp sport 80 drop", "depends on what it carries; give --source-port", id="no source port"),
        pytest.param(HTTP, "tcp flags syn drop", "is beyond what trace understands", id="flags"),
        pytest.param(HTTP, "tcp dport vmap { 80 : drop }", "is beyond what trace understands", id="a map"),
        pytest.param(HTTP, "tcp dport @web drop", "is beyond what trace understands", id="a set with a name"),
        pytest.param(HTTP, "ip saddr . tcp dport { 10.65.0.1 . 80 } drop", "is beyond", id="two things at once"),
    ],
)
def test_what_depends_on_more_than_was_said_is_a_note_and_no_verdict(flow: Flow | None, line: str, why: str) -> None:
    found = judged(flow, line, policy="accept" if "drop }" not in line else "drop")
    assert found.dropped is None
    assert found.notes[0].startswith(f"chain inet other forward may drop it: `{line}` ")
    assert why in found.notes[0]


def test_conditions_on_the_headers_of_another_protocol_do_not_hold() -> None:
    lines = ("tcp flags syn drop", "icmp type 8 drop", "sctp chunk init exists drop")
    assert judged(DNS, *lines) == Judgement()


def test_what_may_have_been_accepted_before_is_not_said_to_be_dropped() -> None:
    lines = ("tcp dport 443 accept", "ip saddr 10.65.0.0/16 drop")
    note = "chain inet other forward may drop it: `tcp dport 443 accept` depends on what it carries; give --port"
    assert judged(ANY_TCP, *lines) == Judgement(None, (note,))
    assert judged(HTTP, *lines).dropped == f"chain inet other forward drops it: `{lines[1]}`"
    assert judged(Flow(6, None, 443), *lines) == Judgement()


def test_a_firewall_that_drops_by_default_lets_pass_what_it_names() -> None:
    assert judged(HTTP, "tcp dport 80 accept", policy="drop") == Judgement()
    assert judged(DNS, "tcp dport 80 accept", policy="drop").dropped == (
        "chain inet other forward drops what no rule of it accepts"
    )


def test_a_table_of_one_version_of_ip_sees_no_packet_of_the_other() -> None:
    lines = ("tcp dport 80 drop",)
    assert judged(HTTP, *lines, table="ip6 filter") == Judgement()
    assert judged(HTTP, *lines, table="ip filter").dropped is not None


# --- rules of policy routing

WEB = Rule(100, "lookup", 100, protocol=6, destination_ports=(80, 80))
PROHIBIT = Rule(200, "prohibit", 0, protocol=17, source_ports=(5000, 5999))
STREAMS = Rule(300, "lookup", 100, protocol=132)
MAIN = Rule(32766, "lookup", 254)


def doubts(flow: Flow | None, *policy: Rule, table: int = 254) -> list[str]:
    return list(rules.doubts(table, packet(flow), "eth0", (*policy, MAIN)))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        pytest.param(WEB, "100: from all ipproto tcp dport 80 lookup 100", id="a port"),
        pytest.param(PROHIBIT, "200: from all ipproto udp sport 5000-5999 prohibit", id="a range"),
        pytest.param(
            Rule(7, "lookup", 254, ip_network("10.0.0.0/8"), incoming="eth0", mark=16, inverted=True),
            "7: not from 10.0.0.0/8 fwmark 0x10 iif eth0 lookup main",
            id="much else",
        ),
    ],
)
def test_a_rule_is_written_as_ip_rule_does(rule: Rule, words: str) -> None:
    assert str(rule) == words


@pytest.mark.parametrize(
    ("rule", "takes"),
    [
        pytest.param(WEB, True, id="by its port"),
        pytest.param(STREAMS, False, id="another protocol"),
        pytest.param(Rule(1, "lookup", 9, protocol=6, source_ports=(1, 9)), None, id="a port that nobody says"),
        pytest.param(Rule(1, "lookup", 9, ip_network("10.65.0.0/26")), True, id="from a network"),
        pytest.param(Rule(1, "lookup", 9, None, ip_network("10.65.0.0/26")), False, id="to another network"),
        pytest.param(Rule(1, "lookup", 9, incoming="eth1", source_ports=(1, 9)), False, id="another interface decides"),
        pytest.param(Rule(1, "lookup", 9, mark=1), False, id="a mark"),
        pytest.param(Rule(1, "lookup", 9, protocol=17, inverted=True), True, id="not another protocol"),
    ],
)
def test_a_rule_says_whether_it_takes_a_packet(rule: Rule, takes: object) -> None:
    assert rule.takes(THERE, HERE, "eth0", HTTP) is takes


def test_the_rule_that_led_to_a_table_is_found() -> None:
    assert rules.leading(100, packet(HTTP), "eth0", (STREAMS, WEB, MAIN)) == WEB
    assert rules.leading(100, packet(DNS), "eth0", (STREAMS, WEB, MAIN)) is None


def test_a_rule_is_in_doubt_where_the_flow_is_not_said_or_no_kernel_takes_it() -> None:
    assert doubts(HTTP, WEB, PROHIBIT) == []
    assert doubts(None, WEB) == [
        f"rule `{WEB}` may lead it elsewhere: give --proto, and --port where it has ports"
    ]  # fmt: skip
    assert doubts(ANY_TCP, WEB) == [f"rule `{WEB}` may lead it elsewhere: give --port"]
    assert doubts(Flow(17, None, 53), PROHIBIT) == [f"rule `{PROHIBIT}` may lead it elsewhere: give --source-port"]
    unasked = f"rule `{STREAMS}` was not judged: a kernel can be asked about tcp, udp and icmp alone"
    assert doubts(Flow(132, None, 80), STREAMS) == [unasked]


def test_rules_after_the_one_that_decided_are_in_no_doubt() -> None:
    assert doubts(None, Rule(0, "lookup", 255), WEB, table=255) == []


def test_a_tunnels_packet_is_asked_for_as_what_it_is() -> None:
    outer = Packet(IPv4Address("192.0.2.1"), THERE, packet(HTTP), "vxlan")
    from_port = Rule(1, "lookup", 9, protocol=17, source_ports=(1, 9))
    assert list(rules.doubts(254, outer, None, (WEB, from_port, MAIN))) == [
        f"rule `{from_port}` may lead it elsewhere: the tunnel chooses the port that it sends from"
    ]


def test_what_a_kernel_is_not_told_it_takes_for_udp() -> None:
    assert lookup_codec.asked_as(None, 4) == Flow(17, 0, 0)
    assert lookup_codec.asked_as(GRE, 4) == Flow(17, 0, 0)
    assert lookup_codec.asked_as(HTTP, 4) == Flow(6, 0, 80)
    assert lookup_codec.question(THERE, None, 0, GRE, match=False) == lookup_codec.question(THERE, None, 0, match=False)


# --- one machine, and the next


def diverting(*policy: Rule) -> FakeSight:
    sight = FakeSight()
    sight.policy = (*policy, MAIN)
    sight.table = None
    return sight


def test_the_table_and_the_rule_are_told_where_it_is_not_the_usual_one() -> None:
    sight = diverting(WEB)
    sight.diverted[HTTP] = found("172.31.1.0/24", "eth0", "172.31.1.9", table=100)
    leg = passing(Question(packet(HTTP)), sight, {}).legs[0]
    assert (leg.route, leg.table) == ("172.31.1.0/24 via 172.31.1.9 table 100", "100")
    assert leg.why == (f"rule `{WEB}` takes it",)
    usual = passing(Question(packet(DNS)), sight, {}).legs[0]
    assert (usual.route, usual.why, usual.notes) == ("172.31.1.0/24", (), ())


def test_a_rule_that_ends_a_flow_is_named() -> None:
    sight = diverting(PROHIBIT)
    flow = Flow(17, 5000, 53)
    sight.diverted[flow] = Refusal(13, "Permission denied")
    leg = passing(Question(packet(flow)), sight, {}).legs[0]
    assert (leg.verdict, leg.reason) == (Verdict.DROPPED, f"rule `{PROHIBIT}` ends it")
    assert passing(Question(packet(HTTP)), sight, {}).legs[0].verdict is Verdict.FORWARDED


def test_the_flow_is_inside_the_tunnel_and_the_tunnels_own_outside() -> None:
    sight = FakeSight()
    inner = Packet(HERE, IPv4Address("10.65.3.3"), flow=HTTP)
    answer = passing(Question(inner), sight, {})
    assert answer.next is not None
    assert (answer.next.packet.flow, answer.next.packet.inner) == (None, answer.legs[0].packet)
    assert answer.legs[0].packet.flow == HTTP
    assert sight.asked[0] == HTTP
    assert sight.asked[-1] == Flow(4)


class OldAgent:
    """A machine whose agent knows nothing of flows, as before there were any."""

    def ask(self, _machine: Machine, question: Question) -> Answer:
        document = documents.question(question)
        del document["packet"]["protocol"], document["packet"]["destinationPort"], document["packet"]["sourcePort"]
        old = documents.read_question(document).packet
        return Answer((Leg(old, Verdict.DELIVERED, "it is here"),))

    def whose(self, _address: object, _holder: Machine) -> None: ...

    def beyond(self, _machine: Machine, _packet: Packet) -> None: ...

    def inferred(self, _machine: Machine, _question: Question) -> str:
        return ""


def test_an_agent_that_knows_no_flows_has_not_answered() -> None:
    asked = follow(Machine("a", "node"), Question(packet(HTTP)), OldAgent())
    assert (asked.delivered, asked.hops[0].unasked) == (
        None,
        "a gave no answer about tcp to port 80: its felix-agent is too old for --proto",
    )
    assert follow(Machine("a", "node"), Question(packet(None)), OldAgent()).delivered is True


def test_icmp_of_ipv6_is_another_protocol() -> None:
    six = Packet(IPv6Address("fd00::1"), IPv6Address("fd00::2"), flow=PING.of_version(6))
    chain = Chain("inet other", "forward", "forward", "accept", "meta l4proto 58 drop")
    assert filters.others(Passage(six, "forward"), [chain]).dropped is not None
