"""A pod's network made and unmade: the veth, both its ends, and the way out of the pod.

Everything goes over raw netlink (`kernel.links`) instead of pyroute2, whose namespace helper forks a process for each
pod: one millisecond a pod instead of twelve, and 20 MB less in the agent.
"""

import errno
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple

from felix_py.calc import endpoints
from felix_py.calc.mtu import MINIMUM6
from felix_py.calc.routes import GATEWAY, GATEWAY6, HOST_MAC
from felix_py.cni import graves, pod_namespace
from felix_py.cni.pod_namespace import Place
from felix_py.cni.request import CniError, Code
from felix_py.kernel import jobs, link_changes, links, ownership
from felix_py.kernel.jobs import Done, Job
from felix_py.kernel.link_changes import Change
from felix_py.kernel.links import LinkRefused
from felix_py.kernel.objects import IPV6, KernelRefused, Route, RouteKey, Scope
from felix_py.ledger import Attachment, note

LOOPBACK = 1
"""Interface index of `lo` in every network namespace."""

DEFAULT, DEFAULT6 = RouteKey(IPv4Network("0.0.0.0/0")), RouteKey(IPv6Network("::/0"))

POD = pod_namespace.files({"net/ipv4/ip_forward": "0"})
"""Parameters of the pod itself, as files: a new namespace may inherit the host's forwarding."""

POD6 = pod_namespace.files(
    {
        # Runtimes switch IPv6 off in the namespaces that they make, for networks that have none.
        "net/ipv6/conf/all/disable_ipv6": "0",
        "net/ipv6/conf/default/disable_ipv6": "0",
        "net/ipv6/conf/lo/disable_ipv6": "0",
        "net/ipv6/conf/all/forwarding": "0",
    }
)
BOTH = {**POD, **POD6}
"""And of a pod with an IPv6 address."""

UP = link_changes.up(LOOPBACK, "lo")

IPV6_ADDRESSES = Path("/proc/net/if_inet6")
"""There unless the kernel was started without IPv6."""

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


class Pod(NamedTuple):
    """Whose network is to be made: the interface of an attachment, in bytes its MTU, and its namespace's descriptor."""

    attachment: Attachment
    mtu: int
    netns: int


class Veth:
    """A pod's veth, of which the host's end is down until `open_all`.

    Attributes:
        index: of the host's end.
        inside: index of the other one.
        pod: a socket in the pod's namespace.
    """

    def __init__(self, index: int, inside: int, pod: socket.socket) -> None:
        self.index = index
        self.inside = inside
        self.pod = pod

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
    inside: int = LOOPBACK + 1


_of_thread = _OfThread()


class Plan(NamedTuple):
    """What is to be done for a pod.

    Attributes:
        inside: the index that its interface will most likely have; where it has another one, nothing is done inside.
        pair: makes the veth, with a look at the host's end.
        network: is done inside the pod.
        jobs: both of them, of which the first one lacks its socket.
    """

    pod: Pod
    inside: int
    pair: Sequence[Change]
    network: Sequence[Change]
    jobs: tuple[Job, Job]


def plan(pod: Pod) -> Plan:
    """Return what `make` does for a pod, in the same thread."""
    inside = _of_thread.inside
    pair, network = _pair(pod), _network(pod, inside)
    return Plan(pod, inside, pair, network, (links.job(None, pair), _inside(pod, network, inside)))


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
        return _entered(of.pod, here)
    return Veth(here.index, of.inside, pod_namespace.opened(of.jobs[1], of.network, network))


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


def _entered(pod: Pod, here: links.End) -> Veth:
    """Set up what is inside a pod, once its index is known."""
    inside = _of_thread.inside = here.peer
    network = _network(pod, inside)
    job = _inside(pod, network)
    return Veth(here.index, inside, pod_namespace.opened(job, network, *_do([job])))


def open_all(several: Sequence[tuple[Veth, Attachment]]) -> list[Exception | None]:
    """Set the hosts' ends of veths up, and wait until packets pass; the routes on the host are the agent's.

    Returns:
        of each LinkRefused with the step that the kernel refused; None where it was done.
    """
    sock, asked = _kept_socket(), list[Job]()
    requests = [
        (links.with_look(_opening(veth.index, attachment), veth.index), links.with_look([], veth.inside))
        for veth, attachment in several
    ]
    for (veth, _), (host, inner) in zip(several, requests, strict=True):
        asked += [links.job(sock, host), links.job(veth.pod, inner, needs=len(asked))]
    done = _do(asked)
    found: list[Exception | None] = []
    for number, ((veth, _), (host, inner)) in enumerate(zip(several, requests, strict=True)):
        try:
            _await_carriers(veth, links.seen_by(host, done[2 * number]), links.seen_by(inner, done[2 * number + 1]))
            found.append(None)
        except LinkRefused as refusal:
            found.append(refusal)
    return found


