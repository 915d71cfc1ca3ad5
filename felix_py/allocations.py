"""The addresses of this node's pods, written down in the datastore's blocks before anybody is told of them.

A block says of each address everything that is known of its holder, so no second place could say otherwise: the pods of
a node are read out of the blocks, and the kernel, whose interfaces bear notes, corrects them at the start.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import structlog

from felix_py import old_allocations
from felix_py.addresses import Addresses, Held, Wish
from felix_py.choosing import Client
from felix_py.claims import Conflict
from felix_py.datastore.api import Swaps
from felix_py.gathering import Gathering
from felix_py.ipam import Block, NotAssigned
from felix_py.ledger import Attachment, attachments, holder
from felix_py.living_pods import living_pods
from felix_py.model import Fault, Invalid, IPAddress, IPNetwork, NodeName, Use, WorkloadEndpoint
from felix_py.old_allocations import OldAllocations
from felix_py.store_failed import failed
from felix_py.tunnel_addresses import TunnelAddresses

log = structlog.get_logger()


class AddressRefused(Exception):  # noqa: N818 - named for what the caller does: try again later, or ask for another
    """No address was given; the sentence says why."""


class AlreadyAttached(Exception):  # noqa: N818 - named for what the caller does: leave the first one as it is
    """This container has this interface already, or another one has its host interface."""


@dataclass(frozen=True, slots=True)
class Attach:
    """A pod that is to have addresses.

    Attributes:
        draft: the pod without them.
        wanted: exactly these; any where there are none.
        pools: version of IP, and name or range of those that serve; all where there are none.
        guess: what the pod will probably be; its addresses come before others.
    """

    draft: Attachment
    wanted: tuple[IPAddress, ...] = ()
    pools: tuple[tuple[int, str], ...] = ()
    guess: Attachment | None = None


@dataclass(frozen=True, slots=True)
class _Detach:
    """A pod whose addresses are given back."""

    attachment: Attachment


class Allocations:
    """Who holds which address on this node. Safe to use from several threads; every answer given is on disk.

    Attributes:
        addresses: gives them; for one thread at a time, which is whoever `alone` lets in.
    """

    def __init__(
        self,
        swaps: Swaps,
        node: NodeName,
        *,
        before: Path | None = None,
        living: Callable[[], tuple[Attachment, ...]] = living_pods,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read the blocks, and let the kernel correct them: pods whose interface is gone hold nothing any more.

        Args:
            swaps: where the blocks are.
            node: whose pods these are.
            before: the folder in which earlier versions kept allocations; what is there is taken over.
            living: the pods that the kernel knows.
            clock: the time of day.

        Raises:
            Invalid: when the blocks cannot be read; a fresh start would give addresses twice.
        """
        self.addresses = Addresses(swaps, node, clock)
        self._node = node
        self._living = living
        self._clock = clock
        self._gathering: Gathering[Attach | _Detach, Attachment | Exception] = Gathering(self._carry_out)
        self._guessing = Lock()
        self._guessed: set[IPAddress] = set()  # for those who have not been given any yet
        self._by_interface: dict[str, Attachment] = {}
        self._by_container: dict[tuple[str, str], Attachment] = {}
        self._tunnels = TunnelAddresses(self.addresses, node, self._gathering, clock)
        try:
            self._start(before)
        except OSError as error:
            sentence = f"cannot be read: {error.strerror}; without it addresses would be given twice"
            raise Invalid(Fault(str(error.filename), "", sentence)) from error

    # --- what the node holds

    def endpoints(self) -> tuple[WorkloadEndpoint, ...]:
        """Return the pods of this node, as the agent routes them."""
        return tuple(each.endpoint(self._node) for each in self.attachments() if each.container_id)

    def attachments(self) -> tuple[Attachment, ...]:
        """Return everything that containers hold."""
        return tuple(self._by_interface.values())

    def find(self, container_id: str, interface: str) -> Attachment | None:
        """Return the attachment that the runtime means by these two."""
        return self._by_container.get((container_id, interface))

    def on(self, host_interface: str) -> Attachment | None:
        """Return the attachment behind one host interface."""
        return self._by_interface.get(host_interface)

    def block(self, cidr: IPNetwork) -> Block:
        """Return one block as it is now."""
        return self.addresses.block(cidr)

    def exhausted(self) -> str | None:
        """Say why no pod could have addresses now; None where one could, or nobody can know without trying."""
        client = Client(self._node)
        with self._gathering.alone():
            return self.addresses.exhausted(client)

    def in_use(self) -> Mapping[IPAddress, str]:
        """Return which address this node uses, and by which handle; for whoever has it alone."""
        return {address: held.handle for address, held in self.addresses.own.mine.items()}

    def not_held(self, attachment: Attachment) -> tuple[IPAddress, ...]:
        """Return the addresses of an attachment of which no block says that it holds them."""
        with self._gathering.alone():
            return tuple(each for each, held in self._held(attachment) if not self.addresses.holds(each, held))

    def living_interfaces(self) -> frozenset[str]:
        """Return the host interfaces of pods that the kernel has now."""
        return frozenset(each.host_interface for each in self._living())

    def alone(self) -> AbstractContextManager[object]:
        """Return a context in which nobody else gives addresses or takes them back."""
        return self._gathering.alone()

    # --- pods come and go

    def foresee(self, wishes: Sequence[Attach]) -> list[Attach | AlreadyAttached]:
        """Return wishes with guesses of what they will be given, so that no interface need wait for the disk.

        Nothing is given by it, and a guess may be wrong: another node may borrow the address, or this block be full.
        `attach_all` has to follow with those that are not refused.
        """
        found: list[Attach | AlreadyAttached] = [self._second(each.draft, ()) or each for each in wishes]
        alike: dict[Client, list[int]] = {}
        for position, each in enumerate(found):
            if isinstance(each, Attach) and not each.wanted:
                alike.setdefault(self._client(each), []).append(position)
        with self._guessing:
            for client, positions in alike.items():
                likely = self.addresses.likely(client, self._guessed, len(positions))
                for position, addresses in zip(positions, likely, strict=False):  # there may be less than is asked for
                    self._guessed.update(addresses)
                    wish = wishes[position]
                    found[position] = Attach(wish.draft, (), wish.pools, wish.draft.having(addresses))
        return found

    def attach_all(self, wishes: Sequence[Attach]) -> list[Attachment | Exception]:
        """Give each attachment its addresses; on disk when this returns. What `attach` would raise is returned.

        They are one of each version of IP that the node can give, IPv4 first, all or none; or exactly those that are
        wanted. An attachment without a hardware address gets the one that belongs to its first address.
        """
        try:
            with self._gathering.alone():
                return self._attach(wishes)
        finally:
            with self._guessing:
                self._guessed.difference_update(*(each.guess.addresses for each in wishes if each.guess is not None))

    def attach(
        self, draft: Attachment, wanted: tuple[IPAddress, ...] = (), pools: tuple[tuple[int, str], ...] = ()
    ) -> Attachment:
        """Give an attachment its addresses; on disk when this returns. See `attach_all`.

        Raises:
            AlreadyAttached: the first one stays as it is.
            AddressRefused: with the reason of each block.
            StoreFailed: nothing was given.
        """
        answer = self._gathering.ask(Attach(draft, wanted, pools))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def detach(self, attachment: Attachment) -> None:
        """Take its addresses back; repeating it changes nothing.

        Raises:
            StoreFailed: it still holds them.
        """
        answer = self._gathering.ask(_Detach(attachment))
        if isinstance(answer, Exception):
            raise answer

    def release(self, held: Sequence[Held]) -> None:
        """Take addresses back from whoever holds them, on whatever node, and those of pods of which nothing came.

        Raises:
            StoreFailed: some of them are still held.
        """
        with self._gathering.alone():
            try:
                self.addresses.take_back(held)
                self.addresses.pay()
            except (OSError, Conflict) as error:
                raise failed(error) from error

    def _carry_out(self, wishes: Sequence[Attach | _Detach]) -> list[Attachment | Exception]:
        gone = self._detach([wish.attachment for wish in wishes if isinstance(wish, _Detach)])
        come = iter(self._attach([wish for wish in wishes if isinstance(wish, Attach)]))
        return [next(come) if isinstance(wish, Attach) else gone or wish.attachment for wish in wishes]

    def _detach(self, leaving: Sequence[Attachment]) -> Exception | None:
        known = [each for each in leaving if self._by_interface.get(each.host_interface) == each]
        held = [pair for each in known for pair in self._held(each)]
        try:
            self.addresses.take_back(held)
        except (OSError, Conflict) as error:
            return failed(error)
        for each in known:
            del self._by_interface[each.host_interface]
            self._by_container.pop((each.container_id, each.interface), None)
        return None

    def _attach(self, wishes: Sequence[Attach]) -> list[Attachment | Exception]:
        answers: dict[int, Attachment | Exception] = {}
        coming: dict[str, Attach] = {}
        for position, wish in enumerate(wishes):
            refusal = self._second(wish.draft, [each.draft for each in coming.values()])
            if refusal is not None:
                answers[position] = refusal
            else:
                coming[wish.draft.host_interface] = wish
        try:
            given = self.addresses.give([self._wish(wish) for wish in coming.values()])
        except (OSError, Conflict) as error:
            return [answers.get(position, failed(error)) for position in range(len(wishes))]
        self._drop_old_file()
        found = iter(zip(coming.values(), given, strict=True))
        for position in range(len(wishes)):
            if position not in answers:
                wish, addresses = next(found)
                answers[position] = self._attached(wish.draft, addresses)
        return [answers[position] for position in range(len(wishes))]

    def _wish(self, wish: Attach) -> Wish:
        rather = wish.guess.addresses if wish.guess is not None else ()
        return Wish(self._client(wish), holder(wish.draft, self._node), wish.wanted, rather)

    def _client(self, wish: Attach) -> Client:
        return Client(self._node, Use.WORKLOAD, wish.draft.pod.split("/", maxsplit=1)[0] or None, wish.pools)

    def _attached(self, draft: Attachment, given: tuple[IPAddress, ...] | NotAssigned) -> Attachment | Exception:
        if isinstance(given, NotAssigned):
            return AddressRefused(given.why)
        attachment = draft.having(given)
        self._know(attachment)
        return attachment

    def _know(self, attachment: Attachment) -> None:
        self._by_interface[attachment.host_interface] = attachment
        if attachment.container_id:
            self._by_container[attachment.container_id, attachment.interface] = attachment

    def _second(self, draft: Attachment, coming: Sequence[Attachment]) -> AlreadyAttached | None:
        first = self.find(draft.container_id, draft.interface)
        if first is not None:
            return AlreadyAttached(
                f"container {draft.container_id} has {draft.interface} already, with {_listed(first)}; DEL it first"
            )
        other = self.on(draft.host_interface) or next(
            (each for each in coming if each.host_interface == draft.host_interface), None
        )
        if other is not None:
            return AlreadyAttached(
                f"{draft.host_interface} belongs to {holder(other, self._node)} already; DEL that one first"
            )
        return None

    def _held(self, attachment: Attachment) -> list[Held]:
        return [(address, holder(attachment, self._node)) for address in attachment.addresses]

    def tunnel_address(self, block: IPNetwork, *, keep: bool = True) -> IPAddress | None:
        """Return the tunnels' own address in a block of this node: `TunnelAddresses.of_block`."""
        return self._tunnels.of_block(block, keep=keep)

    # --- the start

    def _start(self, before: Path | None) -> None:
        living, (blocks, damaged) = self._living(), self.addresses.blocks(self._node)
        for problem in damaged:
            log.warning("datastore.fault", fault=f"{problem}; {len(living)} pods were found again by their interfaces")
        self._old_file = before / old_allocations.FILE if before is not None else None
        old = self._read_old_file(len(living))
        notes = {each.host_interface: each for each in living}
        gone: list[Held] = []
        for each in attachments(blocks, self._node):
            note = notes.get(each.host_interface)
            if note is None or note.container_id not in ("", each.container_id):
                gone += self._held(each)
            else:
                self._know(each)
                self.addresses.remember(self._held(each), written=True)
        for each in (*old.attachments, *living):
            if each.host_interface in notes and each.host_interface not in self._by_interface:
                self._know(each)
                self.addresses.remember(self._held(each), written=False)
        self._tunnels.find(blocks, old.handles)
        self.addresses.give_back_later(gone)

    def _read_old_file(self, living: int) -> OldAllocations:
        nothing = OldAllocations((), {})
        if self._old_file is None:
            return nothing
        try:
            return old_allocations.decode(self._old_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return nothing
        except ValueError as error:  # also UnicodeDecodeError and JSONDecodeError
            why = " ".join(str(error).split())
            sentence = f"{self._old_file} is damaged ({why}); {living} pods were found again by their interfaces"
            log.warning("datastore.fault", fault=sentence)
            return nothing

    def _drop_old_file(self) -> None:
        """Put the file of earlier versions out of use, once all that it holds is in blocks."""
        if self._old_file is not None and not self.addresses.unwritten:
            if self._old_file.exists():
                self._old_file.rename(self._old_file.with_name(f"{old_allocations.FILE}.migrated"))
            self._old_file = None


def _listed(attachment: Attachment) -> str:
    return ", ".join(map(str, attachment.addresses)) or "no address"
