"""What each term of a policy decides now, and what a peer is told or not told, with the reason."""

from ipaddress import IPv4Address, IPv6Network
from typing import Any

from bgp_builders import A2, B1, NODE_AS, TOR, TOR_AS, attributes, network, offered, peer, settings

from bgp import path_report, policy_report
from bgp.filters import Action, Filter, Operator, Rule, SetPriority
from bgp.speaker import Speaker
from bgp.speaker_words import Configured, WireStarted
from bgp.types import Family, OpenReceived, PeerUp, UpdateReceived

LOW, HIGH = network("10.65.0.0/18"), network("10.65.128.0/17")
UP = Filter(
    "up",
    import_v4=(
        Rule(Action.REJECT, HIGH, Operator.IN),
        Rule(Action.ACCEPT, LOW, Operator.IN, operations=(SetPriority(512),)),
    ),
    export_v4=(Rule(Action.ACCEPT, network("10.65.2.0/24"), Operator.IN),),
)


def speaker(*peers: Any, **others: Any) -> Speaker:
    """Return a speaker whose sessions are all up."""
    made = Speaker(settings(*peers, **others), now=0)
    made.on(WireStarted(), now=0)
    for each in peers:
        made.on(OpenReceived(each.address, offered(each.asn, IPv4Address(each.address))), now=1)
        made.on(PeerUp(each.address, 90), now=1)
    return made


def tell(made: Speaker, teller: IPv4Address, *prefixes: str, as_path: tuple[int, ...] = ()) -> None:
    said = attributes(str(teller), *as_path)
    made.on(UpdateReceived(teller, tuple(map(network, prefixes)), attributes=said), now=2)


def hit(terms: tuple[policy_report.TermReport, ...]) -> list[tuple[str, str, int]]:
    """Return the terms that decide anything, each with the place that it has in a filter."""
    return [
        (f"{each.filter} {each.list} {each.rule}" if each.filter else each.term, each.action, each.hits)
        for each in terms
        if each.hits
    ]


def test_import_terms_in_order_with_what_they_decide() -> None:
    made = speaker(peer(TOR, TOR_AS, filters=("up",)), filters={"up": UP})
    tell(made, TOR, "10.65.1.0/26", "10.65.2.0/26", "10.65.64.0/26", "10.65.200.0/26", "0.0.0.0/0", as_path=(TOR_AS,))
    tell(made, TOR, "10.65.3.0/26", as_path=(TOR_AS, NODE_AS))
    terms = policy_report.imported(made.sessions[TOR])
    assert hit(terms) == [
        ("own AS in the AS path", "Reject", 1),
        ("up importV4 1", "Reject", 1),
        ("up importV4 2", "Accept", 2),
        ("default route", "Reject", 1),
        ("nothing objects", "Accept", 1),
    ]
    assert sum(each.hits for each in terms) == len(made.sessions[TOR].adj_rib_in.entries)
    assert [each.term for each in terms if each.filter] == ["In 10.65.128.0/17", "In 10.65.0.0/18"]


def test_hits_are_of_this_moment() -> None:
    made = speaker(peer(TOR, TOR_AS, filters=("up",)), filters={"up": UP})
    tell(made, TOR, "10.65.1.0/26", "10.65.200.0/26", as_path=(TOR_AS,))
    made.on(UpdateReceived(TOR, withdrawn=(network("10.65.200.0/26"),)), now=3)
    assert hit(policy_report.imported(made.sessions[TOR])) == [("up importV4 2", "Accept", 1)]
    made.on(Configured(settings(peer(TOR, TOR_AS))), now=4)
    assert hit(policy_report.imported(made.sessions[TOR])) == [("nothing objects", "Accept", 1)]


def test_a_filter_that_does_not_exist_is_a_term_that_rejects() -> None:
    made = speaker(peer(TOR, TOR_AS, filters=("nowhere",)))
    tell(made, TOR, "10.65.1.0/26", as_path=(TOR_AS,))
    assert hit(policy_report.imported(made.sessions[TOR])) == [("nowhere importV4 1", "Reject", 1)]


