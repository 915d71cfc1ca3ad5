"""Our programs at pods' interfaces: loaded, attached, found again by an agent without memory, and removed.

Filters of traffic control hold the programs, and programs their maps: nothing is pinned in a file system. All pods of
a network namespace share one set of maps; only who attaches a program to an interface has to know of it.
"""

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from felix_py.kernel import guard_maps, ownership, roundtrip
from felix_py.kernel.guard import Guard
from felix_py.kernel.guard_maps import Contents, Maps
from felix_py.kernel.objects import KernelRefused, Link
from felix_py.model import IPAddress
from ipip import bpf, bpf_object, traffic

OBJECT = Path(__file__).with_name("guard.bpf.o")
"""What clang made of guard.bpf.c when the package was built."""

NAME = "felix-guard"
"""Filters are called so, and after a colon the version of what they hold."""

FROM_POD, REFUSE = "from_pod", "refuse"
"""The programs of guard.bpf.c: where packets of pods arrive, and where those to no known pod leave."""

SHARED = (
    "{name} has somebody's queueing discipline `ingress`, which may divert packets before our program sees them "
    "(the CNI plugin bandwidth does so); give podGuard: nftables in felix.yaml"
)
"""Where one of that kind stands in the place of `clsact`, filters for both ends are the same ones."""

