"""A pod's network namespace entered and left again: to set parameters there, and to open a socket that stays in it."""

import errno
import socket
from collections.abc import Mapping, Sequence

from felix_py.kernel import links, roundtrip, sysctl
from felix_py.kernel.links import Change, LinkRefused
from felix_py.kernel.objects import KernelRefused
from felix_py.kernel.roundtrip import Broken, Step

CLONE_NEWNET = roundtrip.CLONE_NEWNET

WORDS: Mapping[Step, str] = {
    Step.ENTER: "entering the pod's namespace",
    Step.OPEN: "a socket in the pod's namespace",
    Step.EXCHANGE: "the network in the pod's namespace",
}
"""What was refused, where it was no file."""


def enter(netns: int, interface: str) -> tuple[socket.socket, int]:
    """Return a route socket inside a pod's namespace, and the index of an interface there.

    Args:
        netns: descriptor of the namespace.
        interface: its name in there.

    Raises:
        LinkRefused: where the namespace cannot be entered, or has no such interface.
    """
    try:
        with roundtrip.entered(netns):
            index = _index(interface)
            return links.open_socket(), index
    except Broken as broken:
        raise _refused(broken, {}) from broken


def carry_out(
    netns: int, changes: Sequence[Change], here: Mapping[str, str], there: Mapping[str, str]
) -> socket.socket:
    """Set parameters, and do changes in a pod's namespace.

    Args:
        netns: descriptor of the namespace.
        changes: for `links.carry_out`.
        here: parameters of this namespace, path below /proc/sys to value, which come first.
        there: parameters of the pod's.

    Returns:
        a socket in the namespace.

    Raises:
        LinkRefused: where the namespace cannot be entered, or a change is refused.
        KernelRefused: where a parameter cannot be set.
    """
    requests = links.acknowledged(changes)
    try:
        answers, sock = roundtrip.exchange_inside(
            netns, _files(here), _files(there), links.packed(requests), len(requests) - 1
        )
    except Broken as broken:
        raise _refused(broken, {**here, **there}) from broken
    try:
        links.require_done(requests, answers)
    except LinkRefused:
        sock.close()
        raise
    return sock


def _files(parameters: Mapping[str, str]) -> dict[str, str]:
    return {f"{sysctl.ROOT}/{path}": value for path, value in parameters.items()}


def _refused(broken: Broken, parameters: Mapping[str, str]) -> KernelRefused:
    if broken.path:
        path = broken.path.removeprefix(f"{sysctl.ROOT}/")
        return sysctl.refused(path, parameters[path], broken.error)
    code = broken.error.errno or errno.EIO
    return LinkRefused(f"{WORDS[broken.step]} was refused: {broken.error.strerror}", code)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise LinkRefused(f"{interface} does not exist in the pod", errno.ENODEV) from error
