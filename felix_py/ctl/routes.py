"""`felixctl routes`: every route of this node, its state, and with --why the rule that decided."""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from felix_py.ctl import output, watching
from felix_py.ctl.output import Column, or_dash
from felix_py.ctl.watching import View

Row = Mapping[str, Any]


def _state(row: Row) -> str:
    return f"{row['state']}: {row['reason']}" if row["state"] in ("missing", "differs") else str(row["state"])


def _colour(row: Row) -> str:
    return output.state_meaning(row["state"])


def _each(row: Row, name: str) -> str:
    """Return one field, of every next hop where there are several."""
    several = dict.fromkeys(str(hop[name]) for hop in row["nextHops"])
    return ",".join(several) if several else or_dash(row[name])


COLUMNS = (
    Column("PREFIX", lambda row: row["prefix"]),
    Column("KIND", lambda row: row["kind"]),
    Column("NEXT HOP", lambda row: _each(row, "nextHop")),
    Column("DEVICE", lambda row: _each(row, "device")),
    Column("ENCAP", lambda row: or_dash(row["encapsulation"])),
    Column("FROM", lambda row: row["from"]),
    Column("AGE", lambda row: output.age(row["since"])),
    Column("STATE", _state, _colour),
)
WIDE = (*COLUMNS[:-1], Column("KERNEL ROUTE", lambda row: or_dash(row["installed"])), COLUMNS[-1])
GOOD = frozenset({"installed", "stale", "foreign"})


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "the routes of this node; exit status 1 if one of them is not as it should be"
    parser = commands.add_parser("routes", help=text, description=text)
    parser.add_argument("prefix", nargs="?", help="only this one, as 10.65.1.0/26")
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--kernel", action="store_true", help="what the main table holds, whoever owns it")
    view.add_argument("--rib", action="store_true", help="what is wanted, installed or not")
    view.add_argument("--diff", action="store_true", help="only what differs between wish and kernel")
    parser.add_argument("--why", action="store_true", help="every candidate, and the rule that decided")
    watching.add(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the routes; return 1 when one is not installed as wanted."""
    which = "kernel" if options.kernel else "rib" if options.rib else "all"
    # Reasons are most of an answer: of many routes they take longest, to make and to read.
    plain = options.output == "table" and not (options.why or options.diff)
    asked = {"which": which, "prefix": options.prefix, "brief": "yes" if plain else None}
    view = View(partial(_show, options), partial(_status, options), partial(_chosen, options))
    return watching.run(options, ("routes",), asked, view)


def _chosen(options: argparse.Namespace, document: Row) -> Row:
    """Leave out what is not asked for."""
    if not options.diff:
        return document
    return {**document, "routes": [row for row in document["routes"] if row["wanted"] != row["installed"]]}


def _show(options: argparse.Namespace, document: Row) -> None:
    rows = document["routes"]
    if options.diff:
        _diff(rows)
    elif options.prefix and not rows:
        print(f"no route of this node has the prefix {options.prefix}; `felixctl routes` lists all")
    elif options.why:
        for row in rows:
            _explain(row)
    else:
        output.table(WIDE if options.output == "wide" else COLUMNS, rows)


def _status(options: argparse.Namespace, document: Row) -> int:
    rows = document["routes"]
    missing = options.prefix and not options.diff and not rows
    return 0 if not missing and all(row["state"] in GOOD for row in rows) else 1


def _diff(rows: list[dict[str, Any]]) -> None:
    """Print what the kernel has (-) and what is wanted (+), as diff does."""
    for row in rows:
        if row["installed"] is not None:
            print(output.paint(f"- {row['prefix']} {row['installed']}", "bad"))
        if row["wanted"] is not None:
            print(output.paint(f"+ {row['prefix']} {row['wanted']}", "good"))
        print(f"  {_state(row)}")
    if not rows:
        print("the kernel holds exactly what is wanted")


def _explain(row: Row) -> None:
    print(output.paint(row["prefix"], "bold"), output.paint(_state(row), _colour(row)))
    print(f"  route      {row['wanted'] or row['installed']}")
    print(f"  from       {row['from']}")
    for sentence in row["why"]:
        print(f"  because    {sentence}")
    if row["reason"] is not None:
        print(f"  state      {row['state']}: {row['reason']}")
    for number, candidate in enumerate(row["candidates"], 1):
        print(f"  candidate {number}: {candidate['route']}, {candidate['from']}: {candidate['verdict']}")
    for path in row.get("paths", ()):
        print(f"  BGP path   from {path['peer']}, next hop {path['nextHop']}: {_mark(path)}: {path['reason']}")


def _mark(path: Row) -> str:
    """Say in a word what became of a path of BGP."""
    if not path["accepted"]:
        return "refused"
    return "best" if path["best"] else "not best" if path["eligible"] else "not eligible"
