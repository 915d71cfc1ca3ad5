"""`felixctl bgp`: the sessions of this node, one of them whole, and the paths that they brought."""

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any

from felix_py.ctl import bgp_node, client, output
from felix_py.ctl.output import Column, or_dash

Row = Mapping[str, Any]

ESTABLISHED = "Established"


def _peer_colour(row: Row) -> str:
    return output.state_meaning(row["state"])


def _path_colour(row: Row) -> str:
    return "bad" if not row["eligible"] else "warning" if row["stale"] else "good" if row["best"] else "dim"


def _as_path(hops: list[int | list[int]]) -> str:
    """Write an AS path as routers do, AS sets in braces."""
    words = (str(hop) if isinstance(hop, int) else "{" + ",".join(map(str, hop)) + "}" for hop in hops)
    return " ".join(words) or "-"


def _status(row: Row) -> str:
    if not row["accepted"]:
        return "refused"
    if not row["eligible"]:
        return "not eligible" + (", stale" if row["stale"] else "")
    return ("best" if row["best"] else "equal" if row["equal"] else "accepted") + (", stale" if row["stale"] else "")


PEERS = (
    Column("PEER", lambda row: row["address"]),
    Column("NAME", lambda row: or_dash(row["name"])),
    Column("AS", lambda row: str(row["asNumber"])),
    Column("TYPE", lambda row: row["type"]),
    Column("STATE", lambda row: row["state"], _peer_colour),
    Column("UPTIME", lambda row: output.age(row["since"]) if row["state"] == ESTABLISHED else "-"),
    Column("FAMILY", lambda row: row["family"]),
    Column("RECEIVED", lambda row: str(row["received"])),
    Column("ACCEPTED", lambda row: str(row["accepted"])),
    Column("ADVERTISED", lambda row: str(row["advertised"])),
    Column("LAST ERROR", lambda row: or_dash(row["lastError"])),
)
PATHS = (
    Column("PREFIX", lambda row: row["prefix"]),
    Column("NEXT HOP", lambda row: or_dash(row["nextHop"])),
    Column("PEER", lambda row: row["peer"] + (f" ({row['peerName']})" if row["peerName"] else "")),
    Column("AS PATH", lambda row: _as_path(row["asPath"])),
    Column("PREF", lambda row: or_dash(row["localPreference"])),
    Column("MED", lambda row: or_dash(row["med"])),
    Column("STATUS", _status, _path_colour),
    Column("WHY", lambda row: or_dash(row["reason"])),
)
ADVERTISED = (
    Column("PREFIX", lambda row: row["prefix"]),
    Column("NEXT HOP", lambda row: or_dash(row["nextHop"])),
    Column("WHY", lambda row: or_dash(row["reason"])),
)


CHANGES = {
    "disable": "hold no session with a peer until it is enabled",
    "enable": "hold a session again that was disabled, or taken down for too many prefixes",
    "reset": "close a session and open it again",
    "refresh": "have a peer tell everything again, without closing the session (RFC 2918)",
}
"""What may be done to a session, and what it means."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    text = "BGP sessions and paths"
    parser = commands.add_parser("bgp", help=text, description=text)
    nouns = parser.add_subparsers(dest="noun", required=True, metavar="NOUN", parser_class=type(parser))
    text = "one line per peer and family; exit status 1 if a session is not established"
    nouns.add_parser("peers", help=text, description=text).set_defaults(run=peers)
    text = "everything about one session"
    one = nouns.add_parser("peer", help=text, description=text)
    one.add_argument("address", help="the peer's address, as 172.31.1.12")
    one.set_defaults(run=peer)
    for verb, text in CHANGES.items():
        change = nouns.add_parser(verb, help=text, description=text)
        change.add_argument("address", help="the peer's address, as 172.31.1.12")
        if verb in ("disable", "reset"):
            change.add_argument("--message", metavar="TEXT", help="why, for the people on the other side (RFC 9003)")
        change.set_defaults(run=change_session, verb=verb, message=None)
    bgp_node.add(nouns)
    text = "what peers sent, with the verdict on each path and its reason"
    routes = nouns.add_parser("routes", help=text, description=text)
    routes.add_argument("prefix", nargs="?", help="only this one, as 10.65.1.0/26")
    view = routes.add_mutually_exclusive_group()
    view.add_argument("--received", metavar="ADDRESS", help="only what this peer sent")
    view.add_argument("--advertised", metavar="ADDRESS", help="what this peer is sent")
    view.add_argument("--best", action="store_true", help="only the best path of each prefix (Loc-RIB)")
    text = "as they came, without the import policy's verdict"
    routes.add_argument("--pre-policy", action="store_true", help=text)
    routes.set_defaults(run=paths)


def peers(options: argparse.Namespace) -> int:
    """Print the peers; return 1 when a session is down."""
    document = client.get(options.path, "bgp", "peers")
    rows = document["peers"]
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        output.table(PEERS, rows)
        if document["problem"]:
            print(output.paint(document["problem"], "bad"))
        if said := bgp_node.sentence(document["maintenance"]):
            print(output.paint(f"this node {said}", "warning"))
    return 0 if all(row["state"] == ESTABLISHED for row in rows) else 1


def peer(options: argparse.Namespace) -> int:
    """Print one session; return 1 when it is down."""
    document = client.get(options.path, "bgp", "peers", options.address)
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        for line in _lines(document):
            print(line)
    return 0 if document["state"] == ESTABLISHED else 1


def change_session(options: argparse.Namespace) -> int:
    """Ask for a session to be changed, and say so; what becomes of it `felixctl bgp peer` tells."""
    document = client.post(options.path, "bgp", "peers", options.address, options.verb, message=options.message)
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        print(
            f"{options.verb} of {options.address} is asked for; `felixctl bgp peer {options.address}` tells the outcome"
        )
        if document.get("problem"):
            print(output.paint(document["problem"], "bad"))
    return 0


def paths(options: argparse.Namespace) -> int:
    """Print paths; return 1 when a prefix was asked for that nobody sent."""
    document = client.get(
        options.path,
        "bgp",
        "routes",
        prefix=options.prefix,
        received=options.received,
        advertised=options.advertised,
        best="yes" if options.best else None,
    )
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    elif document["routes"] or not options.prefix:
        columns = ADVERTISED if options.advertised else PATHS[:-2] if options.pre_policy else PATHS
        output.table(columns, document["routes"])
    else:
        print(f"no peer sent a path for {options.prefix}; `felixctl bgp routes` lists all")
        return 1
    return 0


def _lines(document: Row, depth: int = 0) -> Iterator[str]:
    """Write a document as indented facts, names in words."""
    for name, value in document.items():
        label = "  " * depth + _words(name)
        if isinstance(value, Mapping):
            yield label
            yield from _lines(value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield label
            for item in value:
                yield "  " * (depth + 1) + "  ".join(or_dash(part) for part in item.values())
        elif isinstance(value, list):
            yield f"{label:<28}{', '.join(map(str, value)) or '-'}"
        else:
            yield f"{label:<28}{_flag(value)}"


def _words(name: str) -> str:
    """Turn lowerCamelCase into words: lastError, last error; routerID, router ID."""
    return re.sub(r"[A-Z]+", lambda found: f" {found[0] if len(found[0]) > 1 else found[0].lower()}", name)


def _flag(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else or_dash(value)
