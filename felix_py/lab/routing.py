"""The routing daemons of a lab's routers and route reflectors: how BIRD and FRR are run, and where their files lie."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from felix_py.lab import frr_router, rendering
from felix_py.lab.frr import BGPD, USER, ZEBRA
from felix_py.lab.state import FRR_MOUNTS, ROUTER_MOUNTS, Refused
from felix_py.lab.topology import Router, Topology


@dataclass(frozen=True, slots=True)
class Daemon:
    """How a daemon is run.

    Attributes:
        title: what its users call it.
        package: the Debian package that has it.
        programs: what of the package must be there.
        mounts: folder in the lab, and where the machine sees it.
        file: where the configuration goes, of those folders.
        command: what the supervisor runs, in the machine's own view of files.
        protocol: what the kernel calls the origin of its routes.
        tables: by version of IP, the command that prints the routes that it knows.
        options: of the supervisor.
        empty: further files that have to be there.
        user: whom the folder `run` belongs to.
    """

    title: str
    package: str
    programs: tuple[str, ...]
    mounts: Mapping[str, str]
    file: str
    command: tuple[str, ...]
    protocol: str
    tables: Mapping[int, tuple[str, ...]]
    options: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    user: str = "root"


DAEMONS: Mapping[str, Daemon] = {
    "bird": Daemon(
        title="BIRD",
        package="bird2",
        programs=("bird", "birdc"),
        mounts={**ROUTER_MOUNTS, "etc": "/etc/bird"},
        file="etc/bird.conf",
        command=("bird", "-f", "-c", "/etc/bird/bird.conf", "-P", "/run/bird/bird.pid"),
        protocol="bird",
        tables={version: ("birdc", "show", "route", "table", f"master{version}") for version in (4, 6)},
        # When BIRD starts again, the routes of before stay until every session has spoken (graceful restart).
        options=("--again=-R",),
    ),
    "frr": Daemon(
        title="FRR",
        package="frr",
        programs=(str(BGPD), str(ZEBRA), "vtysh"),
        mounts=FRR_MOUNTS,
        file="etc/frr.conf",
        command=(sys.executable, "-m", "felix_py.lab.frr"),
        protocol="bgp",
        tables={version: ("vtysh", "-c", f"show bgp ipv{version} unicast") for version in (4, 6)},
        empty=("etc/vtysh.conf",),
        user=USER,
    ),
}
"""By the word that a topology has for it."""


def require(topology: Topology, search: str) -> None:
    """Check that the daemons of all routers and route reflectors are installed.

    Args:
        topology: of the lab.
        search: where programs are looked for, as PATH.

    Raises:
        Refused: naming what is missing, with the line that installs it.
    """
    for router in topology.routing:
        daemon = DAEMONS[router.daemon]
        missing = [program for program in daemon.programs if shutil.which(program, path=search) is None]
        if missing:
            raise Refused(f"{', '.join(missing)} not found; install with: apt-get install {daemon.package}")


def router_conf(topology: Topology, router: Router) -> str:
    """Return what a router's daemon reads."""
    return (frr_router.frr_conf if router.daemon == "frr" else rendering.bird_conf)(topology, router)


def write(daemon: Daemon, directory: Path, configuration: str) -> None:
    """Make the folders that a daemon sees as its own, with its configuration in them."""
    for folder in daemon.mounts:
        (directory / folder).mkdir(parents=True, exist_ok=True)
    (directory / daemon.file).write_text(configuration)
    shutil.chown(directory / "run", daemon.user)
    for name in daemon.empty:
        (directory / name).touch()
