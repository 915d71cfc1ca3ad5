"""A lab's route reflectors: each runs the very configuration that a real one has, from a file beside the topology's."""

from pathlib import Path

from felix_py.lab import routing
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Topology


def require(topology: Topology, source: Path) -> None:
    """Check that the configurations of all route reflectors are there.

    Args:
        topology: as read from `source`.
        source: the topology's file, from where the configurations' paths are seen.

    Raises:
        Refused: naming the path.
    """
    for reflector in topology.reflectors:
        path = source.parent / reflector.config
        if not path.is_file():
            raise Refused(f"reflectors.{reflector.name}.config is {reflector.config}, and {path} is no file", status=2)


def write_files(lab: Lab, topology: Topology, source: Path) -> None:
    """Make the folders that the daemons see as their own, with their configurations in them."""
    for reflector in topology.reflectors:
        text = (source.parent / reflector.config).read_text()
        routing.write(routing.DAEMONS[reflector.daemon], lab.of_router(reflector.name), text)
