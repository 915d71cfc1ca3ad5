"""Next-hop objects: those that are wanted, those that the kernel holds, and the way from one to the other."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from felix_py.kernel import next_hop_codec, ownership
from felix_py.kernel.holds import Hold, after_refusal
from felix_py.kernel.objects import NextHopObject
from felix_py.kernel.wire import Mode, NextHopEvent, Refusal, Verb


class NextHopPut(NamedTuple):
    """An object to make, or to replace in place."""

    number: int
    mode: Mode
    body: bytes


class NextHopTable:
    """Objects by ID. Methods that take news return the IDs whose routes the kernel has dropped."""

    def __init__(self) -> None:
        self.wanted: dict[int, bytes] = {}
        self.held: dict[int, bytes] = {}
        self.refused: dict[int, Hold] = {}

    def want(self, objects: Mapping[int, NextHopObject], indexes: Mapping[str, int]) -> None:
        """Take the wish; an object whose device is missing is not wanted until there is one."""
        wanted = {}
        for number, each in objects.items():
            if each.hop is None or each.hop.device in indexes:
                wanted[number] = next_hop_codec.encode(number, each, indexes)
        self.wanted = wanted
        concerned = {*wanted, *self.held}
        self.refused = {number: hold for number, hold in self.refused.items() if number in concerned}

    def see(self, event: NextHopEvent) -> tuple[int, ...]:
        """Take an event."""
        body = next_hop_codec.normalised(event.body)
        number = next_hop_codec.number_of(body)
        if event.verb is Verb.NEW_NEXT_HOP:
            self.held[number] = body
            return ()
        return (number,) if self.held.pop(number, None) is not None else ()

    def replace(self, dump: Iterable[bytes]) -> tuple[int, ...]:
        """Take a full dump."""
        held = {next_hop_codec.number_of(body): next_hop_codec.normalised(body) for body in dump}
        gone = tuple(number for number in self.held if number not in held)
        self.held = held
        return gone

    def forget(self, index: int) -> tuple[int, ...]:
        """Drop the objects of an interface that went down or away: the kernel drops them and their routes."""
        gone = tuple(number for number, body in self.held.items() if next_hop_codec.leaves_by(body, index))
        for number in gone:
            del self.held[number]
        return gone

    def taken(self, number: int) -> str | None:
        """Say that an ID that we want is somebody else's: routes through it would go where they say."""
        body = self.held.get(number)
        protocol = next_hop_codec.protocol_of(body) if body is not None else ownership.ROUTE_PROTOCOL
        if protocol == ownership.ROUTE_PROTOCOL:
            return None
        name = ownership.protocol_name(protocol)
        return f"next-hop object {number} belongs to protocol {name}; remove it with `ip nexthop del id {number}`"

    def to_put(self, now: float) -> list[NextHopPut]:
        """Return what has to be made or replaced; what was refused a moment ago waits."""
        return [
            NextHopPut(number, Mode.CREATE | (Mode.REPLACE if number in self.held else Mode.EXCLUSIVE), body)
            for number, body in self.wanted.items()
            if self.held.get(number) != body and self.taken(number) is None and not self._waits(number, now)
        ]

    def _waits(self, number: int, now: float) -> bool:
        hold = self.refused.get(number)
        return hold is not None and hold.until > now

    def put(self, number: int, body: bytes) -> None:
        """Take note that an object stands."""
        self.held[number] = body
        self.refused.pop(number, None)

    def deleted(self, number: int) -> None:
        """Take note that an object is gone."""
        self.held.pop(number, None)
        self.refused.pop(number, None)

    def refuse(self, number: int, refusal: Refusal, now: float) -> None:
        """Take note that the kernel did not take an object; it is tried again later."""
        self.refused[number] = after_refusal(refusal, self.refused.get(number), now)

    def to_delete(self, now: float) -> list[int]:
        """Return objects of ours that nobody wants; what was refused a moment ago waits."""
        return [
            number
            for number, body in self.held.items()
            if number not in self.wanted
            and not self._waits(number, now)
            and next_hop_codec.protocol_of(body) == ownership.ROUTE_PROTOCOL
        ]
