"""A kernel in memory that obeys the real one's rules: tests/netns/test_kernel_contract.py holds both to one suite."""

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from fake_ipv4 import Ipv4
from fake_ipv6 import Ipv6
from fake_objects import Objects
from fake_routes import KERNEL, Entry, Tables, hops_of, is_ipv6, refused

from felix_py.kernel import next_hop_codec, route_codec
from felix_py.kernel.objects import MAIN_TABLE, Link, NextHop, NextHopObject, Route, RouteKey
from felix_py.kernel.wire import (
    AddressEvent,
    Event,
    EventsLost,
    Family,
    LinkEvent,
    Mode,
    ParameterEvent,
    Refusal,
    Verb,
)
from felix_py.model import IPAddress
from ipip.tunnel import Tunnel

OURS, SOMEBODY = 4711, 815
"""Netlink ports: of our writes, and of whoever else."""

COMPATIBLE = "net/ipv4/nexthop_compat_mode"
"""Whether routes through next-hop objects tell where these go, for those who know nothing of objects; 1 by default."""

TOLD = {
    "ipv4": frozenset({"forwarding", "mc_forwarding", "rp_filter", "proxy_arp", "ignore_routes_with_linkdown"}),
    "ipv6": frozenset({"forwarding", "mc_forwarding", "proxy_ndp", "ignore_routes_with_linkdown"}),
}
"""By family, parameters of an interface whose changes the kernel tells (NETCONFA_..., include/uapi/linux/netconf.h)."""

GONE = {Verb.DELETE_ROUTE: errno.ESRCH, Verb.DELETE_NEXT_HOP: errno.ENOENT}
"""Deleting what is gone is done."""


