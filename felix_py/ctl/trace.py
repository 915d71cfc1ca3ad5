"""`felixctl trace`: the way of a packet, from this node on, by asking kernels; what could not be asked is marked."""

import argparse
import json
import os
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from felix_py.ctl import client, output


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "the way of a packet, hop by hop: route and who gave it, tunnel, MTU, and where it ends and why"
    parser = commands.add_parser("trace", help=text, description=text)
    parser.add_argument("ends", nargs="*", metavar="[SRC] DST", help="a pod, a node, or an address; SRC: this node")
    parser.add_argument("--size", type=size, metavar="BYTES", help="of the packet, which may not be fragmented")
    parser.add_argument("--why", action="store_true", help="the reasons for each route as well")
    parser.add_argument(
        "--ask",
        metavar="COMMAND",
        default=os.environ.get("FELIXCTL_ASK"),
        help="runs felixctl on another node: {node} and {address} stand (default $FELIXCTL_ASK; labs set it)",
    )
    parser.add_argument("--hop", action="store_true", help="answer a question on standard input, for another node")
    parser.set_defaults(run=run)


def size(text: str) -> int:
    """Read a number of bytes.

    Raises:
        argparse.ArgumentTypeError: with what to give instead.
    """
    if not (text.isascii() and text.isdigit() and 28 <= int(text) <= 65535):  # noqa: PLR2004 - headers; 16 bits
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a packet; give 28 to 65535 bytes, as 1500")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Print the way; return 1 when the packet does not arrive."""
    if options.hop:
        return _hop(options.path)
    if len(options.ends) not in (1, 2):
        raise client.Refused("trace takes [SRC] DST, each a pod, a node or an address; see felixctl trace --help")
    from felix_py.ctl import trace_nodes, trace_view  # noqa: PLC0415 - addresses and more, which only this one needs

    document = trace_nodes.trace(options.path, options.ends, options.size, options.ask)
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        trace_view.show(document, why=options.why)
    return trace_view.status(document)


def _hop(path: Path) -> int:
    """Answer one question of another node."""
    question = sys.stdin.read()
    output.document(client.get(path, "trace", question=question), "json")
    return 0


def is_address(text: str) -> bool:
    """Say whether a text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def ask(path: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Ask an agent what becomes of a packet at its node; raises as `client.get` does."""
    return client.get(path, "trace", question=json.dumps(question))
