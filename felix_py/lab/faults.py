"""Things broken and healed on purpose. What is broken is a set of targets; the lab is made to follow the set.

| target     | what fails                                                         |
|------------|--------------------------------------------------------------------|
| a1         | the node: every process there is killed, and its cable is pulled   |
| a1.uplink  | its cable only: the interface loses its carrier                    |
| a1.agent   | its agent is killed; the supervisor starts it again at once        |
| a1.bgp     | the agent's ExaBGP is killed; the agent starts it again at once    |
| tor        | the router: BIRD is killed, and all its cables are pulled          |
| tor.bgp    | BIRD is killed; the supervisor starts it again at once             |
| rr1        | the route reflector, as a router                                   |
| rr1.bgp    | its daemon, as a router's                                          |
| rack-a     | the switch: nobody in that network has a carrier                   |
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from felix_py.lab import machines, namespaces, network, plan, routing
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Thing, Topology


def pulled(topology: Topology, failed: frozenset[str]) -> set[tuple[str, str]]:
    """Return the cables that must be out, as network and machine, while these targets have failed."""
    cables = {(name, router.name) for router in topology.routers for name in router.addresses}
    cables |= {(machine.network, machine.name) for machine in topology.machines}
    return {(net, machine) for net, machine in cables if failed & {net, machine, f"{machine}.uplink"}}


def held_down(topology: Topology, failed: frozenset[str]) -> frozenset[str]:
    """Return the machines whose daemon must not run while these targets have failed."""
    return failed & {*topology.with_daemon}


def lasting(topology: Topology) -> tuple[str, ...]:
    """Return the targets that stay failed until they are healed."""
    things: tuple[Thing, ...] = (*topology.networks, *topology.routers, *topology.machines)
    return (*(thing.name for thing in things), *(f"{machine.name}.uplink" for machine in topology.machines))


def passing(topology: Topology) -> tuple[str, ...]:
    """Return the targets that come back by themselves."""
    nodes = (f"{node.name}.{part}" for node in topology.nodes for part in ("agent", "bgp"))
    return (*nodes, *(f"{name}.bgp" for name in topology.with_daemon if topology.node(name) is None))


def failed(lab: Lab) -> frozenset[str]:
    """Return what has failed and was not healed."""
    return frozenset(path.name for path in (lab.directory / "failed").iterdir())


def fail(lab: Lab, target: str) -> str:
    """Break something; return what was done, in words.

    Raises:
        Refused: when there is no such target.
    """
    topology = lab.topology()
    _known(topology, target)
    if target in passing(topology):
        machine, _, part = target.partition(".")
        process, what = KILLS[part](lab, machine)
        network.kill(process)
        return f"killed {what} of {machine}, process {process}; it is started again by itself"
    (lab.directory / "failed" / target).touch()
    follow(lab, topology)
    return f"{target} has failed; `felix-lab heal {target}` heals it"


def heal(lab: Lab, target: str | None) -> str:
    """Heal one target, or everything; return what was done, in words.

    Raises:
        Refused: when there is no such target.
    """
    topology = lab.topology()
    if target is not None:
        _known(topology, target)
    chosen = failed(lab) if target is None else failed(lab) & {target}
    for each in chosen:
        (lab.directory / "failed" / each).unlink(missing_ok=True)
    follow(lab, topology)
    return f"healed {', '.join(sorted(chosen))}" if chosen else f"{target or 'nothing'} has not failed"


def follow(lab: Lab, topology: Topology) -> None:
    """Make cables and daemons be as the set of failures says; safe to repeat."""
    now = failed(lab)
    out = pulled(topology, now)
    for each in topology.networks:
        plugs = [(net, machine) for net, machine in pulled(topology, frozenset({each.name})) if net == each.name]
        network.run(lab, each.name, *(plan.Set(machine, up=(net, machine) not in out) for net, machine in plugs))
    held = held_down(topology, now)
    for name in topology.with_daemon:
        directory = lab.supervised(name)
        if directory is not None:
            _follow_daemon(lab, name, directory, run=name not in held)


def _follow_daemon(lab: Lab, name: str, directory: Path, *, run: bool) -> None:
    machines.signal_supervisor(directory, run=run)
    if not run:
        network.kill_all((lab.namespace(name),), spared={machines.supervisor(directory)})


def _known(topology: Topology, target: str) -> None:
    known = (*lasting(topology), *passing(topology))
    if target not in known:
        raise Refused(f"{target} is nothing that can fail here; there are {', '.join(known)}", status=2)


def _daemon(lab: Lab, machine: str) -> int:
    directory = lab.supervised(machine)
    process = machines.daemon(directory) if directory else None
    if process is None:
        raise Refused(f"the daemon of {machine} does not run; see `felix-lab status`")
    return process


def _agent(lab: Lab, machine: str) -> tuple[int, str]:
    return _daemon(lab, machine), "felix-agent"


def _bgp(lab: Lab, machine: str) -> tuple[int, str]:
    topology = lab.topology()
    if topology.node(machine) is None:
        daemon = next(each.daemon for each in topology.routing if each.name == machine)
        return _daemon(lab, machine), routing.DAEMONS[daemon].title
    return exabgp(lab, machine), "ExaBGP"


def exabgp(lab: Lab, node: str) -> int:
    """Return the process of a node's ExaBGP: a child of its agent.

    Raises:
        Refused: when it does not run.
    """
    agent = _daemon(lab, node)
    for process in namespaces.processes((lab.namespace(node),)):
        try:
            words = Path("/proc", str(process), "cmdline").read_bytes()
            parent = int(Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended while we looked
        if parent == agent and b"exabgp" in words:
            return process
    raise Refused(f"ExaBGP does not run on {node}; see `felix-lab logs {node}`")


def exabgp_or_none(lab: Lab, node: str) -> int | None:
    """Return the process of a node's ExaBGP; None while it does not run."""
    try:
        return exabgp(lab, node)
    except Refused:
        return None


KILLS: Mapping[str, Callable[[Lab, str], tuple[int, str]]] = {"agent": _agent, "bgp": _bgp}
"""What is killed, by the part that a target names."""
