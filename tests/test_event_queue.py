"""Events that are taken: of a pod's new interface that comes up the last one, and whatever takes something back."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel.event_queue import merged
from felix_py.kernel.interfaces import Interfaces, LinkChange
from felix_py.kernel.objects import Link
from felix_py.kernel.wire import Event, LinkEvent, ParameterEvent

MADE = Link("cali1", 7, 1500, up=False, running=False)
UP, RUNNING = replace(MADE, up=True), replace(MADE, up=True, running=True)
GONE = LinkEvent(MADE, gone=True)
TOLD = ParameterEvent(7)


def seen(*links: Link) -> list[Event]:
    return [LinkEvent(each) for each in links]


def named(name: str, *links: Link) -> list[Event]:
    return seen(*(replace(each, name=name) for each in links))


def new(_: int) -> bool:
    return False


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (seen(MADE, MADE, UP, RUNNING), seen(RUNNING)),
        ([TOLD, *seen(MADE), TOLD, *seen(UP)], [TOLD, *seen(UP), TOLD]),
        (seen(MADE, replace(MADE, mtu=1400)), seen(replace(MADE, mtu=1400))),
        (seen(MADE, replace(MADE, index=8), UP, replace(UP, index=8)), seen(UP, replace(UP, index=8))),
        (seen(MADE, RUNNING, UP, RUNNING), seen(RUNNING, UP, RUNNING)),
        (seen(RUNNING, MADE, RUNNING), seen(RUNNING, MADE, RUNNING)),
        ([*seen(MADE, UP), GONE, *seen(MADE, UP)], [*seen(UP), GONE, *seen(MADE, UP)]),
        ([*seen(MADE), *named("cali2", MADE, UP)], [*seen(MADE), *named("cali2", MADE, UP)]),
        (named("eth0", MADE, UP), named("eth0", MADE, UP)),
    ],
    ids=["comes up", "in between", "MTU", "two", "carrier lost", "down and up", "gone", "renamed", "nobody's pod"],
)
def test_what_is_merged_of_a_new_interface(events: list[Event], expected: list[Event]) -> None:
    assert merged(events, new) == expected


def test_nothing_is_merged_of_one_that_was_there_before() -> None:
    """What the first event takes back of it, nobody knows here."""
    events = seen(MADE, UP, RUNNING)
    assert merged(events, {7}.__contains__) == events


LINKS = st.sampled_from([MADE, UP, RUNNING, replace(MADE, name="eth0"), replace(UP, name="cali2")])
EVENTS = st.lists(
    st.builds(
        lambda link, index, gone: LinkEvent(replace(link, index=index), gone), LINKS, st.integers(7, 8), st.booleans()
    )
)


def losses(before: Sequence[LinkEvent], events: Sequence[Event]) -> tuple[dict[int, Link], list[LinkChange]]:
    """Return how interfaces are after events, and what was lost on the way."""
    interfaces = Interfaces()
    for event in before:
        interfaces.see(event)
    changes = [change for event in events if isinstance(event, LinkEvent) for change in interfaces.see(event)]
    lost = [each for each in changes if each.lost_routes or each.lost_objects or each.after is None]
    return dict(interfaces.by_index), lost


@given(EVENTS, EVENTS)
def test_whatever_happens_is_the_same_in_the_end_and_nothing_lost_is_hidden(
    before: list[LinkEvent], events: list[LinkEvent]
) -> None:
    interfaces = Interfaces()
    for event in before:
        interfaces.see(event)
    known = {*interfaces.by_index}
    assert losses(before, merged(events, known.__contains__)) == losses(before, events)
