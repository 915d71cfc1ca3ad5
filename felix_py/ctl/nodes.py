"""`felixctl nodes`: the nodes of the cluster, as this node's agent knows them."""

import argparse

from felix_py.ctl import client, output
from felix_py.ctl.output import Column, or_dash

COLUMNS = (
    Column("NAME", lambda row: row["name"], lambda row: "bold" if row["here"] else None),
    Column("ADDRESSES", lambda row: or_dash(",".join(row["addresses"]))),
    Column("AS", lambda row: str(row["asNumber"])),
    Column("BLOCKS", lambda row: or_dash(",".join(row["blocks"]))),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "the nodes of the cluster: addresses, AS and blocks; the one that is asked is bold"
    commands.add_parser("nodes", help=text, description=text).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the nodes."""
    document = client.get(options.path, "nodes")
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        output.table(COLUMNS, document["nodes"])
    return 0
