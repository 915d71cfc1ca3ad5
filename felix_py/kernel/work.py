"""One go of the route engine: sorts what is due by what has to be done, writes it batch by batch, books the results."""

import errno
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from felix_py.kernel import holds, next_hop_codec, ownership, reconcile, route_codec
from felix_py.kernel.books import Books
from felix_py.kernel.holds import Hold, Waiting
from felix_py.kernel.objects import Route, RouteKey
from felix_py.kernel.outcome import Batch, Outcome
from felix_py.kernel.route_body import HOST_LENGTH
from felix_py.kernel.route_codec import Encoder
from felix_py.kernel.wire import Mode, Refusal, Verb, Wire

ADD, REPLACE = Mode.CREATE | Mode.EXCLUSIVE, Mode.CREATE | Mode.REPLACE


HOST_LENGTHS = frozenset(HOST_LENGTH.values())
"""Bits of prefixes that are one address: the second byte of an identity and of a body."""


def families_of(names: Iterable[bytes]) -> set[int]:
    """Return the address families of identities: the first byte of each."""
    return set(map(itemgetter(0), names))


@dataclass(slots=True)
class Rows:
    """Writes of one kind that are to be made, in columns."""

    names: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    old: list[bytes | None] = field(default_factory=list)
    causes: list[str | None] = field(default_factory=list)

    def add(self, name: bytes, body: bytes, old: bytes | None, cause: str | None) -> None:
        """Add one row."""
        self.names.append(name)
        self.bodies.append(body)
        self.old.append(old)
        self.causes.append(cause)


@dataclass(frozen=True, slots=True)
class NewRoutes:
    """The routes of a new pod.

    Attributes:
        routes: out of its interface, which may be newer than the last event that was taken.
        device: the interface.
        index: of it.
    """

    routes: Mapping[RouteKey, Route]
    device: str
    index: int

    def bodies(self, encode: Encoder) -> dict[bytes, bytes]:
        """Return them as the kernel takes them, by identity.

        Args:
            encode: knows the index of the interface.
        """
        return {route_codec.identity_of(key): encode(key, route) for key, route in self.routes.items()}


