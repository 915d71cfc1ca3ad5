"""`felixctl tunnels`: what carries this node's encapsulated packets, to whom, and what it dropped and why."""

import argparse
from typing import Any

from felix_py.ctl import client, output
from felix_py.ctl.output import Column, or_dash

COLUMNS = (
    Column("DEVICE", lambda row: row["device"]),
    Column("DRIVER", lambda row: row["driver"]),
    Column("LOCAL", lambda row: row["local"]),
    Column("ADDRESS", lambda row: or_dash(row["address"])),
    Column("MTU", lambda row: str(row["mtu"])),
    Column("REMOTES", lambda row: str(len(row["remotes"]))),
    Column("SENT", lambda row: or_dash(row["counters"].get("sent_packets"))),
    Column("RECEIVED", lambda row: or_dash(row["counters"].get("received_packets"))),
    Column("DROPPED", lambda row: str(sum(row["dropped"].values()))),
    Column("STATE", lambda row: row["state"], lambda row: output.state_meaning(row["state"])),
)

REMOTES = (
    Column("NODE", lambda row: row["node"]),
    Column("MAC", lambda row: or_dash(row.get("mac"))),
    Column("PREFIXES", lambda row: str(len(row["prefixes"]))),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "the tunnels of this node: driver and why, remotes, drops by reason; exit status 1 if one is not as wanted"
    commands.add_parser("tunnels", help=text, description=text).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the tunnels; return 1 when one is not as wanted."""
    document = client.get(options.path, "tunnels")
    rows = document["tunnels"]
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    elif not rows:
        print("no pool needs a tunnel")
    else:
        output.table(COLUMNS, rows)
        for row in rows:
            _details(row, wide=options.output == "wide")
    return 0 if all(row["state"] == "installed" for row in rows) else 1


def _details(row: dict[str, Any], *, wide: bool) -> None:
    what = f" (VNI {row['vni']}, UDP port {row['port']}, MAC {row['mac']})" if "vni" in row else ""
    print(f"\n{row['device']}: {row['why']}{what}")
    for reason, packets in row["dropped"].items():
        if packets:
            print(f"dropped: {packets}, {reason.replace('_', ' ')}")
    if wide:
        print()
        output.table(REMOTES, row["remotes"])
