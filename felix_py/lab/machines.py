"""The daemons of a lab's machines, and commands run where a machine is: agents, BIRD, pods, a shell."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from felix_py.lab import interrupts, rendering, routing
from felix_py.lab.state import NODE_MOUNTS, Lab, Refused
from felix_py.lab.topology import Topology

SCRIPTS = Path(sysconfig.get_path("scripts"))
"""Where pip put our own programs: the bin folder of the virtual environment, or of the system."""

PACKAGES = {
    "bird": "bird2",
    "birdc": "bird2",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "tcpdump": "tcpdump",
}
"""Programs of others that a lab needs, and the Debian package that has each."""

PATIENCE = 5.0
"""Seconds that a supervisor may be busy before it gets another order all the same."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def path_variable() -> str:
    """Return PATH as it is inside the lab: our programs first, then the system's."""
    return ":".join([str(SCRIPTS), os.environ.get("PATH", SYSTEM_PATH), SYSTEM_PATH])


def program(name: str) -> str:
    """Return the path of one of our own programs.

    Raises:
        Refused: when it is not installed.
    """
    found = shutil.which(name, path=path_variable())
    if found is None:
        raise Refused(f"{name} is not installed beside {sys.executable}; run `make setup`, or `pip install .`")
    return found


def require_programs() -> None:
    """Check that everything is there before anything is made.

    Raises:
        Refused: naming all that is missing, with the line that installs it.
    """
    missing = [name for name in PACKAGES if shutil.which(name, path=path_variable()) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        raise Refused(f"{', '.join(missing)} not found; install with: apt-get install {packages}")
    for name in ("felix-agent", "felix-cni"):
        program(name)


def write_files(lab: Lab, topology: Topology) -> None:
    """Write what the daemons read, and make the folders that they see as their own."""
    resources = lab.directory / "resources"
    resources.mkdir()
    for name, text in rendering.resources(topology).items():
        (resources / name).write_text(text)
    (lab.directory / "hosts").write_text(rendering.hosts(topology))
    (lab.directory / "resolv.conf").touch()
    for node in topology.nodes:
        for folder in NODE_MOUNTS:
            (lab.of_node(node.name) / folder).mkdir(parents=True)
        (lab.of_node(node.name) / "etc" / "resources").mkdir()
        (lab.of_node(node.name) / "etc" / "felix.yaml").write_text(rendering.felix_yaml(topology, node))
    for router in topology.routers:
        routing.write(routing.DAEMONS[router.daemon], lab.of_router(router.name), routing.router_conf(topology, router))
    (lab.directory / "pods").mkdir()
    (lab.directory / "failed").mkdir()


def start_daemons(lab: Lab, topology: Topology) -> None:
    """Start every supervisor; they enter their namespaces and start the daemons by themselves.

    Raises:
        Refused: when one of our programs is missing.
    """
    agent = [program("felix-agent"), "run"]
    started = []
    try:
        for router in topology.routing:
            directory = lab.of_router(router.name)
            daemon = routing.DAEMONS[router.daemon]
            binds = {directory / folder: target for folder, target in daemon.mounts.items()}
            with interrupts.held():
                started.append(_supervise(lab, router.name, directory, binds, daemon.command, *daemon.options))
        for node in topology.nodes:
            directory = lab.of_node(node.name)
            binds = {directory / folder: target for folder, target in NODE_MOUNTS.items()}
            # The datastore of a cluster is one: every node reads the same folder.
            binds[lab.directory / "resources"] = "/etc/felix/resources"
            with interrupts.held():
                started.append(_supervise(lab, node.name, directory, binds, agent))
    except BaseException:  # Ctrl-C, too: whoever was started ends with the one that could not be
        for process in started:
            process.kill()
        raise


def _supervise(
    lab: Lab, name: str, directory: Path, binds: Mapping[Path, str], command: Sequence[str], *options: str
) -> subprocess.Popen[bytes]:
    # Names come from the lab's own file, and nothing waits for a name server: there is none behind tor.
    names = {lab.directory / name: f"/etc/{name}" for name in ("hosts", "resolv.conf") if Path("/etc", name).exists()}
    mounts = [f"--bind={source}:{target}" for source, target in {**binds, **names}.items()]
    words = [sys.executable, "-m", "felix_py.lab.supervisor", name, lab.namespace(name), str(directory), *mounts]
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [*words, *options, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment(),
        )


def environment() -> dict[str, str]:
    """Return what daemons and commands inside the lab find in their environment."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TERM", "HOME", "USER") if name in os.environ}
    return {"PATH": path_variable(), **kept}


# --- where a machine is


def enter(lab: Lab, name: str) -> list[str]:
    """Return the words before a command that put it where a machine, network or pod is.

    Raises:
        Refused: when there is no such thing, or its supervisor is not there.
    """
    topology = lab.topology()
    if name not in topology.names:
        raise Refused(f"{name} is nothing in this lab; there are {', '.join(topology.names)}", status=2)
    directory = lab.supervised(name)
    if directory is None:
        return ["nsenter", f"--net=/run/netns/{lab.namespace(name)}", "--"]
    return ["nsenter", f"--target={supervisor(directory)}", "--mount", "--net", "--uts", "--"]


def supervisor(directory: Path) -> int:
    """Return the process of a machine's supervisor.

    Raises:
        Refused: when it does not run.
    """
    process = _process(directory / "supervisor.pid")
    if process is None or not Path("/proc", str(process)).exists():
        raise Refused(f"the supervisor of {directory.name} does not run; `felix-lab down`, then up again")
    return process


def daemon(directory: Path) -> int | None:
    """Return the process of a machine's daemon; None while it does not run."""
    process = _process(directory / "daemon.pid")
    return process if process is not None and Path("/proc", str(process)).exists() else None


def _process(path: Path) -> int | None:
    try:
        return int(path.read_text() or 0) or None
    except FileNotFoundError:
        return None


def signal_supervisor(directory: Path, *, run: bool) -> None:
    """Let the daemon of a machine run, or kill it and hold it down."""
    process = supervisor(directory)
    # Of two signals that wait, the kernel hands over the lower one first, whichever came first (signal(7)).
    deadline = time.monotonic() + PATIENCE
    while _order_waits(process) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process, signal.SIGUSR2 if run else signal.SIGUSR1)


def _order_waits(process: int) -> bool:
    """Say whether a supervisor has not taken an order yet."""
    orders = 1 << (signal.SIGUSR1 - 1) | 1 << (signal.SIGUSR2 - 1)
    lines = Path("/proc", str(process), "status").read_text().splitlines()
    return any(int(line.split()[1], 16) & orders for line in lines if line.startswith(("SigPnd:", "ShdPnd:")))
