"""A pod's network made and unmade: the veth, both its ends, and the way out of the pod.

Everything goes over raw netlink (`kernel.links`) instead of pyroute2, whose namespace helper forks a process for each
pod: one millisecond a pod instead of twelve, and 20 MB less in the agent.
"""

import ctypes
import errno
import fcntl
import os
import socket
import threading
from concurrent.futures import Future
from ipaddress import IPv4Network
from pathlib import Path

from felix_py.calc.endpoints import WORKLOAD
from felix_py.calc.routes import GATEWAY
from felix_py.cni.request import CniError, Code
from felix_py.cni.results import HOST_MAC
from felix_py.kernel import links, ownership, sysctl
from felix_py.kernel.links import LinkRefused
from felix_py.kernel.objects import Route, RouteKey, Scope
from felix_py.ledger import Attachment, note

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703
"""ioctl that answers which kind of namespace a descriptor is, include/uapi/linux/nsfs.h."""

LOOPBACK = 1
"""Interface index of `lo` in every network namespace."""

OWN_NAMESPACE = Path("/proc/self/ns/net")

DEFAULT = RouteKey(IPv4Network("0.0.0.0/0"))

_libc = ctypes.CDLL(None, use_errno=True)


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
    own, given = OWN_NAMESPACE.stat(), os.fstat(netns)
    if (own.st_dev, own.st_ino) == (given.st_dev, given.st_ino):
        raise CniError(Code.INVALID_NAMESPACE, f"CNI_NETNS is {path}, which is the host's own namespace; give a pod's")


def add(attachment: Attachment, mtu: int, netns: int) -> None:
    """Make the veth and everything inside the pod; the route on the host is the agent's.

    Raises:
        CniError: where the pod has an interface of that name.
        LinkRefused: with the step that the kernel refused; `remove` undoes those before it.
    """
    host, inside = attachment.host_interface, attachment.interface
    with links.open_socket() as sock:
        _make(sock, attachment, mtu, netns)
        links.carry_out(sock, [links.alias(host, note(attachment))])
    for path, value in WORKLOAD.items():
        sysctl.write(path.format(device=host), value)
    pod, index = _enter(netns, inside, forwarding="0")
    with pod:
        links.carry_out(
            pod,
            [
                links.up(LOOPBACK, "lo"),
                links.up(index, inside),
                *(links.address(index, inside, address) for address in attachment.addresses),
                # With this entry the first packet leaves without asking for the gateway, whatever proxy_arp says.
                links.neighbour(index, inside, GATEWAY, HOST_MAC),
                links.route(
                    index,
                    RouteKey(IPv4Network(GATEWAY)),
                    Route(device=inside, scope=Scope.LINK, protocol=ownership.BOOT),
                ),
                links.route(index, DEFAULT, Route(via=GATEWAY, device=inside, protocol=ownership.BOOT)),
            ],
        )


def _make(sock: socket.socket, attachment: Attachment, mtu: int, netns: int) -> None:
    host, inside = attachment.host_interface, attachment.interface
    pair = links.veth(host, HOST_MAC, inside, attachment.mac, mtu, netns)
    _delete(sock, host)  # of the sandbox before, whose agent died
    try:
        links.carry_out(sock, [pair])
    except LinkRefused as refusal:
        if refusal.code == errno.EEXIST:
            sentence = f"{attachment.netns} has an interface {inside} already; give another CNI_IFNAME"
            raise CniError(Code.INTERFACE_EXISTS, sentence) from refusal
        raise


def remove(host_interface: str) -> None:
    """Remove the veth, and with it the pod's end and every route; one that is gone is done.

    Raises:
        LinkRefused: when the kernel does not let us.
    """
    with links.open_socket() as sock:
        _delete(sock, host_interface)


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
    wanted = {path.format(device=host.name): value for path, value in WORKLOAD.items()}
    for path, value in sysctl.read(wanted).items():
        if value != wanted[path]:
            return f"{path} is {value} and must be {wanted[path]}"
    try:
        pod, index = _enter(netns, attachment.interface)
    except LinkRefused as refusal:
        return str(refusal)
    with pod:
        found = links.addresses(pod, index)
        gone = [str(address) for address in attachment.addresses if f"{address}/32" not in found]
        if gone:
            return f"{attachment.interface} lacks address {', '.join(gone)}"
        return None if links.has_default_route(pod, index) else f"the pod has no default route by {GATEWAY}"


def _enter(netns: int, interface: str, *, forwarding: str | None = None) -> tuple[socket.socket, int]:
    """Return a route socket inside the pod's namespace, and the index of `interface` there.

    A new namespace inherits the host's forwarding, and a pod is no router: `forwarding` sets it on the way.
    A thread goes in and ends there: no way back that could fail, and no thread of ours is ever left inside.
    """
    outcome: Future[tuple[socket.socket, int]] = Future()
    threading.Thread(target=_inside, args=(netns, interface, forwarding, outcome), name="inside-pod").start()
    return outcome.result()


def _inside(netns: int, interface: str, forwarding: str | None, outcome: Future[tuple[socket.socket, int]]) -> None:
    try:
        _set_namespace(netns)
        if forwarding is not None:
            sysctl.write("net/ipv4/ip_forward", forwarding)
        index = _index(interface)
        outcome.set_result((links.open_socket(), index))
    except Exception as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
        outcome.set_exception(error)


def _set_namespace(netns: int) -> None:
    """Move this thread; `os.setns` came with Python 3.12."""
    if _libc.setns(netns, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise LinkRefused(f"entering the pod's namespace was refused: {os.strerror(code)}", code)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise LinkRefused(f"{interface} does not exist in the pod", errno.ENODEV) from error
