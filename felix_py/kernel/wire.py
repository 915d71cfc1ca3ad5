"""What passes between the route engine and the kernel: changes, refusals and events; and the seam that carries them.

Routes travel as bodies, the bytes of a message after its netlink header: what we send, what a dump brings and what an
event says of the same route are the same bytes (see `route_codec`), so that comparing costs no decoding.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple, Protocol, TypeAlias

from felix_py.kernel.objects import KernelRefused, Link


class Family(IntEnum):
    """Address families, as in the first byte of every body."""

    IPV4 = 2
    IPV6 = 10


class Verb(IntEnum):
    """Message types that change routes and next-hop objects, include/uapi/linux/rtnetlink.h."""

    NEW_ROUTE = 24
    DELETE_ROUTE = 25
    NEW_NEXT_HOP = 104
    DELETE_NEXT_HOP = 105


class Mode(IntFlag):
    """What a NEW message may do, and in an event what it did (NLM_F_..., include/uapi/linux/netlink.h)."""

    NONE = 0
    REPLACE = 0x100
    EXCLUSIVE = 0x200
    CREATE = 0x400
    APPEND = 0x800


class Refusal(NamedTuple):
    """Why the kernel did not take one change: errno, and its own sentence."""

    code: int
    text: str


class WireBroken(KernelRefused):
    """The socket did not bring what it owes; nothing is known of what was done, so everything has to be read again."""


class RouteEvent(NamedTuple):
    """Somebody, perhaps we, changed a route.

    Attributes:
        port: netlink port of who did it, for most programs the process ID; 0 for the kernel itself.
    """

    verb: Verb
    mode: Mode
    port: int
    body: bytes


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """An interface is so now; `gone` where it was removed. Addresses come with `AddressEvent` and are empty here."""

    link: Link
    gone: bool = False


@dataclass(frozen=True, slots=True)
class AddressEvent:
    """An address, as `172.31.1.11/24`, was added to or taken from the interface with this index."""

    index: int
    address: str
    gone: bool = False


@dataclass(frozen=True, slots=True)
class NextHopEvent:
    """A next-hop object was made, changed or removed."""

    verb: Verb
    port: int
    body: bytes


@dataclass(frozen=True, slots=True)
class ParameterEvent:
    """A parameter of IPv4 or IPv6 of the interface with this index changed; -1 is all, -2 the default."""

    index: int


@dataclass(frozen=True, slots=True)
class ProgramEvent:
    """A filter of traffic control, or a queueing discipline with its filters, changed at the interface with this index.

    The programs of an ebpf tunnel are such filters.
    """

    index: int


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The buffer ran over (ENOBUFS): what happened is unknown until everything has been read again."""


Event: TypeAlias = RouteEvent | LinkEvent | AddressEvent | NextHopEvent | ParameterEvent | ProgramEvent | EventsLost


class Wire(Protocol):
    """One network namespace's kernel. Used by one thread only."""

    @property
    def port(self) -> int:
        """The netlink port of our writes."""

    def write(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Mapping[int, Refusal]:
        """Send the same kind of change for each body, in order; return those refused by position, the others are done.

        Deleting what is gone already is done.

        Raises:
            WireBroken: when it is unknown what was done.
        """

    def start(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Callable[[], Mapping[int, Refusal]]:
        """Do what `write` does while the caller goes on; return what waits for it, and then returns or raises the same.

        Until that has been called nothing may be asked of the wire but to start more, which is done in order.
        """

    def dump_routes(self, family: Family, table: int) -> list[bytes]:
        """Return the bodies of all routes of a table, in the kernel's order, whoever owns them.

        Raises:
            WireBroken: when the table could not be read.
        """

    def dump_next_hops(self) -> list[bytes]:
        """Return the bodies of all next-hop objects.

        Raises:
            WireBroken: when they could not be read.
        """

    def dump_links(self) -> tuple[Link, ...]:
        """Return all interfaces with their addresses.

        Raises:
            WireBroken: when they could not be read.
        """

    def events(self) -> Iterable[Event]:
        """Return what has happened since the last call, without waiting, oldest first; our own writes left out.

        Raises:
            WireBroken: when the socket is of no use any more.
        """

    def reopen(self) -> None:
        """Open the sockets anew after one has failed; events in between are lost, so everything has to be read again.

        Raises:
            WireBroken: when that fails too.
        """
