from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from bgp_builders import B1, HELPED, ME, TOR, TOR_AS, attributes, network, offered, peer, settings

from bgp import path_report, report
from bgp.notification import words
from bgp.path_report import AdvertisedReport
from bgp.speaker import Speaker, WireStarted
from bgp.speaker_words import NextHops
from bgp.types import (
    Endpoint,
    Notification,
    NotificationReceived,
    OpenReceived,
    OpenSent,
    PeerDown,
    PeerUp,
    SessionState,
    UpdateReceived,
)
from bgp.wall_clock import Clock

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PREFIX = network("10.65.2.0/26")


def two_peers() -> Speaker:
    """Return a speaker at second 100 that has heard of one prefix twice, and of the default route."""
    speaker = Speaker(settings(peer(TOR, TOR_AS, "tor", "global"), peer(B1, name="b1")), now=0)
    speaker.on(WireStarted(), now=0)
    for address, as_path in ((TOR, (TOR_AS, 65001)), (B1, ())):
        speaker.on(OpenSent(address, offered(restart=HELPED)), now=10)
        speaker.on(OpenReceived(address, offered(router_id=IPv4Address(address), restart=HELPED)), now=10)
        speaker.on(PeerUp(address, 90, None, Endpoint(address, 179), dialled=True), now=10)
        told = UpdateReceived(address, (PREFIX,), attributes=attributes(str(address), *as_path))
        speaker.on(told, now=11)
    speaker.on(UpdateReceived(TOR, (network("0.0.0.0/0"),), attributes=attributes(str(TOR), TOR_AS)), now=12)
    return speaker


def test_a_session_with_wall_clock_times() -> None:
    tor, b1 = report.peers(two_peers(), Clock(100, NOON))
    assert tor.settings.name == "tor"
    assert tor.since == NOON - timedelta(seconds=90)
    assert tor.uptime == timedelta(seconds=90)
    assert (tor.received, tor.accepted, tor.rejected, tor.advertised, tor.stale) == (2, 1, 1, 1, 0)
    assert (tor.hold_time, tor.keepalive) == (90, 30)
    assert str(tor.remote) == "172.31.1.1:179"
    assert tor.remote_router_id == TOR
    assert tor.capabilities_in_common == ("multiprotocol (ipv4/unicast)",)
    assert tor.restart == "the peer's paths are kept for 120 s if it restarts"
    assert [(change.state, change.cause) for change in b1.history] == [
        (SessionState.CONNECT, "started"),
        (SessionState.ESTABLISHED, "session established"),
    ]


def test_a_session_that_is_down() -> None:
    speaker = two_peers()
    speaker.on(NotificationReceived(B1, Notification(6, 2, "bye")), now=50)
    speaker.on(PeerDown(B1, "peer said Cease: Administrative Shutdown", notified=True), now=50)
    _, b1 = report.peers(speaker, Clock(100, NOON))
    assert b1.uptime is None
    assert b1.notification_received is not None
    assert words(b1.notification_received) == 'Cease: Administrative Shutdown: "bye"'
    assert b1.last_error == 'peer said Cease: Administrative Shutdown: "bye"'
    assert (b1.received, b1.advertised, b1.flaps) == (0, 0, 1)


def test_paths_that_are_kept_are_counted_down() -> None:
    speaker = two_peers()
    speaker.on(PeerDown(B1, "connection lost"), now=50)
    _, b1 = report.peers(speaker, Clock(100, NOON))
    assert b1.restart == "1 paths kept for 70 s more"
    assert b1.stale == 1


def test_every_path_has_its_verdict() -> None:
    listed = [
        (str(each.prefix), str(each.peer), each.accepted, each.best, each.refusal or each.why)
        for each in path_report.routes(two_peers())
    ]
    assert listed == [
        ("0.0.0.0/0", "172.31.1.1", False, False, "default route"),
        ("10.65.2.0/26", "172.31.2.11", True, True, "AS path length: 0 is better than 2"),
        ("10.65.2.0/26", "172.31.1.1", True, False, "AS path length: 0 is better than 2"),
    ]


def test_a_path_whose_next_hop_cannot_be_reached_says_so_and_the_one_that_takes_its_place_why() -> None:
    speaker = two_peers()

    def verdicts() -> list[tuple[str, bool, bool, str | None, str | None]]:
        listed = [each for each in path_report.routes(speaker) if each.prefix == PREFIX]
        return [(str(each.peer), each.best, each.eligible, each.rule, each.why) for each in listed]

    speaker.on(NextHops({B1: "eth0 is down"}), now=13)
    unreachable = "next hop: 172.31.2.11 cannot be reached: eth0 is down"
    assert verdicts() == [
        ("172.31.1.1", True, True, "next hop", "next hop: only this one's can be reached"),
        ("172.31.2.11", False, False, "next hop", unreachable),
    ]
    speaker.on(NextHops({B1: "eth0 is down", TOR: "no route leads to next hop 172.31.1.1"}), now=14)
    assert verdicts() == [
        (
            "172.31.1.1",
            False,
            False,
            "next hop",
            "next hop: 172.31.1.1 cannot be reached: no route leads to next hop 172.31.1.1",
        ),
        ("172.31.2.11", False, False, "next hop", unreachable),
    ]


def test_the_paths_of_one_peer() -> None:
    assert [str(each.peer) for each in path_report.routes(two_peers(), B1)] == ["172.31.2.11"]


def test_what_a_peer_was_told() -> None:
    speaker = two_peers()
    (told,) = path_report.advertised(speaker, B1)
    assert told == AdvertisedReport(
        prefix=network("10.65.0.0/26"),
        attributes=attributes(str(ME), local_preference=100),
        told=True,
        source=None,
        decided_by="",
        reason="block of this node",
    )
    speaker.on(PeerDown(B1, "connection lost"), now=50)
    assert path_report.advertised(speaker, B1) == ()
    assert path_report.advertised(speaker, IPv4Address("9.9.9.9")) == ()
