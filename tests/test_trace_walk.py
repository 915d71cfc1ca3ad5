"""The way from machine to machine, its documents, and rules of others: pure parts of a trace."""

import json
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from felix_py.kernel.base_chains import Chain
from felix_py.model import IPAddress
from felix_py.trace import documents, filters
from felix_py.trace.conditions import Passage
from felix_py.trace.documents import Unreadable
from felix_py.trace.filters import Judgement
from felix_py.trace.walk import NotAsked, follow
from felix_py.trace.words import Answer, Leg, Machine, Next, Packet, Question, Verdict

A, B, ROUTER = Machine("a", "node"), Machine("b", "node"), Machine("router", "router")
HERE, THERE = IPv4Address("10.0.0.1"), IPv4Address("10.0.9.9")
PACKET = Packet(HERE, THERE)
OUTER = Packet(IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), PACKET, "ipip")


def forwarded(packet: Packet, mtu: int, to: str) -> Answer:
    return Answer((Leg(packet, Verdict.FORWARDED, "handed on", mtu=mtu),), Next(ip_address(to), packet))


class Network:
    """Machines that answer as they are told to; a machine without an answer cannot be asked."""

    def __init__(self, answers: Mapping[Machine, Answer], skipped: Machine | None = None) -> None:
        self._answers = answers
        self._skipped = skipped

    def ask(self, machine: Machine, _question: Question) -> Answer:
        if machine not in self._answers:
            raise NotAsked(f"{machine.name} is silent")
        return self._answers[machine]

    def whose(self, address: IPAddress, _holder: Machine) -> Machine | None:
        return {"192.0.2.1": A, "192.0.2.2": B, "192.0.2.254": ROUTER}.get(str(address))

    def beyond(self, machine: Machine, packet: Packet) -> tuple[Machine, IPAddress] | None:
        return (self._skipped, packet.destination) if self._skipped and machine == ROUTER else None

    def inferred(self, machine: Machine, _question: Question) -> str:
        return f"Inferred: {machine.name} routes it"


DELIVERED = Answer((Leg(OUTER, Verdict.DECAPSULATED, "out"), Leg(PACKET, Verdict.DELIVERED, "it is here", mtu=1450)))


def test_the_smallest_mtu_counts_and_the_tunnels_header_takes_its_part() -> None:
    network = Network({A: forwarded(OUTER, 1400, "192.0.2.2"), B: DELIVERED})
    found = follow(A, Question(PACKET), network)
    assert (found.delivered, found.reason, found.mtu) == (True, "it is here", 1380)
    assert [hop.machine for hop in found.hops] == [A, B]


def test_a_drop_is_told_with_its_place() -> None:
    network = Network({A: Answer((Leg(PACKET, Verdict.DROPPED, "no route leads there"),))})
    found = follow(A, Question(PACKET), network)
    assert (found.delivered, found.reason) == (False, "a: no route leads there")


def test_a_silent_router_is_stepped_over_and_marked() -> None:
    network = Network({A: forwarded(OUTER, 1500, "192.0.2.254"), B: DELIVERED}, skipped=B)
    found = follow(A, Question(PACKET), network)
    assert found.delivered is True
    assert [hop.unasked for hop in found.hops] == [None, "router is silent. Inferred: router routes it", None]


def test_what_nobody_can_be_asked_about_is_not_known() -> None:
    found = follow(A, Question(PACKET), Network({A: forwarded(OUTER, 1500, "192.0.2.254")}))
    assert (found.delivered, found.reason) == (None, "what becomes of it at router is not known here")


def test_an_address_of_nobody_is_said() -> None:
    found = follow(A, Question(PACKET), Network({A: forwarded(OUTER, 1500, "192.0.2.77")}))
    assert (found.delivered, found.reason) == (None, "nobody known here has 192.0.2.77, to which a hands it")


def test_a_loop_of_routes_ends() -> None:
    network = Network({A: forwarded(PACKET, 1500, "192.0.2.2"), B: forwarded(PACKET, 1500, "192.0.2.1")})
    found = follow(A, Question(PACKET), network)
    assert (found.delivered, found.reason) == (False, "it goes round in circles: a, b, a")


# --- documents


