"""How felixctl prints: tables for people, with colour on a terminal; JSON and YAML with the same facts for programs."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

COLOURS = {"good": "32", "bad": "31", "warning": "33", "dim": "2", "bold": "1"}
"""ANSI codes (ECMA-48, select graphic rendition) by meaning."""

MEANINGS = {
    "installed": "good",
    "routed": "good",
    "Established": "good",
    "stale": "warning",
    "differs": "warning",
    "missing": "bad",
    "foreign": "dim",
}
"""First word of a state to its colour; states that are not listed are problems where a session is meant."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its head, how a row's cell is found, and how the cell is coloured."""

    head: str
    cell: Callable[[Mapping[str, Any]], str]
    meaning: Callable[[Mapping[str, Any]], str | None] = lambda _: None


def colour_wanted() -> bool:
    """Say whether colours are: on a terminal, unless NO_COLOR (no-color.org) or TERM=dumb forbid."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, meaning: str | None) -> str:
    """Colour text by meaning, where colours are wanted."""
    if meaning is None or not colour_wanted():
        return text
    return f"\x1b[{COLOURS[meaning]}m{text}\x1b[0m"


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows under heads; the last column is not padded."""
    print("\n".join(lines(columns, rows)))


def lines(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table: heads, then rows; the last column is not padded."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    heads = [column.head for column in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    yield paint(_line(heads, widths), "bold")
    if not colour_wanted():  # thousands of routes go into a pipe in half the time
        form = "  ".join([*(f"{{:<{width}}}" for width in widths[:-1]), "{}"])
        yield from (form.format(*line) for line in cells)
        return
    for row, line in zip(rows, cells, strict=True):
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        padded[-1] = line[-1]
        yield "  ".join(paint(text, column.meaning(row)) for column, text in zip(columns, padded, strict=True))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def document(value: Mapping[str, Any], form: str) -> None:
    """Print a document as JSON or YAML."""
    if form == "json":
        print(json.dumps(value, indent=2))
        return
    import yaml  # noqa: PLC0415 - 20 ms that only this output costs

    print(yaml.safe_dump(dict(value), sort_keys=False), end="")


def or_dash(value: object) -> str:
    """Write a value, or a dash where there is none."""
    return "-" if value in (None, "") else str(value)


def age(since: str | None, now: datetime | None = None) -> str:
    """Write how long ago a time was, in the two largest units: 4s, 3m12s, 5h02m, 8d04h."""
    if since is None:
        return "-"
    seconds = max(0, int(((now or datetime.now(UTC)) - _moment(since)).total_seconds()))
    for unit, size, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // part:02d}{lesser}"
    return f"{seconds}s"


@lru_cache(1024)
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def state_meaning(state: str) -> str:
    """Return what colour a state has, by its first word."""
    return MEANINGS.get(state.split(":", maxsplit=1)[0].split(" ", maxsplit=1)[0], "bad")
