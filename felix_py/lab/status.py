"""`felix-lab status`: what every machine does, in one line each, and what is not as it should be."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from felix_py.ctl import client
from felix_py.lab import faults, health, machines, matrix, routing, screen
from felix_py.lab.matrix import End, Matrix
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import LabNode, Reflector, Router, Topology
from felix_py.model import IPAddress

Row = tuple[str, str, str, str]


def ends(lab: Lab, topology: Topology, version: int = 4) -> list[End]:
    """Return everybody who can ping by this version of IP: nodes with their pods, and hosts."""
    addresses = lab.pod_addresses(version)
    found = []
    for machine in topology.machines:
        own = (str(each) for each in machine.ends if each.version == version)
        found += [End(machine.name, lab.namespace(machine.name), each, machine.name) for each in own]
        pods = machine.pod_names if isinstance(machine, LabNode) else ()
        found += [End(pod, lab.namespace(pod), addresses[pod], machine.name) for pod in pods if pod in addresses]
    return found


def matrices(lab: Lab, topology: Topology, here: str | None = None) -> Iterator[tuple[str, Matrix]]:
    """Yield who reaches whom, by each version of IP that is spoken here, with what to write above it.

    Args:
        lab: which one.
        topology: of the lab.
        here: the machine that we are; only it and its pods ping. None is none of them, and all do.
    """
    for version in topology.versions:
        title = f"IPv{version}: " if len(topology.versions) > 1 else ""
        every = ends(lab, topology, version)
        if here is None:
            yield title, matrix.ping_all(every)
            continue
        every = [replace(end, namespace="") if end.name == here else end for end in every]
        yield title, matrix.ping_all(every, [end for end in every if end.group == here])


def show(lab: Lab, topology: Topology) -> int:
    """Print it; return 1 when something is not as it should be."""
    problems: list[str] = []
    rows: list[Row] = [("NAME", "KIND", "ADDRESS", "STATE")]
    rows += [_router(lab, topology, router, problems) for router in topology.routers]
    rows += [_node(lab, topology, node, problems) for node in topology.nodes]
    rows += [_reflector(lab, reflector, problems) for reflector in topology.reflectors]
    rows += [(host.name, "host", _listed(host.ends), "up") for host in topology.hosts]
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
    title = routing.DAEMONS[router.daemon].title
    state = f"{title} {_process(lab, router.name, problems)}, {len(health.learned(lab, router))} routes learned"
    every = (each.ip for table in (router.addresses, router.addresses6) for each in table.values())
    return router.name, "router", _listed(every), state


def _listed(addresses: Iterable[IPAddress]) -> str:
    return " ".join(map(str, addresses))


def _reflector(lab: Lab, reflector: Reflector, problems: list[str]) -> Row:
    title = routing.DAEMONS[reflector.daemon].title
    return reflector.name, "reflector", str(reflector.address.ip), f"{title} {_process(lab, reflector.name, problems)}"


def _node(lab: Lab, topology: Topology, node: LabNode, problems: list[str]) -> Row:
    state = f"agent {_process(lab, node.name, problems)}"
    problems += health.node_problems(lab, topology, node)
    try:
        status = health.ask(lab, node.name, "status")
    except client.Unreachable:
        return node.name, "node", _listed(node.ends), state
    bgp, tunnels = status["bgp"], status["tunnels"]
    state += f", {'in sync' if status['inSync'] else 'not in sync'}"
    sessions = f"{bgp['established']} of {bgp['configured']} sessions" if topology.speaks_bgp else "BGP off"
    state += f", {sessions}, {status['routes'].get('installed', 0)} routes, {node.pods} pods"
    state += "".join(f", {each['device']} by {each['driver']}" for each in tunnels)
    return node.name, "node", _listed(node.ends), state


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
