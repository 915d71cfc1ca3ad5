"""Where felix-cni comes in: one thread that accepts, reads, and does ADDs at once, all that came together in one go.

All else it hands to the loop, and ADDs too that have to wait for something. A pod so passes through no other thread
before it is answered; to wake one takes as long as to make half of a veth.
"""

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Semaphore
from typing import Any, Protocol

import structlog

from felix_py.cni.coming import Coming, Say
from felix_py.cni.request import CniError, Command, Request, parse, split
from felix_py.cni.results import success

CONNECTIONS = 64
"""Calls in hand at once; more wait in the socket's backlog."""

TOGETHER = 16
"""ADDs in one go at most: the first of them is answered when the last one has its interface."""

DESCRIPTORS = 4
"""Descriptors accepted with a call, of which the first counts; more are dropped by the kernel."""

MAXIMUM_CALL = 2 << 20
"""Bytes of a call; the shim sends one of at most 1 MiB, and a node's configuration has some kilobytes."""

HASTE, OFTEN = 5, 3
"""Milliseconds that a call may lag behind its connection before the loop waits for it, and how often."""

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 100
"""Milliseconds until a connection is accepted again where there were no descriptors for it."""

log = structlog.get_logger()


class Rubbish(Exception):  # noqa: N818 - named for what it is
    """What came is no call; the sentence says why."""


@dataclass(slots=True)
class Arrival:
    """A call that came in.

    Attributes:
        data: what was read of it.
        whole: that is all of it.
        descriptors: that came with it.
        sent: bytes of the answer that its caller has been sent.
        told: that was all of it.
        coming: the pod, where the call was begun as an ADD.
    """

    connection: socket.socket
    slots: Semaphore
    data: bytearray = field(default_factory=bytearray)
    whole: bool = False
    descriptors: list[int] = field(default_factory=list)
    sent: int = 0
    told: bool = False
    coming: Coming | None = None

    @property
    def netns(self) -> int | None:
        """The namespace that the caller has opened; None where it has none."""
        return self.descriptors[0] if self.descriptors else None

    def read(self) -> bool:
        """Read what there is, up to the end of the caller's half; say whether that was reached.

        Raises:
            OSError: when the caller went away.
            Rubbish: when it sends too much.
        """
        while not self.whole:
            try:
                piece, came, _, _ = socket.recv_fds(self.connection, 1 << 16, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return False
            self.descriptors += came
            self.data += piece
            self.whole = not piece
            if len(self.data) > MAXIMUM_CALL:
                raise Rubbish(f"a call had more than {MAXIMUM_CALL} bytes")
        return True

    def say(self, document: Mapping[str, Any]) -> None:
        """Answer with a result, as far as that can be done without waiting; the loop sends the rest."""
        answer = success(document)
        with suppress(OSError):  # the caller went away: the loop meets the same, and says so
            self.sent = self.connection.send(answer)
            if self.sent == len(answer):
                self.connection.shutdown(socket.SHUT_WR)
                self.told = True

    def close(self) -> None:
        """Let go of everything that came."""
        self.connection.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        self.slots.release()


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
        done: is given, in this thread, ADDs that were done and answered.
    """

    def __init__(
        self,
        listener: socket.socket,
        pods: Pods,
        hand_over: Callable[[Arrival], object],
        done: Callable[[list[Coming]], object],
    ) -> None:
        self._listener = listener
        self._pods = pods
        self._hand_over = hand_over
        self._done = done
        self._slots = Semaphore(CONNECTIONS)
        self._closing = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._news = select.poll()
        self._news.register(listener, select.POLLIN)
        self._news.register(self._bell, select.POLLIN)

    def close(self) -> None:
        """Have `run` end when it has done what it has begun; for any thread."""
        self._closing = True
        self._slots.release()
        os.eventfd_write(self._bell, 1)

    def run(self) -> None:
        """Let calls in until closed."""
        try:
            while self._waited():
                self._let_in([arrival for arrival in self._arrivals() if not self._handed_over(arrival)])
        finally:
            os.close(self._bell)

    def _waited(self) -> bool:
        """Wait until somebody comes, and there is room; say whether the door is still open."""
        self._slots.acquire()
        if not self._closing:
            self._news.poll()
        return not self._closing

    def _arrivals(self) -> Iterator[Arrival]:
        """Yield who has come, of whom there is one at least, with a slot each; the first has one already."""
        for _ in range(TOGETHER):
            connection = self._accept()
            if connection is None:
                self._slots.release()
                return
            connection.settimeout(0)
            yield Arrival(connection, self._slots)
            if not self._slots.acquire(blocking=False):
                return
        self._slots.release()

    def _accept(self) -> socket.socket | None:
        try:
            return self._listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS:
                raise
            log.warning("api.rubbish", reason=f"no connection can be accepted: {error.strerror}")
            bell = select.poll()
            bell.register(self._bell, select.POLLIN)
            bell.poll(PAUSE)
            return None

    def _handed_over(self, arrival: Arrival) -> bool:
        """Read a call, and hand it over where it is none that can be done here; say whether it was."""
        with suppress(CniError, OSError, Rubbish):  # whoever has it next meets the same, and says so
            if _read(arrival):
                environment, standard_input = split(bytes(arrival.data))
                if environment.get("CNI_COMMAND") == Command.ADD:
                    request = parse(environment, standard_input)
                    arrival.coming = self._pods.begin(request, arrival.netns, arrival.say)
        if arrival.coming is None:
            self._hand_over(arrival)
        return arrival.coming is None

    def _let_in(self, arrivals: Sequence[Arrival]) -> None:
        if not arrivals:
            return
        self._pods.make([arrival.coming for arrival in arrivals if arrival.coming is not None])
        if told := [arrival.coming for arrival in arrivals if arrival.coming is not None and arrival.told]:
            self._done(told)
        for arrival in arrivals:
            if arrival.told:
                arrival.close()
            else:
                self._hand_over(arrival)


def _read(arrival: Arrival) -> bool:
    """Read a whole call, which has nearly always come by now; False where it lags behind."""
    for _ in range(OFTEN):
        if arrival.read():
            return True
        lagging = select.poll()
        lagging.register(arrival.connection, select.POLLIN)
        lagging.poll(HASTE)
    return arrival.read()
