"""`felixctl bgp peer`: one session whole, as facts under their names and lists under heads."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from felix_py.ctl import output, watching
from felix_py.ctl.output import Column, or_dash
from felix_py.ctl.watching import View

Row = Mapping[str, Any]

WIDTH = 28
"""Characters of the names of facts."""

NEVER_SHOWN = frozenset({"notifications", "policies"})
"""What people are shown in other words: NOTIFICATIONs in one sentence, and policies as two tables."""

FAMILIES = (
    Column("FAMILY", lambda row: row["family"]),
    *(
        Column(name.upper(), lambda row, name=name: str(row[name]))  # type: ignore[misc]
        for name in ("received", "accepted", "rejected", "advertised", "stale")
    ),
    Column("STALE UNTIL", lambda row: or_dash(row["staleUntil"])),
    Column("END OF RIB", lambda row: flag(row["endOfRIB"])),
    Column("KEPT IF IT RESTARTS", lambda row: flag(row["keptIfItRestarts"])),
    Column("PRESERVED", lambda row: flag(row["preserved"])),
)


def _term(row: Row) -> str:
    place = f"filter {row['filter']}, {row['list']} rule {row['rule']}: " if row["filter"] else ""
    return place + str(row["term"])


TERMS = (
    Column("HITS", lambda row: str(row["hits"])),
    Column("ACTION", lambda row: row["action"].lower(), lambda row: None if row["hits"] else "dim"),
    Column("TERM", _term),
)
HISTORY = (
    Column("TIME", lambda row: row["time"]),
    Column("STATE", lambda row: row["state"], lambda row: output.state_meaning(row["state"])),
    Column("CAUSE", lambda row: or_dash(row["cause"])),
)
LISTS: Mapping[str, tuple[Column, ...]] = {"families": FAMILIES, "history": HISTORY}


def add(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "everything about one session; exit status 1 if it is not established"
    parser = nouns.add_parser("peer", help=text, description=text)
    parser.add_argument("address", help="the peer's address, as 172.31.1.12")
    watching.add(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one session; return 1 when it is down."""
    return watching.run(options, ("bgp", "peers", options.address), {}, View(_show, _status))


def _show(document: Row) -> None:
    for line in lines(document):
        print(line)


def _status(document: Row) -> int:
    return 0 if document["state"] == "Established" else 1


def lines(document: Row, depth: int = 0) -> Iterator[str]:
    """Write a document as indented facts, names in words."""
    for name, value in document.items():
        label = "  " * depth + words(name)
        if name in LISTS:
            yield from _list(label, LISTS[name], value)
        elif name == "policies":
            for direction, terms in value.items():
                yield from _list(f"{direction} policy", TERMS, terms)
        elif name in NEVER_SHOWN:
            continue
        elif isinstance(value, Mapping):
            yield label
            yield from lines(value, depth + 1)
        elif isinstance(value, list):
            yield f"{label:<{WIDTH}}{', '.join(map(str, value)) or '-'}"
        else:
            yield f"{label:<{WIDTH}}{flag(value)}"


def _list(label: str, columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    yield label
    for line in output.lines(columns, rows):
        yield f"  {line}"


def words(name: str) -> str:
    """Turn lowerCamelCase into words: lastError, last error; routerID, router ID."""
    return re.sub(r"[A-Z]+", lambda found: f" {found[0] if len(found[0]) > 1 else found[0].lower()}", name)


def flag(value: object) -> str:
    """Write a fact: yes or no, a value, or a dash where there is none."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else or_dash(value)