class FakeHost:
    """One network namespace: a `Wire`, and beside it what tests do to it and look at.

    Attributes:
        written: what we have asked for, by verb, mode and body, refused or not.
        sysctls: parameters by path; one that nobody has set reads as 0.
        tunnels: tunnels by name; see `FakeTunnels`.
    """

    def __init__(self, *links: Link) -> None:
        """Begin with these interfaces; `lo` is there in any case."""
        self.port = OURS
        self.written: list[tuple[Verb, Mode, bytes]] = []
        self.sysctls: dict[str, str] = {COMPATIBLE: "1"}
        self.tunnels: dict[str, Tunnel] = {}
        self._links: dict[int, Link] = {}
        self._events: list[Event] = []
        self._congested = False
        self._last_index = 0
        ipv6 = Ipv6(self)
        ipv4 = Ipv4(self, ipv6)
        self._families: dict[Family, Tables] = {Family.IPV4: ipv4, Family.IPV6: ipv6}
        self._ipv4 = ipv4
        self._objects = Objects(self, lambda hop: (ipv6 if hop.via and hop.via.version == 6 else ipv4).hop_refusal(hop))
        for link in () if any(each.name == "lo" for each in links) else (Link("lo", 1, 65536, up=True, running=True),):
            self.add_link(link)
        for link in links:
            self.add_link(link)
        self._events.clear()

    # --- the wire

    def write(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Mapping[int, Refusal]:
        """Carry out changes; see `wire.Wire`."""
        self.written += ((verb, mode, body) for body in bodies)
        answers = ((position, self._carry_out(verb, mode, body, self.port)) for position, body in enumerate(bodies))
        return {position: why for position, why in answers if why is not None and why.code != GONE.get(verb)}

    def start(self, verb: Verb, mode: Mode, bodies: Sequence[bytes]) -> Callable[[], Mapping[int, Refusal]]:
        """Carry out changes at once, whatever the caller does meanwhile; see `wire.Wire`."""
        refused = self.write(verb, mode, bodies)
        return lambda: refused

    def _carry_out(self, verb: Verb, mode: Mode, body: bytes, port: int) -> Refusal | None:
        if verb is Verb.NEW_NEXT_HOP:
            number, why = self._objects.put(body, mode, port)
            if why is None:
                self._each(lambda tables: tables.object_changed(number, port) if mode & Mode.REPLACE else None)
            return why
        if verb is Verb.DELETE_NEXT_HOP:
            return self._delete_object(body, port)
        entry = route_codec.decode(body, {})
        if entry is None:
            return refused(errno.EINVAL, f"this fake cannot read {body.hex()}")
        tables = self._families[Family.IPV6 if is_ipv6(body) else Family.IPV4]
        asked = Entry(*entry, route_codec.normalised(body), hops_of(entry[1]))
        return tables.put(asked, mode, port) if verb is Verb.NEW_ROUTE else tables.delete(asked, port)

    def _delete_object(self, body: bytes, port: int) -> Refusal | None:
        before = set(self._objects.held)
        why = self._objects.delete(body, port)
        for number in before - set(self._objects.held):
            self._object_gone(number)
        return why

    def _object_gone(self, number: int) -> None:
        for tables in self._families.values():
            tables.object_gone(number)

    def dump_routes(self, family: Family, table: int) -> list[bytes]:
        """Return a table; see `wire.Wire`."""
        return self._families[family].dump(table)

    def dump_next_hops(self) -> list[bytes]:
        """Return the objects; see `wire.Wire`."""
        return self._objects.dump()

    def dump_links(self) -> tuple[Link, ...]:
        """Return the interfaces; see `wire.Wire`."""
        return tuple(self._links.values())

    def events(self) -> Iterable[Event]:
        """Return what has happened; see `wire.Wire`."""
        events, self._events, self._congested = self._events, [], False
        return events

    def reopen(self) -> None:
        """Lose what was not read; see `wire.Wire`."""
        self._events, self._congested = [], False

    # --- what tests do to it

    def overflow(self) -> None:
        """Lose the events that were not read, and those until somebody reads that they are lost."""
        self._events, self._congested = [EventsLost()], True

    def foreign(self, verb: Verb, mode: Mode, key: RouteKey, route: Route, *, port: int = SOMEBODY) -> Refusal | None:
        """Let somebody else change a route, as `ip route add` and `del` do."""
        body = route_codec.Encoder({link.name: link.index for link in self._links.values()})(key, route)
        return self._carry_out(verb, mode, body, port)

    def foreign_write(self, verb: Verb, mode: Mode, body: bytes, *, port: int = SOMEBODY) -> Refusal | None:
        """Let somebody else ask for a change, in bytes."""
        return self._carry_out(verb, mode, body, port)

    def add_link(self, link: Link) -> Link:
        """Make an interface; if its index is taken, it gets the next one, as an interface that is made anew does."""
        addresses, taken = link.addresses, link.index in self._links or link.index <= 0
        index = self._last_index + 1 if taken else link.index
        self._last_index = max(self._last_index, index)
        self._set(replace(link, index=index, addresses=frozenset()))
        for address in sorted(addresses):
            self.add_address(link.name, address)
        return self.link(link.name)

    def delete_link(self, name: str) -> None:
        """Remove an interface: it goes down, loses its addresses, and is gone."""
        link = self.link(name)
        if link.up:
            self.set_link(name, up=False)
        for address in sorted(self.link(name).addresses):
            self._take_address(name, address)
        self._each(lambda tables: tables.lose(link.index, gone=True))
        last = self._links.pop(link.index)
        self.sysctls = {path: value for path, value in self.sysctls.items() if f"/conf/{name}/" not in path}
        self.tell(LinkEvent(replace(last, addresses=frozenset()), gone=True), 0)

    def set_link(
        self, name: str, *, up: bool | None = None, running: bool | None = None, mtu: int | None = None
    ) -> None:
        """Bring an interface up or down, with its carrier unless said otherwise; or change the carrier alone."""
        before = self.link(name)
        is_up = before.up if up is None else up
        carrier = running if running is not None else is_up if up is not None else before.running
        link = replace(before, up=is_up, running=is_up and carrier, mtu=before.mtu if mtu is None else mtu)
        self._set(link)
        if before.running and not link.running:
            for number in self._objects.lose(link.index):
                self._object_gone(number)
        if before.up and not link.up:
            self._went_down(link)
        if link.up and not before.up:
            self._each(lambda tables: tables.revive(link.index))
            for address in sorted(link.addresses):
                self._families_of(address).connect(link.index, address)

    def _went_down(self, link: Link) -> None:
        self._each(lambda tables: tables.lose(link.index))
        for address in sorted(link.addresses):
            if ip_interface(address).version == 6:
                self._take_address(link.name, address)

    def rename(self, name: str, new: str) -> None:
        """Give an interface another name; its index, routes and parameters stay."""
        self._set(replace(self.link(name), name=new))
        self.sysctls = {path.replace(f"/conf/{name}/", f"/conf/{new}/"): value for path, value in self.sysctls.items()}

    def add_address(self, name: str, address: str) -> None:
        """Give an interface an address, as `172.31.1.11/24`; the route to its network comes with it."""
        link = self.link(name)
        self._links[link.index] = replace(link, addresses=link.addresses | {address})
        self.tell(AddressEvent(link.index, address), 0)
        if link.up:
            tables = self._families_of(address)
            tables.revive(link.index)
            tables.connect(link.index, address)

    def delete_address(self, name: str, address: str) -> None:
        """Take an address away; with the last one of IPv4 all IPv4 routes of the interface go, without a word."""
        self._take_address(name, address)
        index, left = self.link(name).index, self.link(name).addresses
        if ip_interface(address).version == 4 and not any(ip_interface(each).version == 4 for each in left):
            self._ipv4.lose(index)

    def _take_address(self, name: str, address: str) -> None:
        link = self.link(name)
        self._links[link.index] = replace(link, addresses=link.addresses - {address})
        self.tell(AddressEvent(link.index, address, gone=True), 0)
        self._families_of(address).disconnect(link.index, address)
        if ip_interface(address).version == 4:
            self._ipv4.source_gone(address)

    def change_parameter(self, path: str, value: str) -> None:
        """Set a parameter, whoever does it: the kernel tells in its own name."""
        self.sysctls[path] = value
        family, _, rest = path.removeprefix("net/").partition("/conf/")
        interface, _, name = rest.partition("/")
        index = {"all": -1, "default": -2, **{link.name: link.index for link in self._links.values()}}.get(interface)
        if name in TOLD.get(family, ()) and index is not None:
            self.tell(ParameterEvent(index), 0)

    # --- what tests look at

    def link(self, name: str) -> Link:
        """Return an interface as it is."""
        return next(link for link in self._links.values() if link.name == name)

    @property
    def indexes(self) -> dict[str, int]:
        """Interface indexes by name."""
        return {link.name: link.index for link in self._links.values()}

    def stacks(self, family: Family = Family.IPV4, table: int = MAIN_TABLE) -> dict[RouteKey, tuple[Route, ...]]:
        """Return all routes by identity, those that the kernel made for its addresses left out."""
        names = {link.index: link.name for link in self._links.values()}
        found: dict[RouteKey, tuple[Route, ...]] = {}
        for body in self.dump_routes(family, table):
            entry = route_codec.decode(route_codec.normalised(body), names)
            if entry is not None and entry[1].protocol != KERNEL:
                found[entry[0]] = (*found.get(entry[0], ()), entry[1])
        return found

    @property
    def routes(self) -> dict[RouteKey, Route]:
        """The routes of both families in the main table that count."""
        return {key: stack[0] for family in Family for key, stack in self.stacks(family).items()}

    @property
    def next_hops(self) -> dict[int, NextHopObject]:
        """The next-hop objects by ID."""
        names = {link.index: link.name for link in self._links.values()}
        return dict(filter(None, (next_hop_codec.decode(body, names) for body in self.dump_next_hops())))

    # --- what its parts ask of it

    @property
    def compatible(self) -> bool:
        """See `fake_routes.Host`."""
        return self.sysctls.get(COMPATIBLE) == "1"

    def link_at(self, index: int) -> Link | None:
        """See `fake_routes.Host`."""
        return self._links.get(index)

    def is_local(self, address: IPAddress) -> bool:
        """See `fake_routes.Host`."""
        return any(ip_interface(each).ip == address for link in self._links.values() for each in link.addresses)

    def object_at(self, number: int) -> NextHopObject | None:
        """See `fake_routes.Host`."""
        return self._objects.held.get(number)

    def members(self, number: int) -> tuple[NextHop, ...]:
        """See `fake_routes.Host`."""
        return self._objects.members(number)

    def tell(self, event: Event, port: int) -> None:
        """See `fake_routes.Host`."""
        if port != self.port and not self._congested:
            self._events.append(event)

    def _set(self, link: Link) -> None:
        self._links[link.index] = link
        self.tell(LinkEvent(replace(link, addresses=frozenset())), 0)

    def _each(self, do: Callable[[Tables], object]) -> None:
        for tables in self._families.values():
            do(tables)

    def _families_of(self, address: str) -> Tables:
        return self._families[Family.IPV4 if ip_interface(address).version == 4 else Family.IPV6]
