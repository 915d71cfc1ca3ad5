"""`felixctl pools` and `felixctl blocks`: how much of each is used."""

import argparse
from collections.abc import Mapping
from typing import Any

from felix_py.ctl import client, output
from felix_py.ctl.output import Column, or_dash

WIDTH = 20
"""Characters of a bar."""

ALARMING = (0.95, 0.8)
"""From which share on a pool is nearly full, and from which on somebody should know."""


def bar(row: Mapping[str, Any]) -> str:
    """Draw how much is used; the first address shows, and only what is full looks full."""
    share = row["used"] / row["size"]
    filled = min(WIDTH - (share < 1), max(round(share * WIDTH), share > 0))
    return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {share:.0%}"


def _meaning(row: Mapping[str, Any]) -> str | None:
    share = row["used"] / row["size"]
    return "bad" if share >= ALARMING[0] else "warning" if share >= ALARMING[1] else None


POOLS = (
    Column("POOL", lambda row: row["name"]),
    Column("CIDR", lambda row: row["cidr"]),
    Column("IPIP", lambda row: row["ipipMode"]),
    Column("VXLAN", lambda row: row["vxlanMode"]),
    Column("BLOCKS", lambda row: f"{row['blocks']} of /{row['blockSize']}"),
    Column("USED", lambda row: str(row["used"])),
    Column("FREE", lambda row: str(row["free"])),
    Column("USAGE", bar, _meaning),
    Column("STATE", lambda row: row["state"], lambda row: None if row["state"] == "serves this node" else "dim"),
)

BLOCKS = (
    Column("BLOCK", lambda row: row["cidr"]),
    Column("POOL", lambda row: or_dash(row["pool"])),
    Column("NODE", lambda row: or_dash(row["node"])),
    Column("USED", lambda row: str(row["used"])),
    Column("FREE", lambda row: str(row["free"])),
    Column("COOLING", lambda row: str(row["cooling"])),
    Column("BORROWED", lambda row: str(row["borrowed"])),
    Column("USAGE", bar, _meaning),
    Column("CLAIM", lambda row: row["state"]),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    text = "the IP pools, and how much of each is used in the whole cluster"
    commands.add_parser("pools", help=text, description=text).set_defaults(run=run, what="pools", columns=POOLS)
    text = "the blocks of all nodes: whose they are, how far their claims are, and how much of each is used"
    commands.add_parser("blocks", help=text, description=text).set_defaults(run=run, what="blocks", columns=BLOCKS)


def run(options: argparse.Namespace) -> int:
    """Print them."""
    document = client.get(options.path, options.what)
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        output.table(options.columns, document[options.what])
    return 0
