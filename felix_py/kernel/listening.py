"""What has happened in the kernel since the last turn, taken bit by bit: pods that wait for it come in between."""

from felix_py.kernel.kernel import Kernel, News
from felix_py.kernel.wire import WireBroken

EVENTS = 25
"""Events that are taken at once while pods may wait: less than half a millisecond."""


class Listening:
    """Gathers the news of one kernel for its turns."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._news = News()
        self._failure: WireBroken | None = None

    @property
    def failed(self) -> bool:
        """Whether something went wrong that `all` will tell."""
        return self._failure is not None

    def receive(self) -> None:
        """Receive what has happened; nobody else needs the kernel for that. What goes wrong, `all` tells."""
        try:
            self._kernel.receive()
        except WireBroken as broken:
            self._failure = broken

    def some(self, now: float) -> bool:
        """Take some of what has happened; say whether there is more. What goes wrong, `all` tells."""
        if self._failure is not None:
            return False
        try:
            self._news = self._news.and_then(self._kernel.catch_up(now, EVENTS))
        except WireBroken as broken:
            self._failure = broken
            return False
        return self._kernel.is_behind()

    def all(self, now: float) -> News:
        """Take the rest of it, and return everything since the last call.

        Raises:
            WireBroken: when the socket is of no use any more, also where `some` has met that.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        news, self._news = self._news.and_then(self._kernel.catch_up(now)), News()
        return news
