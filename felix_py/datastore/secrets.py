"""Passwords that resources refer to: read from files that others cannot read, watched, and never shown."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog
from asyncinotify import Inotify, Mask

from felix_py.contradictions import Placed
from felix_py.model import BGPConfiguration, BGPPeer, Key, Resource, Secret
from felix_py.state import Absent, Event, Present

DIRECTORY = Path("/etc/felix/secrets")
"""Where Secrets are: a directory for each, with a file for each key, as Kubernetes mounts them."""

CHANGES = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.CREATE | Mask.ATTRIB
"""ATTRIB, since a password that was open to others may be read once its mode is changed."""

log = structlog.get_logger()

LONGEST = 80
"""Octets of a TCP MD5 password that Linux takes (TCP_MD5SIG_MAXKEYLEN in linux/tcp.h)."""

PERMITTED = stat.S_IRWXU | stat.S_IRGRP
"""Modes that a file with a password may have: nothing for others."""


def referred(resources: Iterable[Resource]) -> frozenset[str]:
    """Return the names of all passwords that resources refer to."""
    named = (
        each.password if isinstance(each, BGPPeer) else each.mesh_password
        for each in resources
        if isinstance(each, BGPPeer | BGPConfiguration)
    )
    return frozenset(name for name in named if name is not None)


def place(name: str, directory: Path) -> Path:
    """Return the file of a password: NAME/KEY lies in the directory, an absolute path where it says."""
    return directory / name


def read(name: str, directory: Path) -> Secret:
    """Read a password; what is wrong with it is said in the value."""
    path = place(name, directory)
    try:
        return Secret(name, _contents(path))
    except FileNotFoundError:
        return Secret(name, problem=f"{path} does not exist; write the password into it, with mode 0600")
    except OSError as error:
        return Secret(name, problem=f"{path} cannot be read: {error.strerror}")
    except ValueError as refusal:
        return Secret(name, problem=str(refusal))


def _contents(path: Path) -> str:
    """Return what stands in the file, without the line end that editors leave.

    Raises:
        ValueError: with the sentence that says what to do.
    """
    # Not blocking: a pipe in this place must not stop the agent.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file; give a file with the password")
        mode = stat.S_IMODE(status.st_mode)
        if mode & ~PERMITTED:
            raise ValueError(
                f"{path} is open to others (mode {mode:04o}); run `chmod 0600 {path}` "
                "(in Kubernetes, give the volume defaultMode: 0400), and change the password"
            )
        contents = os.read(descriptor, LONGEST + len("\r\n") + 1)
    finally:
        os.close(descriptor)
    password = contents.removesuffix(b"\n").removesuffix(b"\r")
    if not password:
        raise ValueError(f"{path} is empty; write the password into it")
    if len(password) > LONGEST:
        raise ValueError(f"{path} is longer than {LONGEST} octets, which is the most that TCP MD5 takes")
    try:
        return password.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8; write the password as text") from error


def folders(names: Iterable[str], directory: Path) -> Iterator[Path]:
    """Yield the folders in which something changes when one of these passwords does, or when it appears."""
    for name in sorted(names):
        for folder in place(name, directory).parents:
            yield folder
            if folder.is_dir():
                break


class Passwords:
    """The passwords that resources refer to, each as it was found last."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._found: dict[str, Secret] = {}

    def look(self, inotify: Inotify, resources: Placed) -> Iterator[Event]:
        """Read those that resources refer to now; they are watched first, so that no change falls in between."""
        names = referred(value for _, value in resources.values())
        for folder in folders(names, self._directory):
            with contextlib.suppress(OSError):  # it is not there, or gone since: the folder around it is watched, too
                inotify.add_watch(folder, CHANGES)
        before, self._found = self._found, {name: read(name, self._directory) for name in names}
        for name, secret in self._found.items():
            if before.get(name) != secret:
                yield Present(Key("Secret", name), secret)
                if secret.problem is not None:
                    log.error("datastore.fault", fault=secret.problem)
        for name in before:
            if name not in names:
                yield Absent(Key("Secret", name))
