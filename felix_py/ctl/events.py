"""`felixctl events`: what changed on this node, when and why, oldest first; with --follow what comes as well."""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from felix_py.ctl import client, output
from felix_py.ctl.output import Column, or_dash

Row = Mapping[str, Any]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Seconds of the units that --since takes."""

WAIT = 5
"""Seconds that the agent holds an answer back until there is news; well below the client's deadline."""

LAST = 10
"""Events that --follow begins with where no --since says otherwise, as tail does."""

WIDTHS = (24, 16, 24, 40)
"""Characters of the columns while following, since nobody knows how wide later events are; CAUSE has the rest."""

BAD = frozenset({"agent.failed", "bgp.child.exited", "bgp.session.down", "kernel.broken"})
"""Events in red; whatever else was refused or lost stands in yellow."""


def _printable(value: object) -> str:
    """Write a value; what a peer or a file made us tell must not steer the terminal."""
    text = or_dash(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def _colour(row: Row) -> str | None:
    event = row["event"]
    if event in BAD:
        return "bad"
    if event.endswith((".refused", ".fault", ".conflict", ".contested", ".events_lost", ".repaired")):
        return "warning"
    return "good" if event.endswith((".up", ".recovered", ".in_sync")) else None


COLUMNS = (
    Column("TIME", lambda row: row["time"]),
    Column("EVENT", lambda row: row["event"], _colour),
    Column("SUBJECT", lambda row: _printable(row["subject"])),
    Column("WHAT", lambda row: _printable(row["what"])),
    Column("CAUSE", lambda row: _printable(row["cause"])),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "what changed on this node: sessions, routes, links, resources, each with its cause"
    parser = commands.add_parser("events", help=text, description=text)
    parser.add_argument("--since", type=seconds, metavar="AGE", help="not older than this: 30s, 5m, 2h or 1d")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what changes, until Ctrl-C")
    parser.set_defaults(run=run)


def seconds(text: str) -> int:
    """Read an age, as 5m.

    Raises:
        argparse.ArgumentTypeError: with what to give instead.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; give a number and a unit: 30s, 5m, 2h or 1d")
    return int(found[1]) * UNITS[found[2]]


def run(options: argparse.Namespace) -> int:
    """Print the journal; return 0, also when Ctrl-C ends following."""
    since = str(options.since) if options.since is not None else None
    document = client.get(options.path, "events", since=since)
    if options.follow:
        try:
            _follow(options.path, document, PRINTERS.get(options.output, _line), all_of=since is not None)
        except KeyboardInterrupt:
            return 0
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    elif document["events"]:
        output.table(COLUMNS, document["events"])
    else:
        print("nothing changed" + (" in that time" if since else " since the agent began its journal"))
    return 0


def _follow(path: Path, document: Row, show: Callable[[Row], None], *, all_of: bool) -> NoReturn:
    """Print events as they come, for ever.

    Raises:
        Unreachable: when the agent goes away.
    """
    rows: Sequence[Row] = document["events"] if all_of else document["events"][-LAST:]
    if show is _line:
        _heads()
    last = document["last"]
    while True:
        for row in rows:
            show(row)
        try:
            news = client.get(path, "events", after=str(last), wait=str(WAIT))
        except client.Unreachable as problem:
            raise client.Unreachable(f"the agent has gone away: {problem}") from problem
        rows, last = news["events"], news["last"]


def _heads() -> None:
    heads = [column.head for column in COLUMNS]
    print(output.paint("  ".join(map(str.ljust, heads, (*WIDTHS, 0))), "bold"), flush=True)


def _line(row: Row) -> None:
    """Print one event under the heads."""
    cells = [column.cell(row).ljust(width) for column, width in zip(COLUMNS, (*WIDTHS, 0), strict=True)]
    painted = (output.paint(cell, column.meaning(row)) for column, cell in zip(COLUMNS, cells, strict=True))
    print("  ".join(painted), flush=True)


def _json(row: Row) -> None:
    """Print one event as one line, which jq and its kind read as they come."""
    print(json.dumps(row), flush=True)


def _yaml(row: Row) -> None:
    """Print one event as one document."""
    print("---")
    output.document(row, "yaml")
    print(end="", flush=True)


PRINTERS: Mapping[str, Callable[[Row], None]] = {"json": _json, "yaml": _yaml}
"""How one event is printed while following, where not in a table."""
