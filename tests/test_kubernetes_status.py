"""The status of a CalicoNodeStatus: what it says of sessions, and when it is written."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from bgp_builders import A2, B1, TOR, TOR_AS, peer
from session_reports import NOON, heard, reports

from bgp.types import ConnectFailed, DialFailure, Notification, NotificationReceived, PeerDown
from felix_py.kubernetes_status import FIRST, LAST, MOST_PEERS, REFRESH, SPREAD, Pace, document, marks, owned
from felix_py.model import NodeName

A1 = NodeName("a1")


def status(*several: Any) -> dict[str, Any]:
    found: dict[str, Any] = document(A1, several, NOON)["status"]
    return found


def test_sessions_by_family_and_those_that_are_down_first() -> None:
    far = ip_address("fd31::1")
    made = heard(peer(TOR, TOR_AS, "tor-1", "global"), peer(B1, name="b1"), peer(far, TOR_AS, "six", "node"), up=(TOR,))
    found = status(*reports(made))
    bgp = found["bgp"]
    assert (bgp["numberEstablished"], bgp["numberNotEstablished"]) == (1, 2)
    assert (bgp["numberEstablishedV4"], bgp["numberNotEstablishedV4"]) == (1, 1)
    assert (bgp["numberEstablishedV6"], bgp["numberNotEstablishedV6"]) == (0, 1)
    assert [(each["peerIP"], each["type"], each["state"]) for each in bgp["peersV4"]] == [
        ("172.31.2.11", "NodeMesh", "Connect"),
        ("172.31.1.1", "GlobalPeer", "Established"),
    ]
    assert bgp["peersV4"][1] == {
        "peerIP": "172.31.1.1", "name": "tor-1", "asNumber": 64500, "type": "GlobalPeer", "state": "Established",
        "since": "2026-11-26T11:59:01Z",
    }  # fmt: skip
    assert bgp["peersV6"][0]["type"] == "NodePeer"
    assert found["lastUpdated"] == "2026-11-26T12:00:00Z"
    assert found["lastError"].startswith("fd31::1: fd31::1 is IPv6, and this node's address")


def test_the_last_error_is_that_of_a_session_that_is_down() -> None:
    made = heard(peer(TOR, TOR_AS), peer(B1), peer(A2), up=(TOR, B1, A2))
    for second, address in ((10, TOR), (20, B1)):
        made.on(NotificationReceived(address, Notification(6, 2, "bye")), now=second)
        made.on(PeerDown(address, "peer said Cease: Administrative Shutdown", notified=True), now=second)
    assert status(*reports(made))["lastError"] == (
        '172.31.2.11: peer said Cease: Administrative Shutdown: "bye" (and 1 more)'
    )


def test_an_error_that_is_over_is_that_peers_alone() -> None:
    made = heard(peer(TOR, TOR_AS), up=(TOR,))
    made.on(PeerDown(TOR, "the hold timer expired"), now=10)
    made = heard(into=made, up=(TOR,), now=20)
    found = status(*reports(made))
    assert "lastError" not in found
    assert "hold timer" in found["bgp"]["peersV4"][0]["lastError"]


def test_the_object_is_small_whatever_the_mesh() -> None:
    several = [peer(ip_address(0x0A000001 + number)) for number in range(5000)]
    found = status(*reports(heard(*several)))
    assert found["bgp"]["numberNotEstablished"] == 5000
    assert len(found["bgp"]["peersV4"]) == MOST_PEERS


def test_the_object_goes_with_its_node() -> None:
    assert owned(A1, "7f3e")["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "a1", "uid": "7f3e"}
    ]


# --- what makes it be written anew


def test_an_attempt_to_dial_is_no_news() -> None:
    made = heard(peer(TOR, TOR_AS))
    before = marks(reports(made))
    made.on(ConnectFailed(TOR, DialFailure.REFUSED), now=10)
    first = marks(reports(made))
    made.on(ConnectFailed(TOR, DialFailure.REFUSED), now=30)
    again = marks(reports(made))
    made.on(ConnectFailed(TOR, DialFailure.NO_ROUTE), now=40)
    assert before != first == again != marks(reports(made))


def changes() -> Iterator[Any]:
    made = heard(peer(TOR, TOR_AS))
    yield pytest.param(made, heard(peer(TOR, TOR_AS), up=(TOR,)), id="established")
    yield pytest.param(made, heard(peer(TOR, TOR_AS), peer(B1)), id="another peer")
    yield pytest.param(made, heard(peer(TOR, TOR_AS + 1)), id="another AS")
    flapped = heard(peer(TOR, TOR_AS), up=(TOR,))
    flapped.on(PeerDown(TOR, "gone"), now=10)
    yield pytest.param(heard(peer(TOR, TOR_AS), up=(TOR,)), heard(into=flapped, up=(TOR,), now=20), id="a flap")


@pytest.mark.parametrize(("before", "after"), list(changes()))
def test_what_is_news(before: Any, after: Any) -> None:
    assert marks(reports(before)) != marks(reports(after))


# --- when


def test_the_first_is_written_at_once_and_the_next_soon() -> None:
    pace = Pace()
    assert pace.wait(1000.0, changed=True) == 0
    pace = pace.written(1000.0, 0, well=True)
    assert pace.wait(1000.0, changed=True) == FIRST
    assert pace.wait(1000.0, changed=False) == REFRESH


def writes(seconds: float, *, changed: bool, well: bool = True) -> int:
    """Count the writes of so many seconds in which all the time, or never, something changes."""
    pace, now, count = Pace(), 1000.0, 0
    while now < 1000.0 + seconds:
        now += pace.wait(now, changed=changed)
        pace = pace.written(now, 0.5, well=well)
        count += 1
    return count


def test_sessions_that_flap_without_end_cost_a_write_a_minute() -> None:
    assert writes(3600, changed=True) <= 64
    assert writes(3600, changed=True, well=False) <= 64
    assert writes(3600, changed=False) <= 7


def test_after_a_quiet_minute_the_next_is_soon_again() -> None:
    pace, now = Pace(), 1000.0
    for _ in range(10):
        now += pace.wait(now, changed=True)
        pace = pace.written(now, 1, well=True)
    assert pace.gap == LAST
    now += LAST * (1 + SPREAD) + LAST
    assert pace.written(now, 0, well=True).gap == FIRST
    assert pace.written(now, 0, well=False).gap == LAST
