"""Two kernels behind one set of words: the fake one, and the real one in a network namespace of its own."""

import ctypes
import errno
import multiprocessing
import os
import select
import subprocess
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from pathlib import Path

from fakes import GONE, SOMEBODY, FakeHost, FakeParameters

from felix_py.kernel import route_codec
from felix_py.kernel.objects import Link, Route, RouteKey
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import (
    AddressEvent,
    Event,
    Family,
    LinkEvent,
    Mode,
    NextHopEvent,
    Refusal,
    RouteEvent,
    Verb,
    Wire,
)

RANGES = tuple(map(ip_network, ("10.64.0.0/11", "fd10::/16")))
"""Where the cases put their routes; the real kernel has routes of its own beside."""

SECONDS = 10
"""The longest that an event is waited for; carrier loss is told some time after it happened."""

ADD, REPLACE, APPEND, BEFORE = (
    Mode.CREATE | Mode.EXCLUSIVE,
    Mode.CREATE | Mode.REPLACE,
    Mode.CREATE | Mode.APPEND,
    Mode.CREATE,
)


class Lab(ABC):
    """A host with `eth0` (172.31.1.11/24, fd00:1::11/64), `cali1` up with a carrier, and `cali2` down."""

    wire: Wire
    foreign_port: int

    # --- what is asked of the wire

    @property
    def indexes(self) -> dict[str, int]:
        return {link.name: link.index for link in self.wire.dump_links()}

    def link(self, name: str) -> Link:
        return next(link for link in self.wire.dump_links() if link.name == name)

    def body(self, key: RouteKey, route: Route) -> bytes:
        return route_codec.Encoder(self.indexes)(key, route)

    def put(self, mode: Mode, *entries: tuple[RouteKey, Route]) -> dict[int, Refusal]:
        return dict(self.wire.write(Verb.NEW_ROUTE, mode, [self.body(*entry) for entry in entries]))

    def add(self, key: RouteKey, *stack: Route) -> None:
        """Put routes of one identity, the first one first."""
        for position, route in enumerate(stack):
            assert self.put(APPEND if position else ADD, (key, route)) == {}

    def delete(self, key: RouteKey, route: Route) -> dict[int, Refusal]:
        return dict(self.wire.write(Verb.DELETE_ROUTE, Mode.NONE, [self.body(key, route)]))

    def code(self, mode: Mode, key: RouteKey, route: Route) -> int:
        """Put one route; return the errno, 0 where it was taken."""
        answer = self.put(mode, (key, route)).get(0)
        return answer.code if answer else 0

    def raw(self, key: RouteKey) -> list[bytes]:
        """Return what the dump says of one identity."""
        family = Family.IPV4 if key.dst.version == 4 else Family.IPV6
        return [
            body
            for body in self.wire.dump_routes(family, key.table)
            if route_codec.identity(route_codec.normalised(body)) == route_codec.identity_of(key)
        ]

    def stack(self, key: RouteKey) -> list[Route]:
        """Return the routes of one identity, the one that counts first."""
        found = [route_codec.decode(route_codec.normalised(body), self.names) for body in self.raw(key)]
        return [entry[1] for entry in found if entry is not None]

    @property
    def names(self) -> dict[int, str]:
        return {link.index: link.name for link in self.wire.dump_links()}

    # --- what is heard

    def events(self) -> list[Event]:
        """Return what has happened, of routes only those in the ranges of the cases."""
        return [event for event in self.wire.events() if not isinstance(event, RouteEvent) or in_range(event)]

    def changes(self) -> list[RouteEvent | NextHopEvent]:
        """Return what has happened to routes and next-hop objects; links may be told of at any time."""
        return [event for event in self.events() if isinstance(event, RouteEvent | NextHopEvent)]

    def route_events(self) -> list[tuple[Verb, Mode, int, Route]]:
        """Return what has happened to routes, decoded."""
        names = self.names
        return [
            (event.verb, event.mode, event.port, self.decoded(event.body, names)[1])
            for event in self.events()
            if isinstance(event, RouteEvent)
        ]

    @staticmethod
    def decoded(body: bytes, names: dict[int, str]) -> tuple[RouteKey, Route]:
        entry = route_codec.decode(route_codec.normalised(body), names)
        assert entry is not None
        return entry

    # --- what others do

    @abstractmethod
    def foreign(self, verb: Verb, mode: Mode, *bodies: bytes) -> list[int]:
        """Let somebody else ask for changes; return the errno of each, 0 where it was done or gone already."""

    def foreign_route(self, verb: Verb, mode: Mode, key: RouteKey, route: Route) -> None:
        assert self.foreign(verb, mode, self.body(key, route)) == [0]

    @abstractmethod
    def up(self, name: str) -> None: ...

    @abstractmethod
    def down(self, name: str) -> None: ...

    @abstractmethod
    def carrier(self, name: str, *, on: bool) -> list[Event]:
        """Take or give the carrier; return what was told meanwhile."""

    @abstractmethod
    def remove(self, name: str) -> None: ...

    @abstractmethod
    def make(self, name: str) -> None:
        """Make an interface, up and with a carrier."""

    @abstractmethod
    def rename(self, name: str, new: str) -> None: ...

    @abstractmethod
    def address(self, action: str, name: str, address: str) -> None: ...

    @abstractmethod
    def parameter(self, path: str, value: str) -> None: ...


def in_range(event: RouteEvent) -> bool:
    entry = route_codec.decode(route_codec.normalised(event.body), {})
    return entry is not None and any(
        entry[0].dst.version == each.version and entry[0].dst.subnet_of(each)  # type: ignore[arg-type]
        for each in RANGES
    )


