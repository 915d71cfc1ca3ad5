"""How a pool's mode changes without losing a packet, though no two nodes hear of it at the same moment.

A tunnel that has just been made is not used before the other nodes have had the time to make theirs; until then routes
follow the mode that the pool had before. A tunnel that no pool needs any more stays for what they may still send.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from felix_py.calc import encap
from felix_py.model import IPPool

LEAD = 1.0
"""Seconds from making a tunnel to sending by it: longer than it takes until every node has heard of a pool's mode."""

LINGER = 10.0
"""Seconds that a tunnel stays after no pool needs it: longer than the slowest node takes to move its routes."""

GUARD = 1.0
"""Seconds that the packet filter minds a tunnel beyond its removal, so that none stands for a moment without it."""


@dataclass(frozen=True, slots=True)
class Former:
    """What is still as it was before pools changed; by default nothing is.

    Attributes:
        devices: tunnels that stay although no pool needs them.
        guarded: tunnels whose packets are judged although no pool needs them.
        pools: by name, those whose routes follow the mode that they have here.
    """

    devices: frozenset[str] = frozenset()
    guarded: frozenset[str] = frozenset()
    pools: Mapping[str, IPPool] = field(default_factory=dict)


NOTHING = Former()


class Transition:
    """Remembers what was needed when; an agent that has just started remembers nothing, and does all at once.

    Attributes:
        next_due: when there will be something to change although nothing happens; None for never.
    """

    def __init__(self) -> None:
        self.next_due: float | None = None
        self._ready: dict[str, float] = {}  # from when on a tunnel is used
        self._left: dict[str, float] = {}  # since when no pool needs it
        self._routing: dict[str, IPPool] | None = None

    def take(self, pools: Iterable[IPPool], now: float) -> Former:
        """Return what is still as before, where these are the pools at the time `now`, in seconds."""
        by_name = {pool.name: pool for pool in pools}
        needed = {device for device in map(encap.device, by_name.values()) if device is not None}
        self._note(needed, now)
        held = {name: before for name, pool in by_name.items() if (before := self._held(pool, now)) is not None}
        self._routing = {**by_name, **held}
        due = [ready for ready in self._ready.values() if ready > now]
        due += [left + wait for left in self._left.values() for wait in (LINGER, LINGER + GUARD) if left + wait > now]
        self.next_due = min(due, default=None)
        if not held and not self._left:
            return NOTHING
        lingering = frozenset(device for device, left in self._left.items() if now < left + LINGER)
        return Former(lingering, frozenset(self._left), held)

    def _note(self, needed: set[str], now: float) -> None:
        """Take note of which tunnels are needed, and forget those that have been gone for long enough."""
        first = self._routing is None
        for device in needed:
            # One that is still there, or comes with the agent, is used at once.
            stands = device in self._left and now < self._left[device] + LINGER
            if device not in self._ready or (device in self._left and not stands):
                self._ready[device] = now if first else now + LEAD
            self._left.pop(device, None)
        for device in self._ready.keys() - needed:
            self._left.setdefault(device, now)
        for device in [device for device, left in self._left.items() if now >= left + LINGER + GUARD]:
            del self._left[device], self._ready[device]

    def _held(self, pool: IPPool, now: float) -> IPPool | None:
        """Return a pool with the modes that it had before, where it needs a tunnel that is too new; None elsewhere."""
        device, before = encap.device(pool), (self._routing or {}).get(pool.name)
        if before is None or device is None or now >= self._ready[device] or encap.device(before) == device:
            return None
        if before.cidr != pool.cidr:
            return None
        return replace(pool, ipip_mode=before.ipip_mode, vxlan_mode=before.vxlan_mode)
