"""`felixctl status`: is this node well, and if not, what is wrong, in one line each."""

import argparse
from typing import Any

from felix_py.ctl import bgp_node, client, output


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "the node's health; exit status 1 if it is not healthy"
    commands.add_parser("status", help=text, description=text).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the node's health; return 1 when it is not healthy."""
    document = client.get(options.path, "status")
    if options.output in ("json", "yaml"):
        output.document(document, options.output)
    else:
        _print(document)
    return 0 if document["healthy"] else 1


def _print(status: dict[str, Any]) -> None:
    healthy = status["healthy"]
    health = output.paint("healthy", "good") if healthy else output.paint("unhealthy", "bad")
    line("node", f"{status['node']}, {health}, {'in sync' if status['inSync'] else 'not in sync'}")
    line("agent", f"felix-py {status['version']}, up {output.age(status['startedAt'])}, process {status['pid']}")
    line("routes", ", ".join(f"{count} {state}" for state, count in status["routes"].items()))
    bgp = status["bgp"]
    sessions = f"{bgp['established']} of {bgp['configured']} sessions established, AS {bgp['asNumber'] or '-'}"
    line("bgp", bgp["off"] or sessions)
    if said := bgp_node.sentence(bgp["maintenance"]):
        line("bgp", output.paint(f"this node {said}", "warning"))
    for tunnel in status["tunnels"]:
        line("tunnel", f"{tunnel['device']}, {tunnel['why']}")
    if not status["tunnels"]:
        line("tunnel", "not needed")
    line("guard", f"of pods' interfaces: {status['guard']['why']}")
    line("pods' MTU", f"{status['podMTU']['value']}: {status['podMTU']['why']}")
    line("repairs", ", ".join(f"{count} {cause}" for cause, count in status["repairs"].items()) or "none")
    line("resources", ", ".join(f"{count} {kind}" for kind, count in status["resources"].items()) or "none")
    for problem in status["problems"]:
        line("problem", output.paint(problem, "bad"))


def line(name: str, text: str) -> None:
    """Print one fact under its name."""
    print(f"{name:<11}{text}")
