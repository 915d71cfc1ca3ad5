"""The route engine: holds the wish and a mirror of the kernel, both in bytes, and writes the difference and no more.

It has no clock, thread or socket of its own: time comes as `now`, the kernel as a `Wire`. What it is told (`want`,
`observe`, `link_changed`) only marks identities as due; `carry_out` looks at each that is due, asks `reconcile.judge`,
and writes (`work`). Whatever cannot be written now waits on its own (`holds`) and holds up nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from felix_py.kernel import holds, ownership, reconcile, route_codec
from felix_py.kernel.books import Books
from felix_py.kernel.fib import Fib
from felix_py.kernel.holds import Hold, Waiting
from felix_py.kernel.interfaces import LinkChange
from felix_py.kernel.objects import IPV6, MAIN_TABLE, Amended, Link, NextHopObject, Route, RouteKey, RoutePolicy
from felix_py.kernel.outcome import Outcome
from felix_py.kernel.purge import Purger
from felix_py.kernel.wire import EventsLost, Family, NextHopEvent, Refusal, RouteEvent, Verb, Wire, WireBroken
from felix_py.kernel.work import ADD, NewRoutes, Rows, Work

POLICY = RoutePolicy()
"""What holds where nobody says otherwise."""


class Standing(NamedTuple):
    """How one route is, for people.

    Attributes:
        installed: the body that counts in the kernel; None where there is none.
        reason: why it is not as wanted; None where it is.
        since: when it was installed, on the clock of the engine's callers.
        refused: the kernel did not take it, so that waiting alone will not help.
    """

    installed: bytes | None
    reason: str | None
    since: float | None
    refused: bool = False


class Intention(NamedTuple):
    """What the engine would do about one identity, and what it waits for."""

    identity: bytes
    verdict: reconcile.Verdict
    stack: tuple[bytes, ...]
    hold: Hold | None


class Flight(NamedTuple):
    """Additions that are on their way to the kernel.

    Attributes:
        due: their identities, which are due no more.
        result: waits for them, and returns those that were refused.
    """

    due: KeysView[bytes]
    rows: Rows
    result: Callable[[], Mapping[int, Refusal]]


class RouteEngine:
    """Makes one table of one network namespace hold what is wanted; used by one thread."""

    def __init__(
        self, wire: Wire, purger: Purger, families: Iterable[Family] = tuple(Family), table: int = MAIN_TABLE
    ) -> None:
        self.books = Books(purger, families)
        self._wire = wire
        self._table = table
        self._contested: list[bytes] = []
        self._flights: list[Flight] = []
        self._awaited = 0  # of the flights, those that are over and not booked yet
        self._ahead: set[bytes] = set()  # written ahead of the wish that wants them
        self._new: dict[int, list[bytes]] = {}  # the same, out of interfaces that no event has told of yet
        self._early: set[int] = set()  # interfaces of which the same is true, and that somebody else's route leaves by

    # --- what should be

    def want(
        self,
        routes: Mapping[RouteKey, Route],
        next_hops: Mapping[int, NextHopObject],
        indexes: Mapping[str, int],
        policy: RoutePolicy = POLICY,
        amended: Amended | None = None,
    ) -> None:
        """Take the wish, whole; the very same mapping of routes again costs nothing.

        Args:
            routes: every route that the table should hold of ours.
            next_hops: the objects that they go through, by ID.
            indexes: interface indexes by name, as they are now.
            policy: how far to go.
            amended: how `routes` came about; what came from the wish before costs only the difference.
        """
        books = self.books
        if policy != books.policy:
            books.policy = policy
            books.must_read("policy changed")
            for fib in books.fibs.values():
                for name in tuple(fib.first):
                    books.compare(name, fib, "policy changed")
        served = books.wish.served
        changed = books.wish.take(routes, indexes, amended)
        books.due = {**dict.fromkeys(changed), **books.due} if books.due else dict.fromkeys(changed)
        for name in changed if books.holds else ():
            books.end_hold(name, Waiting.RETRY, Waiting.GRACE)
        if not books.wish.served <= served:
            # The endpoint of a device has become known: no race explains other routes out of it any more.
            for name in [name for name, hold in books.holds.items() if hold.waiting is Waiting.GRACE]:
                del books.holds[name]
                books.due.setdefault(name, None)
        books.next_hops.want(next_hops, indexes)

    # --- what happens

    def observe(self, event: RouteEvent | NextHopEvent | EventsLost, now: float) -> None:
        """Take one event of the kernel."""
        match event:
            case RouteEvent():
                self._route_changed(event, now)
            case NextHopEvent():
                for number in self.books.next_hops.see(event):
                    self.books.forget_through(number, "next hop deleted")
            case EventsLost():
                self.books.resync_cause = "events lost"

    def _route_changed(self, event: RouteEvent, now: float) -> None:
        fib = self._fib_of(event.body)
        if fib is None:
            return
        name, fits = fib.see(event)
        if event.verb is Verb.NEW_ROUTE:
            self._early.update(set(route_codec.devices_of(event.body)) - self.books.links.keys())
        if not fits:
            self.books.must_read("events out of order")
        self.books.compare(name, fib, "route deleted" if event.verb is Verb.DELETE_ROUTE else "route changed")
        if name in self.books.due and event.port and self.books.damping.disturbed(name, now, event.port):
            self._contested.append(name)

    def _fib_of(self, body: bytes) -> Fib | None:
        if route_codec.table_of(body) != self._table or route_codec.is_link_affair(body):
            return None
        return self.books.fib(body)  # an identity and a body begin with the same byte

    def link_changed(self, change: LinkChange, links: Mapping[int, Link]) -> None:
        """Take what happened to an interface.

        Args:
            change: the one interface, before and after.
            links: all of them, as they are now.
        """
        books = self.books
        cause = "link deleted" if change.after is None else "link changed"
        written = self._new.pop(change.index, [])
        if books.note_link(change, links):
            # Nothing else leaves by an interface that was just made, and to look through 100,000 routes takes its time.
            only = written if change.before is None and change.index not in self._early else None
            self._judge_anew(change.index, cause, only)
        self._early.discard(change.index)
        if change.lost_objects:
            books.forget_objects(change.index, cause)
        if change.lost_routes:
            books.forget_routes(change.index, cause)
        if change.lost_address:
            books.must_read("address deleted")
        if change.after is None:
            books.due.update((name, cause) for name, index in books.purge.owners.items() if index == change.index)
        self._retry_out_of(change.index)

    def _judge_anew(self, index: int, cause: str, only: Sequence[bytes] | None) -> None:
        """Look at routes out of an interface that has become a workload's: they are ours to judge from now on."""
        for fib in self.books.fibs.values():
            for name in fib.out_of(index) if only is None else only:
                if only is None or self.books.fib(name) is fib:
                    self.books.compare(name, fib, cause)

    def _retry_out_of(self, index: int) -> None:
        for name, hold in tuple(self.books.holds.items()):
            want = self.books.wish.bodies.get(name, b"")
            if hold.waiting is Waiting.RETRY and route_codec.leaves_by(want, index):
                self.books.due.setdefault(name, hold.cause)
                del self.books.holds[name]

    def resync(self, links: Mapping[int, Link]) -> None:
        """Read everything back; what differs from the mirror becomes due. Nothing is removed for a lost event.

        Raises:
            WireBroken: when it could not be read; it stays due.
        """
        books, version = self.books, self.books.others_version
        cause = books.resync_cause = books.resync_cause or "resync"
        books.set_links(links)
        for number in books.next_hops.replace(self._wire.dump_next_hops()):
            books.forget_through(number, cause)
        for family, fib in books.fibs.items():
            dump = self._wire.dump_routes(family, self._table)
            if family is not Family.IPV4:  # whose dumps always hold what changes by itself; those of IPv4 rarely do
                dump = [route_codec.normalised(body) for body in dump if not route_codec.is_link_affair(body)]
            for name in fib.replace(dump, books.wish.bodies):
                books.compare(name, fib, cause)
        if version != books.others_version:  # an interface that was made while this was read is told of later
            devices = map(route_codec.devices_of, books.others.values())
            self._early = set(chain.from_iterable(devices)) - links.keys()
        books.surprises &= books.due.keys()
        books.resync_cause = None

    # --- what is done about it

    def begin(self, now: float) -> None:
        """Put what is due on its way to the kernel while the caller goes on, if it is nothing but a table that arrives.

        `carry_out` has to follow: it sees to what becomes of that, and to all else.
        """
        books = self.books
        if not books.policy.sync or not all(each.due.isdisjoint(books.due.keys()) for each in self._flights):
            return
        rows = Work(books, now, Outcome()).arrivals(books.due)
        if rows is not None and rows.names:
            due, books.due = books.due, {}
            self._flights.append(Flight(due.keys(), rows, self._wire.start(Verb.NEW_ROUTE, ADD, rows.bodies)))

    def wait(self) -> bool:
        """Wait for the oldest part that is on its way; False where no other is, or that one has failed."""
        if len(self._flights) - self._awaited < 2:  # noqa: PLR2004 - the oldest, and another one
            return False
        try:
            self._flights[self._awaited].result()
        except WireBroken:  # `carry_out` hears the same, and sees to it
            return False
        self._awaited += 1
        return True

    def carry_out(self, now: float) -> Outcome:
        """Write what is due; what cannot be written now waits, each on its own."""
        books = self.books
        outcome = Outcome(contested=self._contested, calm=books.damping.calm(now))
        self._contested, self._ahead = [], set()
        if not books.policy.sync:
            return outcome
        work = Work(books, now, outcome)
        try:
            self._land(work)
            self._release(now)
            due, books.due = books.due, {}
            work.sort(due)
            del due  # of 100,000 it is some megabytes, which the writing needs
            work.write(self._wire)
        except WireBroken as broken:
            books.due = {**work.due(), **books.due}
            books.must_read("socket failed")
            outcome.broken = str(broken)
        return outcome

    def attach(self, pods: Sequence[NewRoutes], now: float) -> list[bool]:
        """Write the routes of new pods ahead of the wish that wants them; say of each whether they are there now.

        Those of which they are not need a turn.
        """
        books = self.books
        if not books.policy.sync or books.resync_cause is not None or self._flights:
            return [False] * len(pods)
        encode = route_codec.Encoder({each.device: each.index for each in pods})
        each_has = [each.bodies(encode) for each in pods]
        work = Work(books, now, Outcome())
        rows = work.newcomers({name: body for bodies in each_has for name, body in bodies.items()})
        if rows is None:
            return [self.attach([each], now)[0] for each in pods] if len(pods) > 1 else [False] * len(pods)
        try:
            refused = self._wire.write(Verb.NEW_ROUTE, ADD, rows.bodies)
            work.book_put(rows, refused)
            books.due.update(dict.fromkeys(rows.names))  # looked at by the next turn, for its pod may have gone by then
            self._ahead.update(rows.names)
            unseen = [pod.index not in books.links for pod in pods]
            self._new.update(
                (pod.index, [*bodies]) for pod, bodies, new in zip(pods, each_has, unseen, strict=True) if new
            )
        except WireBroken:
            books.must_read("socket failed")
            return [False] * len(pods)
        lost = {rows.names[position] for position in refused}
        return [lost.isdisjoint(bodies) for bodies in each_has]

    def _land(self, work: Work) -> None:
        """Wait for everything that is on its way, and book what became of it.

        Raises:
            WireBroken: when it is unknown what was done; then nothing is on its way any more, and that is due.
        """
        flights, self._flights, self._awaited = self._flights, [], 0
        failed: WireBroken | None = None
        for _, rows, result in flights:
            try:
                work.book_put(rows, result())
            except WireBroken as broken:
                failed = failed or broken
                self.books.due.update(zip(rows.names, rows.causes, strict=True))
        if failed is not None:
            raise failed

    def _release(self, now: float) -> None:
        """Make due what has waited long enough."""
        books = self.books
        for name in books.purge.finished():
            hold = books.holds.get(name)
            books.end_hold(name, Waiting.CONNTRACK)
            books.due.setdefault(name, hold.cause if hold else None)
        for name, hold in books.holds.items():
            if hold.until <= now:
                books.due.setdefault(name, hold.cause)

    def is_due(self, now: float) -> bool:
        """Say whether there is something to do now."""
        books = self.books
        if not books.policy.sync:
            return books.resync_cause is not None
        pending = books.due or books.next_hops.to_put(now) or books.purge.has_finished
        return bool(pending) or books.resync_cause is not None

    def is_calm(self, now: float) -> bool:
        """Say whether nothing is to be done now but to look at what `attach` has written, all of which stands."""
        books = self.books
        others = books.next_hops.to_put(now) or books.purge.has_finished or self._contested or self._flights
        if others or books.resync_cause is not None or any(hold.until <= now for hold in books.holds.values()):
            return False
        return books.due.keys() <= self._ahead and all(map(books.stack, self._ahead))

    @property
    def next_due(self) -> float | None:
        """When there will be something to do although nothing happens; None for never."""
        waiting = (*self.books.holds.values(), *self.books.next_hops.refused.values())
        times = [hold.until for hold in waiting if hold.until != holds.NEVER]
        return min((*times, *self.books.damping.ends()), default=None)

    # --- what others may ask

    def ours(self) -> Iterator[bytes]:
        """Iterate over the bodies in the kernel that are ours."""
        return (body for fib in self.books.fibs.values() for body in fib if self.books.owns(body))

    def standing(self, key: RouteKey, now: float) -> Standing:
        """Say how one route is."""
        name = route_codec.identity_of(key)
        fib = self.books.fib(name)
        first = fib.first.get(name) if fib else None
        reason = None if first is not None and first == self.books.wish.bodies.get(name) else self._reason(name, now)
        hold = self.books.holds.get(name)
        refused = reason is not None and (
            name in self.books.conflicts or (hold is not None and hold.refusal is not None)
        )
        return Standing(first, reason, self.books.since.get(name), refused)

    def _reason(self, name: bytes, now: float) -> str:
        books = self.books
        if not books.policy.sync:
            return "FelixConfiguration says routeSyncDisabled; set it to false to have routes kept"
        if (device := books.wish.without_device.get(name)) is not None:
            return f"{device} does not exist"
        if (hold := books.holds.get(name)) is not None:
            return hold.reason(now)
        if (other := books.conflicts.get(name)) is not None:
            return self.in_the_way(other)
        return "not written yet"

    def in_the_way(self, body: bytes) -> str:
        """Say whose route stands where ours should, and what to do."""
        entry = self.readable(body)
        if entry is None:
            return "a route that we cannot read stands there"
        key, route = entry
        who = ownership.protocol_name(route.protocol)
        command = "ip -6 route" if key.dst.version == IPV6 else "ip route"
        return f"a route of protocol {who} stands there ({route}); remove it with `{command} del {key.dst} proto {who}`"

    def readable(self, body: bytes) -> tuple[RouteKey, Route] | None:
        """Decode a route, with the interfaces' names as they are now."""
        return route_codec.decode(body, {index: link.name for index, link in self.books.links.items()})

    def intentions(self) -> Iterator[Intention]:
        """Say for everything that is not as wanted what would be done, and what it waits for or is in its way."""
        books = self.books
        for name in {*books.due, *books.holds, *books.conflicts}:
            fib = books.fib(name)
            if fib is not None:
                stack = fib.stack(name)
                verdict = reconcile.judge(books.wish.bodies.get(name), stack, books.owns)
                yield Intention(name, verdict, stack, books.holds.get(name))
