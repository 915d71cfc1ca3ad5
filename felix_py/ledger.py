"""Attachments of pods: what is written down with their addresses, and what stands on their interfaces."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network

from felix_py import ipam
from felix_py.model import IPAddress, IPNetwork, NodeName, WorkloadEndpoint

FORMAT = 1
"""Number of the file's format; a reader refuses what it does not know instead of guessing."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one container: everything that DEL needs to undo it, even without its namespace.

    Attributes:
        container_id: the runtime's; empty where the agent found a pod that it has no record of.
        interface: the name inside the pod, as eth0.
        name: the workload endpoint's name, unique on this node.
        pod: `namespace/pod`, empty for containers that no orchestrator named.
        network: the CNI configuration's name; garbage collection concerns one network only.
        netns: path of the pod's namespace when it was attached.
    """

    container_id: str
    interface: str
    name: str
    host_interface: str
    addresses: tuple[IPAddress, ...] = ()
    pod: str = ""
    network: str = ""
    mac: str = ""
    netns: str = ""
    created: datetime | None = None

    @property
    def handle(self) -> str:
        """Name the holder of the addresses: Calico's rule, and the interface where it is another than eth0."""
        if not self.container_id:
            return f"unknown.{self.host_interface}"
        return f"{self.network}.{self.container_id}" + ("" if self.interface == "eth0" else f".{self.interface}")

    def having(self, addresses: tuple[IPAddress, ...]) -> "Attachment":
        """Return it with these addresses, and the hardware address that belongs to the first one where it has none."""
        # Not by `replace`, which takes three times as long: this is done twice for each pod.
        return Attachment(
            self.container_id,
            self.interface,
            self.name,
            self.host_interface,
            addresses,
            self.pod,
            self.network,
            self.mac or mac_of(addresses[0]),
            self.netns,
            self.created,
        )

    def endpoint(self, node: NodeName) -> WorkloadEndpoint:
        """Return what the agent routes."""
        networks = tuple(map(_alone, self.addresses))
        return WorkloadEndpoint(
            self.name, node, self.host_interface, networks, self.pod, self.container_id, self.netns, self.interface
        )


@lru_cache(4096)
def _alone(address: IPAddress) -> IPNetwork:
    return ip_network(address)


TEXTS: Mapping[str, str] = {
    "container_id": "containerID",
    "interface": "interface",
    "name": "endpoint",
    "host_interface": "hostInterface",
    "network": "network",
    "mac": "mac",
    "netns": "netns",
}
"""Fields of an attachment that are details of a holder, by the name that they have there."""


def holder(attachment: Attachment, node: NodeName) -> ipam.Holder:
    """Return what is written down with an attachment's addresses: everything but the addresses themselves."""
    details = {name: value for field_, name in TEXTS.items() if (value := getattr(attachment, field_))}
    if attachment.pod:
        details["namespace"], details["pod"] = attachment.pod.split("/", maxsplit=1)
    return ipam.Holder(attachment.handle, node, attachment.created, details)


def attachments(blocks: Iterable[ipam.Block], node: NodeName) -> tuple[Attachment, ...]:
    """Return the attachments of a node that blocks tell of, each with all its addresses, IPv4 first."""
    found: dict[ipam.Holder, list[IPAddress]] = {}
    for block in blocks:
        for address, each in block.holders.items():
            if each.node == node and "hostInterface" in each.details:
                found.setdefault(each, []).append(address)
    return tuple(_attachment(each, addresses) for each, addresses in found.items())


def _attachment(held: ipam.Holder, addresses: Iterable[IPAddress]) -> Attachment:
    details = held.details
    texts = {field_: details.get(name, "") for field_, name in TEXTS.items()}
    pod = f"{details['namespace']}/{details['pod']}" if "pod" in details and "namespace" in details else ""
    in_order = sorted(addresses, key=lambda each: (each.version, int(each)))
    found = Attachment(**texts, pod=pod, addresses=tuple(in_order), created=held.since)
    return with_mac(found)


def with_mac(attachment: Attachment) -> Attachment:
    """Return an attachment with the hardware address that belongs to its first address, where it has none."""
    return attachment.having(attachment.addresses)


def mac_of(address: IPAddress) -> str:
    """Return a pod's hardware address: locally administered, and the same for the same address."""
    return ":".join(f"{octet:02x}" for octet in (2, 0, *address.packed[-4:]))


MARK = "felix"
"""First word of the note on a pod's host interface, by which an agent without its file knows its own work."""


def note(attachment: Attachment) -> str:
    """Return what stands on the host interface (`ip link` shows it as alias): enough to know the pod again.

    The name comes last, for it is the longest and the kernel keeps 255 bytes.
    """
    held = ",".join(map(str, attachment.addresses))
    return f"{MARK} {attachment.container_id} {attachment.interface} {attachment.network} {held} {attachment.name}"


def from_note(text: str, host_interface: str, routed: Iterable[IPAddress]) -> Attachment:
    """Return the attachment that a note describes; where there is none, one that only keeps its addresses held.

    Args:
        text: the note.
        host_interface: what it stands on.
        routed: addresses whose route leads there; they count where the note does not say.
    """
    unknown = Attachment("", "", f"unknown/{host_interface}", host_interface, tuple(routed))
    mark, *words = text.split(" ")
    if mark != MARK or len(words) != len(("container", "interface", "network", "addresses", "name")) or not words[-1]:
        return unknown
    container_id, interface, network, held, name = words
    try:
        addresses = tuple(ip_address(address) for address in held.split(",") if address)
    except ValueError:
        return unknown
    pod = "" if name.startswith("container/") else "/".join(name.split("/")[:2])
    return Attachment(container_id, interface, name, host_interface, addresses, pod, network)
