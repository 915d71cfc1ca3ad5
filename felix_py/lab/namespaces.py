"""Network and mount namespaces by the system calls themselves: entered, made, and seen in /proc."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETNS = Path("/run/netns")
"""Where `ip netns` keeps its names."""

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x00020000, 0x04000000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000
MNT_DETACH = 2
"""include/uapi/linux/sched.h and mount.h; Python has os.setns and os.unshare only from 3.12 on."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def setns(descriptor: int, kind: int) -> None:
    """Put the calling thread into the namespace that a descriptor stands for."""
    _check(_libc.setns(descriptor, kind), "setns")


def unshare(kinds: int) -> None:
    """Give the calling process namespaces of its own."""
    _check(_libc.unshare(kinds), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    """Mount something; the arguments are those of the system call."""
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), None),
        f"mount {source} on {target}",
    )


def unmount(target: str, flags: int = 0) -> None:
    """Unmount as umount2(2) does."""
    _check(_libc.umount2(target.encode(), flags), f"unmount {target}")


def sethostname(name: str) -> None:
    """Name the host of this UTS namespace."""
    _check(_libc.sethostname(name.encode(), len(name)), "sethostname")


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a named network namespace for a while; sockets opened meanwhile stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def named(prefix: str) -> tuple[str, ...]:
    """Return the names of network namespaces that begin so."""
    if not NETNS.is_dir():
        return ()
    return tuple(sorted(path.name for path in NETNS.iterdir() if path.name.startswith(prefix)))


def processes(namespaces: tuple[str, ...]) -> dict[int, str]:
    """Return each process that lives in one of these network namespaces, with the namespace's name."""
    identities = {}
    for name in namespaces:
        status = (NETNS / name).stat()
        identities[status.st_dev, status.st_ino] = name
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            status = (process / "ns" / "net").stat()
        except OSError:
            continue  # it ended while we looked, or is none of ours to see
        if (status.st_dev, status.st_ino) in identities:
            found[int(process.name)] = identities[status.st_dev, status.st_ino]
    return found
