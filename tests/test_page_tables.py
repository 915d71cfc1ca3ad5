"""What has changed between two states of a page: exactly what readers need, and nothing of what has not."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from felix_py.page.tables import Tables, changes, merged, newest, settled

ROUTE = {"prefix": "10.65.1.0/26", "state": "installed", "since": 1000}
OTHER = {"prefix": "10.65.2.0/26", "state": "installed", "since": 1000}


def test_what_is_new_changed_and_gone_is_told_and_nothing_else() -> None:
    before: Tables = {"routes": {"a": ROUTE, "b": OTHER}, "events": {"1": {"what": "started"}}}
    missing = {**ROUTE, "state": "missing"}
    after = settled(before, {"routes": {"a": missing, "c": OTHER}, "events": {"1": {"what": "started"}}})
    assert changes(before, after) == {"put": {"routes": {"a": missing, "c": OTHER}}, "gone": {"routes": ["b"]}}


def test_tables_that_are_alike_are_the_same_objects_afterwards() -> None:
    before: Tables = {"routes": {"a": ROUTE, "b": OTHER}}
    after = settled(before, {"routes": {"a": dict(ROUTE), "b": dict(OTHER)}})
    assert after["routes"] is before["routes"]
    assert changes(before, after) == {"put": {}, "gone": {}}


def test_a_time_that_jitters_by_a_second_is_no_change_and_another_time_is() -> None:
    before: Tables = {"routes": {"a": ROUTE}}
    assert settled(before, {"routes": {"a": {**ROUTE, "since": 1001}}})["routes"]["a"] is ROUTE
    later = {**ROUTE, "since": 1002}
    assert settled(before, {"routes": {"a": later}})["routes"]["a"] == later
    # What changes besides keeps the time that readers have: an age must not jump because a state did.
    stale = settled(before, {"routes": {"a": {**ROUTE, "state": "stale", "since": 999}}})["routes"]["a"]
    assert stale == {**ROUTE, "state": "stale"}


def test_a_table_that_is_no_more_takes_its_rows_along() -> None:
    assert changes({"tunnels": {"a": ROUTE}}, {}) == {"put": {}, "gone": {"tunnels": ["a"]}}


def test_several_nodes_are_one_page_and_the_last_word_about_a_row_counts() -> None:
    asked, heard = {"name": "a1", "asked": True}, {"name": "a1", "asked": False}
    assert merged([{"nodes": {"a1": heard}}, {"nodes": {"a1": asked}, "routes": {"r": ROUTE}}]) == {
        "nodes": {"a1": asked},
        "routes": {"r": ROUTE},
    }


def test_the_newest_are_kept_oldest_first() -> None:
    rows = {name: {"time": f"2026-11-26T12:00:0{second}Z"} for name, second in (("c", 3), ("a", 1), ("b", 2))}
    assert list(newest(rows, 2)) == ["b", "c"]


STATES = st.dictionaries(
    st.sampled_from(["routes", "sessions"]),
    st.dictionaries(st.sampled_from("abcd"), st.fixed_dictionaries({"state": st.integers(0, 2)}), max_size=4),
    max_size=2,
)


@given(st.lists(STATES, min_size=1, max_size=6))
def test_whoever_takes_every_change_has_what_whoever_comes_last_is_told(history: list[dict[str, Any]]) -> None:
    latest: Tables = {}
    held: dict[str, dict[str, Any]] = {}
    for state in history:
        after = settled(latest, state)
        news = changes(latest, after)
        for name, keys in news["gone"].items():
            for key in keys:
                del held[name][key]
        for name, rows in news["put"].items():
            held.setdefault(name, {}).update(rows)
        latest = after
    whole = changes({}, latest)["put"]
    assert {name: rows for name, rows in held.items() if rows} == whole
