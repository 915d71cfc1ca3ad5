"""ExaBGP's queue of commands at work, which it takes from the pipe at once and carries out one after the other."""

from collections.abc import Callable, Iterator

from exabgp.reactor.asynchronous import ASYNC


class Queue(ASYNC):  # type: ignore[misc]
    """The same without a new asyncio loop for each turn, and with a place for what has to wait for its turn."""

    LIMIT = 200

    def run(self) -> bool:
        """Do up to LIMIT steps; everything in the queue is a plain generator."""
        if not self._async:
            return False
        steps = self._run_async()
        try:
            steps.send(None)
        except StopIteration as done:
            return bool(done.value)
        raise RuntimeError("a command of ExaBGP waits for asyncio, which no command of 5.0.15 does")

    def after_all(self, service: str, act: Callable[[], None]) -> None:
        """Do something when all that was asked before has been done: at once where nothing waits.

        Args:
            service: who is told if it fails.
            act: what is to be done.
        """
        if self.ready():
            act()
        else:
            self.schedule(service, act, _one_step(act))


def _one_step(act: Callable[[], None]) -> Iterator[None]:
    act()
    yield
