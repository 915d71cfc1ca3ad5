"""The kernel as the agent sees it: interfaces, routes, tunnels and parameters of one network namespace, kept as wished.

`catch_up` takes what has happened, `resync` reads everything back when that is not enough, `make` writes what differs.
All three run in one thread; none has a clock.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from felix_py.kernel import next_hop_codec, ownership, reconcile, rereading
from felix_py.kernel.engine import RouteEngine
from felix_py.kernel.event_queue import EventQueue
from felix_py.kernel.guarding import WITHHELD, Guarding, Newcomer, PacketFilter, PodGuard
from felix_py.kernel.holds import Hold, after_refusal
from felix_py.kernel.interfaces import Interfaces, LinkChange
from felix_py.kernel.newcomers import Newcomers
from felix_py.kernel.objects import (
    MAIN_TABLE,
    DeleteFilterTable,
    DeleteGuard,
    DeleteTunnel,
    KernelRefused,
    KernelState,
    Link,
    NextHopObject,
    PodLink,
    PutFilterTable,
    PutGuard,
    PutPodLink,
    PutSysctl,
    PutTunnel,
    Route,
    RouteKey,
    Step,
)
from felix_py.kernel.outcome import Outcome
from felix_py.kernel.purge import Purger
from felix_py.kernel.tunnels import TunnelDevice, Tunnels, VxlanDevices
from felix_py.kernel.wire import (
    AddressEvent,
    EventsLost,
    Family,
    LinkEvent,
    NextHopEvent,
    ParameterEvent,
    ProgramEvent,
    Refusal,
    RouteEvent,
    Wire,
)

OF_ALL = frozenset({"ip_forward", "all"})
"""In the paths of parameters that we keep for all interfaces at once: events about them name no interface."""


class Parameters(Protocol):
    """Kernel parameters below /proc/sys; `kernel.sysctl` offers them."""

    def read(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the value of each parameter that exists."""

    def write(self, path: str, value: str) -> None:
        """Set one; raises KernelRefused."""


class PodLinks(Protocol):
    """Pods' veths; `cni.podnet` offers it."""

    def resize(self, name: str, link: PodLink) -> None:
        """Give both ends this MTU; raises KernelRefused."""


