"""The daemons of a lab's route reflectors: BIRD and FRR, each with the very configuration that a real one has."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from felix_py.lab.frr import BGPD, USER, ZEBRA
from felix_py.lab.state import FRR_MOUNTS, ROUTER_MOUNTS, Lab, Refused
from felix_py.lab.topology import Topology


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
        options=("--again=-R",),
    ),
    "frr": Daemon(
        title="FRR",
        package="frr",
        programs=(str(BGPD), str(ZEBRA), "vtysh"),
        mounts=FRR_MOUNTS,
        file="etc/frr.conf",
        command=(sys.executable, "-m", "felix_py.lab.frr"),
        empty=("etc/vtysh.conf",),
        user=USER,
    ),
}
"""By the word that a topology has for it."""


def require(topology: Topology, source: Path, search: str) -> None:
    """Check that the daemons of all route reflectors are installed, and their configurations there.

    Args:
        topology: as read from `source`.
        source: the topology's file, from where the configurations' paths are seen.
        search: where programs are looked for, as PATH.

    Raises:
        Refused: naming what is missing, with the line that installs it, or the path.
    """
    for reflector in topology.reflectors:
        daemon = DAEMONS[reflector.daemon]
        missing = [program for program in daemon.programs if shutil.which(program, path=search) is None]
        if missing:
            raise Refused(f"{', '.join(missing)} not found; install with: apt-get install {daemon.package}")
        path = source.parent / reflector.config
        if not path.is_file():
            raise Refused(f"reflectors.{reflector.name}.config is {reflector.config}, and {path} is no file", status=2)


def write_files(lab: Lab, topology: Topology, source: Path) -> None:
    """Make the folders that the daemons see as their own, with their configurations in them."""
    for reflector in topology.reflectors:
        daemon, directory = DAEMONS[reflector.daemon], lab.of_router(reflector.name)
        for folder in daemon.mounts:
            (directory / folder).mkdir(parents=True)
        shutil.copyfile(source.parent / reflector.config, directory / daemon.file)
        shutil.chown(directory / "run", daemon.user)
        for name in daemon.empty:
            (directory / name).touch()
