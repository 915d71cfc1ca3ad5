"""Whose connections have to be forgotten before an address serves somebody else, and which are being forgotten now."""

from typing import Protocol

from felix_py.model import IPAddress


class Purger(Protocol):
    """Forgets the tracked connections of an address, in the background; `kernel.conntrack` is the real one."""

    def begin(self, address: IPAddress) -> None:
        """Start to forget; return at once."""

    def busy(self, address: IPAddress) -> bool:
        """Say whether it is still at work on this address."""


class NoPurger:
    """For whoever only looks, or takes everything away: no connection is forgotten."""

    def begin(self, _address: IPAddress) -> None:
        """Do nothing."""

    def busy(self, _address: IPAddress) -> bool:
        """Say no."""
        return False


class Purge:
    """Local owners of addresses, by the identity of their route, and the purges that are under way.

    An owner is remembered after its route is gone, because the kernel drops routes with their device before anybody is
    told who comes next. The same owner again needs no purge: an interface that flaps keeps its connections.

    Attributes:
        owners: index of the workload's interface, by identity.
        active: addresses whose purge is under way, by identity.
    """

    def __init__(self, purger: Purger) -> None:
        self.owners: dict[bytes, int] = {}
        self._purger = purger
        self.active: dict[bytes, IPAddress] = {}

    def begin(self, identity: bytes, address: IPAddress) -> None:
        """Forget the connections of an address, and who owned it."""
        self.owners.pop(identity, None)
        self.active[identity] = address
        self._purger.begin(address)

    def waits(self, identity: bytes) -> bool:
        """Say whether this address is being purged."""
        return identity in self.active

    @property
    def has_finished(self) -> bool:
        """Say whether a purge has ended that `finished` has not told of yet."""
        return any(not self._purger.busy(address) for address in self.active.values())

    def finished(self) -> list[bytes]:
        """Return the identities whose purge has ended since the last call."""
        ended = [identity for identity, address in self.active.items() if not self._purger.busy(address)]
        for identity in ended:
            del self.active[identity]
        return ended
