"""ExaBGP's JSON as our words, each line as the child writes it; and rubbish, which is named and nothing else."""

import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from bgp_builders import B1
from hypothesis import given
from hypothesis import strategies as st

from bgp.exabgp_events import Alive, CannotListen, CommandRefused, Configured, Rubbish, down_in_words, heard
from bgp.types import (
    ConnectFailed,
    DialFailure,
    Endpoint,
    Family,
    GracefulRestart,
    MessagesCounted,
    Notification,
    NotificationReceived,
    NotificationSent,
    Open,
    OpenReceived,
    OpenSent,
    PeerDown,
    PeerUp,
    RefreshHeard,
    RefreshStage,
    SessionState,
    StateChanged,
)

HEAD = '"address": { "local": "172.31.1.11", "peer": "172.31.2.11" }, "asn": { "local": 64512, "peer": 64512 }'


def line(kind: str, content: str) -> str:
    return f'{{ "type": "{kind}", "neighbor": {{ {HEAD}, "router-id": "172.31.1.11" , {content} }} }}'


@pytest.mark.parametrize(
    ("text", "events"),
    [
        pytest.param(line("state", '"state": "up"'), (PeerUp(B1),), id="up, by stock ExaBGP"),
        pytest.param(
            line(
                "state",
                '"state": "up", "session": {"hold_time": 90, "local": ["172.31.1.11", 179], '
                '"remote": ["172.31.2.11", 41235], "dialled": false}',
            ),
            (PeerUp(B1, 90, Endpoint(IPv4Address("172.31.1.11"), 179), Endpoint(B1, 41235), dialled=False),),
            id="up, with its connection",
        ),
        pytest.param(line("state", '"state": "connected"'), (), id="a TCP connection is no session"),
        pytest.param(
            line("state", '"state": "down", "reason": "notification received (6,2)"'),
            (PeerDown(B1, "peer said Cease: Administrative Shutdown", notified=True),),
            id="down by a NOTIFICATION",
        ),
        pytest.param(
            line("state", '"state": "down", "reason": "notification sent (4,0)"'),
            (PeerDown(B1, "we said Hold Timer Expired", notified=True),),
            id="down by our hold timer",
        ),
        pytest.param(
            line("state", '"state": "down", "reason": "closing connection"'),
            (PeerDown(B1, "connection lost"),),
            id="down without a word",
        ),
        pytest.param(
            line(
                "state",
                '"state": "down", "reason": "graceful restarted negotiated, closing without sending any notification"',
            ),
            (PeerDown(B1, "settings changed"),),
            id="closed by us, without a NOTIFICATION",
        ),
        pytest.param(line("fsm", '"state": "OPENSENT"'), (StateChanged(B1, SessionState.OPEN_SENT),), id="OpenSent"),
        pytest.param(line("fsm", '"state": "IDLE"'), (), id="states that other events tell"),
        pytest.param(
            line(
                "notification",
                '"direction": "receive", "notification": { "code": 6, "subcode": 2, "data": "0x53", '
                '"message": "Shutdown Communication: \\"maintenance\\"" }',
            ),
            (NotificationReceived(B1, Notification(6, 2, "maintenance")),),
            id="a NOTIFICATION with a text",
        ),
        pytest.param(
            line("notification", '"direction": "send", "notification": {"code": 2, "subcode": 2, "message": "ASN"}'),
            (NotificationSent(B1, Notification(2, 2)),),
            id="a NOTIFICATION of ours",
        ),
        pytest.param('{"type": "notification", "notification": "shutdown"}', (), id="ExaBGP's last line"),
        pytest.param(
            line(
                "notification",
                '"direction": "send", "notification": {"code": 6, "subcode": 2, "message": "\\u0007goodbye"}',
            ),
            (NotificationSent(B1, Notification(6, 2, "goodbye")),),
            id="a NOTIFICATION of ours with a text",
        ),
        pytest.param(
            '{"type": "route-refresh", "stage": "begin", "peer": "172.31.2.11", "family": "ipv6 unicast"}',
            (RefreshHeard(B1, Family.IPV6_UNICAST, RefreshStage.BEGIN),),
            id="a refresh begins",
        ),
        pytest.param(
            '{"type": "dial", "peer": "172.31.2.11", "error": "EHOSTUNREACH", "reason": "No route to host"}',
            (ConnectFailed(B1, DialFailure.UNREACHABLE, "No route to host"),),
            id="no connection",
        ),
        pytest.param(
            '{"type": "pong", "number": 7, "counters": {"172.31.2.11": {"send-open": 1, "receive-update": 2}}}',
            (Alive(7), MessagesCounted(B1, {"open": 1}, {"update": 2})),
            id="alive, with counters",
        ),
        pytest.param('{"type": "configured", "error": null}', (Configured(None),), id="configured"),
        pytest.param('{"type": "configured", "error": "line 1"}', (Configured("line 1"),), id="not configured"),
        pytest.param('{"type": "refused"}', (CommandRefused(),), id="refused"),
        pytest.param(
            '{"type": "listen", "address": "172.31.1.11", "port": 179, "reason": "in use"}',
            (CannotListen("172.31.1.11", 179, "in use"),),
            id="no port",
        ),
        pytest.param('{"type": "signal"}', (), id="an event that nobody needs"),
    ],
)
def test_lines(text: str, events: tuple[Any, ...]) -> None:
    assert heard(text) == events
    assert heard(text.encode()) == events