def test_answers_and_questions_survive_the_way_as_json() -> None:
    leg = Leg(
        OUTER, Verdict.ENCAPSULATED, "why", "eth0", "10.0.0.0/8 via 192.0.2.9", "10.0.0.0/8", "bird", "eth1", 1480,
        "ipip, a to b", "bgp 192.0.2.9 (tor)", ("best path",), ("a note",),
    )  # fmt: skip
    answer = Answer((leg,), Next(ip_address("192.0.2.9"), OUTER))
    question = Question(OUTER, ip_address("192.0.2.1"))
    assert documents.read_answer(json.loads(json.dumps(documents.answer(answer)))) == answer
    assert documents.read_question(json.loads(json.dumps(documents.question(question)))) == question


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        pytest.param({}, "packet is no packet", id="nothing"),
        pytest.param({"packet": {}}, "destination is missing", id="no destination"),
        pytest.param({"packet": {"destination": "x"}}, "destination is 'x'; give an IP address", id="no address"),
        pytest.param(
            {"packet": {"destination": "10.0.0.1", "source": "fd00::1"}}, "different versions of IP", id="two versions"
        ),
        pytest.param({"packet": {"destination": "10.0.0.1", "size": True}}, "size is True; give 1 to", id="no size"),
        pytest.param(
            {"packet": {"destination": "10.0.0.1", "encapsulation": "gre", "inner": {"destination": "10.0.0.2"}}},
            "encapsulation is 'gre'; known are ipip, vxlan",
            id="an unknown tunnel",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_its_field(document: Any, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence.replace("(", r"\(")):
        documents.read_question(document)


def test_packets_cannot_be_nested_without_end() -> None:
    packet: dict[str, Any] = {"destination": "10.0.0.1"}
    for _ in range(3):
        packet = {"destination": "10.0.0.1", "encapsulation": "ipip", "inner": packet}
    with pytest.raises(Unreadable, match="packet is no packet"):
        documents.read_question({"packet": packet})


# --- rules of others

FORWARDED = Passage(OUTER, "forward", "eth0", "eth1")


def chain(*rules: str, policy: str = "accept", hook: str = "forward") -> Chain:
    return Chain("ip filter", "FORWARD", hook, policy, "\n".join(rules))


@pytest.mark.parametrize(
    ("rules", "dropped"),
    [
        pytest.param(chain("meta l4proto 4 drop"), "`meta l4proto 4 drop`", id="the tunnel's protocol"),
        pytest.param(chain("ip protocol ipencap counter packets 3 bytes 9 drop"), "ipencap", id="by name, counted"),
        pytest.param(chain('iifname "eth0" oifname "eth1" reject'), "reject", id="by interfaces"),
        pytest.param(chain('iifname "eth*" ip saddr 192.0.2.0/24 drop'), "192.0.2.0/24", id="by a network"),
        pytest.param(chain("ip daddr != 10.0.0.0/8 drop"), "!= 10.0.0.0/8", id="by another one's absence"),
        pytest.param(chain(policy="drop"), "drops what no rule of it accepts", id="by default"),
        pytest.param(chain('iifname "eth9" drop'), None, id="another interface"),
        pytest.param(
            chain('iifname "docker0" jump DOCKER', "ip saddr 10.9.0.0/16 ct state new drop"), None, id="jumps"
        ),
        pytest.param(chain("ip saddr 10.0.0.1 drop"), None, id="the inner address is not seen"),
        pytest.param(chain("meta l4proto 4 accept", "drop"), None, id="accepted before"),
        pytest.param(chain("drop", hook="input"), None, id="another hook"),
    ],
)
def test_rules_that_are_understood_are_judged(rules: Chain, dropped: str | None) -> None:
    judged = filters.others(FORWARDED, [rules])
    assert (judged.dropped is None) is (dropped is None)
    assert dropped is None or dropped in str(judged.dropped)
    assert judged.notes == ()


def test_vxlan_is_known_by_its_port() -> None:
    vxlan = Passage(Packet(OUTER.source, OUTER.destination, PACKET, "vxlan"), "forward", "eth0", "eth1")
    rules = [chain("udp dport 4789 drop")]
    assert filters.others(vxlan, rules).dropped == "chain ip filter FORWARD drops it: `udp dport 4789 drop`"
    assert filters.others(FORWARDED, rules) == Judgement()


@pytest.mark.parametrize(
    ("rules", "note"),
    [
        pytest.param(chain("ct state invalid drop"), "`ct state invalid drop` is beyond", id="connections"),
        pytest.param(chain("ip saddr @bad drop"), "`ip saddr @bad drop` is beyond", id="a set"),
        pytest.param(chain("jump DOCKER-USER"), "`jump DOCKER-USER` is", id="a jump"),
        pytest.param(chain("ct state established accept", policy="drop"), "is beyond", id="what would be accepted"),
    ],
)
def test_rules_beyond_understanding_are_a_note(rules: Chain, note: str) -> None:
    judged = filters.others(FORWARDED, [rules])
    assert judged.dropped is None
    assert note in judged.notes[0]


def test_our_own_table_is_judged_by_its_sets_and_not_by_its_rules() -> None:
    ours = Chain("inet felix", "forward", "forward", "accept", 'oifname "cali*" oifname != @pods drop')
    assert filters.others(FORWARDED, [ours]) == Judgement()