def test_export_terms_decide_over_our_own_and_the_best_paths() -> None:
    made = speaker(peer(TOR, TOR_AS, filters=("up",)), peer(A2), peer(B1), filters={"up": UP})
    tell(made, B1, "10.65.2.0/26", "10.65.2.64/26", "10.65.3.0/26")
    assert hit(policy_report.exported(made, made.sessions[TOR])) == [
        ("up exportV4 1", "Accept", 2),
        ("our own prefix", "Accept", 1),
        ("not ours, and nobody asks us to pass it on", "Reject", 1),
    ]
    assert hit(policy_report.exported(made, made.sessions[B1])) == [
        ("the peer told it to us", "Reject", 3),
        ("our own prefix", "Accept", 1),
    ]
    assert hit(policy_report.exported(made, made.sessions[A2])) == [
        ("told by iBGP, and neither side is a client of ours", "Reject", 3),
        ("our own prefix", "Accept", 1),
    ]


def test_a_route_reflector_passes_on() -> None:
    made = speaker(peer(A2, client=True), peer(B1, client=True), cluster_id=IPv4Address("1.1.1.1"))
    tell(made, B1, "10.65.2.0/26", "10.65.3.0/26")
    assert (
        hit(policy_report.exported(made, made.sessions[A2]))
        == [
            ("our own prefix", "Accept", 1),
            ("passed on: we reflect routes", "Accept", 2),
        ]
        or hit(policy_report.exported(made, made.sessions[A2])) == []
    )


def test_what_a_peer_is_told_and_not_told_agrees_with_its_terms() -> None:
    made = speaker(peer(TOR, TOR_AS, filters=("up",)), peer(B1), filters={"up": UP})
    tell(made, B1, "10.65.2.0/26", "10.65.3.0/26")
    told = path_report.advertised(made, TOR)
    assert [(str(each.prefix), each.source, each.attributes.as_path) for each in told] == [
        ("10.65.0.0/26", None, (NODE_AS,)),
        ("10.65.2.0/26", B1, (NODE_AS,)),
    ]
    assert told[1].reason == ("best path, from 172.31.2.11; accepted by filter up, exportV4 rule 1: In 10.65.2.0/24")
    withheld = path_report.withheld(made, TOR)
    assert [(str(each.prefix), each.reason) for each in withheld] == [
        ("10.65.3.0/26", "not ours, and nobody asks us to pass it on")
    ]
    assert [each.reason for each in path_report.withheld(made, B1)] == ["the peer told it to us"] * 2
    assert path_report.advertised(made, TOR, network("10.65.9.0/26")) == ()


def test_a_family_that_the_session_does_not_carry_is_the_reason() -> None:
    own = (network("10.65.0.0/26"), IPv6Network("fd65::/122"))
    made = speaker(peer(B1, families=(Family.IPV4_UNICAST,)), announcements=frozenset(own))
    assert [(str(each.prefix), each.reason) for each in path_report.withheld(made, B1)] == [
        ("fd65::/122", "the session does not carry ipv6 unicast")
    ]


def test_a_path_says_against_whom_it_won_or_lost_and_what_policy_changed() -> None:
    made = speaker(peer(TOR, TOR_AS, filters=("up",)), peer(B1), filters={"up": UP})
    tell(made, TOR, "10.65.2.0/26", as_path=(TOR_AS,))
    tell(made, B1, "10.65.2.0/26")
    best, lost = path_report.routes(made, prefix=network("10.65.2.0/26"))
    assert (best.peer, best.best, best.rule, best.against) == (TOR, True, "local preference", B1)
    assert (lost.peer, lost.best, lost.rule, lost.against) == (B1, False, "local preference", TOR)
    assert (best.received.local_preference, best.attributes.local_preference) == (None, 2147483135)
    assert best.decided_by == "filter up, importV4 rule 2: In 10.65.0.0/18"
    assert path_report.routes(made, prefix=network("10.65.9.0/26")) == ()
