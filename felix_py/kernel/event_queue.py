"""Events of the kernel that were received, and are taken some at a time."""

from collections.abc import Callable, Container, Iterable

from felix_py.kernel import ownership
from felix_py.kernel.objects import Link
from felix_py.kernel.wire import Event, LinkEvent, Wire


class EventQueue:
    """Those of one wire, oldest first.

    Args:
        known: the interfaces that are known from events that were taken, by index.
    """

    def __init__(self, wire: Wire, known: Container[int]) -> None:
        self._wire = wire
        self._known = known
        self._left: list[Event] = []

    def __bool__(self) -> bool:
        """Say whether some were received and not taken."""
        return bool(self._left)

    def receive(self) -> None:
        """Receive what has come, so that `take` need not.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        left = {event.link.index for event in self._left if isinstance(event, LinkEvent)}
        self._left += merged(self._wire.events(), lambda index: index in left or index in self._known)

    def take(self, most: int | None = None) -> list[Event]:
        """Return events that were not taken before: all up to now, or as many of those that were received last.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        if most is None or not self._left:
            self.receive()
        taken, self._left = (self._left, []) if most is None else (self._left[:most], self._left[most:])
        return taken


def merged(events: Iterable[Event], is_known: Callable[[int], bool]) -> list[Event]:
    """Return events, of which those of a pod's new interface that comes up are one: that it is so in the end.

    The kernel tells of an interface when it is made, described, set up, and when it has a carrier. From the first one
    that takes something back, each stands for itself: routes may have gone with what was lost for a moment.

    Args:
        events: oldest first.
        is_known: says whether an interface with this index was there before them.
    """
    found: list[Event] = []
    rising: dict[int, tuple[int, Link] | None] = {}
    for event in events:
        if isinstance(event, LinkEvent):
            link, index, place = event.link, event.link.index, len(found)
            before = rising.get(index)
            if before is not None and not event.gone and _is_more(link, before[1]):
                place = before[0]
                found[place] = event
                rising[index] = place, link
                continue
            is_pods = ownership.is_workload_device(link.name) and not event.gone
            rising[index] = (place, link) if is_pods and index not in rising and not is_known(index) else None
        found.append(event)
    return found


def _is_more(link: Link, before: Link) -> bool:
    """Say whether an interface has only gained by what happened to it."""
    return link.name == before.name and link.up >= before.up and link.running >= before.running
