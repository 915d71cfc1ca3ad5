"""The real kernel's rules for IPv4: routes of one identity stand one behind the other, and go without a word."""

import errno
from functools import partial
from ipaddress import ip_interface

from fake_routes import (
    KERNEL,
    KERNEL_PORT,
    NEW,
    NO_SUCH_OBJECT,
    NOT_THERE,
    TAKEN,
    Entry,
    Host,
    Tables,
    hop_fits,
    host_bits,
    index_of,
    is_dead,
    marked,
    name_of,
    refused,
)

from felix_py.kernel.objects import Link, NextHop, Route, RouteKey, RouteType, Scope
from felix_py.kernel.wire import Family, Mode, Refusal, Verb
from felix_py.model import IPAddress

INVALID_GATEWAY = refused(errno.ENETUNREACH, "Nexthop has invalid gateway")


class Ipv4(Tables):
    """Routes of one identity stand one behind the other; the first counts."""

    family = Family.IPV4
    unreachable = INVALID_GATEWAY

    def __init__(self, host: Host, ipv6: Tables) -> None:
        super().__init__(host)
        self._ipv6 = ipv6

    def put(self, entry: Entry, mode: Mode, port: int) -> Refusal | None:
        """Put one route: a refusal of what it says comes before one of the place where it should stand."""
        why = self._unusable(entry)
        if why is not None:
            return why
        stack = list(self.stack(entry.key))
        place = self._place_in(stack, entry, mode)
        if isinstance(place, Refusal):
            return place
        if place is None:
            return None
        at, told = place
        stack[at : at + bool(told & Mode.REPLACE)] = [entry]
        self.set_stack(entry.key, stack)
        self.tell(Verb.NEW_ROUTE, told, port, self.render([entry])[0])
        return None

    @staticmethod
    def _place_in(stack: list[Entry], entry: Entry, mode: Mode) -> tuple[int, Mode] | Refusal | None:
        """Return where it goes and what the event says of it; None when it stands there already."""
        if not stack:
            return (0, NEW) if mode & Mode.CREATE else refused(errno.ENOENT)
        same = [each.body == entry.body for each in stack]
        replacing = bool(mode & Mode.REPLACE)
        if replacing and same[0] and not mode & Mode.EXCLUSIVE:
            return None
        if mode & Mode.EXCLUSIVE or any(same):
            return TAKEN
        if not replacing and not mode & Mode.CREATE:
            return refused(errno.ENOENT)
        at_the_end = bool(mode & Mode.APPEND) and not replacing
        return len(stack) if at_the_end else 0, Mode.REPLACE if replacing else mode & (Mode.CREATE | Mode.APPEND)

    def _unusable(self, entry: Entry) -> Refusal | None:
        route = entry.route
        if host_bits(entry.key, entry.body):
            return refused(errno.EINVAL, "Invalid prefix for given prefix length")
        if route.through is not None:
            return NO_SUCH_OBJECT if self.names_unknown_object(entry) else None
        if route.type is not RouteType.UNICAST and (route.hops or route.via or route.device):
            sentence = "Gateway, device and multipath can not be specified for this route type"
            return refused(errno.EINVAL, sentence)
        if route.type is RouteType.UNICAST and not entry.hops:
            return refused(errno.ENODEV)
        whys = (self.hop_refusal(hop, route.scope) for hop in entry.hops)
        why = next((why for why in whys if why is not None), None)
        if why is None and route.source is not None and not self.host.is_local(route.source):
            return refused(errno.EINVAL, "Invalid prefsrc address")
        return why

    def hop_refusal(self, hop: NextHop, scope: Scope = Scope.UNIVERSE) -> Refusal | None:
        """Say why a next hop cannot be used."""
        index = index_of(hop.device)
        link = self.host.link_at(index)
        if hop.via is None:
            if link is None:
                return refused(errno.ENODEV)
            return None if link.up else refused(errno.ENETDOWN, "Device for nexthop is not up")
        if hop.via.version == 6:  # fib_check_nh_v6_gw, net/ipv4/fib_semantics.c: judged as one of an IPv6 route
            return self._ipv6.hop_refusal(hop)
        if hop.onlink:
            return self._onlink_refusal(hop.via, link)
        beyond = scope >= Scope.LINK or (index and link is None) or self.resolves(hop.via, index) is None
        return self.unreachable if beyond else None

    def _onlink_refusal(self, via: IPAddress, link: Link | None) -> Refusal | None:
        if link is None:
            return refused(errno.ENODEV, "Nexthop device required for onlink")
        if not link.up:
            return refused(errno.ENETDOWN, "Nexthop device is not up")
        return refused(errno.EINVAL, "Nexthop has invalid gateway") if self.host.is_local(via) else None

    def delete(self, entry: Entry, port: int) -> Refusal | None:
        """Take away the first that fits; a request without metric fits every metric."""
        if self.names_unknown_object(entry):
            return NO_SUCH_OBJECT
        found = next((each for each in self.stack(entry.key) if _fits4(entry, each)), None)
        if found is None and not entry.key.metric:
            found = next((each for each in self._of_any_metric(entry.key) if _fits4(entry, each)), None)
        if found is None:
            return NOT_THERE
        self._remove([found], port)
        return None

    def _of_any_metric(self, key: RouteKey) -> list[Entry]:
        found = [each for stack in self.stacks() for each in stack if each.key._replace(metric=0) == key]
        return sorted(found, key=lambda each: each.key.metric)

    def render(self, stack: list[Entry]) -> list[bytes]:
        """Return each route as it was asked for, with what the kernel adds."""
        bodies = []
        for entry in stack:
            body = self.explained(entry, entry.body)
            bodies.append(marked(body, partial(self.flags, entry)))
        return bodies

    def connected(self, index: int, address: str) -> tuple[RouteKey, Route]:
        """Return the route to the network of an address."""
        own = ip_interface(address)
        route = Route(device=name_of(index), scope=Scope.LINK, source=own.ip, protocol=KERNEL)
        return RouteKey(own.network), route

    def lose(self, index: int, *, gone: bool = False) -> None:
        """Drop without a word what leaves by this interface alone; if it is gone, multipath routes over it as well."""
        for stack in self.stacks():
            for entry in stack:
                if index in entry.indexes:
                    entry.dead.add(index)
            self._remove(
                [each for each in stack if each.hops and (index in each.indexes if gone else is_dead(each))], None
            )

    def source_gone(self, address: str) -> None:
        """Drop the routes that prefer an address that is gone; this one the kernel tells."""
        source = ip_interface(address).ip
        for stack in self.stacks():
            gone = [each for each in stack if each.route.source == source and each.route.protocol != KERNEL]
            self._remove(gone, KERNEL_PORT)

    def object_gone(self, number: int) -> None:
        """Drop every route through a next-hop object, without a word."""
        self._remove(self.through(number), None)


def _fits4(asked: Entry, have: Entry) -> bool:
    """Say whether an IPv4 route is what a request to delete describes: what it does not say fits everything."""
    want, route = asked.route, have.route
    return (
        asked.key.metric in (0, have.key.metric)
        and want.type is route.type
        and want.scope in (Scope.NOWHERE, route.scope)
        and want.protocol in (0, route.protocol)
        and want.source in (None, route.source)
        and want.mtu in (None, route.mtu)
        and _hops_fit4(asked, have)
    )


def _hops_fit4(asked: Entry, have: Entry) -> bool:
    if asked.route.through is not None:
        return asked.route.through == have.route.through
    if have.route.through is not None:
        return not asked.hops
    if not have.hops or not asked.hops:
        return not asked.hops
    if not asked.route.hops:  # a single next hop is compared with the first of several
        return hop_fits(asked.hops[0], have.hops[0])
    return len(asked.hops) >= len(have.hops) and all(map(hop_fits, asked.hops, have.hops))
