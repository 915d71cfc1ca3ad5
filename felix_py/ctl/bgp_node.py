"""`felixctl bgp drain|leave|undrain`: take this node out of the network's traffic, and bring it back."""

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from felix_py.ctl import client, output

WAIT = 10.0
"""Seconds between draining and leaving: longer than routers take to choose other paths, MRAI of iBGP (5 s) included."""

CHANGES = {
    "drain": "have everybody prefer other paths to what this node announces (RFC 8326), until `undrain`",
    "undrain": "announce as usual again after `drain` or `leave`",
}
"""What may be asked of the node at once, and what it means."""


def add(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    for verb, text in CHANGES.items():
        change = nouns.add_parser(verb, help=text, description=text)
        change.set_defaults(run=change_node, verb=verb, message=None, until_restart=False)
        if verb == "drain":
            change.add_argument("--message", metavar="TEXT", help="why, for whoever looks at this node")
            change.add_argument("--until-restart", action="store_true", help="the next agent announces as usual again")
    text = "before a planned stop: drain, wait, then withdraw everything; the agent's end closes the sessions for good"
    going = nouns.add_parser("leave", help=text, description=text)
    going.add_argument("--message", metavar="TEXT", help="why, also for the people on the other side (RFC 9003)")
    text = f"between draining and withdrawing (default {WAIT:.0f}); what the node has drained already counts"
    going.add_argument("--wait", metavar="SECONDS", type=_seconds, default=WAIT, help=text)
    going.set_defaults(run=leave)


def change_node(options: argparse.Namespace) -> int:
    """Ask for it, and say what holds now; return 1 where that would not survive a restart."""
    until = "restart" if options.until_restart else None
    return _say(options, client.post(options.path, "bgp", options.verb, message=options.message, until=until))


def leave(options: argparse.Namespace) -> int:
    """Drain for a while, then leave; return 1 when it was broken off, or would not survive a restart."""
    before = client.get(options.path, "bgp", "peers")["maintenance"]
    if before["presence"] == "serving":
        before = client.post(options.path, "bgp", "drain", message=options.message)["maintenance"]
    rest = options.wait - (datetime.now(UTC) - datetime.fromisoformat(before["since"])).total_seconds()
    if before["presence"] == "draining" and rest > 0:
        if options.output not in ("json", "yaml"):
            print(f"this node drains; it leaves in {rest:.0f} s")
        try:
            time.sleep(rest)
        except KeyboardInterrupt:
            print("this node drains and has not left; `felixctl bgp undrain` brings it back")
            return 1
    return _say(options, client.post(options.path, "bgp", "leave", message=options.message))


def sentence(maintenance: Mapping[str, Any]) -> str | None:
    """Return what is to be said of a node that drains or has left; None for one that serves."""
    said: str | None = maintenance["sentence"]
    return f"{said} (since {output.age(maintenance['since'])})" if said else None


def _say(options: argparse.Namespace, document: Mapping[str, Any]) -> int:
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        print(f"this node {sentence(document['maintenance']) or 'announces as usual'}")
        if document["problem"]:
            print(output.paint(document["problem"], "bad"))
    return 1 if document["problem"] else 0


def _seconds(text: str) -> float:
    seconds = float(text)
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; give seconds, as 30")
    return seconds
