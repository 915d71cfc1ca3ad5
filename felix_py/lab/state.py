"""Where a lab lives in the file system, who holds it, and what it takes from the host and gives back."""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import yaml

from felix_py.lab import document, interrupts, namespaces
from felix_py.lab.topology import Topology
from felix_py.model import Fault, Invalid

HOME = Path("/run/felix-lab")
"""One folder for each lab, by its name; felixctl's `--node` looks here too."""

DEFAULT_NAME = "lab"
LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
"""No hyphen: it ends the lab's name in the names of namespaces."""

NODE_MOUNTS = {"etc": "/etc/felix", "run": "/run/felix", "lib": "/var/lib/felix"}
"""Folder of a node in the lab: where the node sees it."""

ROUTER_MOUNTS = {"run": "/run/bird"}
"""Same of a router; `birdc` looks there by itself."""

FRR_MOUNTS = {"run": "/run/frr", "etc": "/etc/frr"}
"""Same of a route reflector that runs FRR; `vtysh` looks there by itself. The package brings /etc/frr."""


class Refused(Exception):  # noqa: N818 - named for what happened: the command was not carried out
    """What was asked cannot be done as things are; the sentence says why and what to do."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab by its name; whether it exists is another question."""

    name: str

    @property
    def directory(self) -> Path:
        """Everything that the lab keeps."""
        return HOME / self.name

    @property
    def prefix(self) -> str:
        """How the names of its network namespaces begin."""
        return f"felix-{self.name}-"

    def namespace(self, name: str) -> str:
        """Return the network namespace of a machine, network or pod."""
        return self.prefix + name

    def of_node(self, name: str) -> Path:
        """Return a node's folder."""
        return self.directory / "nodes" / name

    def of_router(self, name: str) -> Path:
        """Return a router's folder."""
        return self.directory / "routers" / name

    def supervised(self, name: str) -> Path | None:
        """Return the folder of a machine that has a supervisor, node or router; None for others."""
        return next((path for path in (self.of_node(name), self.of_router(name)) if path.is_dir()), None)

    @property
    def exists(self) -> bool:
        """Say whether it is up, or was left half-way."""
        return (self.directory / "topology.yaml").exists() or bool(namespaces.named(self.prefix))

    def topology(self) -> Topology:
        """Return what the lab was built from.

        Raises:
            Refused: when no such lab is up.
        """
        try:
            return read_topology(self.directory / "topology.yaml")
        except FileNotFoundError:
            raise Refused(f"no lab named {self.name} is up; `felix-lab up` starts one", status=2) from None

    def pod_addresses(self, version: int = 4) -> dict[str, str]:
        """Return the address of this version of IP of each attached pod that has one, as the plugin answered."""
        found: dict[str, str] = {}
        for path in sorted((self.directory / "pods").glob("*.json")):
            answer: dict[str, Any] = json.loads(path.read_text())
            for address in (ip_interface(each["address"]).ip for each in answer["ips"]):
                if address.version == version:
                    found[path.stem] = str(address)
        return found


def lab(name: str) -> Lab:
    """Return the lab of that name.

    Raises:
        Refused: when it is no name for a lab.
    """
    if not LAB_NAME.fullmatch(name):
        raise Refused(f"--name is {name!r}; give 1 to 16 of a-z and 0-9, a letter first", status=2)
    return Lab(name)


def read_topology(path: Path) -> Topology:
    """Read a topology file.

    Raises:
        Invalid: with every fault of it.
        FileNotFoundError: when there is none.
    """
    try:
        parsed = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(Fault(str(path), "", f"cannot be read: {' '.join(str(error).split())}")) from error
    return document.parse(parsed, str(path))


@contextmanager
def held(path: Path, sentence: str | None) -> Iterator[None]:
    """Hold a lock file, which may be deleted meanwhile by whoever holds it.

    Args:
        path: made where it is missing, with its folder.
        sentence: what to refuse with when somebody else holds it; None waits instead.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # the folder was removed between the two calls
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if sentence else 0))
            current = path.stat().st_ino
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise Refused(f"{sentence} (process {holder})", status=2) from None
        except FileNotFoundError:
            current = None  # the one who held it removed it
        if current == os.fstat(descriptor).st_ino:
            break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def only_one(lab: Lab) -> Iterator[None]:
    """Hold the lab: one command at a time changes it."""
    with held(lab.directory / "lock", f"another felix-lab command works on the lab named {lab.name} right now"):
        yield


# --- what is taken from the host

SHARED = (*NODE_MOUNTS.values(), *ROUTER_MOUNTS.values(), FRR_MOUNTS["run"], str(namespaces.NETNS))
"""Folders of the host that must exist to be mounted over (in the lab's own mount namespaces), or for `ip netns`."""


def claim_host() -> None:
    """Make the folders that the host lacks, and remember which: the last lab takes them away again."""
    # Who is interrupted with the lock in hand would wait for it, and so for itself, when it is taken down.
    with interrupts.held(), held(HOME / ".lock", None):
        record = HOME / ".made"
        made = record.read_text().split() if record.exists() else []
        for path in SHARED:
            if not Path(path).exists():
                record.write_text("\n".join([*made, path]))
                made.append(path)
                if path != str(namespaces.NETNS):  # `ip netns add` makes and mounts it
                    Path(path).mkdir()


def release_host() -> None:
    """Remove what was made for labs, once no lab is left; what others use by now stays."""
    if not HOME.is_dir():
        return
    with held(HOME / ".lock", None):
        if any(path.is_dir() for path in HOME.iterdir()):
            return
        record = HOME / ".made"
        for path in record.read_text().split() if record.exists() else []:
            with contextlib.suppress(OSError):  # not empty: somebody else uses it; not there: nothing to remove
                if path == str(namespaces.NETNS) and not any(namespaces.NETNS.iterdir()):
                    namespaces.unmount(path)
                Path(path).rmdir()
        record.unlink(missing_ok=True)
        (HOME / ".lock").unlink()
        with contextlib.suppress(OSError):  # another lab begins this very moment
            HOME.rmdir()


def remove(lab: Lab) -> None:
    """Remove the lab's folder."""
    shutil.rmtree(lab.directory, ignore_errors=True)
