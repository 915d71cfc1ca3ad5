"""`felixctl bgp`: the sessions of this node in short, and what may be done to them; more of it stands in bgp_*.py."""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from felix_py.ctl import bgp_node, bgp_paths, bgp_peer, client, output, watching
from felix_py.ctl.output import Column, or_dash
from felix_py.ctl.watching import View

Row = Mapping[str, Any]

ESTABLISHED = "Established"


def _peer_colour(row: Row) -> str:
    return output.state_meaning(row["state"])


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
WIDE = (
    *PEERS[:-1],
    Column("REJECTED", lambda row: str(row["rejected"])),
    Column("STALE", lambda row: str(row["stale"])),
    Column("FLAPS", lambda row: str(row["flaps"])),
    Column("ROUTER ID", lambda row: or_dash(row["remoteRouterID"])),
    Column("CAUSE", lambda row: or_dash(row["lastErrorCause"])),
    Column("SINCE", lambda row: or_dash(row["lastErrorTime"])),
    PEERS[-1],
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
    many = nouns.add_parser("peers", help=text, description=text)
    watching.add(many)
    many.set_defaults(run=peers)
    bgp_peer.add(nouns)
    for verb, text in CHANGES.items():
        change = nouns.add_parser(verb, help=text, description=text)
        change.add_argument("address", help="the peer's address, as 172.31.1.12")
        if verb in ("disable", "reset"):
            change.add_argument("--message", metavar="TEXT", help="why, for the people on the other side (RFC 9003)")
        change.set_defaults(run=change_session, verb=verb, message=None)
    bgp_node.add(nouns)
    bgp_paths.add(nouns)


def peers(options: argparse.Namespace) -> int:
    """Print the peers; return 1 when a session is down."""
    return watching.run(options, ("bgp", "peers"), {}, View(partial(_show, options), _status))


def _show(options: argparse.Namespace, document: Row) -> None:
    if document["off"]:
        print(f"BGP is {document['off']}")
        return
    output.table(WIDE if options.output == "wide" else PEERS, document["peers"])
    if document["problem"]:
        print(output.paint(document["problem"], "bad"))
    if said := bgp_node.sentence(document["maintenance"]):
        print(output.paint(f"this node {said}", "warning"))


def _status(document: Row) -> int:
    return 0 if all(row["state"] == ESTABLISHED for row in document["peers"]) else 1


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