class Work:
    """What one go has to do.

    The order of writing: removals that have to come first, next-hop objects, additions, replacements, removals, objects
    that nobody uses any more; so no address is without a route for longer than it must be.
    """

    def __init__(self, books: Books, now: float, outcome: Outcome) -> None:
        self._books = books
        self._now = now
        self._outcome = outcome
        self._early = Rows()
        self._add = Rows()
        self._replace = Rows()
        self._delete = Rows()

    # --- sort

    def sort(self, due: Mapping[bytes, str | None]) -> None:
        """Decide for each identity that is due."""
        books = self._books
        wanted, special = books.wish.bodies, self._special(due)
        new = self.arrivals(due)
        if new is not None:
            self._add = new
            return
        for name, cause in due.items():
            fib = books.fib(name)
            if fib is None:
                continue
            want = wanted.get(name)
            plain = not special or not any(name in each for each in special)
            if plain and want is not None and name not in fib.first:
                self._add.add(name, want, None, cause)
            else:
                self._sort_one(name, want, fib.stack(name), cause)

    def arrivals(self, due: Mapping[bytes, str | None]) -> Rows | None:
        """Return the additions that all of this comes to where it is a table that arrives; None where it is not."""
        if self._special(due):
            return None
        names, bodies = [*due], [*map(self._books.wish.bodies.get, due)]
        fibs = [*map(self._books.fib_of, families_of(names))]
        if not all(fib is not None and fib.first.keys().isdisjoint(due.keys()) for fib in fibs):
            return None
        wanted = [*filter(None, bodies)]
        return Rows(names, wanted, [None] * len(names), [*due.values()]) if len(wanted) == len(names) else None

    def newcomers(self, bodies: Mapping[bytes, bytes]) -> Rows | None:
        """Return the additions that these bodies are where nothing else has to be minded; None where something has."""
        due = dict.fromkeys(bodies)
        fibs = [*map(self._books.fib_of, families_of(due))]
        free = all(fib is not None and fib.first.keys().isdisjoint(due) for fib in fibs)
        if not free or self._special(due) or not due.keys().isdisjoint(self._books.wish.bodies):
            return None
        return Rows([*bodies], [*bodies.values()], [None] * len(bodies), [None] * len(bodies))

    def _special(self, due: Mapping[bytes, str | None]) -> tuple[Collection[bytes], ...]:
        """Return what an addition has to mind: nearly always nothing, so that 100,000 do not pay for it."""
        books = self._books
        through: Collection[bytes] = books.wish.bodies.keys() if books.next_hops.wanted else ()
        mindful = (
            books.holds.keys(), books.damping.quarrels.keys(), books.purge.owners.keys(), books.purge.active, through
        )  # fmt: skip
        return tuple(each for each in mindful if each and not due.keys().isdisjoint(each))

    def _sort_one(self, name: bytes, want: bytes | None, stack: tuple[bytes, ...], cause: str | None) -> None:
        books, now = self._books, self._now
        hold = books.holds.get(name)
        if hold is not None and hold.until > now:
            return
        verdict = reconcile.judge(want, stack, books.owns)
        self._note_conflict(name, verdict.in_the_way)
        if verdict.put is None and not verdict.delete:
            self._settled(name, want)
            return
        hold = self._must_wait(name, want, verdict, cause)
        if hold is not None:
            books.holds[name] = hold
            return
        if want is not None and self._purge_before(name, want, stack, cause):
            return
        if verdict.put is not None:
            rows = self._add if verdict.mode == ADD else self._replace
            rows.add(name, verdict.put, stack[0] if stack else None, cause)
        for body in verdict.delete:
            self._delete.add(name, body, body, cause)

    def _settled(self, name: bytes, want: bytes | None) -> None:
        books = self._books
        books.holds.pop(name, None)
        books.surprises.discard(name)
        books.damping.repaired(name)
        if want is None:
            self._purge_leaver(name)

    def _note_conflict(self, name: bytes, other: bytes | None) -> None:
        conflicts = self._books.conflicts
        if other is None:
            conflicts.pop(name, None)
        elif conflicts.get(name) != other:
            conflicts[name] = self._outcome.conflicts[name] = other

    def _must_wait(self, name: bytes, want: bytes | None, verdict: reconcile.Verdict, cause: str | None) -> Hold | None:
        """Return what this identity has to wait for, if anything."""
        books, now = self._books, self._now
        before = books.holds.get(name)
        if books.purge.waits(name) and want is not None:
            return Hold(Waiting.CONNTRACK, holds.NEVER, cause=cause)
        calm = books.damping.due(name, now)
        if calm > now:
            return Hold(Waiting.CALM, calm, cause=cause)
        graced = before is not None and before.waiting is Waiting.GRACE
        if want is None and not graced and self._may_be_a_race(verdict.delete):
            return Hold(Waiting.GRACE, now + ownership.GRACE, cause=cause)
        through = route_codec.through_of(want) if want is not None and books.next_hops.wanted else None
        taken = books.next_hops.taken(through) if through is not None else None
        if taken is not None:
            return self._refused(name, Refusal(errno.EEXIST, taken), cause)
        return None

    def _may_be_a_race(self, bodies: Sequence[bytes]) -> bool:
        """Say whether these may be a CNI plugin's, whose endpoint we have not heard of yet."""
        served = self._books.wish.served
        return any(
            route_codec.protocol_of(body) != ownership.ROUTE_PROTOCOL
            and served.isdisjoint(route_codec.devices_of(body))
            for body in bodies
        )

    # --- connection tracking

    def _purge_before(self, name: bytes, want: bytes, stack: tuple[bytes, ...], cause: str | None) -> bool:
        """Where an address changes its owner: take the old route away, begin the purge, and let the new one wait."""
        books = self._books
        if not route_codec.is_host(want):
            return False
        owner, devices = books.purge.owners.get(name), route_codec.devices_of(want)
        ours = [body for body in stack if books.owns(body)]
        from_afar = owner is None and bool(ours) and not books.workloads.isdisjoint(devices)
        if owner in devices or (owner is None and not from_afar):
            return False
        for body in ours:
            self._early.add(name, body, body, cause)
        if not ours:
            self._begin_purge(name, cause)
        return True

    def _begin_purge(self, name: bytes, cause: str | None) -> None:
        self._books.purge.begin(name, route_codec.address_in(name))
        self._books.holds[name] = Hold(Waiting.CONNTRACK, holds.NEVER, cause=cause)

    def _purge_leaver(self, name: bytes) -> None:
        """Forget the connections of an address that has left its endpoint: not of one whose interface is only down."""
        books = self._books
        owner = books.purge.owners.get(name)
        if owner is None:
            return
        link = books.links.get(owner)
        if link is None or link.up:
            books.purge.begin(name, route_codec.address_in(name))

    # --- write

    def due(self) -> dict[bytes, str | None]:
        """Return all that was to be written, with its cause."""
        every = (self._early, self._add, self._replace, self._delete)
        return {name: cause for rows in every for name, cause in zip(rows.names, rows.causes, strict=True)}

    def write(self, wire: Wire) -> None:
        """Write everything.

        Raises:
            WireBroken: when it is unknown what was done.
        """
        self._take_away(wire, self._early)
        for name, cause in zip(self._early.names, self._early.causes, strict=True):
            if not any(map(self._books.owns, self._books.stack(name))) and not self._books.purge.waits(name):
                self._begin_purge(name, cause)
        self._write_objects(wire)
        self._put(wire, ADD, self._add)
        self._put(wire, REPLACE, self._replace)
        self._take_away(wire, self._delete)
        self._delete_objects(wire)

    def _put(self, wire: Wire, mode: Mode, rows: Rows) -> None:
        if rows.names:
            self.book_put(rows, wire.write(Verb.NEW_ROUTE, mode, rows.bodies))

    def book_put(self, rows: Rows, refused: Mapping[int, Refusal]) -> None:
        """Book what became of additions or replacements."""
        books = self._books
        rows = self._done(rows, refused)
        families = families_of(rows.names)
        for family in families:
            columns = zip(rows.names, rows.bodies, strict=True)
            fib = books.fib_of(family)
            assert fib is not None  # noqa: S101 - nothing was written of a family that this host does not have
            fib.take(columns if len(families) == 1 else (row for row in columns if row[0][0] == family))
        if books.workloads and not HOST_LENGTHS.isdisjoint(map(itemgetter(1), rows.names)):
            for name, body in zip(rows.names, rows.bodies, strict=True):
                books.note_owner(name, body)
        books.since.update(dict.fromkeys(rows.names, self._now))
        self._book(rows, rows.bodies)

    def _take_away(self, wire: Wire, rows: Rows) -> None:
        if not rows.names:
            return
        books = self._books
        rows = self._done(rows, wire.write(Verb.DELETE_ROUTE, Mode.NONE, rows.bodies))
        for name, body in zip(rows.names, rows.bodies, strict=True):
            fib = books.fib(name)
            if fib is not None:
                fib.put(name, tuple(each for each in fib.stack(name) if each != body))
            if name not in books.wish.bodies:
                books.since.pop(name, None)
                self._purge_leaver(name)
        self._book(rows, [None] * len(rows.names))

    def _book(self, rows: Rows, new: Sequence[bytes | None]) -> None:
        books = self._books
        self._outcome.batches.append(Batch(rows.names, rows.old, new, rows.causes))
        if books.holds or books.damping.quarrels or books.surprises:
            for name in rows.names:
                books.end_hold(name, Waiting.RETRY, Waiting.GRACE, Waiting.CALM)
                books.surprises.discard(name)
                books.damping.repaired(name)

    def _done(self, rows: Rows, refused: Mapping[int, Refusal]) -> Rows:
        """Book refusals, and return the rows that were done."""
        if not refused:
            return rows
        done = Rows()
        columns = zip(rows.names, rows.bodies, rows.old, rows.causes, strict=True)
        for position, (name, body, old, cause) in enumerate(columns):
            if position not in refused:
                done.add(name, body, old, cause)
            elif refused[position].code == errno.EEXIST and name not in self._books.surprises:
                # A route stands where the mirror shows none: it is read back at once, and decided about again.
                self._books.surprises.add(name)
                self._books.due[name] = cause
                self._books.must_read("a route that was not known")
            else:
                self._books.holds[name] = self._refused(name, refused[position], cause)
        return done

    def _refused(self, name: bytes, refusal: Refusal, cause: str | None) -> Hold:
        hold = holds.after_refusal(refusal, self._books.holds.get(name), self._now, cause)
        self._outcome.refused[name] = hold
        return hold

    def _write_objects(self, wire: Wire) -> None:
        table = self._books.next_hops
        if not table.wanted:
            return
        for mode in (ADD, REPLACE):
            puts = [put for put in table.to_put(self._now) if put.mode == mode]
            refused = wire.write(Verb.NEW_NEXT_HOP, mode, [put.body for put in puts]) if puts else {}
            for position, put in enumerate(puts):
                if position in refused:
                    table.refuse(put.number, refused[position], self._now)
                else:
                    table.put(put.number, put.body)
                    self._outcome.next_hops.append(put)

    def _delete_objects(self, wire: Wire) -> None:
        """Remove objects that nobody wants, unless a route still goes through one: it would vanish with it."""
        books = self._books
        unused = [number for number in books.next_hops.to_delete(self._now) if not books.goes_through(number)]
        if unused:
            bodies = [next_hop_codec.by_number(number) for number in unused]
            refused = wire.write(Verb.DELETE_NEXT_HOP, Mode.NONE, bodies)
            for position, number in enumerate(unused):
                if position in refused:
                    books.next_hops.refuse(number, refused[position], self._now)
                else:
                    books.next_hops.deleted(number)
                    self._outcome.next_hops_gone.append(number)
