"""The `felixctl` program: ask this node's agent what it holds, why, and what is wrong."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from felix_py.ctl import client
from felix_py.ctl.examples import EXAMPLES

NOUNS = (
    "status",
    "routes",
    "bgp",
    "endpoints",
    "nodes",
    "pools",
    "ipam",
    "tunnels",
    "events",
    "plan",
    "resources",
    "trace",
    "doctor",
    "diag",
    "completion",
)
"""The modules that have the commands, in the order in which they are listed."""

ELSEWHERE = {"blocks": "pools", "get": "resources", "apply": "resources", "delete": "resources"}
"""Commands that are not in the module of their own name."""

ALONE = {*NOUNS, *ELSEWHERE} - {"completion", "resources"}
"""Commands that one module reads by itself."""

VALUED = ("-o", "--output", "--node", "--lab", "--socket")
"""Options that may stand before the command, each with a value."""

FORMS = ("table", "wide", "json", "yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    # Defaults go in beforehand: an option that stands before the command must not be undone by the command's parser.
    defaults = argparse.Namespace(output="table", node=None, lab=None, socket=None)
    parser = _parser(_module_of(sys.argv[1:] if arguments is None else arguments))
    options = parser.parse_args(arguments, defaults)
    options.parser = parser  # whoever completes words asks it
    try:
        options.path = client.socket_path(options.socket, options.node, options.lab)
        return int(options.run(options))
    except (client.Unreachable, client.Refused) as problem:
        print(f"felixctl: {problem}", file=sys.stderr)
        return client.EXIT_REFUSED
    except client.NotFound as problem:
        print(f"felixctl: {problem}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _module_of(arguments: Sequence[str]) -> str | None:
    """Return the only module that a command line needs; None where it takes all of them to read it."""
    words = iter(arguments)
    for word in words:
        if word in VALUED:
            next(words, None)
        elif not word.startswith("-"):
            return ELSEWHERE.get(word, word) if word in ALONE else None
        elif word in ("-h", "--help"):
            return None
    return None


def _parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of those of one module: to import the others takes longer than to ask."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-o", "--output", choices=FORMS, default=argparse.SUPPRESS, help="form (default table)")
    common.add_argument("--node", default=argparse.SUPPRESS, help="ask this node of a lab on this machine")
    common.add_argument(
        "--lab", default=argparse.SUPPRESS, help="of this lab, where several have such a node ($FELIX_LAB)"
    )
    common.add_argument("--socket", default=argparse.SUPPRESS, help="the agent's socket")
    parser = argparse.ArgumentParser(
        prog="felixctl",
        description="Ask this node's agent what it holds, why, and what is wrong.",
        parents=[common],
        epilog=EXAMPLES["felixctl"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_with(common))
    for name in NOUNS if only is None else (only,):
        importlib.import_module(f"felix_py.ctl.{name}").add(commands)
    return parser


def _with(common: argparse.ArgumentParser) -> type[argparse.ArgumentParser]:
    """Return a parser class whose parsers all take the common options, so that they may stand after the command."""

    class Command(argparse.ArgumentParser):
        def __init__(self, **settings: object) -> None:
            shown = {
                "formatter_class": argparse.RawDescriptionHelpFormatter,
                "epilog": EXAMPLES.get(str(settings["prog"])),
            }
            super().__init__(**{"parents": [common], **shown, **settings})  # type: ignore[arg-type]

    return Command


if __name__ == "__main__":
    sys.exit(main())
