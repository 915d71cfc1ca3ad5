"""What a pod's network is made of, as messages to the kernel and parameters; nothing is done here."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from itertools import count
from pathlib import Path
from typing import NamedTuple

from felix_py.calc import endpoints
from felix_py.calc.mtu import MINIMUM6
from felix_py.calc.routes import GATEWAY, GATEWAY6, HOST_MAC
from felix_py.cni import pod_namespace
from felix_py.kernel import link_changes, links, ownership
from felix_py.kernel.jobs import Job
from felix_py.kernel.link_changes import Change
from felix_py.kernel.objects import IPV6, Route, RouteKey, Scope
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

GROUPS = 0x66650000
"""First of the groups in which hosts' ends are until they come up."""


class Pod(NamedTuple):
    """Whose network is to be made: an attachment's interface, its MTU in bytes, and its namespace's descriptor."""

    attachment: Attachment
    mtu: int
    netns: int


class Together(NamedTuple):
    """Pods whose interfaces come up in one go.

    Attributes:
        group: in which the hosts' ends are until then; of nobody else.
        size: how many these are.
    """

    group: int
    size: int


_groups = count(secrets.randbits(16))
"""Not the numbers of an agent before this one, which may have died amid some."""


INDEXES = 1 << 20
"""First index of hosts' ends, far from those that the kernel chooses."""

FIRST = LOOPBACK + 1
"""Index of the first interface in a network namespace."""

_indexes = count(INDEXES + secrets.randbits(20))
"""Not those of an agent before this one either; of one that is taken the kernel says so."""


def ends() -> tuple[int, int]:
    """Return the indexes of a new pair, of which nobody will most likely have either. For any thread."""
    return next(_indexes), FIRST


def together(size: int) -> Together | None:
    """Return what so many pods that are made together have in common; None for one alone. For any thread."""
    return Together(GROUPS | (next(_groups) & 0xFFFF), size) if size > 1 else None


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


def pair(pod: Pod, others: Together | None, ends: tuple[int, int] = (0, 0)) -> list[Change]:
    """Return what makes a pair.

    Args:
        pod: whose.
        others: as `together` returns it.
        ends: their indexes, the host's first; 0 has the kernel choose both.
    """
    attachment, (index, inside) = pod.attachment, ends
    host = link_changes.NewEnd(attachment.host_interface, HOST_MAC, index)
    six = IPV6 in versions(attachment)
    group = link_changes.NO_GROUP if others is None else others.group
    peer = link_changes.NewEnd(attachment.interface, attachment.mac, inside)
    parameters = _specification(ipv6=six, six=not _is_without_six(pod))
    return [
        link_changes.veth(host, peer, pod.mtu, pod.netns, group),
        link_changes.described(index, host.name, note(attachment), parameters),
    ]


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


def network(pod: Pod, index: int) -> list[Change]:
    """Return what sets the inner end up, which has this index, and the ways out."""
    attachment, interface = pod.attachment, pod.attachment.interface
    changes = [
        UP,
        *([link_changes.no_link_local(index, interface)] if _is_without_six(pod) else []),
        link_changes.up(index, interface),
        *(link_changes.address(index, interface, address) for address in attachment.addresses),
        *(change for version in versions(attachment) for change in _ways_out(version, index, interface)),
    ]
    return links.acknowledged(changes)


def inside(pod: Pod, network: Sequence[Change]) -> Job:
    """Return what has the network of a pod made inside it, of these changes."""
    six = IPV6 in versions(pod.attachment)
    here = {path.format(device=pod.attachment.host_interface): value for path, value in _parameters(ipv6=six).files}
    return pod_namespace.job(pod.netns, network, here, BOTH if six else POD, (pod.attachment.interface,))


def opening(index: int, attachment: Attachment, others: Together | None) -> list[Change]:
    """Return what sets the host's end up, where it is not, and makes it ready."""
    host, six = attachment.host_interface, IPV6 in versions(attachment)
    # Without a link-local address the host asks for no neighbour, and its first packet to the pod waits for one.
    own = [link_changes.link_local(index, host, GATEWAY6)] if six else []
    # Stale, not permanent: a pod that gives itself another hardware address is found again.
    near = [link_changes.stale_neighbour(index, host, each, attachment.mac) for each in attachment.addresses]
    delay = link_changes.proxy_delay(index, host, _parameters(ipv6=six).proxy_delay)
    up = link_changes.up if others is None else link_changes.ungrouped
    return [up(index, host), *own, *near, delay]


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