class FakeLab(Lab):
    """The host in memory."""

    foreign_port = SOMEBODY

    def __init__(self) -> None:
        self.host = FakeHost(
            Link("eth0", 3, 1500, up=True, running=True, addresses=frozenset({"172.31.1.11/24", "fd00:1::11/64"})),
            Link("cali1", 5, 1500, up=True, running=True),
            Link("cali2", 7, 1500, up=False, running=False),
        )
        self.wire = self.host

    def foreign(self, verb: Verb, mode: Mode, *bodies: bytes) -> list[int]:
        answers = [self.host.foreign_write(verb, mode, body) for body in bodies]
        return [0 if answer is None or answer.code == GONE.get(verb) else answer.code for answer in answers]

    def up(self, name: str) -> None:
        self.host.set_link(name, up=True)

    def down(self, name: str) -> None:
        self.host.set_link(name, up=False)

    def carrier(self, name: str, *, on: bool) -> list[Event]:
        self.host.set_link(name, running=on)
        return self.events()

    def remove(self, name: str) -> None:
        self.host.delete_link(name)

    def make(self, name: str) -> None:
        self.host.add_link(Link(name, 0, 1500, up=True, running=True))

    def rename(self, name: str, new: str) -> None:
        self.host.rename(name, new)

    def address(self, action: str, name: str, address: str) -> None:
        (self.host.add_address if action == "add" else self.host.delete_address)(name, address)

    def parameter(self, path: str, value: str) -> None:
        FakeParameters(self.host).write(path, value)


SET_UP = """
link set lo up
link add eth0 type veth peer name eth0-far
link set eth0-far up
link set eth0 up
addr add 172.31.1.11/24 dev eth0
addr add fd00:1::11/64 dev eth0 nodad
link add cali1 type veth peer name cali1-far
link set cali1-far up
link set cali1 up
link add cali2 type veth peer name cali2-far
"""


class KernelLab(Lab):
    """The real kernel in the network namespace of this process; every interface is one end of a veth pair."""

    def __init__(self) -> None:
        self.wire = self.rtnetlink = Rtnetlink()
        self.other = Rtnetlink()
        self.foreign_port = self.other.port
        ip(SET_UP)
        self._hear_carriers("eth0", "eth0-far", "cali1", "cali1-far")
        self.events()

    def close(self) -> None:
        self.other.close()
        self.rtnetlink.close()

    def foreign(self, verb: Verb, mode: Mode, *bodies: bytes) -> list[int]:
        answers = self.other.write(verb, mode, bodies)
        return [answers[position].code if position in answers else 0 for position in range(len(bodies))]

    def _hear(self, until: Callable[[list[Event]], bool], what: str) -> list[Event]:
        """Read events until something holds: the kernel tells of carriers when it finds the time."""
        heard = self.events()
        while not until(heard):
            ready, _, _ = select.select([self.rtnetlink.watch], [], [], SECONDS)
            assert ready, f"{what} did not happen in {SECONDS} s"
            heard += self.events()
        return heard

    def _hear_carriers(self, *names: str) -> None:
        self._hear(lambda heard: all(_told(heard, name, running=True) for name in names), f"a carrier for {names}")

    def up(self, name: str) -> None:
        ip(f"link set {name} up")
        self._hear_carriers(name)

    def down(self, name: str) -> None:
        ip(f"link set {name} down")

    def carrier(self, name: str, *, on: bool) -> list[Event]:
        ip(f"link set {name}-far {'up' if on else 'down'}")
        return self._hear(lambda heard: _told(heard, name, running=on), f"carrier {on} for {name}")

    def remove(self, name: str) -> None:
        ip(f"link delete {name}")

    def make(self, name: str) -> None:
        ip(f"link add {name} type veth peer name {name}-far\nlink set {name}-far up\nlink set {name} up")
        self._hear_carriers(name)

    def rename(self, name: str, new: str) -> None:
        ip(f"link set {name} name {new}")

    def address(self, action: str, name: str, address: str) -> None:
        if ":" not in address or action != "add":
            ip(f"addr {action} {address} dev {name}")
            return
        ip(f"addr {action} {address} dev {name} nodad")
        # A work queue of the kernel tells of it, some time after `ip` has returned.
        self._hear(
            lambda heard: any(isinstance(each, AddressEvent) and each.address == address for each in heard),
            f"{address} on {name}",
        )

    def parameter(self, path: str, value: str) -> None:
        (Path("/proc/sys") / path).write_text(value)


def _told(heard: Iterable[Event], name: str, *, running: bool) -> bool:
    return any(
        isinstance(each, LinkEvent) and each.link.name == name and each.link.running is running for each in heard
    )


def ip(commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True, capture_output=True)


def in_a_namespace(case: Callable[[Lab], None]) -> None:
    """Run a case on the real kernel, in a child with a network namespace of its own; fail with its trace."""
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_child, args=(case, answer))
    process.start()
    try:
        trouble = answer.get(timeout=6 * SECONDS)
    finally:
        process.join(timeout=SECONDS)
    assert not trouble, trouble


def _child(case: Callable[[Lab], None], answer: "multiprocessing.Queue[str]") -> None:
    try:
        _unshare_network()
        lab = KernelLab()
        case(lab)
        lab.close()
        answer.put("")
    except BaseException:  # noqa: BLE001 - carried to the parent, which fails with it
        answer.put(traceback.format_exc())


def _unshare_network() -> None:
    """Python 3.12 has os.unshare; this is for 3.11."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno() or errno.EPERM, os.strerror(ctypes.get_errno()))
