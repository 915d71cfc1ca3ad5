"""`felixctl endpoints`: the pods of this node."""

import argparse

from felix_py.ctl import client, output
from felix_py.ctl.output import Column, or_dash

COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("ADDRESSES", lambda row: ",".join(row["addresses"])),
    Column("INTERFACE", lambda row: row["interface"]),
    Column("CONTAINER", lambda row: or_dash(row["containerID"])[:12]),
    Column("STATE", lambda row: row["state"], lambda row: output.state_meaning(row["state"])),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "the workload endpoints (pods) of this node; exit status 1 if one has no route"
    commands.add_parser("endpoints", help=text, description=text).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the endpoints; return 1 when one is not routed."""
    document = client.get(options.path, "endpoints")
    rows = document["endpoints"]
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        output.table(COLUMNS, rows)
    return 0 if all(row["state"] == "routed" for row in rows) else 1