GONE = frozenset({errno.ENODEV, errno.EINVAL})
"""What the kernel says of an interface that went while we looked; EINVAL where it went in the midst of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """How one interface is.

    Attributes:
        enters: the program of this version stands where packets arrive, with our maps.
        refuses: the same where they leave.
        ours: something of ours stands there, whatever version it is of: at either end.
    """

    index: int
    enters: bool = False
    refuses: bool = False
    ours: tuple[bool, bool] = (False, False)


class GuardPrograms:
    """The programs of one network namespace; for one thread, but for `counters`. A context that closes itself."""

    def __init__(self) -> None:
        self._version = f"{NAME}:{version()}"
        self._maps: Maps = {}
        self._contents = Contents()
        self._programs: dict[str, int] = {}
        self._counters_of: dict[int, int] = {}
        self._places: dict[str, Place] = {}
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close everything; what is attached stays."""
        for descriptor in self._programs.values():
            os.close(descriptor)
        self._programs.clear()
        guard_maps.close(self._maps)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def read(self, links: Mapping[str, Link], names: Collection[str] | None = None) -> Guard | None:
        """Return what stands there; None where nothing of ours does.

        An interface that is not as its maps say, as one from which somebody has removed a program, is left out: so
        every drift is a difference.

        Args:
            links: all interfaces by name.
            names: those to look at again; None looks at all, and into the maps.

        Raises:
            KernelRefused: when the kernel could not be asked.
        """
        pods = {name: link for name, link in links.items() if ownership.is_workload_device(name)}
        with _refusals("pods' interfaces cannot be looked at"):
            for name in pods if names is None else pods.keys() & {*names}:
                self._places[name] = self._look(pods[name].index)
            if names is None and self._maps:
                self._contents = guard_maps.read(self._maps)
        self._places = {name: place for name, place in self._places.items() if name in pods}
        return self._fact()

    def write(self, want: Guard | None, links: Mapping[str, Link]) -> None:
        """Make it so: a pod is known to the maps before a program is attached, and unknown before it is refused.

        Args:
            want: None removes everything of ours.
            links: all interfaces by name.

        Raises:
            KernelRefused: with the reason.
        """
        if want is None:
            with _refusals("our programs cannot be removed from pods' interfaces"):
                self._remove()
            return
        with _refusals("pods' interfaces cannot be guarded by BPF"):
            if not self._maps:
                self._maps = guard_maps.make(_object().maps)
            guard_maps.change(self._maps, self._contents, _contents(want, links))
            due = [
                (name, links[name].index, refused)
                for names, refused in ((want.sources, False), (want.refused, True))
                for name in names
                if name in links and not self._stands(name, links[name].index, refused=refused)
            ]
            shared = [name for name, index, refused in due if not self._attach(name, index, refused=refused)]
        if shared:
            raise KernelRefused(SHARED.format(name=shared[0]))

    def admit(self, pods: Sequence[tuple[Link, frozenset[IPAddress]]]) -> None:
        """Guard more pods' interfaces, without a look at all others; they are known to the maps before packets pass.

        Raises:
            KernelRefused: with the reason; some of them may be guarded.
        """
        with _refusals("pods' interfaces cannot be guarded by BPF"):
            if not self._maps:
                raise KernelRefused("no programs of ours guard pods yet")
            for link, sources in pods:
                guard_maps.admit(self._maps, self._contents, link.index, sources)
            links = [link for link, _ in pods]
            if self._attach_first(links):
                self._places.update({each.name: Place(each.index, enters=True, ours=(True, False)) for each in links})
                return
            shared = [each.name for each in links if not self._attach(each.name, each.index, refused=False)]
        if shared:
            raise KernelRefused(SHARED.format(name=shared[0]))

    def counters(self) -> dict[str, int]:
        """Return how many packets were dropped, by reason; nothing where no program is attached."""
        return guard_maps.counters(self._maps) if self._maps else {}

    # --- one interface

    def _stands(self, name: str, index: int, *, refused: bool) -> bool:
        """Say whether all is as it should be for a pod's interface, or one that is refused."""
        place = self._places.get(name)
        return place == Place(index, enters=True, refuses=refused, ours=(True, refused))

    def _look(self, index: int) -> Place:
        entering, leaving = (_find(index, end) for end in (traffic.INGRESS, traffic.EGRESS))
        if entering is not None and entering == leaving:
            return Place(index, ours=(True, False))  # as `SHARED` says
        ours = tuple(each is not None and each.name.startswith(NAME) for each in (entering, leaving))
        if entering is not None and entering.name == self._version and not self._maps:
            self._maps = bpf.program_maps(entering.program)
            self._contents = guard_maps.read(self._maps)
        return Place(index, self._right(entering), self._right(leaving), (ours[0], ours[1]))

    def _right(self, found: traffic.Filter | None) -> bool:
        """Say whether a filter holds a program of this version with the maps that we know."""
        if found is None or found.name != self._version or not self._maps:
            return False
        if found.program not in self._counters_of:
            maps = bpf.program_maps(found.program)
            self._counters_of[found.program] = maps["counters"].number
            guard_maps.close(maps)
        return self._counters_of[found.program] == self._maps["counters"].number

    def _attach_first(self, links: Sequence[Link]) -> bool:
        """Have our program at interfaces that nobody has touched yet, in one go; False where one needs a look."""
        for each in links:
            place = self._places.get(each.name)
            if place is not None and place.index == each.index:
                return False
        indexes, program = [each.index for each in links], self._program(FROM_POD)
        try:
            return traffic.attach_first(indexes, traffic.INGRESS, self._version, program, self._exchange)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return False

    def _exchange(self, asked: bytes, last: int) -> bytes:
        """Have a request of traffic control carried out, on a socket that is kept while all goes well."""
        sock, self._socket = self._socket or roundtrip.open_socket(), None
        try:
            answers = roundtrip.exchange(sock, asked, last)
        except BaseException:  # whatever it was: the next one must not read the answers of this one
            sock.close()
            raise
        self._socket = sock
        return answers

    def _attach(self, name: str, index: int, *, refused: bool) -> bool:
        """Have the right programs at an interface; one that went meanwhile tells so by an event.

        Returns:
            False where they are in vain, as `SHARED` says.
        """
        place = self._places.get(name, Place(index))
        if place.index != index:
            place = Place(index)
        try:
            if not place.enters:
                traffic.attach(index, traffic.INGRESS, self._version, self._program(FROM_POD))
                entering, leaving = (_find(index, end) for end in (traffic.INGRESS, traffic.EGRESS))
                if entering is not None and entering == leaving:
                    self._places[name] = Place(index, ours=(True, False))
                    return False
            if refused and not place.refuses:
                traffic.attach(index, traffic.EGRESS, self._version, self._program(REFUSE))
            elif not refused and place.ours[1]:
                traffic.detach(index, traffic.EGRESS)
        except OSError as error:
            if error.errno not in GONE:
                raise
            self._places.pop(name, None)
        else:
            self._places[name] = Place(index, enters=True, refuses=refused, ours=(True, refused))
        return True

    def _program(self, name: str) -> int:
        """Return the descriptor of a program that uses our maps."""
        if name not in self._programs:
            descriptors = {each: found.descriptor for each, found in self._maps.items()}
            self._programs[name] = bpf.load(name, _object().programs[name].linked(descriptors))
        return self._programs[name]

    def _remove(self) -> None:
        for place in self._places.values():
            for end, ours in zip((traffic.INGRESS, traffic.EGRESS), place.ours, strict=True):
                if ours:
                    with contextlib.suppress(OSError):  # gone with its interface
                        traffic.detach(place.index, end)
        self.close()
        self._places, self._contents = {}, Contents()

    # --- all of them

    def _fact(self) -> Guard | None:
        """Return what holds at the interfaces that are as they should be, and entries of interfaces that are gone."""
        if not self._maps and not any(any(place.ours) for place in self._places.values()):
            return None
        known = self._contents.by_index()
        whole = {name: place for name, place in self._places.items() if place.enters}
        sources = {
            name: known[place.index] for name, place in whole.items() if place.index in known and not place.ours[1]
        }
        gone = known.keys() - {place.index for place in self._places.values()}
        sources |= {f"interface {index}": known[index] for index in gone}
        refused = {name for name, place in whole.items() if place.index not in known and place.refuses}
        return Guard(sources, frozenset(refused), self._contents.ports)


def version() -> str:
    """Return what tells these programs from those of another version of this package; nothing where none were built."""
    try:
        return hashlib.sha256(OBJECT.read_bytes()).hexdigest()[:12]
    except FileNotFoundError:
        return ""


def _object() -> bpf_object.Object:
    return bpf_object.parse(OBJECT.read_bytes())


def _find(index: int, end: int) -> traffic.Filter | None:
    try:
        return traffic.find(index, end)
    except OSError as error:
        # The interface went, or this kernel knows no filters: nothing of ours is there.
        if error.errno in GONE or error.errno == errno.EOPNOTSUPP:
            return None
        raise


def _contents(want: Guard, links: Mapping[str, Link]) -> Contents:
    present = {links[name].index: addresses for name, addresses in want.sources.items() if name in links}
    sources = {(index, address) for index, addresses in present.items() for address in addresses}
    return Contents({*present}, sources, want.ports)


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except bpf_object.Unreadable as error:
        raise KernelRefused(f"{what}: {error}") from error
    except OSError as error:
        raise KernelRefused(f"{what}: {error.strerror}; podGuard: nftables in felix.yaml does it otherwise") from error
