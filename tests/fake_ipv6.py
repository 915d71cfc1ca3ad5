"""The real kernel's rules for IPv6: next hops of one identity are siblings, which it tells as one route."""

import errno
from dataclasses import replace
from ipaddress import ip_interface

from fake_routes import (
    CACHEINFO_AND_PREF,
    KERNEL,
    KERNEL_PORT,
    NEW,
    NO_SUCH_OBJECT,
    NOT_THERE,
    TAKEN,
    Entry,
    Tables,
    hop_fits,
    index_of,
    is_dead,
    marked,
    name_of,
    place,
    refused,
    with_hops,
)

from felix_py.kernel.objects import NextHop, Route, RouteKey, RouteType
from felix_py.kernel.wire import Family, Mode, Refusal, Verb


class Ipv6(Tables):
    """Routes with a gateway and of one identity are siblings: together they are one route, told as multipath."""

    family = Family.IPV6
    unreachable = refused(errno.EHOSTUNREACH)

    def put(self, entry: Entry, mode: Mode, port: int) -> Refusal | None:
        """Put one route; of one with several next hops each is put on its own, behind the first."""
        parts = self._split(entry)
        whys = (self._unusable(part) for part in parts)
        why = next((why for why in whys if why is not None), None)
        if why is not None:
            return why
        told = self._put_first(parts[0], mode)
        if isinstance(told, Refusal):
            return told
        if len(parts) > 1:
            told = (mode & (Mode.REPLACE | Mode.APPEND)) or Mode.CREATE
            told |= Mode.NONE if told & Mode.REPLACE else Mode.CREATE
        added = [parts[0]]
        for part in parts[1:]:
            stack = self.stack(entry.key)
            if _is_there(part, stack):
                # What was added before it is told, and taken back.
                self._tell_put(added, told, port)
                self._remove(added, port)
                return TAKEN
            self.set_stack(entry.key, [*stack, part])
            added.append(part)
        self._tell_put(added, told, port)
        return None

    def _put_first(self, part: Entry, mode: Mode) -> Mode | Refusal:
        stack = list(self.stack(part.key))
        if not stack:
            if mode & Mode.REPLACE and not mode & Mode.CREATE:
                return refused(errno.ENOENT, "Can not replace route - no match found")
            self.set_stack(part.key, [part])
            return NEW | (mode & Mode.APPEND)
        if mode & Mode.EXCLUSIVE:
            return TAKEN
        if mode & Mode.REPLACE:
            self.set_stack(part.key, _replaced(stack, part))
            return Mode.REPLACE
        if _is_there(part, stack):
            return TAKEN
        self.set_stack(part.key, [*stack, part])
        return Mode.CREATE | (mode & Mode.APPEND)

    def _tell_put(self, added: list[Entry], told: Mode, port: int) -> None:
        """Tell the whole route of which the new ones are part: those first, but where several were appended to it."""
        first, together = added[0], [added[0]]
        if _has_gateway(first):
            siblings = [each for each in self.stack(first.key) if _has_gateway(each)]
            at = 0 if len(added) > 1 and told & Mode.APPEND else siblings.index(first)
            together = siblings[at:] + siblings[:at]
        self.tell(Verb.NEW_ROUTE, told, port, self._body(together))

    def _split(self, entry: Entry) -> list[Entry]:
        hops = entry.hops
        if entry.route.type is not RouteType.UNICAST:
            # They hang on `lo`, whatever the request says.
            return [Entry(entry.key, replace(entry.route, via=None, device=None), entry.body, (NextHop(device="if1"),))]
        if len(hops) < 2:
            return [replace_route(entry, entry.route, hops)]
        return [replace_route(entry, with_hops(entry.route, (hop,)), (hop,)) for hop in hops]

    def _unusable(self, part: Entry) -> Refusal | None:
        route = part.route
        if route.through is not None:
            return NO_SUCH_OBJECT if self.names_unknown_object(part) else None
        if not part.hops:
            return refused(errno.ENODEV)
        why = self.hop_refusal(part.hops[0])
        if why is None and route.source is not None and not self.host.is_local(route.source):
            return refused(errno.EINVAL, "Invalid source address")
        return why

    def hop_refusal(self, hop: NextHop) -> Refusal | None:
        """Say why a next hop cannot be used."""
        index = index_of(hop.device)
        link = self.host.link_at(index)
        if index and link is None:
            return refused(errno.ENODEV)
        if link is not None and not link.up:
            return refused(errno.ENETDOWN, "Nexthop device is not up")
        if hop.via is None:
            return None
        if self.host.is_local(hop.via):
            return refused(errno.EINVAL, "Gateway can not be a local address")
        return None if hop.onlink or self.resolves(hop.via, index) is not None else self.unreachable

    def delete(self, entry: Entry, port: int) -> Refusal | None:
        """Take away what fits; its type is not compared, and each next hop of several is a request of its own."""
        if self.names_unknown_object(entry):
            return NO_SUCH_OBJECT
        whys = [self._delete_part(part, port) for part in self._split(entry)]
        return next((why for why in whys if why is not None), None)

    def _delete_part(self, part: Entry, port: int) -> Refusal | None:
        stack = self.stack(part.key)
        found = next((each for each in stack if _fits6(part, each)), None)
        if found is None:
            return NOT_THERE
        if part.hops and part.hops[0].via is None and _has_gateway(found):
            together = [each for each in stack if _has_gateway(each)]
            self.set_stack(part.key, [each for each in stack if not _has_gateway(each)])
            self.tell(Verb.DELETE_ROUTE, Mode.NONE, port, self._body(together))
            return None
        self._remove([found], port)
        return None

    def render(self, stack: list[Entry]) -> list[bytes]:
        """Return siblings as one route, at the place of the first, and others on their own.

        What stands between the first and the last sibling is not dumped: the kernel goes on behind the last
        (fib6_dump_node, net/ipv6/ip6_fib.c).
        """
        siblings = [each for each in stack if _has_gateway(each)]
        if not siblings:
            return [self._body([each]) for each in stack]
        first, last = stack.index(siblings[0]), stack.index(siblings[-1])
        alone = [[each] for each in stack]
        return [self._body(group) for group in (*alone[:first], siblings, *alone[last + 1 :])]

    def _body(self, together: list[Entry]) -> bytes:
        first = together[0]
        hops = tuple(hop for each in together for hop in each.hops)
        if first.route.through is not None:
            body = self.explained(first, self.encode(first.key, first.route))
        elif first.route.type is not RouteType.UNICAST:
            body = self.encode(first.key, first.route)
        else:
            body = self.encode(first.key, with_hops(first.route, hops))
        dead = {index for each in together for index in each.dead}
        whole = replace_route(first, first.route, hops)
        whole.dead = dead
        return marked(body, lambda index: self.flags(whole, index)) + CACHEINFO_AND_PREF

    def connected(self, index: int, address: str) -> tuple[RouteKey, Route]:
        """Return the route to the network of an address."""
        return RouteKey(ip_interface(address).network, metric=256), Route(device=name_of(index), protocol=KERNEL)

    def lose(self, index: int, *, gone: bool = False) -> None:
        """Drop what leaves by this interface and tell each; a sibling of what still lives is only dead, unless gone."""
        for stack in sorted(self.stacks(), key=lambda each: place(each[0].key)):
            for entry in stack:
                if index in entry.indexes:
                    entry.dead.add(index)
            siblings = [each for each in stack if _has_gateway(each)]
            alive = any(not is_dead(each) for each in siblings)
            dead = [each for each in stack if each.hops and is_dead(each)]
            kept = [each for each in siblings if alive and not (gone and index in each.indexes)]
            self._remove([each for each in dead if each not in kept], KERNEL_PORT)

    def object_gone(self, number: int) -> None:
        """Drop every route through a next-hop object, and tell each."""
        self._remove(self.through(number), KERNEL_PORT)


