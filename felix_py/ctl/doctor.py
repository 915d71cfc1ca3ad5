"""`felixctl doctor`: is this host fit for routing pods, and if not, what is to be done."""

import argparse
from typing import TYPE_CHECKING

from felix_py.ctl import client, output
from felix_py.ctl.output import Column

if TYPE_CHECKING:
    from felix_py.ctl.doctor_facts import Answers

MEANINGS = {"ok": "good", "warning": "warning", "failed": "bad", "skipped": "dim"}

COLUMNS = (
    Column("CHECK", lambda row: row["check"]),
    Column("STATE", lambda row: row["state"], lambda row: MEANINGS[row["state"]]),
    Column("FOUND", lambda row: row["detail"]),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "check this host, with the fix for each thing that is wrong; exit status 1 if something is; run it as root"
    parser = commands.add_parser("doctor", help=text, description=text)
    parser.add_argument("--no-probe", action="store_true", help="send no packets to other nodes")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print each check; return 1 when one fails."""
    if options.node is not None:
        raise client.NotFound(
            "doctor examines the host that it runs on; for a node of a lab: "
            f"felix-lab exec {options.node} felixctl doctor"
        )
    from felix_py.ctl import doctor_checks, doctor_facts  # noqa: PLC0415 - netlink and more, which only this one needs

    findings = doctor_checks.examine(doctor_facts.gather(_answers(options), probing=not options.no_probe))
    rows = [
        {"check": name, "state": str(found.state), "detail": found.detail, "fix": found.fix or None}
        for name, found in findings
    ]
    failed = any(row["state"] == "failed" for row in rows)
    if options.output in ("json", "yaml"):
        output.document({"healthy": not failed, "checks": rows}, options.output)
        return int(failed)
    output.table(COLUMNS, rows)
    for row in rows:
        if row["fix"]:
            print(f"\n{row['check']}: {row['fix']}")
    return int(failed)


def _answers(options: argparse.Namespace) -> "Answers":
    """Ask the agent; that it does not answer is itself a finding."""
    from felix_py.ctl.doctor_facts import Answers  # noqa: PLC0415 - as above

    try:
        status, nodes, tunnels = (client.get(options.path, name) for name in ("status", "nodes", "tunnels"))
    except client.Unreachable as problem:
        return Answers(unreachable=str(problem))
    return Answers(status, tuple(nodes["nodes"]), tuple(tunnels["tunnels"]))
