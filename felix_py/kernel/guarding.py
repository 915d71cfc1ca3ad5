"""What guards pods and tunnels: our nftables table, and our programs at pods' interfaces; read, planned, written."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from felix_py.kernel import ownership, reconcile
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.guard import Guard, admitted
from felix_py.kernel.objects import (
    DeleteFilterTable,
    DeleteGuard,
    KernelRefused,
    KernelState,
    Link,
    PutFilterTable,
    PutGuard,
    Step,
)
from felix_py.model import IPAddress


class Newcomer(NamedTuple):
    """A new pod, as whoever guards pods has to know it.

    Attributes:
        link: the host's end of its veth, which may be newer than the last event that was taken.
        sources: the addresses that it may send from.
        tabled: makes of a packet filter that guards pods one that knows this pod, too.
        given: returns the parameters of its interface that have just been set, by path below /proc/sys; None where
            nobody knows.
    """

    link: Link
    sources: frozenset[IPAddress]
    tabled: Callable[[FilterTable], FilterTable]
    given: Callable[[], Mapping[str, str]] | None = None


WITHHELD = "withheld, since it would leave pods to the programs at their interfaces, which were refused"


class PacketFilter(Protocol):
    """Our nftables table; `kernel.nftables` offers it. Each method raises KernelRefused with the reason."""

    def changed(self) -> bool:
        """Say whether somebody else may have changed it since it was read or written."""

    def changed_by(self) -> str:
        """Name whoever did so last."""

    def read(self) -> FilterTable | None:
        """Return the table as it is, None where there is none."""

    def write(self, want: FilterTable | None, have: FilterTable | None) -> None:
        """Make it so; None removes it."""


class PodGuard(Protocol):
    """Our programs at pods' interfaces; `kernel.guard_programs` offers them. Each method raises KernelRefused."""

    def read(self, links: Mapping[str, Link], names: Collection[str] | None = None) -> Guard | None:
        """Return what stands there, None where nothing of ours does; `names` are the interfaces to look at again."""

    def write(self, want: Guard | None, links: Mapping[str, Link]) -> None:
        """Make it so; None removes it."""

    def admit(self, pods: Sequence[tuple[Link, frozenset[IPAddress]]]) -> None:
        """Guard more interfaces; where one is refused, the others may be guarded or not."""


class Guarding:
    """Both of them; either may be missing."""

    def __init__(self, table: PacketFilter | None, programs: PodGuard | None) -> None:
        self._table = table
        self._programs = programs
        self._table_unread, self._cause = True, "wanted"
        self._programs_unread = True

    # --- how it is

    def read_table(self, have: FilterTable | None) -> FilterTable | None:
        """Return the table, read anew only where somebody has changed it since."""
        if self._table is None:
            return None
        try:
            # No clock makes us read it again: every change by anybody gives the kernel's tables another number.
            if self._table_unread or self._table.changed():
                before = have if not self._table_unread else None
                self._table_unread = True
                found = self._table.read()
                self._table_unread = False
                if before is not None and found != before:
                    self._cause = f"changed by {self._table.changed_by()}"
                return found
        except KernelRefused:
            # Whoever wants a table hears the reason from the attempt to write it, which replaces whatever stands there.
            return None
        return have

    def read_programs(
        self, have: Guard | None, links: Mapping[str, Link], stale: Collection[str], *, unread: bool
    ) -> Guard | None:
        """Return what the programs hold, looked at where something has happened to a pod's interface."""
        if self._programs is None:
            return None
        unread = unread or self._programs_unread
        moved = {name for name in stale if ownership.is_workload_device(name)}
        if not unread and not moved:
            return have
        self._programs_unread = True
        try:
            found = self._programs.read(links, None if unread else moved)
        except KernelRefused:
            return None  # as with the table
        self._programs_unread = False
        return have if found == have else found

    # --- pods that come

    def admit(self, have: KernelState, pods: Sequence[Newcomer]) -> KernelState | None:
        """Guard new pods as pods are guarded now; return what holds then, None where that takes a turn."""
        if self._table is None or have.netfilter is None or self._table_unread or self._table.changed():
            return None
        guards = reconcile.guards_pods(have.netfilter)
        try:
            if guards and have.guard is None:
                table = have.netfilter
                for each in pods:
                    table = each.tabled(table)
                self._table.write(table, have.netfilter)
                return replace(have, netfilter=table)
            if not guards and have.guard is not None and self._programs is not None and not self._programs_unread:
                self._programs.admit([(each.link, each.sources) for each in pods])
                return replace(have, guard=admitted(have.guard, ((each.link.name, each.sources) for each in pods)))
        except KernelRefused:
            self._table_unread, self._programs_unread = guards, not guards
        return None  # as while one of them takes over from the other

    # --- what is to be done

    def first(self, want: KernelState, have: KernelState) -> Iterator[Step]:
        """Yield what comes before all else; who guards pods next does so before the other one stops."""
        if self._programs is not None:
            yield from reconcile.guard_to_put(want, have)
        if self._table is not None:
            yield from reconcile.filter_to_put(want, have, self._cause)

    def last(self, want: KernelState, have: KernelState) -> Iterator[Step]:
        """Yield what comes after all else."""
        if self._table is not None:
            yield from reconcile.filter_to_remove(want, have)
        if self._programs is not None:
            yield from reconcile.guard_to_remove(want, have)

    # --- doing it

    @staticmethod
    def withheld(step: Step, failed: Iterable[tuple[Step, str]]) -> bool:
        """Say whether a step would leave pods to programs that were refused."""
        leaves = isinstance(step, PutFilterTable) and reconcile.leaves_pods(step.table, step.replaces)
        return leaves and any(isinstance(each, PutGuard) for each, _ in failed)

    def do(self, step: Step, have: KernelState, links: Mapping[str, Link]) -> None:
        """Do one of these steps; others are none of ours. Raises KernelRefused."""
        match step:
            case PutFilterTable(table, replaced, _) if self._table is not None:
                self._table.write(table, replaced)
                self._cause = "wanted"
            case DeleteFilterTable() if self._table is not None:
                self._table.write(None, have.netfilter)
            case PutGuard(guard, _) if self._programs is not None:
                self._programs.write(guard, links)
            case DeleteGuard() if self._programs is not None:
                self._programs.write(None, links)

    def refused(self, step: Step) -> None:
        """Have it read back, since a refusal may have left it half done."""
        self._table_unread |= isinstance(step, PutFilterTable | DeleteFilterTable)
        self._programs_unread |= isinstance(step, PutGuard | DeleteGuard)