def test_an_open_that_was_received() -> None:
    said = line(
        "open",
        '"direction": "receive", "open": { "version": 4, "asn": 23456, "hold_time": 240, "router_id": "10.0.0.2", '
        '"capabilities": { "1": {"name": "multiprotocol", "families": ["ipv4/unicast"]}, '
        '"2": {"name": "route-refresh", "variant": "RFC"}, "64": {"name": "graceful restart", "time": 120, '
        '"address-family-flags": {"ipv4/unicast": ["restart"]}, "restart-flags": ["forwarding"]}, '
        '"65": {"name": "asn4", "asn4": 4200000001}, "71": {"name": "unknown", "iana": "unassigned", "value": 71} } }',
    )
    restart = GracefulRestart(120, restarted=True, families={"ipv4 unicast": True})
    capabilities = (
        "multiprotocol (ipv4/unicast)",
        "route refresh",
        "graceful restart (120 s)",
        "four-octet AS (AS 4200000001)",
        "unknown (71)",
    )
    assert heard(said) == (OpenReceived(B1, Open(4200000001, 240, IPv4Address("10.0.0.2"), capabilities, restart)),)


def test_an_open_of_ours_has_names_as_keys_and_a_host_name_that_is_not_sent() -> None:
    said = line(
        "open",
        '"direction": "send", "open": {"version": 4, "asn": 64512, "hold_time": 90, "router_id": "172.31.1.11", '
        '"capabilities": {"hostname": {"host-name": null, "domain-name": null}, '
        '"asn4": {"name": "asn4", "asn4": 64512}}}',
    )
    assert heard(said) == (OpenSent(B1, Open(64512, 90, IPv4Address("172.31.1.11"), ("four-octet AS (AS 64512)",))),)


def test_an_ipv6_peer_is_an_ipv6_address() -> None:
    assert heard(line("state", '"state": "up"').replace("172.31.2.11", "fd00::1")) == (PeerUp(IPv6Address("fd00::1")),)


def test_an_unknown_reason_is_passed_on() -> None:
    assert down_in_words("the moon") == "the moon"
    assert down_in_words("") == "connection lost"


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param("", id="nothing"),
        pytest.param("done", id="a word"),
        pytest.param("[1, 2]", id="a list"),
        pytest.param("7", id="a number"),
        pytest.param('{"no": "type"}', id="no type"),
        pytest.param('{"type": ["state"]}', id="a type that is a list"),
        pytest.param('{"type": "state"}', id="a state of nobody"),
        pytest.param('{"type": "route-refresh", "peer": "10.0.0.1", "family": "vpn", "stage": "query"}', id="a family"),
        pytest.param('{"type": "dial", "peer": "nobody", "error": "", "reason": ""}', id="an address that is none"),
        pytest.param('{"type": "pong", "number": 1e999, "counters": {}}', id="an infinite number"),
        pytest.param("[" * 100_000, id="a deep nest"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
    ],
)
def test_rubbish_is_named_and_nothing_else(rubbish: str | bytes) -> None:
    with pytest.raises(Rubbish, match="the BGP child wrote"):
        heard(rubbish)


WORDS = """
type state update open neighbor address peer 172.31.2.11 up down message attribute announce withdraw nlri 10.65.2.0/26
as-path 0 element value as-sequence capabilities pong number counters session local eor afi notification fsm dial
drops error counts
"""
words = st.sampled_from(["ipv4 unicast", *WORDS.split()])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=20,
)


@given(
    st.sampled_from(["state", "fsm", "open", "route-refresh", "notification", "dial", "drops", "pong", "listen"]),
    documents,
    documents,
)
def test_no_document_raises_anything_else(kind: str, neighbor: Any, rest: Any) -> None:
    document = {"type": kind, "neighbor": neighbor} | (rest if isinstance(rest, dict) else {})
    try:
        heard(json.dumps(document))
    except Rubbish:
        return


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        heard(data)
    except Rubbish:
        return
