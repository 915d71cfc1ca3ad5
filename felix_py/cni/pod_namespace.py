"""A pod's network namespace entered and left again: to set parameters there, and to change what is in it."""

import errno
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from felix_py.kernel import jobs, links, sysctl
from felix_py.kernel.jobs import Broken, Done, Job, Step
from felix_py.kernel.link_changes import Change
from felix_py.kernel.links import LinkRefused
from felix_py.kernel.objects import KernelRefused
from felix_py.kernel.roundtrip import FUNCTIONS, Library

CLONE_NEWNET = jobs.CLONE_NEWNET

NS_GET_NSTYPE = 0xB703
"""ioctl that answers which kind of namespace a descriptor is, include/uapi/linux/nsfs.h."""

OWN_NAMESPACE = "/proc/self/ns/net"

Files = Mapping[str, str]
"""Path and content of each."""

WORDS: Mapping[Step, str] = {
    Step.ENTER: "entering the pod's namespace",
    Step.OPEN: "a socket in the pod's namespace",
    Step.EXCHANGE: "the network in the pod's namespace",
}
"""What was refused, where it was no file."""


class Place(IntEnum):
    """What the descriptor of a namespace is; exchange.c has the same numbers."""

    ANOTHER = 0
    OWN = 1
    NONE = 2


def judge(netns: int, functions: Library | None = FUNCTIONS) -> Place:
    """Say whether a descriptor is another network namespace than that of this process, its own, or none at all."""
    if functions is not None:
        return Place(functions.judge_namespace(netns))
    try:
        kind = fcntl.ioctl(netns, NS_GET_NSTYPE)
    except OSError:
        return Place.NONE
    if kind != CLONE_NEWNET:
        return Place.NONE
    own, given = Path(OWN_NAMESPACE).stat(), os.fstat(netns)
    return Place.OWN if (own.st_dev, own.st_ino) == (given.st_dev, given.st_ino) else Place.ANOTHER


def enter(netns: int, interface: str) -> tuple[socket.socket, int]:
    """Return a route socket inside a pod's namespace, and the index of an interface there.

    Args:
        netns: descriptor of the namespace.
        interface: its name in there.

    Raises:
        LinkRefused: where the namespace cannot be entered, or has no such interface.
    """
    try:
        with jobs.entered(netns):
            index = _index(interface)
            return links.open_socket(), index
    except Broken as broken:
        raise _refused(broken, {}) from broken


def job(netns: int, requests: Sequence[Change], here: Files, there: Files, devices: Sequence[str] = ()) -> Job:
    """Return what sets parameters, and does changes in a pod's namespace; for `jobs.do`, and then `require_done`.

    Args:
        netns: descriptor of the namespace.
        requests: changes, of which the last one is answered.
        here: parameters of this namespace, which come first.
        there: parameters of the pod's.
        devices: as `Job` has them.
    """
    return Job(links.packed(requests), len(requests) - 1, None, netns, here, there, devices)


def require_done(asked: Job, requests: Sequence[Change], done: Done) -> None:
    """Refuse such a job that did not come to its end.

    Raises:
        LinkRefused: where the namespace could not be entered, or a change was refused.
        KernelRefused: where a parameter could not be set.
    """
    if done.broken is not None:
        raise _refused(done.broken, {**asked.here, **asked.there}) from done.broken
    if not done.is_well:
        links.require_done(requests, done.answers)
        raise LinkRefused(links.CUT_SHORT, errno.EPROTO)


def files(parameters: Mapping[str, str]) -> Files:
    """Return the files of parameters, of which each is a path below /proc/sys and a value."""
    return {f"{sysctl.ROOT}/{path}": value for path, value in parameters.items()}


def _refused(broken: Broken, files: Files) -> KernelRefused:
    if broken.path:
        path, value = broken.path.removeprefix(f"{sysctl.ROOT}/"), files[broken.path]
        return sysctl.refused(path, value, broken.error)
    code = broken.error.errno or errno.EIO
    return LinkRefused(f"{WORDS[broken.step]} was refused: {broken.error.strerror}", code)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise LinkRefused(f"{interface} does not exist in the pod", errno.ENODEV) from error
