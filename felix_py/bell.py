"""Rings when the kernel has news, once, until it is armed anew."""

import asyncio
from collections.abc import Callable


class Bell:
    """Rings once when the kernel has news, and again only after it has been armed anew: a storm rings it no oftener."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: Callable[[], int], ring: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._ring = ring
        self._armed: int | None = None

    def arm(self) -> None:
        """Ring at the next news, or at once where there are some."""
        self.disarm()
        descriptor = self._descriptor()
        if descriptor >= 0:  # closed while the kernel cannot be reached; the loop tries again by itself
            self._armed = descriptor
            self._loop.add_reader(descriptor, self._rung)

    def disarm(self) -> None:
        """Do not ring."""
        if self._armed is not None:
            self._loop.remove_reader(self._armed)
            self._armed = None

    def _rung(self) -> None:
        self.disarm()
        self._ring()
