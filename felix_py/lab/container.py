"""A machine of a lab in a container of its own: what `docker compose up` runs in each.

`python -m felix_py.lab.container run` makes of a container what the topology says of the machine of its host name, and
keeps its daemon running, as the supervisor of a namespace lab does; `... pods` attaches the pods of a node; `... ping`
has everybody here ping everybody in the lab. A container that is no machine of the lab shows it: `... page`.

The folder of the lab, /run/felix-lab/lab, is shared by all containers, and what felix-lab keeps of a lab is there: the
topology, the resources, the pods' addresses, each node's sockets. So `felixctl --node` and `felix-lab exec POD` work.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from felix_py.lab import health, interfaces, lifecycle, machines, matrix, pods, rendering, routing, screen, state
from felix_py.lab import status as lab_status
from felix_py.lab.pods import Pod
from felix_py.lab.state import NODE_MOUNTS, Lab, Refused
from felix_py.lab.supervisor import Supervisor
from felix_py.lab.topology import LabNode, Machine, Router, Topology

SOURCE = Path("/etc/felix-lab/topology.yaml")
"""What the container is given."""

LAB = Lab("lab")
"""What all containers share."""

HERE = Path("/run/felix-machine")
"""What the supervisor keeps, of this container alone; what its daemon says goes to the container's log."""

ATTACHED = HERE / "attached"
"""There once every pod of this node is attached."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status: 0 well, 1 something is not as it should be, 2 refused."""
    parser = argparse.ArgumentParser(prog="felix_py.lab.container")
    parser.add_argument("command", choices=[*COMMANDS, PAGE])
    options = parser.parse_args(arguments)
    topology, name = state.read_topology(SOURCE), os.uname().nodename
    try:
        if options.command == PAGE:
            return _page(topology)
        things: tuple[Router | Machine, ...] = (*topology.routers, *topology.machines)
        machine = next((each for each in things if each.name == name), None)
        if machine is not None:
            return COMMANDS[options.command](topology, machine)
        print(f"{SOURCE} has no machine {name}; give the container the host name of one", file=sys.stderr)
    except Refused as refusal:
        print(f"{name}: {refusal}", file=sys.stderr)
    return 2


def _run(topology: Topology, machine: Router | Machine) -> int:
    HERE.mkdir(parents=True, exist_ok=True)
    (HERE / "log").symlink_to("/proc/self/fd/1")
    Path("/etc/hosts").write_text(rendering.hosts(topology))
    # Nothing waits for a name server: the engine's would ask the world, and there is none in a lab.
    Path("/etc/resolv.conf").write_text("")
    interfaces.arrange(topology, machine)
    if isinstance(machine, Router):
        daemon = routing.DAEMONS[machine.daemon]
        routing.write(daemon, HERE, routing.router_conf(topology, machine))
        _see_as_own(daemon.mounts)
        again = [option.removeprefix("--again=") for option in daemon.options]
        return Supervisor(HERE, daemon.command, again).run()
    if isinstance(machine, LabNode):
        _node(topology, machine)
        return Supervisor(HERE, [machines.program("felix-agent"), "run"]).run()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


def _see_as_own(mounts: Mapping[str, str]) -> None:
    """Have a daemon find its folders where it looks for them."""
    for folder, target in mounts.items():
        path = Path(target)
        if path.is_symlink():  # of before this container was started again
            path.unlink()
        elif path.exists():  # of the daemon's package
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(HERE / folder)


# --- a node


def _node(topology: Topology, node: LabNode) -> None:
    """Write what the agent reads, share what all may see, and have the pods attached once the agent is there."""
    # What the agent writes of its own devices is there; the engine gives containers a view that cannot be written to.
    subprocess.run(["mount", "-o", "remount,bind,rw", "/proc/sys"], check=True)
    own = LAB.of_node(node.name)
    (own / "run").mkdir(parents=True, exist_ok=True)
    Path(NODE_MOUNTS["run"]).symlink_to(own / "run")
    etc = Path(NODE_MOUNTS["etc"])
    etc.mkdir(parents=True, exist_ok=True)
    (etc / "felix.yaml").write_text(rendering.felix_yaml(topology, node))
    (LAB.directory / "pods").mkdir(exist_ok=True)
    resources = LAB.directory / "resources"
    resources.mkdir(exist_ok=True)
    for file, text in rendering.resources(topology).items():
        _give(resources / file, text, node.name)
    _give(LAB.directory / "topology.yaml", SOURCE.read_text(), node.name)
    with contextlib.suppress(FileExistsError):  # the container was started again
        (etc / "resources").symlink_to(resources)
    # setsid forks and leaves: the supervisor, which this process becomes, has no child that it knows nothing of.
    subprocess.run(["setsid", "--fork", sys.executable, "-m", __spec__.name, "pods"], check=True)


def _give(path: Path, text: str, by: str) -> None:
    """Write a file whole, unless there is one: every node does the same, and users may have changed it since."""
    partial = LAB.directory / f".{by}-{path.name}"
    partial.write_text(text)
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(partial)
    partial.unlink()


def _pods(topology: Topology, machine: Router | Machine) -> int:
    """Attach the pods of this node, one after the other, as a container runtime does after its machine has started."""
    from pyroute2 import netns  # noqa: PLC0415 - 0.15 s that no health check needs to spend

    node = _require_node(topology, machine)
    lifecycle.wait(LAB, lambda: [each] if (each := health.not_in_sync(LAB, node)) else [])
    for each in (Pod(name, node.name) for name in node.pod_names):
        # Of before this container was started again: the namespace went with it, the address is still held.
        pods.detach(LAB, [each], enter=_here)
        netns.create(LAB.namespace(each.name))
        pods.attach(LAB, [each], enter=_here)
    ATTACHED.touch()
    return 0


def _here(_lab: Lab, _node: str) -> list[str]:
    return []


def _require_node(topology: Topology, machine: Router | Machine) -> LabNode:
    node = topology.node(machine.name)
    if node is None:
        raise Refused(f"is no node, and has no pods; there are nodes {', '.join(each.name for each in topology.nodes)}")
    return node


def _ping(topology: Topology, machine: Router | Machine) -> int:
    """Ping from this machine and its pods to everybody."""
    lost = False
    for title, found in lab_status.matrices(LAB, topology, here=str(machine.name)):
        screen.say(matrix.table(found, plain=screen.plain()))
        (screen.cross if found.lost else screen.tick)(title + matrix.summary(found))
        lost = lost or bool(found.lost)
    return 1 if lost else 0


PAGE = "page"


def _page(topology: Topology) -> int:
    """Serve the page of the lab to whom the engine lets here."""
    from felix_py.config import ListenAddress  # noqa: PLC0415 - a server and all that it needs, for this command alone
    from felix_py.lab import page  # noqa: PLC0415
    from felix_py.page.gate import Reach  # noqa: PLC0415

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return page.run(LAB, topology, ListenAddress("0.0.0.0", 9099), Reach.ENABLED)  # noqa: S104 - published on loopback


COMMANDS: Mapping[str, Callable[[Topology, Router | Machine], int]] = {
    "run": _run,
    "pods": _pods,
    "ping": _ping,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
