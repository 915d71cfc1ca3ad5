"""A pod's network made and unmade: the veth, both its ends, and the way out of the pod.

Everything goes over raw netlink (`kernel.links`) instead of pyroute2, whose namespace helper forks a process for each
pod: one millisecond a pod instead of twelve, and 20 MB less in the agent.
"""

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from felix_py.calc import endpoints
from felix_py.calc.routes import GATEWAY, GATEWAY6, HOST_MAC
from felix_py.cni import graves, pod_namespace
from felix_py.cni.pod_namespace import CLONE_NEWNET
from felix_py.cni.request import CniError, Code
from felix_py.cni.results import GATEWAYS
from felix_py.kernel import links, ownership, sysctl
from felix_py.kernel.links import Change, LinkRefused
from felix_py.kernel.objects import IPV6, KernelRefused, PodLink, Route, RouteKey, Scope
from felix_py.ledger import Attachment, note

NS_GET_NSTYPE = 0xB703
"""ioctl that answers which kind of namespace a descriptor is, include/uapi/linux/nsfs.h."""

LOOPBACK = 1
"""Interface index of `lo` in every network namespace."""

OWN_NAMESPACE = "/proc/self/ns/net"

DEFAULT, DEFAULT6 = RouteKey(IPv4Network("0.0.0.0/0")), RouteKey(IPv6Network("::/0"))

POD: Mapping[str, str] = {"net/ipv4/ip_forward": "0"}
"""Parameters of the pod itself, path below /proc/sys to value: a new namespace may inherit the host's forwarding."""

POD6: Mapping[str, str] = {
    # Runtimes switch IPv6 off in the namespaces that they make, for networks that have none.
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/lo/disable_ipv6": "0",
    "net/ipv6/conf/all/forwarding": "0",
}
"""And of a pod with an IPv6 address."""

CARRIER_SECONDS, CARRIER_PAUSE = 1.0, 0.0005
"""How long an interface without carrier is waited for at most, and the seconds between two questions."""


_of_thread = threading.local()


