"""Which sessions the wire was told to hold, and of whom it may still speak as they were before."""

from collections.abc import Iterator

from bgp.peering import PeerSettings
from bgp.types import HoldSessions, IPAddress, Teardown


class Holding:
    """The orders to the wire, which takes them in turn, and answers each.

    A peer that is taken out and comes in again (another AS, disabled and enabled) is another one with the same address.
    Until the wire has taken the order, what it says of that address is about the one of before.

    Attributes:
        held: the sessions that it was told to hold.
    """

    def __init__(self, held: dict[IPAddress, PeerSettings]) -> None:
        self.held = held
        self._partings: dict[IPAddress, Teardown | None] = {}
        self._anew: dict[IPAddress, int] = {}  # by which order peers came in
        self._told = self._taken = 0

    def begin(self, held: dict[IPAddress, PeerSettings]) -> HoldSessions:
        """Tell a wire that knows nothing."""
        self.held = held
        self._partings.clear()
        self._anew.clear()
        self._told, self._taken = 1, 0
        return HoldSessions()

    def part(self, peer: IPAddress, goodbye: Teardown | None) -> None:
        """Have the next order take the session of a peer out, and close it like this if it is up."""
        self._partings[peer] = goodbye

    def change(self, held: dict[IPAddress, PeerSettings]) -> Iterator[HoldSessions]:
        """Hold these from now on; say nothing where they are held already."""
        partings, self._partings = self._partings, {}
        if held == self.held and not partings:
            return
        self._told += 1
        for address in held:
            if address not in self.held or address in partings:
                self._anew[address] = self._told
        self.held = held
        yield HoldSessions(tuple(each for each in partings.values() if each))

    def taken(self) -> None:
        """Take note that the wire has taken the next order."""
        self._taken += 1
        self._anew = {address: order for address, order in self._anew.items() if order > self._taken}

    def is_of_before(self, peer: IPAddress) -> bool:
        """Say whether what the wire tells of a peer now is about a session that was taken out."""
        return peer in self._anew
