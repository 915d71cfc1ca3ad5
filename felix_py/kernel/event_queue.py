"""Events of the kernel that were received, and are taken some at a time."""

from felix_py.kernel.wire import Event, Wire


class EventQueue:
    """Those of one wire, oldest first."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._left: list[Event] = []

    def __bool__(self) -> bool:
        """Say whether some were received and not taken."""
        return bool(self._left)

    def receive(self) -> None:
        """Receive what has come, so that `take` need not.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        self._left += self._wire.events()

    def take(self, most: int | None = None) -> list[Event]:
        """Return events that were not taken before: all up to now, or as many of those that were received last.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        if most is None or not self._left:
            self._left += self._wire.events()
        taken, self._left = (self._left, []) if most is None else (self._left[:most], self._left[most:])
        return taken