def require_namespace(netns: int, path: str) -> None:
    """Refuse a descriptor that is no network namespace, or our own one.

    Raises:
        CniError: naming the path that the runtime gave.
    """
    try:
        kind = fcntl.ioctl(netns, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        raise CniError(Code.INVALID_NAMESPACE, f"CNI_NETNS is {path}, which is no network namespace")
    own, given = os.stat(OWN_NAMESPACE), os.fstat(netns)  # noqa: PTH116 - each pod asks
    if (own.st_dev, own.st_ino) == (given.st_dev, given.st_ino):
        raise CniError(Code.INVALID_NAMESPACE, f"CNI_NETNS is {path}, which is the host's own namespace; give a pod's")


class Veth:
    """A pod's veth, of which the host's end is down until `open`.

    Attributes:
        index: of the host's end.
    """

    def __init__(self, index: int, inside: int, pod: socket.socket) -> None:
        self.index = index
        self._inside = inside
        self._pod = pod

    def close(self) -> None:
        """Leave the pod's namespace; the veth stays."""
        self._pod.close()

    def open(self, attachment: Attachment) -> None:
        """Set the host's end up, and wait until packets pass; the route on the host is the agent's.

        Raises:
            LinkRefused: with the step that the kernel refused.
        """
        host, six = attachment.host_interface, IPV6 in _versions(attachment)
        # Without a link-local address the host asks for no neighbour, and its first packet to the pod waits for one.
        own = [links.link_local(self.index, host, GATEWAY6)] if six else []
        # Stale, not permanent: a pod that gives itself another hardware address is found again.
        near = [links.stale_neighbour(self.index, host, each, attachment.mac) for each in attachment.addresses]
        delay = links.proxy_delay(self.index, host, _parameters(ipv6=six).proxy_delay)
        with _kept_socket() as sock:
            changes = [links.up(self.index, host), *own, *near, delay]
            _await_carrier(sock, links.carry_out_and_look(sock, changes, self.index))
        _await_carrier(self._pod, links.carry_out_and_look(self._pod, [], self._inside))


def make(attachment: Attachment, mtu: int, netns: int) -> Veth:
    """Make the veth and everything inside the pod; nothing passes before `Veth.open`, and who calls closes it.

    The host's end is to be guarded while it is down, unless that takes a turn: nobody is heard unguarded then. And what
    the kernel does with an interface that is up and has no carrier yet, each time that it is asked for it or is given a
    place for programs, waits for all processors to pass a point of rest (`dev_deactivate`, net/sched/sch_generic.c).

    Raises:
        CniError: where the pod has an interface of that name.
        LinkRefused: with the step that the kernel refused; `remove` undoes those before it.
    """
    host, inside, versions = attachment.host_interface, attachment.interface, _versions(attachment)
    given = _parameters(ipv6=IPV6 in versions)
    with _kept_socket() as sock:
        here = _make(sock, attachment, mtu, netns, given.in_message)
        peer = here.peer
        changes = [
            links.up(LOOPBACK, "lo"),
            links.up(peer, inside),
            *(links.address(peer, inside, address) for address in attachment.addresses),
            *(change for version in versions for change in _ways_out(version, peer, inside)),
        ]
        pod = pod_namespace.carry_out(
            netns,
            changes,
            {path.format(device=host): value for path, value in given.by_path},
            {**POD, **POD6} if IPV6 in versions else POD,
        )
    return Veth(here.index, peer, pod)


@contextmanager
def _kept_socket() -> Iterator[socket.socket]:
    """Give this thread's socket in the host's namespace; a new one after a failure, of which answers may still come."""
    kept = getattr(_of_thread, "sock", None) or links.open_socket()
    _of_thread.sock = None
    try:
        yield kept
    except BaseException:  # whatever it was, also a stop: the next pod must not read the answers of this one
        kept.close()
        raise
    _of_thread.sock = kept


class _Given(NamedTuple):
    """Parameters of a pod's host side.

    Attributes:
        in_message: by name, those that a message to the interface sets.
        by_path: the others, of which each has a file.
        proxy_delay: in milliseconds; the file has hundredths of a second (USER_HZ).
    """

    in_message: Mapping[str, int]
    by_path: Sequence[tuple[str, str]]
    proxy_delay: int


@lru_cache
def _parameters(*, ipv6: bool) -> _Given:
    """Sort the parameters of a pod's host side by how they are set."""
    in_message: dict[str, int] = {}
    by_path = dict(endpoints.of_workload("{device}", ipv6=ipv6))
    delay = int(by_path.pop("net/ipv4/neigh/{device}/proxy_delay")) * 10
    for path in tuple(by_path):
        if path.startswith("net/ipv4/conf/") and (name := path.rpartition("/")[2]) in links.INTERFACE_PARAMETERS:
            in_message[name] = int(by_path.pop(path))
    return _Given(in_message, tuple(by_path.items()), delay)


def _await_carrier(sock: socket.socket, end: links.End) -> None:
    """Wait until one end of a veth carries packets: the other end brought its carrier, which a work queue sees to.

    The kernel drops what is sent before that. From Linux 6.8 on it catches up when it is asked (linkwatch_sync_dev), so
    that the first look sees it already; there is no event that could not have come before.
    """
    last = time.monotonic() + CARRIER_SECONDS
    while not end.running and time.monotonic() < last:
        time.sleep(CARRIER_PAUSE)
        end = links.carry_out_and_look(sock, [], end.index)


def _versions(attachment: Attachment) -> list[int]:
    """Return the versions of IP that a pod has addresses of."""
    return sorted({address.version for address in attachment.addresses})


def _way_out(index: int, inside: str) -> Iterator[Change]:
    # With this entry the first packet leaves without asking for the gateway, whatever proxy_arp says.
    yield links.neighbour(index, inside, GATEWAY, HOST_MAC)
    on_link = Route(device=inside, scope=Scope.LINK, protocol=ownership.BOOT)
    yield links.route(index, RouteKey(IPv4Network(GATEWAY)), on_link)
    yield links.route(index, DEFAULT, Route(via=GATEWAY, device=inside, protocol=ownership.BOOT))


def _way_out6(index: int, inside: str) -> Iterator[Change]:
    # With this entry nothing depends on the link-local address that the host's end has, or is about to have.
    yield links.neighbour(index, inside, GATEWAY6, HOST_MAC)
    # onlink: the pod's own link-local address, which would make the gateway a neighbour, may still be on its way.
    yield links.route(index, DEFAULT6, Route(via=GATEWAY6, device=inside, onlink=True, protocol=ownership.BOOT))


@lru_cache
def _ways_out(version: int, index: int, inside: str) -> tuple[Change, ...]:
    """Return what makes packets leave a pod; nearly every pod's interface has the same name and index."""
    return tuple((_way_out if version == 4 else _way_out6)(index, inside))  # noqa: PLR2004 - IP versions


def _make(
    sock: socket.socket, attachment: Attachment, mtu: int, netns: int, parameters: Mapping[str, int]
) -> links.End:
    host, inside = attachment.host_interface, attachment.interface
    pair = links.veth(host, HOST_MAC, inside, attachment.mac, mtu, netns)
    try:
        return _make_pair(sock, host, [pair, links.described(host, note(attachment), parameters)])
    except LinkRefused as refusal:
        if refusal.code == errno.EEXIST:
            sentence = f"{attachment.netns} has an interface {inside} already; give another CNI_IFNAME"
            raise CniError(Code.INTERFACE_EXISTS, sentence) from refusal
        raise


def _make_pair(sock: socket.socket, host: str, changes: Sequence[Change]) -> links.End:
    """Make a veth, which is the first of these changes; what stands in its way and is ours goes first."""
    try:
        return links.carry_out_and_look(sock, changes, host)
    except LinkRefused as refusal:
        if refusal.code != errno.EEXIST:
            raise
        graves.bury()  # a DEL that was answered just now may have left the pod's end for some milliseconds
        _delete(sock, host)  # of the sandbox before, whose agent died
        return links.carry_out_and_look(sock, changes, host)


def resize(host_interface: str, link: PodLink) -> None:
    """Give both ends of a pod's veth another MTU. Where somebody has made the pod's end smaller than that, it stays.

    Raises:
        KernelRefused: where the pod's namespace cannot be entered, or the kernel does not let us.
    """
    with _end(links.open_socket(), host_interface) as host, _pod_end(link) as pod:
        if (pod.seen.index, pod.seen.peer) != (host.seen.peer, host.seen.index):
            raise KernelRefused(f"{link.inside} in {link.netns} is not the other end of {host_interface}")
        # A veth drops what exceeds the receiving end. So what pods send shrinks first and grows last: what comes in
        # large has passed the uplink, and that has shrunk already.
        for end in (pod, host) if link.mtu < host.seen.mtu else (host, pod):
            if end is host or end.seen.mtu == host.seen.mtu or end.seen.mtu > link.mtu:
                links.carry_out(end.sock, [links.resize(end.seen.index, end.seen.name, link.mtu)])


class _End(NamedTuple):
    """One end of a veth, and a socket in its namespace."""

    sock: socket.socket
    seen: links.Seen


@contextmanager
def _end(sock: socket.socket, name: str) -> Iterator[_End]:
    with sock:
        found = links.read(sock, name)
        if found is None:
            raise KernelRefused(f"{name} does not exist")
        yield _End(sock, found)


def _pod_end(link: PodLink) -> AbstractContextManager[_End]:
    remedy = "restart the pod, to be given the new one"
    try:
        netns = os.open(link.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _end(pod_namespace.enter(netns, link.inside)[0], link.inside)
        finally:
            os.close(netns)
    except OSError as error:
        raise KernelRefused(f"{link.netns} cannot be entered ({error.strerror}); {remedy}") from error
    except LinkRefused as refusal:
        raise KernelRefused(f"{link.netns} cannot be entered ({refusal}); {remedy}") from refusal


def _delete(sock: socket.socket, host_interface: str) -> None:
    try:
        links.carry_out(sock, [links.delete(host_interface)])
    except LinkRefused as refusal:
        if refusal.code != errno.ENODEV:
            raise


def missing(attachment: Attachment, netns: int) -> str | None:
    """Say what of a pod's network is not there any more; None when all of it is. Additions of others are no fault."""
    with links.open_socket() as sock:
        host = next((link for link in links.listing(sock) if link.name == attachment.host_interface), None)
    if host is None or not host.up:
        return f"{attachment.host_interface} {'is down' if host else 'does not exist'}"
    versions = _versions(attachment)
    wanted = dict(endpoints.of_workload(host.name, ipv6=IPV6 in versions))
    for path, value in sysctl.read(wanted).items():
        if value != wanted[path]:
            return f"{path} is {value} and must be {wanted[path]}"
    try:
        pod, index = pod_namespace.enter(netns, attachment.interface)
    except LinkRefused as refusal:
        return str(refusal)
    with pod:
        found = links.addresses(pod, index)
        gone = [str(each) for each in attachment.addresses if f"{each}/{each.max_prefixlen}" not in found]
        if gone:
            return f"{attachment.interface} lacks address {', '.join(gone)}"
        lost = (version for version in versions if not links.has_default_route(pod, index, version))
        return next((f"the pod has no default route by {GATEWAYS[version]}" for version in lost), None)
