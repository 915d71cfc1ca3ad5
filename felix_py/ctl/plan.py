"""`felixctl plan`: what the agent would change in the kernel now."""

import argparse

from felix_py.ctl import client, output
from felix_py.ctl.output import Column

COLUMNS = (
    Column("ACTION", lambda row: row["action"]),
    Column("OBJECT", lambda row: row["object"]),
    Column("DETAIL", lambda row: row["detail"]),
    Column("WHY", lambda row: row["why"]),
    Column("WHEN", lambda row: row["when"]),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "what the agent would change in the kernel now; nothing is changed"
    commands.add_parser("plan", help=text, description=text).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the steps in order."""
    document = client.get(options.path, "plan")
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    elif document["steps"]:
        output.table(COLUMNS, document["steps"])
    else:
        print("nothing to change: the kernel holds what it should")
    return 0
