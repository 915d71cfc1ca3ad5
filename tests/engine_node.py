"""A node whose kernel and clock are in memory: the real route engine on a fake host, turn by turn."""

from dataclasses import dataclass, field

from fakes import FakeHost, FakeParameters, FakeTunnels
from faulty_wire import FaultyWire

from felix_py.kernel.kernel import Kernel, Report
from felix_py.kernel.objects import KernelRefused, KernelState, Link
from felix_py.kernel.wire import WireBroken
from felix_py.model import IPAddress

BACK_OFF = 0.1
"""Seconds that the agent waits at first when the kernel could not be read."""


@dataclass
class Purged:
    """Connection tracking that forgets when it is told to.

    Attributes:
        addresses: what was to be forgotten, in order.
        under_way: what is being forgotten now.
    """

    addresses: list[IPAddress] = field(default_factory=list)
    under_way: set[IPAddress] = field(default_factory=set)

    def begin(self, address: IPAddress) -> None:
        self.addresses.append(address)
        self.under_way.add(address)

    def busy(self, address: IPAddress) -> bool:
        return address in self.under_way


class EngineNode:
    """Turns as `felix_py.turn` takes them, with a wish that is given.

    Attributes:
        broken: what was said each time when the kernel could not be read or written.
        reports: what each turn did.
    """

    def __init__(self, *links: Link) -> None:
        self.host = FakeHost(*links)
        self.wire = FaultyWire(self.host)
        self.purged = Purged()
        tunnels, parameters = FakeTunnels(self.host), FakeParameters(self.host)
        self.kernel = Kernel(self.wire, tunnels, KernelRefused, parameters, self.purged)
        self.now = 0.0
        self.broken: list[str] = []
        self.reports: list[Report] = []
        self._must_reopen = False

    def turn(self, want: KernelState) -> bool:
        """Take one turn; say whether the kernel could be read and written."""
        try:
            if self._must_reopen:
                self.kernel.reopen()
            self.kernel.catch_up(self.now)
            if self.kernel.resync_cause:
                self.kernel.resync()
        except WireBroken as broken:
            return self._broke(str(broken))
        report = self.kernel.make(want, self.now)
        self.reports.append(report)
        self._must_reopen = report.routes.broken is not None
        return True if report.routes.broken is None else self._broke(report.routes.broken)

    def _broke(self, reason: str) -> bool:
        self.broken.append(reason)
        self._must_reopen = True
        self.kernel.must_read("socket failed")
        return False

    def settle(self, want: KernelState, seconds: float = 60.0, turns: int = 2000) -> None:
        """Take turns whenever there is something to do, until there is nothing or the time is over."""
        end = self.now + seconds
        for _ in range(turns):
            went_well = self.turn(want)
            due = self.kernel.next_due
            purging = bool(self.purged.under_way)
            self.purged.under_way.clear()
            if not went_well:
                self.now += BACK_OFF
            elif purging:
                continue  # the end of a purge wakes the loop
            elif not self.kernel.routes.is_due(self.now):
                if due is None:
                    return
                self.now = max(self.now, due)
            if self.now > end:
                return
        raise AssertionError(f"still busy after {turns} turns, {self.now:.1f} s: {self.reports[-1]}")

    @property
    def refusals(self) -> set[str]:
        """Every reason for which a route was refused."""
        holds = (hold for report in self.reports for hold in report.routes.refused.values())
        return {hold.refusal.text for hold in holds if hold.refusal is not None}
