"""The addresses that this node has given out, kept where a crash, a full disk or a damaged file cannot lose them.

One file holds everything, written anew for each change: a rename is atomic for all blocks together, a pod with two
addresses has both or none, and the few hundred pods of a node are some tens of kilobytes. A file for each block
would write less and need an order between the writes, which is what crashes are good at getting wrong.
"""

import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from felix_py import durable, ipam
from felix_py.kernel import links, ownership, route_codec
from felix_py.kernel.dump import Reader
from felix_py.kernel.objects import MAIN_TABLE
from felix_py.kernel.wire import Family
from felix_py.ledger import Attachment, Ledger, decode, encode, from_note, mac_of
from felix_py.model import Fault, Invalid, IPAddress, IPNetwork, NodeName, WorkloadEndpoint

FILE = "allocations.json"

TUNNEL_HANDLES = {4: "ipip-tunnel-addr", 6: "vxlan-v6-tunnel-addr"}
"""Of the tunnels' own addresses, by version of IP; Calico's words. IP in IP and VXLAN share the one of IPv4."""

log = structlog.get_logger()


class StoreFailed(Exception):  # noqa: N818 - named for what happened: nothing was changed
    """The change could not be made durable; what was written before still holds."""


class AddressRefused(Exception):  # noqa: N818 - named for what the caller does: try again later, or ask for another
    """No address was given; the sentence says why."""


class AlreadyAttached(Exception):  # noqa: N818 - named for what the caller does: leave the first one as it is
    """This container has this interface already, or another one has its host interface."""


def living_pods() -> tuple[Attachment, ...]:
    """Return what the kernel knows of pods: each `cali` interface, its note, and the addresses routed to it."""
    with links.open_socket() as sock:
        seen = [link for link in links.listing(sock) if ownership.is_workload_device(link.name)]
    names = {link.index: link.name for link in seen}
    routed: dict[str, list[IPAddress]] = {}
    with Reader() as reader:
        bodies = [body for family in Family for body in reader.routes(family, MAIN_TABLE)] if seen else []
    for key, route in filter(None, (route_codec.decode(body, names) for body in bodies)):
        if route.device in names.values() and key.dst.num_addresses == 1:
            routed.setdefault(route.device or "", []).append(key.dst.network_address)
    return tuple(from_note(link.alias, link.name, routed.get(link.name, ())) for link in seen)


