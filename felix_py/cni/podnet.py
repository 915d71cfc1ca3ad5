"""A pod's network made and unmade: the veth, both its ends, and the way out of the pod.

Everything goes over raw netlink (`kernel.links`) instead of pyroute2, whose namespace helper forks a process for each
pod: one millisecond a pod instead of twelve, and 20 MB less in the agent.
"""

import errno
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from felix_py.cni import graves, pod_changes, pod_namespace
from felix_py.cni.pod_changes import Pod, Together
from felix_py.cni.pod_namespace import Place
from felix_py.cni.spec import CniError, Code
from felix_py.kernel import jobs, link_changes, links
from felix_py.kernel.jobs import Done, Job
from felix_py.kernel.link_changes import Change
from felix_py.kernel.links import End, LinkRefused
from felix_py.kernel.objects import KernelRefused

CARRIER_SECONDS, CARRIER_PAUSE = 1.0, 0.0005
"""How long an interface without carrier is waited for at most, and the seconds between two questions."""


def require_namespace(netns: int, path: str) -> None:
    """Refuse a descriptor that is no network namespace, or our own one.

    Raises:
        CniError: naming the path that the runtime gave.
    """
    place = pod_namespace.judge(netns)
    if place is Place.NONE:
        raise CniError(Code.INVALID_NAMESPACE, f"CNI_NETNS is {path}, which is no network namespace")
    if place is Place.OWN:
        raise CniError(Code.INVALID_NAMESPACE, f"CNI_NETNS is {path}, which is the host's own namespace; give a pod's")


@dataclass(frozen=True, slots=True)
class Veth:
    """A pod's veth, of which both ends are down until `open_all`.

    Attributes:
        index: of the host's end.
        inside: index of the other one.
        pod: whose it is.
        others: with whom it is to come up.
    """

    index: int
    inside: int
    pod: Pod
    others: Together | None = None


class _OfThread(threading.local):
    """What each thread keeps for the next pod.

    Attributes:
        sock: in the host's namespace; None after a failure, of which answers might still come.
    """

    sock: socket.socket | None = None


_of_thread = _OfThread()


class Plan(NamedTuple):
    """What is to be done for a pod at first.

    Attributes:
        ends: indexes of the host's end and of the inner one; the kernel may refuse them.
        pair: makes the veth, with these.
        others: with whom its interface is to come up.
    """

    pod: Pod
    ends: tuple[int, int]
    pair: Sequence[Change]
    others: Together | None


def plan(pod: Pod, others: Together | None = None) -> Plan:
    """Return what `make` does for a pod."""
    ends = pod_changes.ends()
    return Plan(pod, ends, pod_changes.pair(pod, others, ends), others)


def make(several: Sequence[Plan]) -> list[Veth | Exception]:
    """Make veths, whose inner ends are in the pods already; nothing passes before `open_all`.

    The host's end is to be guarded while it is down, unless that takes a turn: nobody is heard unguarded then. And what
    the kernel does with an interface that is up and has no carrier yet, each time that it is asked for it or is given a
    place for programs, waits for all processors to pass a point of rest (`dev_deactivate`, net/sched/sch_generic.c).

    Returns:
        of each its veth, or why there is none: CniError where the pod has an interface of that name, LinkRefused with
        the step that the kernel refused; `remove` undoes those before it.
    """
    *before, last = [each.pair for each in several]
    pairs = [*before, links.acknowledged(last)]
    (done,) = _do([links.joined(_kept_socket(), pairs)])
    return [_made(of, refused) for of, refused in zip(several, links.done_each(pairs, done), strict=True)]


def _made(of: Plan, refused: LinkRefused | None) -> Veth | Exception:
    if refused is None:
        return Veth(*of.ends, of.pod, of.others)
    try:
        end = _made_otherwise(of, refused)
    except (CniError, KernelRefused) as again:
        return again
    return Veth(end.index, end.peer, of.pod, of.others)


def _made_otherwise(of: Plan, refused: LinkRefused) -> End:
    """Make a pair that was refused, with indexes that the kernel chooses, and return the host's end.

    What stands in its way and is ours goes before.
    """
    if refused.code not in (errno.EEXIST, errno.EBUSY):
        raise refused
    graves.bury()  # a DEL that was answered just now may have left the pod's end for some milliseconds
    attachment = of.pod.attachment
    pair = links.with_look(pod_changes.pair(of.pod, of.others), attachment.host_interface)
    with links.open_socket() as sock:
        _delete(sock, attachment.host_interface)  # of the sandbox before, whose agent died
        try:
            return links.seen(pair, links.exchange(sock, pair))
        except LinkRefused as again:
            if again.code == errno.EEXIST:
                sentence = (
                    f"{attachment.netns} has an interface {attachment.interface} already; give another CNI_IFNAME"
                )
                raise CniError(Code.INTERFACE_EXISTS, sentence) from again
            raise