@dataclass(frozen=True, slots=True)
class News:
    """What has happened since the last look.

    Attributes:
        causes: how often what happened, in the words of the counter of repairs.
        links: interfaces that changed.
        events: how many events there were.
    """

    causes: Counter[str] = field(default_factory=Counter)
    links: tuple[LinkChange, ...] = ()
    events: int = 0

    def and_then(self, later: "News") -> "News":
        """Return both."""
        return News(self.causes + later.causes, (*self.links, *later.links), self.events + later.events)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a go: steps done and refused, and the routes, which are too many to be steps."""

    done: tuple[Step, ...] = ()
    failed: tuple[tuple[Step, str], ...] = ()
    routes: Outcome = field(default_factory=Outcome)


class Kernel:
    """One thread's view of this network namespace."""

    def __init__(
        self,
        wire: Wire,
        tunnels: TunnelDevice,
        tunnel_refused: type[Exception],
        parameters: Parameters,
        purger: Purger,
        families: Iterable[Family] = tuple(Family),
        netfilter: PacketFilter | None = None,
        pod_links: PodLinks | None = None,
        vxlan: VxlanDevices | None = None,
        guard: PodGuard | None = None,
    ) -> None:
        self.routes = RouteEngine(wire, purger, families)
        self.interfaces = Interfaces()
        self.have = KernelState()
        self._wire = wire
        self._tunnels = Tunnels(tunnels, vxlan)
        self._tunnel_refused = tunnel_refused
        self._parameters = parameters
        self.guarding = Guarding(netfilter, guard)
        self._pod_links = pod_links
        self._unread: set[str] = {"start"}
        self._stale_devices: set[str] = set()
        self._newcomers = Newcomers()
        self._holds: dict[Step, Hold] = {}
        self._events = EventQueue(wire, self.interfaces.by_index)

    # --- what happens

    def is_behind(self) -> bool:
        """Say whether `catch_up` has left events."""
        return bool(self._events)

    def receive(self) -> None:
        """Receive what has happened, for `catch_up` to take; the one thing that may be done while others write.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        self._events.receive()

    def catch_up(self, now: float, most: int | None = None) -> News:
        """Take everything that has happened since the last call; nothing is read back and nothing written.

        Args:
            now: the time.
            most: events that are taken; None takes all.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        causes, changes = Counter[str](), list[LinkChange]()
        taken = self._events.take(most)
        for event in taken:
            match event:
                case RouteEvent() | NextHopEvent():
                    self.routes.observe(event, now)
                case LinkEvent() | AddressEvent():
                    changes += self._link_changed(self.interfaces.see(event))
                case ParameterEvent(index):
                    causes["parameter changed"] += 1
                    self._parameter_changed(index)
                case ProgramEvent(index):
                    # Gone with its interface, which another event tells, or one of the tunnel's programs with it.
                    if (link := self.interfaces.by_index.get(index)) is not None:
                        self._stale_devices.add(link.name)
                        self._newcomers.program_changed(link.name)
                case EventsLost():
                    causes["events lost"] += 1
                    self.routes.observe(event, now)
        return News(causes, tuple(changes), len(taken))

    def _parameter_changed(self, index: int) -> None:
        link = self.interfaces.by_index.get(index)
        if link is not None:
            self._stale_devices.add(link.name)
            self._newcomers.parameter_changed(link.name)
        elif index < 0:  # of an interface that is not known yet nothing was read
            self._stale_devices |= OF_ALL

    def _link_changed(self, changes: tuple[LinkChange, ...]) -> tuple[LinkChange, ...]:
        for change in changes:
            self._stale_devices.add(change.name)
            if change.after is None:
                self._newcomers.gone(change.name)
            self.routes.link_changed(change, self.interfaces.by_index)
        return changes

    def is_calm(self, now: float) -> bool:
        """Say whether nothing that is known by now asks for more than a look at pods that were admitted."""
        served, known = self.routes.books.wish.served, self._newcomers.untouched(self.links)
        doubtful = self._stale_devices - known.keys()
        calm = not self._unread and self.routes.is_calm(now)
        return calm and all(self._is_nobodys(self.links.get(name), served) for name in doubtful)

    def _is_nobodys(self, link: Link | None, served: Collection[int]) -> bool:
        """Say whether an interface will be a pod's at best, which nobody has told us of yet."""
        new = link is not None and ownership.is_workload_device(link.name) and link.index not in served
        return link is not None and new and not self._newcomers.knows(link.name)

    @property
    def resync_cause(self) -> str | None:
        """Why everything has to be read back before the next write; None when nothing asks for it."""
        return self.routes.books.resync_cause

    def must_read(self, cause: str) -> None:
        """Ask for everything to be read back."""
        self.routes.books.must_read(cause)

    def reopen(self) -> None:
        """Open the sockets anew; everything has to be read again.

        Raises:
            WireBroken: when that fails too.
        """
        self._wire.reopen()
        self.must_read("socket failed")

    def resync(self) -> tuple[LinkChange, ...]:
        """Read everything back; return what was found to have changed of interfaces.

        Raises:
            WireBroken: when it could not be read; it stays due.
        """
        changes = self.interfaces.replace(self._wire.dump_links())
        for change in changes:
            self.routes.link_changed(change, self.interfaces.by_index)
        self.routes.resync(self.interfaces.by_index)
        self._unread.add("resync")
        return changes

    # --- what is done about it

    def make(self, want: KernelState, now: float) -> Report:
        """Write what differs from the wish; one refusal stops nothing else.

        Raises:
            WireBroken: when what a new tunnel brought could not be read; nothing was written then.
        """
        done: list[Step] = []
        failed: list[tuple[Step, str]] = []
        self._read_back(want)
        first, last = self._steps(want)
        for step in first:
            self._attempt(step, now, done, failed)
        if any(isinstance(step, PutTunnel) for step in done):
            self.catch_up(now)  # a tunnel that was made has an index by now, which its routes need
        self._wish(want)
        routes = self.routes.carry_out(now)
        for step in last:
            self._attempt(step, now, done, failed)
        self.have = reconcile.kept(self.have, done)  # so that it need not be read
        tried = {*done, *(step for step, _ in failed)}
        self._holds = {step: hold for step, hold in self._holds.items() if step in tried}
        return Report(tuple(done), tuple(failed), routes)

    def admit(self, pods: Sequence[Newcomer]) -> bool:
        """Guard new pods ahead of the wish that wants it so, as pods are guarded now; False where that takes a turn."""
        found = self.guarding.admit(self.have, pods)
        if found is None:
            return False
        self.have = found
        for each in pods:
            if each.given is not None:
                self._newcomers.come(each.link, each.given)
        return True

    def only_routes(self, want: KernelState) -> bool:
        """Say whether everything but the routes is as wanted."""
        self._read_back(want)
        return not any(self._steps(want))

    def begin(self, want: KernelState, now: float) -> None:
        """Put new routes of a wish on their way to the kernel while the caller goes on; `make` has to follow.

        Only where all else is as wanted already: a route must not be there before what it needs.
        """
        self._wish(want)
        self.routes.begin(now)

    def plan(self, want: KernelState) -> tuple[Step, ...]:
        """Return what would be done about all but the routes, and give the routes their wish; writes nothing."""
        self._read_back(want)
        self._wish(want)
        first, last = self._steps(want)
        return (*first, *last)

    def _steps(self, want: KernelState) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """Return what comes before the routes, and what comes after them."""
        have = self.have
        first, last = reconcile.parameters_and_tunnels(want, have), reconcile.after_routes(want, have)
        return (*self.guarding.first(want, have), *first), (*last, *self.guarding.last(want, have))

    def _wish(self, want: KernelState) -> None:
        indexes = {name: link.index for name, link in self.interfaces.by_name.items()}
        self.routes.want(want.routes, want.next_hops, indexes, want.policy, want.amended)

    def _read_back(self, want: KernelState) -> None:
        """Read all but the routes where it may differ from what was read last."""
        known = self._newcomers.untouched(self.links)
        have, stale = self.have, self._stale_devices - known.keys()
        moved = stale
        if self._unread:
            known, stale, have = {}, set(), replace(have, sysctls={})
        sysctls = rereading.parameters(want.sysctls, have.sysctls, stale, known, self._parameters.read)
        tunnels = self._tunnels.read_back(have.tunnels, want.tunnels, stale, unread=bool(self._unread))
        pods = reconcile.pod_links_as_they_are(want.pod_links, self.links) if self._pod_links is not None else {}
        table = self.guarding.read_table(have.netfilter)
        guard = self.guarding.read_programs(have.guard, self.links, moved, unread=bool(self._unread))
        if guard == want.guard:
            guard = want.guard  # of one object, the next look tells that it is the same without a look into it
        self.have = KernelState(tunnels=tunnels, sysctls=sysctls, netfilter=table, guard=guard, pod_links=pods)
        self._unread, self._stale_devices = set(), set()
        self._newcomers.forget()

    def _attempt(self, step: Step, now: float, done: list[Step], failed: list[tuple[Step, str]]) -> None:
        """Do one step, unless it was refused a moment ago, or needs one that was."""
        if self.guarding.withheld(step, failed):
            failed.append((step, WITHHELD))
            return
        hold = self._holds.get(step)
        if hold is not None and hold.refusal is not None and hold.until > now:
            failed.append((step, hold.refusal.text))
            return
        try:
            self._do(step)
        except (KernelRefused, self._tunnel_refused) as refused:
            self.guarding.refused(step)
            self._holds[step] = after_refusal(Refusal(0, str(refused)), hold, now)
            failed.append((step, str(refused)))
        else:
            self._holds.pop(step, None)
            done.append(step)

    def _do(self, step: Step) -> None:
        match step:
            case PutSysctl(path, value):
                self._parameters.write(path, value)
            case PutTunnel(tunnel):
                self._tunnels.put(tunnel)
            case DeleteTunnel(name):
                self._tunnels.delete(name)
            case PutPodLink(name, link) if self._pod_links is not None:
                self._pod_links.resize(name, link)
            case PutFilterTable() | DeleteFilterTable() | PutGuard() | DeleteGuard():
                self.guarding.do(step, self.have, self.links)

    @property
    def next_due(self) -> float | None:
        """When there will be something to do although nothing happens; None for never."""
        times = [hold.until for hold in self._holds.values()]
        routes = self.routes.next_due
        return min((*times, *(() if routes is None else (routes,))), default=None)

    # --- what others may ask

    @property
    def links(self) -> Mapping[str, Link]:
        """All interfaces by name; the same object until one changes."""
        return self.interfaces.by_name

    def ours(self) -> dict[RouteKey, Route]:
        """Return the routes in the kernel that are ours."""
        return dict(filter(None, map(self.routes.readable, self.routes.ours())))

    def objects(self) -> dict[int, NextHopObject]:
        """Return the next-hop objects in the kernel that are ours, by ID."""
        names = self.interfaces.names
        found = filter(None, (next_hop_codec.decode(body, names) for body in self.routes.books.next_hops.held.values()))
        return {number: each for number, each in found if each.protocol == ownership.ROUTE_PROTOCOL}

    def others(self) -> dict[RouteKey, Route]:
        """Return the routes in the kernel that are not."""
        return dict(filter(None, map(self.routes.readable, self.routes.books.others.values())))

    def table(self, family: Family) -> list[tuple[RouteKey, Route, bool]]:
        """Read every route of the main table of a family now, whoever owns it; the last word is whether we do.

        Raises:
            WireBroken: when it could not be read.
        """
        read = ((body, self.routes.readable(body)) for body in self._wire.dump_routes(family, MAIN_TABLE))
        return [(*entry, self.routes.books.owns(body)) for body, entry in read if entry is not None]