class Allocations:
    """Who holds which address on this node. Safe to use from several threads; every answer given is on disk."""

    def __init__(
        self,
        directory: Path,
        node: NodeName,
        *,
        living: Callable[[], tuple[Attachment, ...]] = living_pods,
    ) -> None:
        """Read the file, and let the kernel correct it: pods whose interface is gone hold nothing any more.

        Args:
            directory: where the file is, or will be.
            node: whose pods these are.
            living: the pods that the kernel knows.

        Raises:
            Invalid: when the file is there and cannot be read; a fresh start would give addresses twice.
        """
        self._path = directory / FILE
        self._node = node
        self._lock = threading.Lock()
        self._damaged = False
        self._ledger = self._load(living())

    def endpoints(self) -> tuple[WorkloadEndpoint, ...]:
        """Return the pods of this node, as the agent routes them."""
        return tuple(each.endpoint(self._node) for each in self._ledger.attachments if each.container_id)

    def attachments(self) -> tuple[Attachment, ...]:
        """Return everything that containers hold."""
        return self._ledger.attachments

    def block(self, cidr: IPNetwork) -> ipam.Block:
        """Return one block as it is now."""
        return self._ledger.block(cidr)

    def find(self, container_id: str, interface: str) -> Attachment | None:
        """Return the attachment that the runtime means by these two."""
        return self._ledger.find(container_id, interface)

    def on(self, host_interface: str) -> Attachment | None:
        """Return the attachment behind one host interface."""
        return self._ledger.on(host_interface)

    def tunnel_address(self, block: IPNetwork, *, keep: bool = True) -> IPAddress | None:
        """Return the tunnels' own address in this block, giving it one where it has none; None when all are in use.

        Args:
            block: one of this node's blocks.
            keep: whether a new one is written down; not for those who only look, as `felix-agent plan`.
        """
        handle = f"{TUNNEL_HANDLES[block.version]}-{self._node}"
        with self._lock:
            held = self._ledger.handles.get(handle)
            if held is not None and held in block:
                return held
            answer = ipam.assign(self._ledger.block(block), handle)
            if isinstance(answer, ipam.NotAssigned):
                return None
            if not keep:
                return answer.address
            after = self._ledger.with_handle(handle, answer.address)
            try:
                self._commit(after)
            except StoreFailed as failure:
                # It is held from now on and written with the next pod; until then a restart may choose another one.
                log.warning("datastore.fault", fault=str(failure))
                self._ledger = after
            return answer.address

    def attach(
        self, draft: Attachment, blocks: tuple[IPNetwork, ...], wanted: tuple[IPAddress, ...] = ()
    ) -> Attachment:
        """Give an attachment its addresses; on disk when this returns.

        They are one of each version of IP that there are blocks of, IPv4 first, all or none; or exactly those that are
        wanted. An attachment without a hardware address gets the one that belongs to its first address.

        Raises:
            AlreadyAttached: the first one stays as it is.
            AddressRefused: with the reason of each block.
            StoreFailed: nothing was given.
        """
        with self._lock:
            self._refuse_second(draft)
            addresses = ipam.addresses_from([self._ledger.block(cidr) for cidr in blocks], draft.handle, wanted)
            if isinstance(addresses, ipam.NotAssigned):
                raise AddressRefused(addresses.why)
            attachment = replace(draft, addresses=addresses, mac=draft.mac or mac_of(addresses[0]))
            self._commit(self._ledger.with_attachment(attachment))
            return attachment

    def detach(self, attachment: Attachment) -> None:
        """Take its addresses back; repeating it changes nothing.

        Raises:
            StoreFailed: it still holds them.
        """
        with self._lock:
            after = self._ledger.without_attachment(attachment)
            if after != self._ledger:
                self._commit(after)

    def _refuse_second(self, draft: Attachment) -> None:
        first = self._ledger.find(draft.container_id, draft.interface)
        if first is not None:
            raise AlreadyAttached(
                f"container {draft.container_id} has {draft.interface} already, with {_listed(first)}; DEL it first"
            )
        other = self._ledger.on(draft.host_interface)
        if other is not None:
            raise AlreadyAttached(f"{draft.host_interface} belongs to {other.handle} already; DEL that one first")

    def _load(self, living: tuple[Attachment, ...]) -> Ledger:
        try:
            ledger = decode(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Ledger(living)
        except OSError as error:
            sentence = f"cannot be read: {error.strerror}; without it addresses would be given twice"
            raise Invalid(Fault(str(self._path), "", sentence)) from error
        except ValueError as error:  # also UnicodeDecodeError and JSONDecodeError
            self._damaged = True
            log.warning("datastore.fault", fault=self._damage(error, len(living)))
            return Ledger(living)
        alive = {each.host_interface for each in living}
        for attachment in ledger.attachments:
            if attachment.host_interface not in alive:
                ledger = ledger.without_attachment(attachment)
        return ledger

    def _damage(self, error: ValueError, found: int) -> str:
        why = " ".join(str(error).split())
        return (
            f"{self._path} is damaged ({why}); {found} pods were found again by their interfaces, "
            f"and the file is put aside as {FILE}.damaged-TIME before the next write"
        )

    def _commit(self, after: Ledger) -> None:
        """Make `after` the truth: on disk first, then for everyone who asks."""
        try:
            self._put_damaged_aside()
            durable.write(self._path, encode(after))
        except OSError as error:
            remedy = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
            sentence = f"{self._path} cannot be written: {error.strerror}; {remedy}; nothing was changed"
            raise StoreFailed(sentence) from error
        self._ledger = after

    def _put_damaged_aside(self) -> None:
        if self._damaged:
            self._path.rename(self._path.with_name(f"{FILE}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
            self._damaged = False


def _listed(attachment: Attachment) -> str:
    return ", ".join(map(str, attachment.addresses)) or "no address"