def open_all(several: Sequence[Veth]) -> list[Exception | None]:
    """Make what is inside the pods, set both ends of veths up, and wait until packets pass.

    The routes on the host are the agent's. The host's end comes last: then both have a carrier, and a work queue of the
    kernel takes note of it, with which nothing but the last questions has to share its lock.

    Returns:
        of each the step that was refused, as LinkRefused or, of a parameter, KernelRefused; None where it was done.
    """
    sock = _kept_socket()
    networks = [pod_changes.network(each.pod, each.inside) for each in several]
    inside = [pod_changes.inside(each.pod, network) for each, network in zip(several, networks, strict=True)]
    *before, last = [pod_changes.opening(each.index, each.pod.attachment, each.others) for each in several]
    hosts = [*before, links.acknowledged(last)]
    names = [each.pod.attachment.host_interface for each in several]
    *within, here = _do([*inside, *_risen(sock, several), links.joined(sock, hosts, names)])
    found = list[Exception | None]()
    for number, (veth, refused) in enumerate(zip(several, links.done_each(hosts, here), strict=True)):
        try:
            pod_namespace.require_done(inside[number], networks[number], within[number])
            if refused is not None:
                raise refused
            if here.idle or within[number].idle:
                _await_carriers(veth)
            found.append(None)
        except KernelRefused as refusal:
            found.append(refusal)
    return found


def _risen(sock: socket.socket, several: Sequence[Veth]) -> list[Job]:
    """Return what sets hosts' ends up in one go, so that the kernel's work for their carriers comes once for all.

    Only where these are all that were made together: another one is not guarded. What is not up then, for whatever
    reason, each one's own request sets up, or says why it cannot be.
    """
    everybody = {each.others for each in several}
    others = everybody.pop() if len(everybody) == 1 else None
    if others is None or others.size != len(several):
        return []
    return [links.joined(sock, [links.acknowledged([link_changes.group_up(others.group)])])]


def _kept_socket() -> socket.socket:
    """Return this thread's socket in the host's namespace."""
    if _of_thread.sock is None:
        _of_thread.sock = links.open_socket()
    return _of_thread.sock


def _do(asked: Sequence[Job]) -> list[Done]:
    """Do jobs; where not all answers have come, the next pod must not read them: it gets another socket."""
    kept, _of_thread.sock = _of_thread.sock, None
    done = jobs.do(asked)
    if kept is not None and any(
        each.broken is not None and job.sock is kept for job, each in zip(asked, done, strict=True)
    ):
        kept.close()
        return done
    _of_thread.sock = kept
    return done


def _await_carriers(veth: Veth) -> None:
    """Wait until both ends of a veth carry packets, which is when the kernel has taken note of their carriers.

    It drops what is sent before that. From Linux 6.8 on it catches up when it is asked (linkwatch_sync_dev), so that
    the first look, at the end of `open_all`, sees it already; there is no event that could not have come before.

    Raises:
        LinkRefused: where one of them is gone.
    """
    last = time.monotonic() + CARRIER_SECONDS
    while not _running(*_looked_at(veth)) and time.monotonic() < last:
        time.sleep(CARRIER_PAUSE)


def _looked_at(veth: Veth) -> tuple[End | LinkRefused, End | LinkRefused]:
    """Return the host's end of a veth as it is now, and the inner one."""
    asked, asked_inside = links.with_look([], veth.index), links.with_look([], veth.inside)
    job = pod_namespace.job(veth.pod.netns, asked_inside, {}, {})
    there, here = _do([job, links.joined(_kept_socket(), [asked])])
    (host,), (inner,) = links.seen_each([asked], here), links.seen_each([asked_inside], there)
    return host, inner


def _running(*ends: End | LinkRefused) -> bool:
    for end in ends:
        if isinstance(end, LinkRefused):
            raise end
        if not end.running:
            return False
    return True


def _delete(sock: socket.socket, host_interface: str) -> None:
    try:
        links.carry_out(sock, [link_changes.delete(host_interface)])
    except LinkRefused as refusal:
        if refusal.code != errno.ENODEV:
            raise