def _opening(index: int, attachment: Attachment) -> list[Change]:
    """Return what sets the host's end up."""
    host, six = attachment.host_interface, IPV6 in versions(attachment)
    # Without a link-local address the host asks for no neighbour, and its first packet to the pod waits for one.
    own = [link_changes.link_local(index, host, GATEWAY6)] if six else []
    # Stale, not permanent: a pod that gives itself another hardware address is found again.
    near = [link_changes.stale_neighbour(index, host, each, attachment.mac) for each in attachment.addresses]
    delay = link_changes.proxy_delay(index, host, _parameters(ipv6=six).proxy_delay)
    return [link_changes.up(index, host), *own, *near, delay]


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


class _Given(NamedTuple):
    """Parameters of a pod's host side.

    Attributes:
        in_message: by name, those that a message to the interface sets.
        files: of the others.
        proxy_delay: in milliseconds; the file has hundredths of a second (USER_HZ).
    """

    in_message: Mapping[str, int]
    files: Sequence[tuple[str, str]]
    proxy_delay: int


@lru_cache
def _parameters(*, ipv6: bool) -> _Given:
    """Sort the parameters of a pod's host side by how they are set."""
    in_message: dict[str, int] = {}
    by_path = dict(endpoints.of_workload("{device}", ipv6=ipv6))
    delay = int(by_path.pop("net/ipv4/neigh/{device}/proxy_delay")) * 10
    for path in tuple(by_path):
        if path.startswith("net/ipv4/conf/") and (name := path.rpartition("/")[2]) in link_changes.INTERFACE_PARAMETERS:
            in_message[name] = int(by_path.pop(path))
    return _Given(in_message, tuple(pod_namespace.files(by_path).items()), delay)


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


def versions(attachment: Attachment) -> list[int]:
    """Return the versions of IP that a pod has addresses of."""
    return sorted({address.version for address in attachment.addresses})


def _way_out(index: int, inside: str) -> Iterator[Change]:
    # With this entry the first packet leaves without asking for the gateway, whatever proxy_arp says.
    yield link_changes.neighbour(index, inside, GATEWAY, HOST_MAC)
    on_link = Route(device=inside, scope=Scope.LINK, protocol=ownership.BOOT)
    yield link_changes.route(index, RouteKey(IPv4Network(GATEWAY)), on_link)
    yield link_changes.route(index, DEFAULT, Route(via=GATEWAY, device=inside, protocol=ownership.BOOT))


def _way_out6(index: int, inside: str) -> Iterator[Change]:
    # With this entry nothing depends on the link-local address that the host's end has, or is about to have.
    yield link_changes.neighbour(index, inside, GATEWAY6, HOST_MAC)
    # onlink: the pod's own link-local address, which would make the gateway a neighbour, may still be on its way.
    yield link_changes.route(index, DEFAULT6, Route(via=GATEWAY6, device=inside, onlink=True, protocol=ownership.BOOT))


@lru_cache
def _ways_out(version: int, index: int, inside: str) -> tuple[Change, ...]:
    """Return what makes packets leave a pod; nearly every pod's interface has the same name and index."""
    return tuple((_way_out if version == 4 else _way_out6)(index, inside))  # noqa: PLR2004 - IP versions


def _pair(pod: Pod) -> list[Change]:
    """Return what makes a pair, with a look at the host's end."""
    attachment, host = pod.attachment, pod.attachment.host_interface
    six = IPV6 in versions(attachment)
    pair = link_changes.veth(host, HOST_MAC, attachment.interface, attachment.mac, pod.mtu, pod.netns)
    described = link_changes.described(host, note(attachment), _specification(ipv6=six, six=not _is_without_six(pod)))
    return links.with_look([pair, described], host)


def _is_without_six(pod: Pod) -> bool:
    """Say whether neither end of a pod's veth is to have a link-local address of IPv6."""
    # The kernel knows no such mode of an interface that is too small for IPv6, and none at all where it has no IPv6.
    return IPV6 not in versions(pod.attachment) and pod.mtu >= MINIMUM6 and _has_ipv6()


@lru_cache
def _specification(*, ipv6: bool, six: bool) -> bytes:
    return link_changes.specification(_parameters(ipv6=ipv6).in_message, six=six)


@lru_cache
def _has_ipv6() -> bool:
    return IPV6_ADDRESSES.exists()


def _network(pod: Pod, index: int) -> list[Change]:
    """Return what sets the inner end up, which has this index, and the ways out."""
    attachment, interface = pod.attachment, pod.attachment.interface
    return links.acknowledged(
        [
            UP,
            *([link_changes.no_link_local(index, interface)] if _is_without_six(pod) else []),
            link_changes.up(index, interface),
            *(link_changes.address(index, interface, address) for address in attachment.addresses),
            *(change for version in versions(attachment) for change in _ways_out(version, index, interface)),
        ]
    )


def _inside(pod: Pod, network: Sequence[Change], peer: int = 0) -> Job:
    six = IPV6 in versions(pod.attachment)
    here = {path.format(device=pod.attachment.host_interface): value for path, value in _parameters(ipv6=six).files}
    return pod_namespace.job(pod.netns, network, here, BOTH if six else POD, peer)


def _delete(sock: socket.socket, host_interface: str) -> None:
    try:
        links.carry_out(sock, [link_changes.delete(host_interface)])
    except LinkRefused as refusal:
        if refusal.code != errno.ENODEV:
            raise
