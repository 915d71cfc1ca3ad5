"""What people ask of a node's turns; it is read off what the last turn left, and changes nothing."""

from collections.abc import Callable, Iterator, Mapping

from felix_py.calc.desired import Desired
from felix_py.kernel import route_codec
from felix_py.kernel.engine import Intention, Standing
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import DeleteRoute, PutRoute, Route, RouteKey, Step
from felix_py.kernel.outcome import Outcome


class Answers:
    """Answers for one node; everything here runs in the kernel's thread.

    Attributes:
        kernel: as the node has it.
        wish: what it should hold, by the last turn.
    """

    def __init__(self, kernel: Kernel, clock: Callable[[], float]) -> None:
        self.kernel = kernel
        self.wish = Desired()
        self._clock = clock

    def now(self) -> float:
        """Return the time of the clock by which everything here is dated."""
        return self._clock()

    def standing(self, key: RouteKey) -> Standing:
        """Say how one route is."""
        return self.kernel.routes.standing(key, self._clock())

    def installed(self, standing: Standing) -> Route | None:
        """Return what stands in the kernel."""
        entry = self.kernel.routes.readable(standing.installed) if standing.installed is not None else None
        return entry[1] if entry is not None else None

    def unsettled(self) -> set[RouteKey]:
        """Return the routes that are not as wanted, or not wanted; all others are well and need no look."""
        keys = {*self.wish.waiting}
        for intention in self.kernel.routes.intentions():
            body = self.kernel.routes.books.wish.bodies.get(intention.identity) or next(iter(intention.stack), None)
            entry = self.kernel.routes.readable(body) if body is not None else None
            if entry is not None and (
                intention.verdict.put or intention.verdict.delete or intention.verdict.in_the_way
            ):
                keys.add(entry[0])
        unmade = self.kernel.routes.books.wish.without_device
        return (
            keys | {key for key in self.wish.state.routes if route_codec.identity_of(key) in unmade} if unmade else keys
        )

    def unwanted(self) -> set[RouteKey]:
        """Return the routes in the kernel that are ours and that nobody wants; those that are wanted need no look."""
        routes, wanted = self.kernel.routes, self.kernel.routes.books.wish.bodies
        strays = (routes.readable(body) for body in routes.ours() if route_codec.identity(body) not in wanted)
        return {entry[0] for entry in strays if entry is not None}

    def states(self) -> Mapping[str, int]:
        """Count the routes of this node by state, without looking at each: what is not as wanted is known."""
        books, wish = self.kernel.routes.books, self.wish
        unsettled = [name for name in {*books.due, *books.holds, *books.conflicts} if name in books.wish.bodies]
        differs = sum(any(map(books.owns, books.stack(name))) for name in unsettled)
        unwanted = sum(name not in books.wish.bodies for name in {*books.due, *books.holds})
        missing = len(wish.waiting) + len(books.wish.without_device) + len(unsettled) - differs
        stale = wish.stale
        installed = len(books.wish.bodies) - len(unsettled) - stale
        counts = {"installed": installed, "missing": missing, "differs": differs + unwanted, "stale": stale}
        return {**counts, "contested": len(books.damping.suppressed)}

    def refusal(self) -> str | None:
        """Return the kernel's reason for one of the routes that it refuses; None where it refuses none."""
        holds = self.kernel.routes.books.holds.values()
        return next((hold.refusal.text for hold in holds if hold.refusal is not None and not hold.passing), None)

    def steps(self, intention: Intention) -> Iterator[Step]:
        """Return what the engine would do about one identity, as steps that people can read."""
        readable, verdict = self.kernel.routes.readable, intention.verdict
        before = readable(intention.stack[0]) if intention.stack else None
        put = readable(verdict.put) if verdict.put is not None else None
        if put is not None:
            yield PutRoute(put[0], put[1], replaces=before[1] if before is not None else None)
        for entry in map(readable, verdict.delete):
            if entry is not None:
                yield DeleteRoute(*entry)

    def written(self, outcome: Outcome) -> Iterator[Step]:
        """Return routes that were written, as steps that people can read."""
        for each in outcome.writes:
            before, after = (self.kernel.routes.readable(body) if body else None for body in (each.old, each.new))
            if after is not None:
                yield PutRoute(after[0], after[1], replaces=before[1] if before is not None else None)
            elif before is not None:
                yield DeleteRoute(*before)

    def refused(self, outcome: Outcome) -> Iterator[tuple[Step, str]]:
        """Return routes that the kernel refused to give up, as steps that people can read, with the reason."""
        for name, hold in outcome.refused.items():
            for entry in map(self.kernel.routes.readable, self.kernel.routes.books.stack(name)):
                if entry is not None and hold.refusal is not None:
                    yield DeleteRoute(*entry), hold.refusal.text

    def quarrels(self) -> Iterator[str]:
        """Say in one sentence each which routes others keep changing, so that repairs are being held back."""
        books = self.kernel.routes.books
        for name in books.damping.suppressed:
            body = books.wish.bodies.get(name) or next(iter(books.stack(name)), None)
            entry = self.kernel.routes.readable(body) if body is not None else None
            if entry is not None:
                quarrel = books.damping.quarrels[name]
                yield (
                    f"route {entry[0]} is contested: others have changed it {quarrel.disturbances} times, the last was "
                    f"netlink port {quarrel.port}; find and stop it (`felixctl events` tells when and who)"
                )
