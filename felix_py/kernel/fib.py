"""A mirror of one family's routes in the kernel, in bytes: filled by a dump, kept by events, compared as sets.

Several routes may share one identity (IPv4 lets `ip route append` stack them; the first is the one that counts). That
is rare, so the first of each identity stands in one dict, and what lies behind it in another, nearly empty one.
"""

from collections.abc import Iterable, Iterator, Mapping

from felix_py.kernel import route_codec
from felix_py.kernel.messages import U32
from felix_py.kernel.wire import Mode, RouteEvent, Verb


class Fib:
    """All routes of a table by identity. Methods that change it return the identities whose routes changed."""

    def __init__(self) -> None:
        self.first: dict[bytes, bytes] = {}
        self.behind: dict[bytes, tuple[bytes, ...]] = {}
        # Interfaces that nothing left by since the last change: one that flaps is asked about thousands of times.
        self._unused: set[int] = set()

    def __len__(self) -> int:
        return len(self.first) + sum(map(len, self.behind.values()))

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over all bodies."""
        yield from self.first.values()
        for bodies in self.behind.values():
            yield from bodies

    def stack(self, identity: bytes) -> tuple[bytes, ...]:
        """Return the routes of one identity, the one that counts first."""
        first = self.first.get(identity)
        return () if first is None else (first, *self.behind.get(identity, ()))

    def put(self, identity: bytes, stack: tuple[bytes, ...]) -> None:
        """Set the routes of one identity; none forgets it."""
        self._unused.clear()
        if not stack:
            self.first.pop(identity, None)
            self.behind.pop(identity, None)
            return
        self.first[identity] = stack[0]
        if len(stack) > 1:
            self.behind[identity] = stack[1:]
        else:
            self.behind.pop(identity, None)

    def take(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Take routes that stand in front now, by identity; what lies behind stays."""
        self._unused.clear()
        self.first.update(rows)

    def replace(self, dump: Iterable[bytes], known: Mapping[bytes, bytes]) -> set[bytes]:
        """Take a full dump, which costs little where it holds what was here already.

        Args:
            dump: bodies as the kernel gave them, in its order.
            known: bodies by identity, of which the same object is kept where it is equal, to save memory.
        """
        order = dump if isinstance(dump, list) else list(dump)
        if not self.behind and len(order) == len(self.first):
            # Nearly always nothing has changed, which takes one set less to find out.
            held = set(self.first.values())
            held.difference_update(order)
            if not held:
                return set()
            del held
        seen = set(order)
        gone = {identity for identity, body in self.first.items() if body not in seen}
        gone |= {identity for identity, bodies in self.behind.items() if not seen.issuperset(bodies)}
        new = seen.difference(self.first.values(), *self.behind.values())
        if not gone and not new:
            return set()
        touched = gone | {route_codec.identity(body) for body in new}
        stacks = _stacks(order, touched, new if len(new) == len(order) or not self._survives(touched, seen) else None)
        changed = set()
        for identity in touched:
            kept = known.get(identity)
            stack = tuple(dict.fromkeys(kept if kept == body else body for body in stacks.get(identity, ())))
            if stack != self.stack(identity):
                self.put(identity, stack)
                changed.add(identity)
        return changed

    def _survives(self, touched: Iterable[bytes], seen: set[bytes]) -> bool:
        """Say whether a route of these identities is still there, so that its place among new ones matters."""
        return any(body in seen for identity in touched for body in self.stack(identity))

    def see(self, event: RouteEvent) -> tuple[bytes, bool]:
        """Take one event; return its identity, and whether it fits what was here: if not, a dump has to tell."""
        body = route_codec.normalised(event.body)
        identity = route_codec.identity(body)
        stack = self.stack(identity)
        if event.verb is Verb.DELETE_ROUTE:
            self.put(identity, tuple(each for each in stack if each != body))
            return identity, body in stack
        if body in stack:
            return identity, True
        new, fits = _stacked(stack, body, event.mode)
        self.put(identity, new)
        return identity, fits

    def out_of(self, index: int) -> list[bytes]:
        """Return the identities of which a route leaves by this interface."""
        mark = U32.pack(index)  # in the attribute of one next hop, and in each of several
        near = {identity for identity, body in self.first.items() if mark in body}
        if self.behind:
            near |= {identity for identity, bodies in self.behind.items() if any(mark in body for body in bodies)}
        return [name for name in near if any(route_codec.leaves_by(body, index) for body in self.stack(name))]

    def forget(self, index: int) -> set[bytes]:
        """Drop every route out of an interface: it went down or away, and the kernel drops them without a word."""
        if index in self._unused:
            return set()
        dropped = {identity for identity in self.out_of(index) if self._drop(identity, index)}
        self._unused.add(index)
        return dropped

    def _drop(self, identity: bytes, index: int) -> bool:
        stack = self.stack(identity)
        kept = tuple(body for body in stack if not route_codec.leaves_by(body, index))
        self.put(identity, kept)
        return kept != stack


def _stacks(order: list[bytes], touched: set[bytes], only: set[bytes] | None) -> dict[bytes, list[bytes]]:
    """Return the routes of some identities in the dump's order; `only` these bodies, where nothing else can matter."""
    stacks: dict[bytes, list[bytes]] = {}
    for raw in order if only is None else [body for body in order if body in only]:
        identity = route_codec.identity(raw)
        if identity in touched:
            stacks.setdefault(identity, []).append(route_codec.normalised(raw))
    return stacks


def _stacked(stack: tuple[bytes, ...], body: bytes, mode: Mode) -> tuple[tuple[bytes, ...], bool]:
    """Return the stack with a new route in its place, and whether the event fits the stack."""
    if route_codec.family_of(body) != route_codec.IPV4:
        # IPv6 merges routes through gateways into one with several next hops, of which the event holds all; what has no
        # gateway stands beside. A replacement takes the place of the first, with all that was merged into it.
        if mode & Mode.REPLACE:
            return (body, *stack[1:]), len(stack) == 1
        return (*stack, body), not stack or not route_codec.is_multipath(body)
    if mode & Mode.REPLACE:
        return (body, *stack[1:]), bool(stack)
    if mode & Mode.APPEND:
        return (*stack, body), True
    return (body, *stack), not (stack and mode & Mode.EXCLUSIVE)
