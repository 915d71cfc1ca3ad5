"""Removals that are believed a moment later: a server that loses its memory says them one by one, and in any order."""

import math
from collections.abc import Mapping

from felix_py.kubernetes_resources import Understood
from felix_py.model import BlockAffinity, Key, NodeName

HOLD = 2.0
"""Seconds that a removal waits. All that etcd loses at once is told within 0.2 s."""

RESTORING = 10.0
"""Seconds that nodes have, when a server has a memory again, to write down anew what they have."""

WRITTEN = frozenset(
    {"IPPool", "IPReservation", "IPAMConfiguration", "BGPConfiguration", "BGPPeer", "BGPFilter", "FelixConfiguration"}
)
"""Kinds that people write: whether one goes 2 s sooner matters to nobody."""


class Removals:
    """What was removed and stays in force for now. Times are seconds on any clock that only goes forward.

    Args:
        node: the removal of its own claims waits too; those of others say nothing about this node's routes.
    """

    def __init__(self, node: NodeName) -> None:
        self._node = node
        self._held: dict[Key, Understood] = {}
        self._until: dict[Key, float] = {}

    def removed(self, key: Key, understood: Understood, now: float) -> None:
        """Take note that a resource is gone."""
        value = understood.value
        if key.kind in WRITTEN or (isinstance(value, BlockAffinity) and value.node == self._node):
            self._held[key] = understood
            self._until[key] = now + HOLD

    def present(self, key: Key, understood: Understood) -> None:
        """Take note that it is there; a claim that is not confirmed yet leaves the former one in force."""
        if key in self._held and not (isinstance(understood.value, BlockAffinity) and not understood.value.confirmed):
            del self._held[key], self._until[key]

    def in_force(self, now: float) -> Mapping[Key, Understood]:
        """Return what still counts as being there."""
        for key in [key for key, until in self._until.items() if until <= now]:
            del self._held[key], self._until[key]
        return self._held

    def wait(self, until: float = math.inf) -> None:
        """Have everything that is held stay until then, at least."""
        self._until = {key: max(until, before) for key, before in self._until.items()}

    def resume(self, now: float) -> None:
        """Count from now what waited for a server to have a memory again."""
        self._until = dict.fromkeys(self._until, now + RESTORING)

    def due(self) -> float | None:
        """Return when the next removal is believed; None where none will be."""
        due = min(self._until.values(), default=math.inf)
        return None if due == math.inf else due
