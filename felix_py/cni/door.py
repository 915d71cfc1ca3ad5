"""Where felix-cni comes in: one thread that accepts, reads, and does ADDs at once, all that came together in one go.

All else it hands to the loop, and ADDs too that have to wait for something. A pod so passes through no other thread
before it is answered; to wake one takes as long as to make half of a veth.
"""

import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Condition, Lock
from time import monotonic
from typing import Protocol

import structlog

from felix_py.calm import FULL, LONGEST
from felix_py.cni import arrivals
from felix_py.cni.arrivals import Arrival, Entrance
from felix_py.cni.coming import Coming, Say
from felix_py.cni.request import Request, parse, split
from felix_py.cni.spec import CniError, Command

CONNECTIONS = 64
"""Calls in hand at once; more wait in the socket's backlog."""

TOGETHER = 16
"""ADDs in one go at most: the first of them is answered when the last one has its interface."""

QUIET = 5
"""Milliseconds after which nobody seems to come any more."""

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 100
"""Milliseconds until a connection is accepted again where there were no descriptors for it."""

log = structlog.get_logger()


class Slots:
    """Room for calls; for any thread."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = Condition()

    def take(self, most: int) -> int:
        """Wait until there is room, and take it; return how much, 1 at least."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0)
            taken = min(self._free, most)
            self._free -= taken
            return taken

    def give_back(self, count: int) -> None:
        """Say that there is more room."""
        with self._changed:
            self._free += count
            self._changed.notify()


class Pods(Protocol):
    """Does ADDs; `cni.commands.Commands` is the real one."""

    def begin(self, request: Request, netns: int | None, say: Say) -> Coming | None:
        """Begin an ADD that needs to wait for nobody; None where it does, or is to be refused."""

    def make(self, several: Sequence[Coming]) -> None:
        """Make what was begun; what became of each stands there."""


class Door:
    """Accepts for one socket. `run` is for a thread of its own.

    Args:
        listener: does not block.
        hand_over: is given, in this thread, each call that was not done here.
        done: is given, in this thread, ADDs that were done and answered: once nobody comes any more, or as soon as that
            is waited for. Who takes note of them would keep those waiting that come next.
        clock: in seconds.
    """

    def __init__(
        self,
        listener: socket.socket,
        pods: Pods,
        hand_over: Callable[[Arrival], object],
        done: Callable[[list[Coming]], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._pods = pods
        self._hand_over = hand_over
        self._done = done
        self._clock = clock
        self._told: list[Coming] = []
        self._told_since = 0.0
        self._slots = Slots(CONNECTIONS)
        self._closing = False
        self._ringing = Lock()
        bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._bell: int | None = bell
        self._entrance = Entrance(listener, bell, self._slots.give_back)

    def close(self) -> None:
        """Have `run` end when it has done what it has begun; for any thread."""
        self._closing = True
        self._slots.give_back(1)
        with self._ringing:
            if self._bell is not None:
                os.eventfd_write(self._bell, 1)

    def run(self) -> None:
        """Let calls in until closed."""
        try:
            while not self._closing:
                self._let_in([arrival for arrival in self._arrivals() if not self._handed_over(arrival)])
        finally:
            self._tell()
            with self._ringing:
                if self._bell is not None:
                    os.close(self._bell)
                self._bell = None

    def _arrivals(self) -> list[Arrival]:
        """Wait until there is room and somebody comes, and return who has come; nobody once the door is closed."""
        room, found = self._slots.take(TOGETHER), list[Arrival]()
        try:
            found = arrivals.let_in(self._entrance, room, QUIET if self._told else -1)
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS:
                raise
            self._pause(error)
        finally:
            self._slots.give_back(room - len(found))
        if not found:
            self._tell()
        return found

    def _pause(self, error: OSError) -> None:
        log.warning("api.rubbish", reason=f"no connection can be accepted: {error.strerror}")
        bell = select.poll()
        bell.register(self._entrance.bell, select.POLLIN)
        bell.poll(PAUSE)

    def _handed_over(self, arrival: Arrival) -> bool:
        """Hand a call over where it is none that can be done here; say whether it was."""
        with suppress(CniError):  # whoever has it next meets the same, and says so
            if arrival.whole:
                environment, standard_input = split(bytes(arrival.data))
                if environment.get("CNI_COMMAND") == Command.ADD:
                    request = parse(environment, standard_input)
                    arrival.coming = self._pods.begin(request, arrival.netns, arrival.hold)
        if arrival.coming is None:
            self._leave(arrival)
        return arrival.coming is None

    def _let_in(self, several: Sequence[Arrival]) -> None:
        if not several:
            return
        self._pods.make([arrival.coming for arrival in several if arrival.coming is not None])
        arrivals.answer(several)
        told = [arrival.coming for arrival in several if arrival.coming is not None and arrival.told]
        self._slots.give_back(len(told))
        if not self._told:
            self._told_since = self._clock()
        self._told += told
        if self._is_due(told):
            self._tell()
        for arrival in several:
            if not arrival.told:
                self._leave(arrival)

    def _is_due(self, last: Sequence[Coming]) -> bool:
        """Say whether it cannot wait any longer to be told what was done."""
        full = len(self._told) >= FULL or self._clock() - self._told_since >= LONGEST
        return full or any(coming.is_urgent for coming in last)

    def _leave(self, arrival: Arrival) -> None:
        """Hand a call over, which may be about a pod that was answered before."""
        self._tell()
        self._hand_over(arrival)

    def _tell(self) -> None:
        told, self._told = self._told, []
        if told:
            self._done(told)