def replace_route(entry: Entry, route: Route, hops: tuple[NextHop, ...]) -> Entry:
    """Return a new entry with the same key and body."""
    return Entry(entry.key, route, entry.body, hops)


def _has_gateway(entry: Entry) -> bool:
    return bool(entry.hops) and entry.hops[0].via is not None


def _is_there(part: Entry, stack: list[Entry]) -> bool:
    """Say whether a route with the same next hop stands there, whoever made it."""
    return any(
        (each.hops[:1] and part.hops[:1] and _place_of(each) == _place_of(part)) or _same_object(each, part)
        for each in stack
    )


def _same_object(one: Entry, other: Entry) -> bool:
    return one.route.through is not None and one.route.through == other.route.through


def _place_of(entry: Entry) -> tuple[object, ...]:
    hop = entry.hops[0]
    return hop.device, hop.via, hop.encapsulation


def _replaced(stack: list[Entry], part: Entry) -> list[Entry]:
    """Return the stack after a replacement: of the first of the same kind with all its siblings, else of the first."""
    alike = [each for each in stack if _has_gateway(each) == _has_gateway(part)]
    target = (alike or stack)[0]
    siblings = [each for each in stack if _has_gateway(each)] if _has_gateway(target) else [target]
    return [part if each is target else each for each in stack if each is target or each not in siblings]


def _fits6(asked: Entry, have: Entry) -> bool:
    """Say whether an IPv6 route is what a request to delete describes: what it does not say fits everything."""
    want, route = asked.route, have.route
    if want.protocol not in (0, route.protocol) or (want.through and route.through != want.through):
        return False
    if route.through is not None:
        return True
    return want.through is None and (not asked.hops or hop_fits(asked.hops[0], have.hops[0]))
