"""A wire that fails by plan, around any other: refusals, broken sockets, short tables, lost events; and it counts."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from felix_py.kernel import next_hop_codec, route_codec
from felix_py.kernel.objects import Link
from felix_py.kernel.wire import Event, EventsLost, Family, Mode, Refusal, Verb, Wire, WireBroken


class Call(StrEnum):
    """What is asked of a wire."""

    WRITE = "write"
    DUMP_ROUTES = "dump_routes"
    DUMP_NEXT_HOPS = "dump_next_hops"
    DUMP_LINKS = "dump_links"
    EVENTS = "events"
    REOPEN = "reopen"


class Failure(StrEnum):
    """In which way a call fails."""

    REFUSED = "the kernel refuses changes"
    BROKEN_BEFORE = "the socket breaks before anything is done"
    BROKEN_HALFWAY = "the socket breaks when half is done"
    BROKEN_AFTER = "the socket breaks when all is done"
    DEAD = "the socket breaks and stays so until it is opened anew"
    SHORT = "rows are missing, and nobody says so"
    LOST = "events are lost, and that is said"


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        times: how often it still happens; None is always.
        skip: how many calls go well before.
        code: the errno of a refusal.
        only: the changes that are refused, or the rows that are missing, by `name_of`; None is all.
        met: how often it has happened.
    """

    call: Call
    failure: Failure
    times: int | None = 1
    skip: int = 0
    code: int = 12
    only: frozenset[bytes] | None = None
    met: int = 0

    def strikes(self, names: Iterable[bytes]) -> bool:
        """Say whether it happens to a call about these identities; if so, that was one of its times."""
        if self.times == 0 or (self.only is not None and self.only.isdisjoint(names)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times = None if self.times is None else self.times - 1
        self.met += 1
        return True

    def concerns(self, name: bytes) -> bool:
        """Say whether this change or row is one of those."""
        return self.only is None or name in self.only


def name_of(verb: Verb, body: bytes) -> bytes:
    """Return what a change is about: the identity of a route, or the number of a next-hop object."""
    if verb in (Verb.NEW_ROUTE, Verb.DELETE_ROUTE):
        return route_codec.identity(body)
    return object_name(next_hop_codec.number_of(body))


def object_name(number: int) -> bytes:
    """Return the name of a next-hop object among the identities of routes."""
    return b"next hop %d" % number


@dataclass
class FaultyWire:
    """A `Wire` in front of another one.

    Attributes:
        faults: what goes wrong; the first that strikes decides.
        asked: how often each identity was written, whatever became of it.
        done: how often the kernel took it.
    """

    inner: Wire
    faults: list[Fault] = field(default_factory=list)
    asked: Counter[bytes] = field(default_factory=Counter)
    done: Counter[bytes] = field(default_factory=Counter)
    dead: bool = False

    @property
    def port(self) -> int:
        """See `wire.Wire`."""
        return self.inner.port

    def write(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Mapping[int, Refusal]:
        """See `wire.Wire`."""
        names = [name_of(verb, body) for body in bodies]
        self.asked.update(names)
        fault = self._meet(Call.WRITE, names)
        if fault is None:
            return self._pass_on(verb, mode, bodies, range(len(bodies)))
        if fault.failure is Failure.REFUSED:
            refused = {position for position, name in enumerate(names) if fault.concerns(name)}
            others = [position for position in range(len(bodies)) if position not in refused]
            answer = Refusal(fault.code, os.strerror(fault.code))
            return {**dict.fromkeys(refused, answer), **self._pass_on(verb, mode, bodies, others)}
        carried_out = {Failure.BROKEN_HALFWAY: len(bodies) // 2, Failure.BROKEN_AFTER: len(bodies)}
        self._pass_on(verb, mode, bodies, range(carried_out.get(fault.failure, 0)))
        raise self._broken(fault)

    def start(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Callable[[], Mapping[int, Refusal]]:
        """Write at once; what goes wrong is told when it is asked for."""
        try:
            refused = self.write(verb, mode, bodies)
        except WireBroken as error:
            broken = error

            def fail() -> Mapping[int, Refusal]:
                raise broken

            return fail
        return lambda: refused

    def _pass_on(
        self, verb: Verb, mode: Mode, bodies: Sequence[bytes], positions: Sequence[int]
    ) -> Mapping[int, Refusal]:
        if not positions:
            return {}
        answers = self.inner.write(verb, mode, [bodies[position] for position in positions])
        taken = [position for number, position in enumerate(positions) if number not in answers]
        self.done.update(name_of(verb, bodies[position]) for position in taken)
        return {positions[number]: answer for number, answer in answers.items()}

    def dump_routes(self, family: Family, table: int) -> list[bytes]:
        """See `wire.Wire`."""
        rows = self.inner.dump_routes(family, table)
        fault = self._meet(Call.DUMP_ROUTES, map(_identity, rows))
        return rows if fault is None else self._shortened(fault, rows, _identity)

    def dump_next_hops(self) -> list[bytes]:
        """See `wire.Wire`."""
        rows = self.inner.dump_next_hops()
        fault = self._meet(Call.DUMP_NEXT_HOPS, map(_object, rows))
        return rows if fault is None else self._shortened(fault, rows, _object)

    def _shortened(self, fault: Fault, rows: list[bytes], name: Callable[[bytes], bytes]) -> list[bytes]:
        if fault.failure is not Failure.SHORT:
            raise self._broken(fault)
        return [row for row in rows if not fault.concerns(name(row))]

    def dump_links(self) -> tuple[Link, ...]:
        """See `wire.Wire`."""
        fault = self._meet(Call.DUMP_LINKS)
        if fault is not None:
            raise self._broken(fault)
        return self.inner.dump_links()

    def events(self) -> Iterable[Event]:
        """See `wire.Wire`."""
        fault = self._meet(Call.EVENTS)
        if fault is None:
            return self.inner.events()
        if fault.failure is not Failure.LOST:
            raise self._broken(fault)
        tuple(self.inner.events())
        return (EventsLost(),)

    def reopen(self) -> None:
        """See `wire.Wire`."""
        self.dead = False
        fault = self._meet(Call.REOPEN)
        if fault is not None:
            self.dead = True
            raise self._broken(fault)
        self.inner.reopen()

    def _meet(self, call: Call, names: Iterable[bytes] = ()) -> Fault | None:
        if self.dead:
            raise WireBroken(f"{call} on a dead socket")
        several = tuple(names)
        return next((fault for fault in self.faults if fault.call is call and fault.strikes(several)), None)

    def _broken(self, fault: Fault) -> WireBroken:
        self.dead = fault.failure is Failure.DEAD or self.dead
        return WireBroken(f"{fault.call}: {fault.failure}")


def _identity(row: bytes) -> bytes:
    return route_codec.identity(route_codec.normalised(row))


def _object(row: bytes) -> bytes:
    return object_name(next_hop_codec.number_of(row))
