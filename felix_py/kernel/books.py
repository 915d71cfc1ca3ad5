"""What the route engine knows: the wish, the mirror, whose a route is, what waits. It decides and writes nothing."""

from collections.abc import Iterable, Mapping

from felix_py.kernel import ownership, route_codec
from felix_py.kernel.damping import Damping
from felix_py.kernel.fib import Fib
from felix_py.kernel.holds import Hold, Waiting
from felix_py.kernel.interfaces import LinkChange
from felix_py.kernel.next_hop_table import NextHopTable
from felix_py.kernel.objects import Link, RoutePolicy
from felix_py.kernel.purge import Purge, Purger
from felix_py.kernel.wire import Family
from felix_py.kernel.wish import Wish
from ipip import tunnel


class Books:
    """State of one engine, by the identity of routes.

    Attributes:
        due: what has to be looked at, with what others did to it; None where our own wish changed.
        conflicts: somebody else's routes that stand where ours should.
        surprises: what was refused because of a route that the mirror did not show; read back before the next try.
        others: routes that are not ours, also where we want one ourselves; `others_version` changes with them.
        resync_cause: why everything has to be read back before the next write; None when nothing asks for it.
        links: interfaces by index.
        workloads: indexes of those that are a pod's; `tunnels` of those that are ours to send encapsulated packets by.
    """

    def __init__(self, purger: Purger, families: Iterable[Family]) -> None:
        self.fibs = {family: Fib() for family in families}
        self._by_family: Mapping[int, Fib] = {int(family): fib for family, fib in self.fibs.items()}
        self.wish = Wish()
        self.next_hops = NextHopTable()
        self.damping = Damping()
        self.purge = Purge(purger)
        self.holds: dict[bytes, Hold] = {}
        self.since: dict[bytes, float] = {}
        self.due: dict[bytes, str | None] = {}
        self.conflicts: dict[bytes, bytes] = {}
        self.surprises: set[bytes] = set()
        self.others: dict[bytes, bytes] = {}
        self.others_version = 0
        self.resync_cause: str | None = "start"
        self.links: Mapping[int, Link] = {}
        self.workloads: frozenset[int] = frozenset()
        self.tunnels: frozenset[int] = frozenset()
        self.policy = RoutePolicy()

    def fib(self, identity: bytes) -> Fib | None:
        """Return the mirror that an identity belongs to; None for a family that this host does not have."""
        return self._by_family.get(identity[0])

    def fib_of(self, family: int) -> Fib | None:
        """Return the mirror of a family; None where this host does not have it."""
        return self._by_family.get(family)

    def stack(self, identity: bytes) -> tuple[bytes, ...]:
        """Return the routes of one identity in the kernel, the one that counts first."""
        fib = self.fib(identity)
        return fib.stack(identity) if fib is not None else ()

    def owns(self, body: bytes) -> bool:
        """Say whether a route is ours to change and remove: by its protocol, or by a workload's device."""
        protocol = route_codec.protocol_of(body)
        if protocol == ownership.ROUTE_PROTOCOL:
            return True
        if protocol == ownership.BIRD and not self.tunnels.isdisjoint(route_codec.devices_of(body)):
            return True  # what Calico's BIRD left behind on a node that has moved here
        if protocol == ownership.KERNEL_PROTOCOL or not self.workloads:
            return False
        if protocol != ownership.BOOT and not self.policy.remove_external:
            return False
        if route_codec.is_beyond_us(body) or route_codec.is_link_affair(body):
            return False
        return not self.workloads.isdisjoint(route_codec.devices_of(body))

    def must_read(self, cause: str) -> None:
        """Ask for a resync; the first cause is the one that is told."""
        self.resync_cause = self.resync_cause or cause

    def set_links(self, links: Mapping[int, Link]) -> list[int]:
        """Take all interfaces; return the indexes of those that have become workloads' since."""
        workloads = frozenset(i for i, link in links.items() if ownership.is_workload_device(link.name))
        new = list(workloads - self.workloads)
        self.tunnels = frozenset(index for index, link in links.items() if link.name == tunnel.DEVICE)
        self.links, self.workloads = links, workloads
        return new

    def note_link(self, change: LinkChange, links: Mapping[int, Link]) -> bool:
        """Take one interface that has changed; say whether it has become a workload's since.

        Args:
            change: the one.
            links: all of them, as they are now.
        """
        index, name = change.index, change.after.name if change.after is not None else None
        was, self.links = index in self.workloads, links
        if (now := ownership.is_workload_device(name)) != was:
            self.workloads ^= {index}
        if (name == tunnel.DEVICE) != (index in self.tunnels):
            self.tunnels ^= {index}
        return now and not was

    def compare(self, identity: bytes, fib: Fib, cause: str) -> None:
        """Mark an identity as due if the mirror does not show what is wanted, and note who stands there."""
        first, want = fib.first.get(identity), self.wish.bodies.get(identity)
        if first is not None and self.owns(first):
            self._note_other(identity, None)
            self.note_owner(identity, first)
        else:
            self._note_other(identity, first)
        if first == want and identity not in fib.behind:
            self.due.pop(identity, None)
        elif want is not None or any(map(self.owns, fib.stack(identity))):
            self.due[identity] = cause

    def _note_other(self, identity: bytes, body: bytes | None) -> None:
        if self.others.get(identity) == body:
            return
        self.others_version += 1
        if body is None:
            del self.others[identity]
        else:
            self.others[identity] = body

    def note_owner(self, identity: bytes, body: bytes) -> None:
        """Remember which workload's interface a single address belongs to."""
        if self.workloads and route_codec.is_host(body):
            index = next(iter(route_codec.devices_of(body)), 0)
            if index in self.workloads:
                self.purge.owners[identity] = index

    def forget_routes(self, index: int, cause: str) -> None:
        """Drop what the kernel drops without a word when an interface goes down or away."""
        for fib in self.fibs.values():
            for identity in fib.forget(index):
                self.compare(identity, fib, cause)

    def forget_objects(self, index: int, cause: str) -> None:
        """Drop what the kernel drops without a word when an interface loses its carrier."""
        for number in self.next_hops.forget(index):
            self.forget_through(number, cause)

    def forget_through(self, number: int, cause: str) -> None:
        """Drop the routes through a next-hop object that is gone: the kernel dropped them with it, without a word."""
        mark = route_codec.through_attribute(number)
        for fib in self.fibs.values():
            for identity in [name for name, body in fib.first.items() if mark in body]:
                fib.put(identity, ())
                self.compare(identity, fib, cause)

    def goes_through(self, number: int) -> bool:
        """Say whether a route in the kernel needs this next-hop object."""
        mark = route_codec.through_attribute(number)
        return any(mark in body for fib in self.fibs.values() for body in fib)

    def end_hold(self, identity: bytes, *waiting: Waiting) -> None:
        """End a wait of one of these kinds."""
        hold = self.holds.get(identity)
        if hold is not None and hold.waiting in waiting:
            del self.holds[identity]
