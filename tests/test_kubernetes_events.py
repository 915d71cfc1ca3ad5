"""Events on a Node: what has happened to sessions between two looks, what counts as one, and when it is written."""

from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from bgp_builders import B1, TOR, TOR_AS, peer
from session_reports import NOON, heard, reports

from bgp.speaker import Speaker
from bgp.types import PeerDown
from felix_py.kubernetes_events import AGAIN, BURST, MANY, MOST, REFILL, RETRY, EventBook, Happening, Reason, happenings
from felix_py.kubernetes_status import marks
from felix_py.model import NodeName

A1 = NodeName("a1")
UP = "session with 172.31.1.1 (tor-1), AS 64500, is established"


def tor(*, up: bool = True) -> Speaker:
    return heard(peer(TOR, TOR_AS, "tor-1", "global"), up=(TOR,) if up else ())


def happened(before: Any, after: Any) -> list[tuple[str, int]]:
    found = happenings(marks(reports(before)) if before else {}, reports(after), NOON)
    return [(each.message, each.times) for each in found]


def test_a_session_that_came() -> None:
    assert happened(tor(up=False), tor()) == [(UP, 1)]
    assert happened(None, tor()) == [(UP, 1)]
    assert happened(tor(), tor()) == []


def test_a_session_that_went_and_why() -> None:
    after = tor()
    after.on(PeerDown(TOR, "the hold timer expired"), now=20)
    after.on(PeerDown(TOR, "nobody answers"), now=30)
    assert happened(tor(), after) == [("session with 172.31.1.1 (tor-1), AS 64500, is lost: the hold timer expired", 1)]
    (found,) = happenings(marks(reports(tor())), reports(after), NOON)
    assert found.at == NOON - timedelta(seconds=40)


def test_one_that_went_and_came_again_between_two_looks() -> None:
    after = tor()
    for second in (10, 20, 30):
        after.on(PeerDown(TOR, "reset"), now=second)
        heard(into=after, up=(TOR,), now=second + 1)
    assert happened(tor(), after) == [
        ("session with 172.31.1.1 (tor-1), AS 64500, is lost: reset", 3),
        (UP, 3),
    ]


def test_one_that_nobody_wants_any_more() -> None:
    assert happened(tor(), heard(peer(B1))) == [
        ("session with 172.31.1.1 (tor-1), AS 64500, is lost: it is configured no more", 1)
    ]
    assert happened(tor(up=False), heard(peer(B1))) == []


def test_a_peer_may_say_much() -> None:
    after = tor()
    after.on(PeerDown(TOR, "x" * 5000), now=20)
    ((message, _),) = happened(tor(), after)
    assert len(message) == 1000


# --- which Events


def down(number: int = 1, times: int = 1) -> Happening:
    return Happening(Reason.DOWN, f"{ip_address(0xAC1F0100 + number)}, AS 64500,", times, NOON, "reset")


def write(book: EventBook, now: float) -> list[tuple[str, int, bool]]:
    """Write what is due, and return it: message, count, and whether it is a new object."""
    due = book.due(now)
    for each in due:
        book.wrote(each, each.made(A1, "7f3e")["metadata"]["name"], now)
    return [(each.message, each.count, each.name is None) for each in due]


def test_the_object_is_as_kubelets_are() -> None:
    book = EventBook()
    book.note([down()], 0)
    (series,) = book.due(0)
    made = series.made(A1, "7f3e")
    assert made["metadata"]["name"].startswith("a1.")
    del made["metadata"]["name"]
    assert made == {
        "apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": "a1", "uid": "7f3e"},
        "reason": "BGPSessionDown", "type": "Warning",
        "message": "session with 172.31.1.1, AS 64500, is lost: reset",
        "source": {"component": "felix-agent", "host": "a1"},
        "reportingComponent": "felix-agent", "reportingInstance": "a1",
        "firstTimestamp": "2026-11-26T12:00:00Z", "lastTimestamp": "2026-11-26T12:00:00Z", "count": 1,
    }  # fmt: skip


def test_what_happens_again_is_counted_by_the_same_event() -> None:
    book = EventBook()
    book.note([down()], 0)
    assert write(book, 0) == [("session with 172.31.1.1, AS 64500, is lost: reset", 1, True)]
    assert book.wait(0) is None
    book.note([down(times=2)], 1)
    book.note([down()], 2)
    assert write(book, 2) == []
    assert book.wait(2) == pytest.approx(AGAIN - 2)
    assert [(count, new) for _, count, new in write(book, AGAIN)] == [(4, False)]


def test_after_ten_quiet_minutes_it_is_another_event() -> None:
    book = EventBook()
    book.note([down()], 0)
    write(book, 0)
    book.note([down()], 601)
    assert [(count, new) for _, count, new in write(book, 601)] == [(1, True)]


def test_many_that_share_a_fate_are_one_event() -> None:
    book = EventBook()
    book.note(map(down, range(MANY)), 0)
    assert len(write(book, 0)) == MANY
    book.note(map(down, range(100, 100 + MANY + 1)), 0)
    assert [message for message, *_ in write(book, 0)] == [
        "session with 6 peers, as 172.31.1.100, AS 64500, is lost: reset"
    ]


def test_a_peer_that_flaps_every_second_costs_two_writes_a_minute() -> None:
    book, count = EventBook(), 0
    for second in range(3600):
        book.note([down(), Happening(Reason.UP, "172.31.1.1, AS 64500,", 1, NOON)], second)
        count += len(write(book, second))
    assert count <= 2 * 60 + 2


def test_peers_that_flap_one_after_the_other_do_not_flood_the_server() -> None:
    book, count = EventBook(), 0
    for second in range(3600):
        book.note([down(second % 500)], second)
        count += len(write(book, second))
    assert count <= BURST + 3600 / REFILL + 1


def test_what_the_server_did_not_take_is_written_later() -> None:
    book = EventBook()
    book.note([down()], 0)
    book.refused(0)
    assert book.due(1) == ()
    assert book.wait(1) == pytest.approx(RETRY - 1)
    assert len(write(book, RETRY)) == 1


def test_a_server_that_is_away_for_long_costs_no_memory_and_hears_of_the_last_hour() -> None:
    book = EventBook()
    for second in range(5000):
        book.note([down(second)], second)
    assert len(book._series) == MOST
    assert len(write(book, 5000)) == BURST
    assert write(book, 10_000) == []
