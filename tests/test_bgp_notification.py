import pytest

from bgp.notification import words
from bgp.types import Notification


@pytest.mark.parametrize(
    ("notification", "sentence"),
    [
        (Notification(2, 2), "OPEN Message Error: Bad Peer AS"),
        (Notification(4, 0), "Hold Timer Expired"),
        (Notification(6, 2, "maintenance"), 'Cease: Administrative Shutdown: "maintenance"'),
        (Notification(6, 9), "Cease: Hard Reset"),
        (Notification(6, 99), "Cease: subcode 99"),
        (Notification(99, 1), "error 99: subcode 1"),
    ],
)
def test_words(notification: Notification, sentence: str) -> None:
    assert words(notification) == sentence
