"""`felixctl trace`: the way of a packet, from this node on, by asking kernels; what could not be asked is marked."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from felix_py.ctl import client, output
from felix_py.kernel import flow


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "the way of a packet, hop by hop: route and who gave it, tunnel, MTU, and where it ends and why"
    parser = commands.add_parser("trace", help=text, description=text)
    parser.add_argument("ends", nargs="*", metavar="[SRC] DST", help="a pod, a node, or an address; SRC: this node")
    parser.add_argument("--size", type=size, metavar="BYTES", help="of the packet, which may not be fragmented")
    add_flow(parser)
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


def add_flow(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a packet carries."""
    text = f"what it carries: {', '.join(flow.NAMES)}, or a number; rules and filters may choose by it"
    parser.add_argument("--proto", type=_reading(flow.protocol), metavar="PROTOCOL", help=text)
    parser.add_argument("--port", type=_reading(flow.port), metavar="N", help="that it goes to, with --proto")
    parser.add_argument("--source-port", type=_reading(flow.port), metavar="N", help="that it comes from, with --proto")


def _reading(read: Callable[[str], int]) -> Callable[[str], int]:
    """Return how argparse reads a number, with the sentence about what it is not."""

    def value(text: str) -> int:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return value


def flow_of(options: argparse.Namespace) -> flow.Flow | None:
    """Return the flow that options say; None where they say none.

    Raises:
        ValueError: where they do not fit each other.
    """
    return flow.flow(options.proto, options.source_port, options.port)


def run(options: argparse.Namespace) -> int:
    """Print the way; return 1 when the packet does not arrive."""
    if options.hop:
        return _hop(options.path)
    if len(options.ends) not in (1, 2):
        raise client.Refused("trace takes [SRC] DST, each a pod, a node or an address; see felixctl trace --help")
    from felix_py.ctl import trace_nodes, trace_view  # noqa: PLC0415 - addresses and more, which only this one needs

    try:
        said = flow_of(options)
    except ValueError as error:
        raise client.Refused(str(error)) from error
    document = trace_nodes.trace(options.path, options.ends, options.size, options.ask, said)
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
