"""What a page shows, as tables of keyed rows; and what has changed between two of them, which is what readers get."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
Tables: TypeAlias = Mapping[str, Mapping[str, Row]]
"""Rows by table and key. Whoever shows them needs nothing else, so that any two states have a difference."""

JITTER = 1
"""Seconds by which one and the same `since` may differ: all move when the clock is slewed (`bgp.wall_clock`)."""


def settled(before: Tables, after: Tables) -> Tables:
    """Return `after` with the very objects of `before` where nothing has changed.

    `changes` then has nothing to compare but identities, and a row is kept once however many readers have it.
    """
    return {name: _settled(before.get(name, {}), rows) for name, rows in after.items()}


def _settled(before: Mapping[str, Row], after: Mapping[str, Row]) -> Mapping[str, Row]:
    rows = {key: _one(before.get(key), row) for key, row in after.items()}
    same = rows.keys() == before.keys() and all(row is before[key] for key, row in rows.items())
    return before if same else rows


def _one(before: Row | None, after: Row) -> Row:
    if before is None or before == after:
        return before or after
    since, was = after.get("since"), before.get("since")
    if since is None or was is None or abs(since - was) > JITTER:
        return after
    kept = {**after, "since": was}
    return before if kept == before else kept


def changes(before: Tables, after: Tables) -> dict[str, dict[str, Any]]:
    """Return what makes `after` of `before`: rows to put, and keys that are gone, by table; tables alike are left out.

    Args:
        before: what a reader has; rows that are the same object count as unchanged (see `settled`).
        after: what it shall have.
    """
    put: dict[str, dict[str, Row]] = {}
    gone: dict[str, list[str]] = {}
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, {}), after.get(name, {})
        if old is new:
            continue
        if differing := {key: row for key, row in new.items() if old.get(key) is not row}:
            put[name] = differing
        if left := [key for key in old if key not in new]:
            gone[name] = left
    return {"put": put, "gone": gone}


def merged(parts: Iterable[Tables]) -> Tables:
    """Return several tables as one; of rows with the same key the last counts."""
    found: dict[str, dict[str, Row]] = {}
    for part in parts:
        for name, rows in part.items():
            found.setdefault(name, {}).update(rows)
    return found


def newest(rows: Mapping[str, Row], count: int) -> dict[str, Row]:
    """Return the newest rows by their `time`, the oldest first."""
    chosen = sorted(rows.items(), key=lambda item: str(item[1]["time"]))[-count:]
    return dict(chosen)
