"""Both ends of a pod's veth later on: whether all of it is still there, and another MTU for it."""

import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from felix_py.calc import endpoints
from felix_py.cni import pod_changes, pod_namespace
from felix_py.cni.results import GATEWAYS
from felix_py.kernel import link_changes, links, sysctl
from felix_py.kernel.links import LinkRefused
from felix_py.kernel.objects import IPV6, KernelRefused, PodLink
from felix_py.ledger import Attachment


def missing(attachment: Attachment, netns: int) -> str | None:
    """Say what of a pod's network is not there any more; None when all of it is. Additions of others are no fault."""
    with links.open_socket() as sock:
        host = next((link for link in links.listing(sock) if link.name == attachment.host_interface), None)
    if host is None or not host.up:
        return f"{attachment.host_interface} {'is down' if host else 'does not exist'}"
    of = pod_changes.versions(attachment)
    wanted = dict(endpoints.of_workload(host.name, ipv6=IPV6 in of))
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
        lost = (version for version in of if not links.has_default_route(pod, index, version))
        return next((f"the pod has no default route by {GATEWAYS[version]}" for version in lost), None)


def resize(host_interface: str, link: PodLink) -> None:
    """Give both ends of a pod's veth another MTU. Where somebody has made the pod's end smaller than that, it stays.

    Raises:
        KernelRefused: where the pod's namespace cannot be entered, or the kernel does not let us.
    """
    with _one_end(links.open_socket(), host_interface) as host, _pod_end(link) as pod:
        if (pod.seen.index, pod.seen.peer) != (host.seen.peer, host.seen.index):
            raise KernelRefused(f"{link.inside} in {link.netns} is not the other end of {host_interface}")
        # A veth drops what exceeds the receiving end. So what pods send shrinks first and grows last: what comes in
        # large has passed the uplink, and that has shrunk already.
        for end in (pod, host) if link.mtu < host.seen.mtu else (host, pod):
            if end is host or end.seen.mtu == host.seen.mtu or end.seen.mtu > link.mtu:
                links.carry_out(end.sock, [link_changes.resize(end.seen.index, end.seen.name, link.mtu)])


class _End(NamedTuple):
    """One end of a veth, and a socket in its namespace."""

    sock: socket.socket
    seen: links.Seen


@contextmanager
def _one_end(sock: socket.socket, name: str) -> Iterator[_End]:
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
            return _one_end(pod_namespace.enter(netns, link.inside)[0], link.inside)
        finally:
            os.close(netns)
    except OSError as error:
        raise KernelRefused(f"{link.netns} cannot be entered ({error.strerror}); {remedy}") from error
    except LinkRefused as refusal:
        raise KernelRefused(f"{link.netns} cannot be entered ({refusal}); {remedy}") from refusal
