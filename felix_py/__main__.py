"""The `felix-agent` program: run the daemon of one node, print its plan, or remove everything that it owns."""

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from felix_py import __version__, daemon, log, once, settings_file
from felix_py.config import Config
from felix_py.journal import Journal
from felix_py.kernel.objects import KernelRefused
from felix_py.kernel.reconcile import in_words
from felix_py.metrics import Metrics
from felix_py.model import Invalid

REFUSALS = (Invalid, daemon.Refused, KernelRefused)
"""What ends a command with a sentence for each fault, and no traceback."""

EXIT_SOFTWARE = 70
"""sysexits.h: an internal error."""

CAP_NET_ADMIN = 12
"""Bit of the capability that route and link changes need, include/uapi/linux/capability.h."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 refused, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        settings = settings_file.read(options.config)
        _require_net_admin(options.command)
        return COMMANDS[options.command](settings)
    except REFUSALS as refusal:
        if options.debug:
            raise
        for sentence in getattr(refusal, "faults", (refusal,)):
            print(f"felix-agent: {sentence}", file=sys.stderr)  # noqa: T201 - the log is not set up yet
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="felix-agent", description=__doc__)
    parser.add_argument("--version", action="version", version=f"felix-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "be the agent of this node until told to stop"),
        ("plan", "print what would be changed in the kernel now, and change nothing"),
        ("cleanup", "remove every route, parameter and tunnel that belongs to the agent"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, default=None, help=f"settings (default {settings_file.DEFAULT})")
        command.add_argument("--debug", action="store_true", help="show a traceback where something is refused")
    return parser


def _require_net_admin(command: str) -> None:
    """Refuse early and in words what the kernel would refuse later one route at a time."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective.split()[1], 16) >> CAP_NET_ADMIN & 1:
        raise daemon.Refused(
            f"`felix-agent {command}` needs the capability CAP_NET_ADMIN and this process (user {os.geteuid()}) "
            "does not have it; run it as root"
        )


GARBAGE = 50_000, 20, 100
"""Objects made before the collector looks, and its later generations: a table of 100,000 paths is no garbage, and to
look through it again and again took half of the time that it takes to learn it."""


def _run(settings: Config) -> int:
    gc.set_threshold(*GARBAGE)
    journal, metrics = Journal(settings.state_directory), Metrics()
    observers = (journal.note, metrics.logged)
    log.set_up(log_format=settings.log_format, level=settings.log_level, observers=observers)
    try:
        return asyncio.run(daemon.run(settings, journal, metrics))
    except REFUSALS:
        raise
    except Exception:  # noqa: BLE001 - a bug: one event with its traceback, and out, to be started again with routes in place
        structlog.get_logger().exception("agent.failed")
        return EXIT_SOFTWARE


def _plan(settings: Config) -> int:
    steps = tuple(once.plan_once(settings))
    for step in steps:
        print(*filter(None, in_words(step)))  # noqa: T201 - a command line tool prints
    if not steps:
        print("nothing to change")  # noqa: T201 - same
    return 0


def _cleanup(settings: Config) -> int:
    done, refused = once.clean_up(settings)
    for step in done:
        print(*filter(None, in_words(step)))  # noqa: T201 - a command line tool prints
    for step, why in refused:
        print("felix-agent:", *filter(None, in_words(step)), f"was refused: {why}", file=sys.stderr)  # noqa: T201
    return 1 if refused else 0


COMMANDS = {"run": _run, "plan": _plan, "cleanup": _cleanup}


if __name__ == "__main__":
    sys.exit(main())
