"""`felixctl ipam`: who holds which address since when, what does not fit, and taking an address back."""

import argparse
from typing import Any

from felix_py.ctl import client, output, pools
from felix_py.ctl.output import Column, or_dash

HELD = (
    Column("ADDRESS", lambda row: row["address"]),
    Column("HELD BY", lambda row: row["pod"] or row["endpoint"] or row["handle"]),
    Column("NODE", lambda row: or_dash(row["node"])),
    Column("CONTAINER", lambda row: or_dash(row["container"])[:12]),
    Column("INTERFACE", lambda row: or_dash(row["interface"])),
    Column("SINCE", lambda row: or_dash(row["since"])),
)

FINDINGS = (
    Column("SUBJECT", lambda row: row["subject"], lambda _: "bad"),
    Column("PROBLEM", lambda row: row["problem"]),
    Column("FIX", lambda row: row["fix"]),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "addresses: who holds which since when, and what does not fit"
    verbs = commands.add_parser("ipam", help=text, description=text).add_subparsers(
        dest="verb", required=True, metavar="VERB"
    )
    text = "use of each pool; with --blocks also each block and who holds its addresses"
    show = verbs.add_parser("show", help=text, description=text)
    show.add_argument("--blocks", action="store_true", help="each block, and who holds its addresses")
    show.add_argument("--ip", metavar="ADDRESS", help="everything about one address; exit status 1 if nobody holds it")
    show.set_defaults(run=_show)
    text = "what does not fit in what is written down, each with its fix; exit status 1 if anything"
    verbs.add_parser("check", help=text, description=text).set_defaults(run=_check)
    text = "take an address back that nobody uses, or all addresses of a handle"
    release = verbs.add_parser("release", help=text, description=text)
    release.add_argument("address", nargs="?", metavar="ADDRESS")
    release.add_argument("--handle", help="all addresses of this handle, as `felixctl ipam show --ip` names it")
    release.add_argument("--force", action="store_true", help="even if it is in use, or held on another node")
    release.set_defaults(run=_release)


def _show(options: argparse.Namespace) -> int:
    if options.ip is not None:
        return _show_one(options)
    document = client.get(options.path, "pools")
    if options.blocks:
        document["blocks"] = client.get(options.path, "blocks")["blocks"]
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
        return 0
    output.table(pools.POOLS, document["pools"])
    for block in document.get("blocks", ()):
        print()
        output.table(pools.BLOCKS, [block])
        if block["allocations"]:
            output.table(HELD, block["allocations"])
    return 0


def _show_one(options: argparse.Namespace) -> int:
    found = client.get(options.path, "ipam", "addresses", options.ip)
    if options.output in ("json", "yaml"):
        output.document(found, options.output)
    else:
        _say(found)
    return 0 if found["state"] == "held" else 1


def _say(found: dict[str, Any]) -> None:
    place = f"block {found['block']} of node {found['blockNode'] or 'nobody'}" if found["block"] else "no block"
    print(f"{found['address']} is {found['state']}: IPPool {or_dash(found['pool'])}, {place}")
    if found["state"] != "held":
        return
    if found["borrowed"]:
        print(f"borrowed by node {found['node']}")
    for name in ("pod", "endpoint", "handle", "node", "container", "interface", "since"):
        print(f"  {name:<10} {or_dash(found[name])}")


def _check(options: argparse.Namespace) -> int:
    document = client.get(options.path, "ipam", "check")
    rows = document["findings"]
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        print(f"{document['blocks']} blocks, {document['addresses']} addresses held, {len(rows)} findings")
        if rows:
            output.table(FINDINGS, rows)
    return 1 if rows else 0


def _release(options: argparse.Namespace) -> int:
    if (options.address is None) == (options.handle is None):
        raise client.Refused("nothing is released; give either an address or --handle HANDLE")
    which = ("release", options.address) if options.address is not None else ("handles", options.handle)
    force = "yes" if options.force else None
    document = client.post(options.path, "ipam", *which, force=force)
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        for row in document["released"]:
            print(f"{row['address']} is free again; it was held by {row['handle']}")
    return 0
