"""A pod's network made and unmade: the veth, both its ends, and the way out of the pod.

Everything goes over raw netlink (`kernel.links`) instead of pyroute2, whose namespace helper forks a process for each
pod: one millisecond a pod instead of twelve, and 20 MB less in the agent.
"""

import errno
import socket
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from felix_py.cni import graves, pod_changes, pod_namespace
from felix_py.cni.pod_changes import Pod, Together
from felix_py.cni.pod_namespace import Place
from felix_py.cni.request import CniError, Code
from felix_py.kernel import jobs, link_changes, links
from felix_py.kernel.jobs import Done, Job
from felix_py.kernel.link_changes import Change
from felix_py.kernel.links import LinkRefused
from felix_py.kernel.objects import KernelRefused
from felix_py.ledger import Attachment

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


class Veth:
    """A pod's veth, of which the host's end is down until `open_all`.

    Attributes:
        index: of the host's end.
        inside: index of the other one.
        pod: a socket in the pod's namespace.
        others: with whom it is to come up.
    """

    def __init__(self, index: int, inside: int, pod: socket.socket, others: Together | None = None) -> None:
        self.index = index
        self.inside = inside
        self.pod = pod
        self.others = others

    def close(self) -> None:
        """Leave the pod's namespace; the veth stays."""
        self.pod.close()


class _OfThread(threading.local):
    """What each thread keeps for the next pod.

    Attributes:
        sock: in the host's namespace; None after a failure, of which answers might still come.
        inside: the index that a pod's interface had last; new namespaces are alike.
    """

    sock: socket.socket | None = None
    inside: int = pod_changes.LOOPBACK + 1


_of_thread = _OfThread()


class Plan(NamedTuple):
    """What is to be done for a pod.

    Attributes:
        inside: the index that its interface will most likely have; where it has another one, nothing is done inside.
        pair: makes the veth, with a look at the host's end.
        network: is done inside the pod.
        jobs: both of them, of which the first one lacks its socket.
        others: with whom its interface is to come up.
    """

    pod: Pod
    inside: int
    pair: Sequence[Change]
    network: Sequence[Change]
    jobs: tuple[Job, Job]
    others: Together | None


def plan(pod: Pod, others: Together | None = None) -> Plan:
    """Return what `make` does for a pod, in the same thread."""
    inside = _of_thread.inside
    pair, network = pod_changes.pair(pod, others), pod_changes.network(pod, inside)
    return Plan(pod, inside, pair, network, (links.job(None, pair), pod_changes.inside(pod, network, inside)), others)


def make(several: Sequence[Plan]) -> list[Veth | Exception]:
    """Make veths and everything inside the pods; nothing passes before `open_all`, and who calls closes them.

    The host's end is to be guarded while it is down, unless that takes a turn: nobody is heard unguarded then. And what
    the kernel does with an interface that is up and has no carrier yet, each time that it is asked for it or is given a
    place for programs, waits for all processors to pass a point of rest (`dev_deactivate`, net/sched/sch_generic.c).

    Returns:
        of each its veth, or why there is none: CniError where the pod has an interface of that name, LinkRefused with
        the step that the kernel refused; `remove` undoes those before it.
    """
    sock, asked = _kept_socket(), list[Job]()
    for each in several:
        pair, network = each.jobs
        asked += [pair._replace(sock=sock), network._replace(needs=len(asked))]
    done = _do(asked)
    found: list[Veth | Exception] = []
    for number, each in enumerate(several):
        try:
            found.append(_made(each, done[2 * number], done[2 * number + 1]))
        except (CniError, KernelRefused) as refusal:
            found.append(refusal)
    return found


def _made(of: Plan, pair: Done, network: Done) -> Veth:
    here = _end(of.pod, of.pair, pair)
    if network.is_in_vain:
        return _entered(of, here)
    return Veth(here.index, of.inside, pod_namespace.opened(of.jobs[1], of.network, network), of.others)


