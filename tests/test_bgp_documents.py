"""What `felixctl bgp` prints, to the letter, from a speaker that has heard of one prefix twice."""

from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

import pytest
from bgp_builders import B1, ME, NODE_AS, TOR, TOR_AS, attributes, network, offered, peer, settings

from bgp import path_report, report
from bgp.filters import Action, Filter, Operator, Rule, SetPriority
from bgp.speaker import Speaker
from bgp.speaker_words import WireStarted
from bgp.types import (
    Endpoint,
    Family,
    Notification,
    NotificationReceived,
    OpenReceived,
    OpenSent,
    PeerDown,
    PeerUp,
    UpdateReceived,
)
from bgp.wall_clock import Clock
from felix_py import bgp_documents, bgp_path_documents
from felix_py.ctl import bgp_paths, bgp_peer, output

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
BOTH = (Family.IPV4_UNICAST, Family.IPV6_UNICAST)
UP = Filter(
    "up", import_v4=(Rule(Action.ACCEPT, network("10.65.0.0/16"), Operator.IN, operations=(SetPriority(512),)),)
)


def heard() -> Speaker:
    """Return a speaker at second 60: the router's session is up with a filter, the node's was shut by its people."""
    router = peer(TOR, TOR_AS, "tor", "global", filters=("up",), families=BOTH)
    made = Speaker(settings(router, peer(B1, name="b1"), filters={"up": UP}), now=0)
    made.on(WireStarted(), now=0)
    for address, asn, as_path in ((TOR, TOR_AS, (TOR_AS,)), (B1, NODE_AS, ())):
        made.on(OpenSent(address, offered()), now=1)
        made.on(OpenReceived(address, offered(asn, address)), now=1)
        made.on(PeerUp(address, 90, Endpoint(ME, 40000), Endpoint(address, 179), dialled=True), now=1)
        made.on(
            UpdateReceived(address, (network("10.65.2.0/26"),), attributes=attributes(str(address), *as_path)), now=2
        )
    return made


def document(made: Speaker, address: Any) -> dict[str, Any]:
    found = next(each for each in report.peers(made, Clock(60, NOON)) if each.settings.address == address)
    return bgp_documents.peer(found, report.policies(made, address))


def test_one_line_for_each_family() -> None:
    tor, b1 = report.peers(heard(), Clock(60, NOON))
    assert [
        (row["family"], row["received"], row["accepted"], row["advertised"]) for row in bgp_documents.peer_rows(tor)
    ] == [("ipv4 unicast", 1, 1, 1), ("ipv6 unicast", 0, 0, 0)]
    assert [row["family"] for row in bgp_documents.peer_rows(b1)] == ["ipv4 unicast"]


def test_a_session_that_was_shut_says_so_in_words_and_numbers() -> None:
    made = heard()
    made.on(NotificationReceived(B1, Notification(6, 2, "bye")), now=10)
    made.on(PeerDown(B1, "peer said Cease: Administrative Shutdown", notified=True), now=10)
    shown = document(made, B1)
    assert shown["lastError"] == 'peer said Cease: Administrative Shutdown: "bye"'
    assert (shown["lastErrorCause"], shown["lastErrorTime"]) == ("shutByPeer", "2026-11-26T11:59:10Z")
    assert shown["notifications"] == {
        "sent": None,
        "received": {
            "code": 6,
            "subcode": 2,
            "words": 'Cease: Administrative Shutdown: "bye"',
            "text": "bye",
            "data": None,
        },
    }
    assert shown["history"][-1] == {
        "time": "2026-11-26T11:59:10Z",
        "state": "Connect",
        "cause": "peer said Cease: Administrative Shutdown",
    }


def test_one_session_whole_has_its_lists_under_heads() -> None:
    lines = list(bgp_peer.lines(document(heard(), TOR)))
    at = lines.index("import policy")
    assert lines[at : at + 9] == [
        "import policy",
        "  HITS  ACTION  TERM",
        "  0     reject  own AS in the AS path",
        "  0     reject  we are its originator",
        "  0     reject  our cluster ID is in its cluster list",
        "  0     reject  no usable next hop",
        "  0     reject  we are its next hop",
        "  1     accept  filter up, importV4 rule 1: In 10.65.0.0/16",
        "  0     reject  default route",
    ]
    at = lines.index("families")
    assert lines[at + 2] == (
        "  ipv4 unicast  1         1         0         1           0      -            "
        "no          no                   no"
    )
    assert "router ID" in lines
    assert not [line for line in lines if line.startswith("notifications")], "people are told in words"


def options(**given: Any) -> Namespace:
    return Namespace(**{"prefix": None, "advertised": None, "pre_policy": False, "output": "table", **given})


def printed(capsys: pytest.CaptureFixture[str], chosen: Namespace, rows: list[dict[str, Any]]) -> list[str]:
    output.table(tuple(bgp_paths._columns(chosen)), rows)
    return capsys.readouterr().out.splitlines()


def test_paths_with_who_won_by_which_rule_and_against_whom(capsys: pytest.CaptureFixture[str]) -> None:
    rows = bgp_path_documents.paths(path_report.routes(heard()))
    assert printed(capsys, options(), rows) == [
        "PREFIX        NEXT HOP     PEER              AS PATH  PREF        MED  STATUS    WHY",
        (
            "10.65.2.0/26  172.31.1.1   172.31.1.1 (tor)  64500    2147483135  -    best      "
            "local preference: 2147483135 is better than 100 (against 172.31.2.11)"
        ),
        (
            "10.65.2.0/26  172.31.2.11  172.31.2.11 (b1)  -        -           -    accepted  "
            "local preference: 2147483135 is better than 100 (against 172.31.1.1)"
        ),
    ]
    wide = printed(capsys, options(output="wide"), rows)
    assert "filter up, importV4 rule 1: In 10.65.0.0/16  localPreference none -> 2147483135  best" in wide[1]


def test_paths_as_peers_told_them_have_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    rows = bgp_path_documents.paths_as_told(path_report.routes(heard(), TOR))
    assert printed(capsys, options(pre_policy=True), rows) == [
        "PREFIX        NEXT HOP    PEER              AS PATH  PREF  MED",
        "10.65.2.0/26  172.31.1.1  172.31.1.1 (tor)  64500    -     -",
    ]
    assert not {"accepted", "best", "reason"} & rows[0].keys()


def test_what_a_peer_is_told_and_what_not(capsys: pytest.CaptureFixture[str]) -> None:
    made = heard()
    rows = bgp_path_documents.advertised((*path_report.advertised(made, B1), *path_report.withheld(made, B1)))
    assert printed(capsys, options(advertised="172.31.2.11", output="wide"), rows) == [
        (
            "PREFIX        STATUS    NEXT HOP     FROM        AS PATH  PREF        MED  ORIGIN  COMMUNITIES  "
            "ORIGINATOR  CLUSTERS  WHY"
        ),
        (
            "10.65.0.0/26  told      172.31.1.11  -           -        100         -    IGP     -            "
            "-           -         block of this node"
        ),
        (
            "10.65.2.0/26  not told  172.31.1.1   172.31.1.1  64500    2147483135  -    IGP     -            "
            "-           -         not ours, and nobody asks us to pass it on"
        ),
    ]
