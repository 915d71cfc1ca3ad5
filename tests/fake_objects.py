"""The real kernel's rules for next-hop objects: who is refused and why, and what goes with a carrier without a word."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

from fake_routes import Host, Indexes, index_of, refused

from felix_py.kernel import next_hop_codec
from felix_py.kernel.messages import U32, attribute
from felix_py.kernel.next_hop_codec import NHA_OP_FLAGS, NHMSG
from felix_py.kernel.objects import NextHop, NextHopObject, Scope
from felix_py.kernel.wire import Mode, NextHopEvent, Refusal, Verb

OPERATION = attribute(NHA_OP_FLAGS, U32.pack(1 << 31))
"""What the kernel adds to a group that it tells of: NHA_OP_FLAG_RESP_GRP_STATS, as a flag of the answer."""


class Objects:
    """All next-hop objects by ID."""

    def __init__(self, host: Host, gateway: Callable[[NextHop], Refusal | None]) -> None:
        """Begin empty; `gateway` says why a next hop that names a gateway cannot be used."""
        self._host = host
        self._gateway = gateway
        self.held: dict[int, NextHopObject] = {}

    def dump(self) -> list[bytes]:
        """Return every body, by ID."""
        return [self.body(number) for number in sorted(self.held)]

    def body(self, number: int) -> bytes:
        """Return an object as the kernel tells of it: with the scope that it has found, a group with flags."""
        entry = self.held[number]
        body = next_hop_codec.encode(number, entry, Indexes())
        if entry.hop is None:
            return body + OPERATION
        family, _, protocol, flags = NHMSG.unpack_from(body)
        scope = 0 if family != 2 else Scope.LINK if entry.hop.via else Scope.HOST
        return NHMSG.pack(family, scope, protocol, flags) + body[NHMSG.size :]

    def members(self, number: int) -> tuple[NextHop, ...]:
        """Return where an object goes."""
        entry = self.held.get(number)
        if entry is None:
            return ()
        if entry.hop is not None:
            return (entry.hop,)
        return tuple(replace(hop, weight=weight) for member, weight in entry.group for hop in self.members(member))

    def put(self, body: bytes, mode: Mode, port: int) -> tuple[int, Refusal | None]:
        """Make an object, or replace it in place; return its ID."""
        entry = next_hop_codec.decode(body, {})
        if body[1]:
            return 0, refused(errno.EINVAL, "Invalid values in ancillary header")
        if entry is None:
            return 0, refused(errno.EINVAL)
        number, wanted = entry
        why = self._unusable(wanted) or self._misplaced(self.held.get(number), wanted, mode)
        if why is None:
            self.held[number] = wanted
            self._tell(Verb.NEW_NEXT_HOP, number, port)
        return number, why

    def _unusable(self, wanted: NextHopObject) -> Refusal | None:
        if wanted.hop is None:
            known = all(member in self.held for member, _ in wanted.group)
            return None if known else refused(errno.EINVAL, "Invalid nexthop id")
        link = self._host.link_at(index_of(wanted.hop.device))
        if link is None:
            return refused(errno.EINVAL, "Invalid device index")
        if not link.up:
            return refused(errno.ENETDOWN, "Nexthop device is not up")
        if not link.running:
            return refused(errno.ENETDOWN, "Carrier for nexthop device is down")
        return self._gateway(wanted.hop) if wanted.hop.via is not None else None

    @staticmethod
    def _misplaced(held: NextHopObject | None, wanted: NextHopObject, mode: Mode) -> Refusal | None:
        if held is None:
            sentence = "Replace specified without create and no entry exists"
            return None if mode & Mode.CREATE else refused(errno.ENOENT, sentence)
        if not mode & Mode.REPLACE:
            return refused(errno.EEXIST)
        if (held.hop is None) is (wanted.hop is None):
            return None
        kinds = ("a nexthop", "a nexthop group")
        old, new = kinds if wanted.hop is None else reversed(kinds)
        return refused(errno.EINVAL, f"Can not replace {old} with {new}.")

    def delete(self, body: bytes, port: int) -> Refusal | None:
        """Take an object away; a request that says more than the ID is none."""
        if any(body[1:4]) or len(body) != NHMSG.size + 8:
            return refused(errno.EINVAL, "Invalid values in header")
        number = next_hop_codec.number_of(body)
        if number not in self.held:
            return refused(errno.ENOENT)
        self._tell(Verb.DELETE_NEXT_HOP, number, port)
        del self.held[number]
        for group in list(self._groups_of(number)):
            if len(self.held[group].group) == 1:
                self._tell(Verb.DELETE_NEXT_HOP, group, port)
                del self.held[group]
            else:
                self._leave(group, number)
                self._tell(Verb.NEW_NEXT_HOP, group, port)
        return None

    def lose(self, index: int) -> list[int]:
        """Drop without a word what leaves by an interface that has no carrier any more; return which."""
        lost = [number for number, each in self.held.items() if each.hop and index_of(each.hop.device) == index]
        for number in lost:
            del self.held[number]
        for number in tuple(lost):
            for group in list(self._groups_of(number)):
                self._leave(group, number)
                if not self.held[group].group:
                    del self.held[group]
                    lost.append(group)
        return lost

    def _groups_of(self, number: int) -> Iterator[int]:
        return (group for group, each in self.held.items() if any(member == number for member, _ in each.group))

    def _leave(self, group: int, number: int) -> None:
        entry = self.held[group]
        self.held[group] = replace(entry, group=tuple(each for each in entry.group if each[0] != number))

    def _tell(self, verb: Verb, number: int, port: int) -> None:
        self._host.tell(NextHopEvent(verb, port, self.body(number)), port)