def _end(pod: Pod, pair: Sequence[Change], done: Done) -> links.End:
    """Return the host's end of a pair that was made; what stands in its way and is ours goes first."""
    try:
        return links.seen_by(pair, done)
    except LinkRefused as refusal:
        if refusal.code != errno.EEXIST:
            raise
    graves.bury()  # a DEL that was answered just now may have left the pod's end for some milliseconds
    host, interface = pod.attachment.host_interface, pod.attachment.interface
    with links.open_socket() as sock:
        _delete(sock, host)  # of the sandbox before, whose agent died
        try:
            return links.seen(pair, links.exchange(sock, pair))
        except LinkRefused as refusal:
            if refusal.code == errno.EEXIST:
                sentence = f"{pod.attachment.netns} has an interface {interface} already; give another CNI_IFNAME"
                raise CniError(Code.INTERFACE_EXISTS, sentence) from refusal
            raise


def _entered(of: Plan, here: links.End) -> Veth:
    """Set up what is inside a pod, once its index is known."""
    pod = of.pod
    inside = _of_thread.inside = here.peer
    network = pod_changes.network(pod, inside)
    job = pod_changes.inside(pod, network)
    return Veth(here.index, inside, pod_namespace.opened(job, network, *_do([job])), of.others)


def open_all(several: Sequence[tuple[Veth, Attachment]]) -> list[Exception | None]:
    """Set the hosts' ends of veths up, and wait until packets pass; the routes on the host are the agent's.

    Returns:
        of each LinkRefused with the step that the kernel refused; None where it was done.
    """
    sock, asked = _kept_socket(), list[Job]()
    asked += (rising := _risen(sock, several))
    requests = [
        (pod_changes.opening(veth.index, attachment, veth.others), links.with_look([], veth.inside))
        for veth, attachment in several
    ]
    for (veth, _), (host, inner) in zip(several, requests, strict=True):
        asked += [links.job(sock, host), links.job(veth.pod, inner, needs=len(asked))]
    done = _do(asked)[len(rising) :]
    found: list[Exception | None] = []
    for number, ((veth, _), (host, inner)) in enumerate(zip(several, requests, strict=True)):
        try:
            _await_carriers(veth, links.seen_by(host, done[2 * number]), links.seen_by(inner, done[2 * number + 1]))
            found.append(None)
        except LinkRefused as refusal:
            found.append(refusal)
    return found


def _risen(sock: socket.socket, several: Sequence[tuple[Veth, Attachment]]) -> list[Job]:
    """Return what sets hosts' ends up in one go, so that the kernel's work for their carriers comes once for all.

    Only where these are all that were made together: another one is not guarded. What is not up then, for whatever
    reason, each one's own request sets up, or says why it cannot be.
    """
    everybody = {veth.others for veth, _ in several}
    others = everybody.pop() if len(everybody) == 1 else None
    if others is None or others.size != len(several):
        return []
    return [links.job(sock, links.acknowledged([link_changes.group_up(others.group)]))]


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


def _await_carriers(veth: Veth, here: links.End, inside: links.End) -> None:
    """Wait until both ends of a veth carry packets: the other end brought its carrier, which a work queue sees to.

    The kernel drops what is sent before that. From Linux 6.8 on it catches up when it is asked (linkwatch_sync_dev), so
    that the first look sees it already; there is no event that could not have come before.
    """
    if here.running and inside.running:
        return
    with links.open_socket() as host:
        for sock, end in ((host, here), (veth.pod, inside)):
            _await_carrier(sock, end)


def _await_carrier(sock: socket.socket, end: links.End) -> None:
    last = time.monotonic() + CARRIER_SECONDS
    while not end.running and time.monotonic() < last:
        time.sleep(CARRIER_PAUSE)
        end = links.carry_out_and_look(sock, [], end.index)


def _delete(sock: socket.socket, host_interface: str) -> None:
    try:
        links.carry_out(sock, [link_changes.delete(host_interface)])
    except LinkRefused as refusal:
        if refusal.code != errno.ENODEV:
            raise
