"""A pod's network namespace entered and left again: to set parameters there, and to open a socket that stays in it."""

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from felix_py.kernel import links, sysctl
from felix_py.kernel.links import LinkRefused

CLONE_NEWNET = 0x40000000
OWN_NAMESPACE = "/proc/thread-self/ns/net"

NOTHING: Mapping[str, str] = {}
"""No parameter is set."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter(netns: int, interface: str, parameters: Mapping[str, str] = NOTHING) -> tuple[socket.socket, int]:
    """Return a route socket inside a pod's namespace, and the index of an interface there.

    Args:
        netns: descriptor of the namespace.
        interface: its name in there.
        parameters: to be set there on the way, path below /proc/sys to value.

    Raises:
        LinkRefused: where the namespace cannot be entered, or has no such interface.
        KernelRefused: where a parameter cannot be set.
    """
    with _inside(netns):
        for path, value in parameters.items():
            sysctl.write(path, value)
        index = _index(interface)
        return links.open_socket(), index


@contextmanager
def _inside(netns: int) -> Iterator[None]:
    """Have this thread in a namespace for a moment: a thread of its own for each pod would take as long as the veth."""
    home = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_namespace(netns)
        try:
            yield
        finally:
            _go_home(home)
    finally:
        os.close(home)


def _go_home(home: int) -> None:
    try:
        set_namespace(home)
    except LinkRefused:
        # Only without memory. What this thread did next, it would do to the pod: better no agent, and then a new one,
        # which finds everything as after any other kill.
        os.kill(os.getpid(), signal.SIGKILL)


def set_namespace(netns: int) -> None:
    """Move this thread; `os.setns` came with Python 3.12.

    Raises:
        LinkRefused: it stays where it was.
    """
    if _libc.setns(netns, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise LinkRefused(f"entering the pod's namespace was refused: {os.strerror(code)}", code)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise LinkRefused(f"{interface} does not exist in the pod", errno.ENODEV) from error
