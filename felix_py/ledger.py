"""What a node has given out, as one value: attachments, the tunnel's address, what cools down; and its JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any

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
        """Name the holder of the addresses, as `felixctl ipam` shows it."""
        return f"{self.name} ({self.interface} of {self.container_id[:12] or 'an unknown container'})"

    def endpoint(self, node: NodeName) -> WorkloadEndpoint:
        """Return what the agent routes."""
        networks = tuple(map(ip_network, self.addresses))
        return WorkloadEndpoint(
            self.name, node, self.host_interface, networks, self.pod, self.container_id, self.netns, self.interface
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that the node has given out. Blocks are a view of it: no address can be written down in two places.

    Attributes:
        handles: addresses that no pod holds, by handle: the tunnels'.
        released: given back, longest ago first.
    """

    attachments: tuple[Attachment, ...] = ()
    handles: Mapping[str, IPAddress] = field(default_factory=dict)
    released: tuple[IPAddress, ...] = ()

    def block(self, cidr: IPNetwork) -> ipam.Block:
        """Return one block as it is now."""
        held = {address: handle for address, handle in self.holders() if address in cidr}
        return ipam.Block(cidr, held, tuple(address for address in self.released if address in cidr))

    def holders(self) -> Iterable[tuple[IPAddress, str]]:
        """Yield each held address and the handle of its holder."""
        yield from ((address, each.handle) for each in self.attachments for address in each.addresses)
        yield from ((address, handle) for handle, address in self.handles.items())

    def find(self, container_id: str, interface: str) -> Attachment | None:
        """Return the attachment that the runtime means by these two."""
        found = (a for a in self.attachments if (a.container_id, a.interface) == (container_id, interface))
        return next(found, None)

    def on(self, host_interface: str) -> Attachment | None:
        """Return the attachment behind one host interface."""
        return next((a for a in self.attachments if a.host_interface == host_interface), None)

    def with_attachment(self, attachment: Attachment) -> "Ledger":
        """Return the ledger with one attachment more."""
        return replace(
            self,
            attachments=(*self.attachments, attachment),
            released=tuple(address for address in self.released if address not in attachment.addresses),
        )

    def without_attachment(self, attachment: Attachment) -> "Ledger":
        """Return the ledger without it; its addresses cool down."""
        if attachment not in self.attachments:
            return self
        return replace(
            self,
            attachments=tuple(other for other in self.attachments if other != attachment),
            released=(*self.released, *attachment.addresses),
        )

    def with_handle(self, handle: str, address: IPAddress) -> "Ledger":
        """Return the ledger with `handle` holding this address and no other."""
        before = self.handles.get(handle)
        released = (*self.released, *((before,) if before not in (None, address) else ()))
        return replace(
            self,
            handles={**self.handles, handle: address},
            released=tuple(each for each in released if each is not None and each != address),
        )


def encode(ledger: Ledger) -> str:
    """Write the ledger as JSON that people can read, one attachment a line."""
    lines = ",\n  ".join(json.dumps(_document(attachment)) for attachment in ledger.attachments)
    handles = json.dumps({handle: str(address) for handle, address in ledger.handles.items()})
    released = json.dumps([str(address) for address in ledger.released])
    return (
        f'{{"format": {FORMAT},\n "handles": {handles},\n "released": {released},\n "attachments": [\n  {lines}\n ]}}\n'
    )


def decode(text: str) -> Ledger:
    """Read what `encode` wrote.

    Raises:
        ValueError: with what is wrong, for anything else.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    try:
        ledger = Ledger(
            attachments=tuple(_attachment(each) for each in document["attachments"]),
            handles={str(handle): ip_address(address) for handle, address in document["handles"].items()},
            released=tuple(map(ip_address, document["released"])),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks something or has it in the wrong shape: {error}") from error
    _refuse_twice_held(ledger)
    return ledger


def _refuse_twice_held(ledger: Ledger) -> None:
    seen: dict[IPAddress, str] = {}
    for address, handle in ledger.holders():
        if address in seen:
            raise ValueError(f"{address} is held by both {seen[address]} and {handle}")
        seen[address] = handle


TEXTS = ("container_id", "interface", "name", "host_interface", "pod", "network", "mac", "netns")
"""Fields of an attachment that are text in the file as well."""


def _document(attachment: Attachment) -> dict[str, Any]:
    return {
        **{name: getattr(attachment, name) for name in TEXTS},
        "addresses": [str(address) for address in attachment.addresses],
        "created": attachment.created.isoformat() if attachment.created else None,
    }


def _attachment(document: Mapping[str, Any]) -> Attachment:
    texts = {name: document[name] for name in TEXTS}
    if not all(isinstance(value, str) for value in texts.values()):
        raise TypeError(f"an attachment holds {texts!r}")
    created = document["created"]
    return Attachment(
        **texts,
        addresses=tuple(map(ip_address, document["addresses"])),
        created=datetime.fromisoformat(created) if created else None,
    )


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
