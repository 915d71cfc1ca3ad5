"""`felix-lab status`: what every machine does, in one line each, and what is not as it should be."""

from felix_py.ctl import client
from felix_py.lab import faults, health, machines, reflectors, screen
from felix_py.lab.matrix import End
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import LabNode, Reflector, Router, Topology

Row = tuple[str, str, str, str]


def ends(lab: Lab, topology: Topology) -> list[End]:
    """Return everybody who can ping: nodes with their pods, and hosts."""
    addresses = lab.pod_addresses()
    found = []
    for node in topology.nodes:
        found.append(End(node.name, lab.namespace(node.name), str(node.address.ip), node.name))
        found += [End(pod, lab.namespace(pod), addresses[pod], node.name) for pod in node.pod_names if pod in addresses]
    return found + [
        End(host.name, lab.namespace(host.name), str(host.address.ip), host.name) for host in topology.hosts
    ]


def show(lab: Lab, topology: Topology) -> int:
    """Print it; return 1 when something is not as it should be."""
    problems: list[str] = []
    rows: list[Row] = [("NAME", "KIND", "ADDRESS", "STATE")]
    rows += [_router(lab, topology, router, problems) for router in topology.routers]
    rows += [_node(lab, topology, node, problems) for node in topology.nodes]
    rows += [_reflector(lab, reflector, problems) for reflector in topology.reflectors]
    rows += [(host.name, "host", str(host.address.ip), "up") for host in topology.hosts]
    for line in _aligned(rows):
        screen.say(line)
    failed = sorted(faults.failed(lab))
    if failed:
        screen.cross(f"failed on purpose: {', '.join(failed)}; `felix-lab heal` heals everything")
    for problem in problems:
        screen.cross(problem)
    if not problems and not failed:
        screen.tick("all sessions established, all routes in place")
    return 1 if problems or failed else 0


def _aligned(rows: list[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _router(lab: Lab, topology: Topology, router: Router, problems: list[str]) -> Row:
    problems += health.router_problems(lab, topology, router)
    state = f"BIRD {_process(lab, router.name, problems)}, {len(health.learned(lab, router.name))} routes learned"
    addresses = " ".join(str(address.ip) for address in router.addresses.values())
    return router.name, "router", addresses, state


def _reflector(lab: Lab, reflector: Reflector, problems: list[str]) -> Row:
    title = reflectors.DAEMONS[reflector.daemon].title
    return reflector.name, "reflector", str(reflector.address.ip), f"{title} {_process(lab, reflector.name, problems)}"


def _node(lab: Lab, topology: Topology, node: LabNode, problems: list[str]) -> Row:
    state = f"agent {_process(lab, node.name, problems)}"
    problems += health.node_problems(lab, topology, node)
    try:
        status = health.ask(lab, node.name, "status")
    except client.Unreachable:
        return node.name, "node", str(node.address.ip), state
    bgp, tunnel = status["bgp"], status["tunnel"] or {}
    state += f", {'in sync' if status['inSync'] else 'not in sync'}"
    state += f", {bgp['established']} of {bgp['configured']} sessions, {status['routes'].get('installed', 0)} routes"
    state += f", {node.pods} pods, tunnel by {tunnel.get('driver', 'nobody')}"
    return node.name, "node", str(node.address.ip), state


def _process(lab: Lab, name: str, problems: list[str]) -> str:
    """Return the daemon's process in words, and note what keeps it from running."""
    directory = lab.supervised(name)
    if directory is None:
        return "not started"
    try:
        machines.supervisor(directory)
    except Refused as refusal:
        problems.append(str(refusal))
    process = machines.daemon(directory)
    return f"process {process}" if process else "does not run"
