"""The `felix-lab` program: a network of several nodes on this machine, out of network namespaces."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources as package_files
from ipaddress import ip_address
from pathlib import Path

from felix_py.config import METRICS_ADDRESS, ListenAddress, listen_address
from felix_py.ctl import output, trace_view
from felix_py.ctl.trace import add_flow, flow_of
from felix_py.ctl.trace import size as packet_size
from felix_py.lab import (
    demo,
    faults,
    interrupts,
    lifecycle,
    machines,
    matrix,
    reflectors,
    routing,
    screen,
    state,
    status,
    tracing,
)
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Topology
from felix_py.model import Invalid

EXIT_INTERRUPTED = 130
"""As shells report a program that ended by SIGINT: 128 and the signal's number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 well, 1 something is not as it should be, 2 refused or wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        _require_root(options.command)
        return int(options.run(options, state.lab(options.name)))
    except (Refused, Invalid) as refusal:
        for sentence in getattr(refusal, "faults", (refusal,)):
            print(f"felix-lab: {sentence}", file=sys.stderr)
        return getattr(refusal, "status", 1)
    except interrupts.Interrupted as interrupt:
        print(f"felix-lab: interrupted by {interrupt}; nothing of the lab is left", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _require_root(command: str) -> None:
    if os.geteuid() != 0:
        raise Refused(f"`felix-lab {command}` works with network namespaces; run it as root, or with sudo")


def default_topology() -> Path:
    """Return the file of the default lab: the checkout's, or the copy that was installed."""
    checkout = Path(__file__).parents[2] / "deploy" / "lab" / "two-racks.yaml"
    return checkout if checkout.exists() else Path(str(package_files.files("felix_py.lab") / "two-racks.yaml"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="felix-lab",
        description=__doc__,
        epilog="exit status: 0 all well, 1 something is not as it should be, 2 refused or wrong usage",
    )
    parser.add_argument("--name", default=state.DEFAULT_NAME, help="which lab; several may be up (default lab)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (run, text, add) in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add(command)
        command.set_defaults(run=run)
    return parser


# --- the commands


def _up(options: argparse.Namespace, lab: Lab) -> int:
    machines.require_programs()
    topology = _topology(options.topology)
    routing.require(topology, machines.path_variable())
    reflectors.require(topology, options.topology)
    with interrupts.deferring(), state.only_one(lab):
        timings = lifecycle.up(lab, options.topology, topology)
    screen.say(screen.picture(topology))
    screen.say()
    screen.tick(
        f"{len(topology.nodes)} nodes and {len(topology.pods)} pods in {timings.converged:.1f} s "
        f"(network {timings.built:.1f}, agents {timings.agents:.1f}, pods {timings.attached:.1f})"
    )
    screen.say("Try: felix-lab status, felix-lab ping, felix-lab exec a1 felixctl routes, felix-lab fail a1.uplink")
    return 0


def _topology(path: Path) -> Topology:
    try:
        return state.read_topology(path)
    except FileNotFoundError:
        raise Refused(f"--topology is {path}, which does not exist; give the path of a topology", status=2) from None


def _down(_: argparse.Namespace, lab: Lab) -> int:
    if not lab.exists and not lab.directory.exists():
        screen.say(f"no lab named {lab.name} is up; nothing to do")
        return 0
    with interrupts.deferring(), state.only_one(lab):
        gone = lifecycle.down(lab)
    screen.say(f"lab {lab.name} is down: {len(gone)} namespaces removed, and everything in them")
    return 0


def _status(_: argparse.Namespace, lab: Lab) -> int:
    return status.show(lab, lab.topology())


def _exec(options: argparse.Namespace, lab: Lab) -> int:
    words = options.arguments or ["bash", "--norc"]
    environment = {
        **os.environ,
        "PATH": machines.path_variable(),
        "PS1": f"[{options.target}] \\w # ",
        "FELIX_LAB": lab.name,
        "FELIXCTL_ASK": f"env FELIX_SOCKET={lab.of_node('{node}')}/run/agent.sock",
    }
    command = [*machines.enter(lab, options.target), *words]
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is what we want
    except OSError as error:
        raise Refused(f"{command[0]} cannot be run: {error.strerror}") from error


def _ping(options: argparse.Namespace, lab: Lab) -> int:
    if options.source is None:
        lost = False
        for title, found in status.matrices(lab, lab.topology()):
            screen.say(matrix.table(found, plain=screen.plain()))
            (screen.cross if found.lost else screen.tick)(title + matrix.summary(found))
            lost = lost or bool(found.lost)
        return 1 if lost else 0
    if options.target is None:
        raise Refused("ping takes two ends, or none for all; give SRC and DST", status=2)
    topology = lab.topology()
    every = (end for version in topology.versions for end in status.ends(lab, topology, version))
    addresses = [end.address for end in every if end.name == options.target] or [options.target]
    words = [*machines.enter(lab, options.source), "ping", "-c", "3", "-i", "0.2", "-W", "2"]
    return max(subprocess.run([*words, address], check=False).returncode for address in addresses)


def _trace(options: argparse.Namespace, lab: Lab) -> int:
    try:
        flow = flow_of(options)
    except ValueError as error:
        raise Refused(str(error), status=2) from error
    document = tracing.trace(lab, lab.topology(), options.source, options.target, options.size, options.version, flow)
    if options.output == "table":
        trace_view.show(document, why=options.why)
    else:
        output.document(document, options.output)
    return trace_view.status(document)


def _fail(options: argparse.Namespace, lab: Lab) -> int:
    screen.say(faults.fail(lab, options.target))
    return 0


def _heal(options: argparse.Namespace, lab: Lab) -> int:
    screen.say(faults.heal(lab, options.target))
    return 0


def _logs(options: argparse.Namespace, lab: Lab) -> int:
    topology = lab.topology()
    directory = lab.supervised(options.target)
    if directory is None:
        known = ", ".join(topology.with_daemon)
        raise Refused(f"{options.target} has no log; there are logs of {known}", status=2)
    words = ["tail", "-n", str(options.lines), *(["-F"] if options.follow else []), str(directory / "log")]
    os.execvp(words[0], words)  # noqa: S606 - no shell is what we want


def _page(options: argparse.Namespace, lab: Lab) -> int:
    from felix_py.lab import page  # noqa: PLC0415 - a server and all that it needs, for this command alone

    return page.run(lab, lab.topology(), options.listen)


def _demo(options: argparse.Namespace, lab: Lab) -> int:
    machines.require_programs()
    topology = _topology(options.topology)
    routing.require(topology, machines.path_variable())
    reflectors.require(topology, options.topology)
    with interrupts.deferring(), state.only_one(lab):
        return demo.run(lab, options.topology, topology)


# --- their arguments


def _with_topology(command: argparse.ArgumentParser) -> None:
    path = default_topology()
    command.add_argument("--topology", type=Path, default=path, metavar="FILE", help=f"the network (default {path})")


def _with_target(command: argparse.ArgumentParser) -> None:
    command.description = faults.__doc__
    command.add_argument("target", help="a1, a1.uplink, a1.agent, a1.bgp, tor, tor.bgp, rr1, rr1.bgp, rack-a")


def _with_optional_target(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", nargs="?", help="what to heal (default everything)")


def _with_command(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", help="a node, router, host, pod or network")
    command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="CMD", help="default: a shell")


def _with_ends(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", nargs="?", metavar="SRC", help="who pings (default: everybody everybody)")
    command.add_argument("target", nargs="?", metavar="DST", help="a name in the lab, or an address")


def _with_way(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="SRC", help="a pod, node, router or host")
    command.add_argument("target", metavar="DST", help="a name in the lab, or an address")
    command.add_argument("--size", type=packet_size, metavar="BYTES", help="of the packet, which may not be fragmented")
    add_flow(command)
    command.add_argument("-6", dest="version", action="store_const", const=6, help="by IPv6, where names are given")
    command.add_argument("--why", action="store_true", help="the reasons for each route as well")
    command.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table", help="form")


def _with_log(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", help="a node or router")
    command.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    command.add_argument("-n", "--lines", type=int, default=50, help="how many (default 50)")


def _with_listen(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--listen",
        type=_loopback,
        default=METRICS_ADDRESS,
        metavar="ADDRESS:PORT",
        help=f"where, on this machine only (default {METRICS_ADDRESS})",
    )


def _loopback(text: str) -> ListenAddress:
    try:
        address = listen_address(text)
    except ValueError:
        address = None
    if address is None or not ip_address(address.host).is_loopback:
        raise argparse.ArgumentTypeError(f"is {text!r}; give an address of this machine and a port, as 127.0.0.1:9099")
    return address


def _with_nothing(_: argparse.ArgumentParser) -> None:
    """Take no arguments."""


COMMANDS = {
    "up": (_up, "bring a lab up: every session established, every pod attached, every route in place", _with_topology),
    "status": (_status, "what every machine does; exit status 1 if something is not as it should be", _with_nothing),
    "exec": (_exec, "run a command, or a shell, on a node, router, host or pod", _with_command),
    "ping": (_ping, "everybody pings everybody, or one another; exit status 1 on any loss", _with_ends),
    "trace": (
        _trace,
        "the way of a packet: every machine on it is asked; exit status 1 if it does not arrive",
        _with_way,
    ),
    "fail": (_fail, "break something on purpose", _with_target),
    "heal": (_heal, "make it whole again", _with_optional_target),
    "page": (_page, "serve a page of all machines until Ctrl-C: topology, sessions, routes, events", _with_listen),
    "logs": (_logs, "what the daemon of a node or router said", _with_log),
    "down": (_down, "take a lab down; nothing of it is left", _with_nothing),
    "demo": (_demo, "bring a lab up, prove that it does what it should, and take it down", _with_topology),
}


if __name__ == "__main__":
    sys.exit(main())
