"""`felixctl bgp routes`: what peers said, before and after policy, what is best, and what each peer is told."""

import argparse
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from felix_py.ctl import client, output, watching
from felix_py.ctl.output import Column, or_dash
from felix_py.ctl.watching import View

Row = Mapping[str, Any]


def _colour(row: Row) -> str:
    return "bad" if not row["eligible"] else "warning" if row["stale"] else "good" if row["best"] else "dim"


def as_path(hops: list[int | list[int]]) -> str:
    """Write an AS path as routers do, AS sets in braces."""
    words = (str(hop) if isinstance(hop, int) else "{" + ",".join(map(str, hop)) + "}" for hop in hops)
    return " ".join(words) or "-"


def _verdict(row: Row) -> str:
    if not row["accepted"]:
        return "refused"
    if not row["eligible"]:
        return "not eligible" + (", stale" if row["stale"] else "")
    return ("best" if row["best"] else "equal" if row["equal"] else "accepted") + (", stale" if row["stale"] else "")


def _communities(row: Row) -> str:
    return " ".join((*row["communities"], *row["largeCommunities"])) or "-"


def _why(row: Row) -> str:
    against = f" (against {row['against']})" if row["against"] else ""
    return or_dash(row["reason"]) + against


def _changed(row: Row) -> str:
    """Write what import policy has changed in a path: each attribute, before and after."""
    before = row["received"] or {}
    changed = (f"{name} {_plain(was)} -> {_plain(row[name])}" for name, was in before.items() if row[name] != was)
    return "; ".join(changed) or "-"


def _plain(value: object) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else "none" if value is None else str(value)


WHOSE = (
    Column("PREFIX", lambda row: row["prefix"]),
    Column("NEXT HOP", lambda row: or_dash(row["nextHop"])),
    Column("PEER", lambda row: row["peer"] + (f" ({row['peerName']})" if row["peerName"] else "")),
)
SAID = (
    Column("AS PATH", lambda row: as_path(row["asPath"])),
    Column("PREF", lambda row: or_dash(row["localPreference"])),
    Column("MED", lambda row: or_dash(row["med"])),
)
MORE = (
    Column("ORIGIN", lambda row: row["origin"]),
    Column("COMMUNITIES", _communities),
    Column("ORIGINATOR", lambda row: or_dash(row["originatorID"])),
    Column("CLUSTERS", lambda row: _plain(row["clusterList"]) if row["clusterList"] else "-"),
)
VERDICT = (Column("STATUS", _verdict, _colour), Column("WHY", _why))
DECIDED = (Column("POLICY", lambda row: or_dash(row["decidedBy"])), Column("CHANGED BY POLICY", _changed))
TOLD = (
    WHOSE[0],
    WHOSE[1],
    *SAID,
    Column("COMMUNITIES", _communities),
    Column("WHY", lambda row: or_dash(row["reason"])),
)
WIDE_TOLD = (
    Column("PREFIX", lambda row: row["prefix"]),
    Column(
        "STATUS",
        lambda row: "told" if row["told"] else "not told",
        lambda row: "good" if row["told"] else "dim",
    ),
    WHOSE[1],
    Column("FROM", lambda row: or_dash(row["from"])),
    *SAID,
    *MORE,
    Column("WHY", lambda row: or_dash(row["reason"])),
)


def add(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "what peers sent, with the verdict on each path and its reason"
    parser = nouns.add_parser("routes", help=text, description=text)
    parser.add_argument("prefix", nargs="?", help="only this one, as 10.65.1.0/26")
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--received", metavar="ADDRESS", help="only what this peer sent")
    text = "what this peer is told; with -o wide also what it is not told, and why"
    view.add_argument("--advertised", metavar="ADDRESS", help=text)
    view.add_argument("--best", action="store_true", help="only the best path of each prefix (Loc-RIB)")
    text = "as they came, before import policy, without its verdict"
    parser.add_argument("--pre-policy", action="store_true", help=text)
    watching.add(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print paths; return 1 when a prefix was asked for that nobody sent.

    Raises:
        Refused: when the options contradict each other.
    """
    if options.pre_policy and (options.advertised or options.best):
        other = "--advertised" if options.advertised else "--best"
        raise client.Refused(f"--pre-policy is about what peers sent, and {other} is not; leave one of them out")
    asked = {
        "prefix": options.prefix,
        "received": options.received,
        "advertised": options.advertised,
        "best": "yes" if options.best else None,
        "prePolicy": "yes" if options.pre_policy else None,
        "withheld": "yes" if options.advertised and options.output != "table" else None,
    }
    return watching.run(options, ("bgp", "routes"), asked, View(partial(_show, options), partial(_status, options)))


def _show(options: argparse.Namespace, document: Row) -> None:
    if _status(options, document):
        whom = f"{options.advertised} is not told" if options.advertised else "no peer sent a path for"
        print(f"{whom} {options.prefix}; `felixctl bgp routes` lists all")
    else:
        output.table(tuple(_columns(options)), document["routes"])


def _status(options: argparse.Namespace, document: Row) -> int:
    return 1 if options.prefix and not document["routes"] else 0


def _columns(options: argparse.Namespace) -> Iterable[Column]:
    wide = options.output == "wide"
    if options.advertised:
        return WIDE_TOLD if wide else TOLD
    if options.pre_policy:
        return (*WHOSE, *SAID, *MORE) if wide else (*WHOSE, *SAID)
    return (*WHOSE, *SAID, *MORE, *DECIDED, *VERDICT) if wide else (*WHOSE, *SAID, *VERDICT)
