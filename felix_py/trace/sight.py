"""The kernel of the network namespace that the thread is in, as a trace looks at it."""

import socket
import subprocess
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from felix_py.kernel import filter_table, sysctl
from felix_py.kernel.base_chains import Chain, chains_of
from felix_py.kernel.dump import Reader
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.flow import Flow
from felix_py.kernel.guard import Guard
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.kernel.lookup import Lookup
from felix_py.kernel.lookup_codec import Found
from felix_py.kernel.objects import KernelRefused, Link, RouteType
from felix_py.kernel.rule_codec import Rule
from felix_py.kernel.wire import Refusal
from felix_py.model import IPAddress, IPNetwork
from felix_py.trace.passing import state_in_words

NFT = ("nft", "-s", "-p", "list", "ruleset")
"""Without counters, and protocols by number."""

DEADLINE = 5.0
"""Seconds for it."""


class KernelSight:
    """The real `seams.Sight`; a context, made and used in one thread.

    Attributes:
        unfiltered: why the packet filters could not be read, so that nothing is said of them; None where they were.
    """

    def __init__(self) -> None:
        """Read the interfaces and the packet filters.

        Raises:
            WireBroken: when the kernel did not answer.
        """
        with Reader() as reader:
            self.links: Mapping[str, Link] = {link.name: link for link in reader.links()}
        self._names = dict(socket.if_nameindex())
        self._lookup = Lookup()
        self.guard: Guard | None = None
        self.table: FilterTable | None = None
        self.chains: tuple[Chain, ...] = ()
        self.unfiltered: str | None = None
        try:
            with GuardPrograms() as programs:
                self.guard = programs.read(self.links)
            ruleset = _ruleset()
        except KernelRefused as refused:
            self.unfiltered = str(refused)
            return
        self.chains = tuple(chains_of(ruleset))
        self.table = _own(ruleset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lookup.close()

    def lookup(
        self, destination: IPAddress, source: IPAddress | None, device: str | None, flow: Flow | None = None
    ) -> Found | Refusal:
        """Return what becomes of a packet that came in by a device; None where this machine sends it."""
        index = self.links[device].index if device is not None else 0
        return self._lookup.route(destination, source, index, self._names, flow)

    def rules(self, version: int) -> Iterable[Rule]:
        """Return the rules of policy routing, in the order in which they are asked."""
        return self._lookup.rules(version)

    def rejecting(self, kind: RouteType, version: int) -> Iterable[IPNetwork]:
        """Return all prefixes that routes of a type send nowhere."""
        return self._lookup.rejecting(kind, version)

    def neighbour(self, address: IPAddress, device: str) -> str:
        """Return the state of a neighbour, after looking for one that is not known."""
        return state_in_words(self._lookup.neighbour(address, self.links[device].index))

    def forwarding(self, address: IPAddress, device: str) -> IPAddress | None:
        """Return the node to which a device sends frames for a neighbour; None where it knows none."""
        index = self.links[device].index
        mac = self._lookup.mac(address, index)
        return self._lookup.forwarding(mac, index) if mac is not None else None

    def parameter(self, path: str) -> str | None:
        """Return a parameter below /proc/sys."""
        return sysctl.read([path]).get(path)


def _ruleset() -> str:
    """Return every table of everybody, as nft prints it.

    By the program, not its library: that has parts which only one thread of a process may use, and hosts with 20,000
    rules take seconds to list, for which nothing else should wait.

    Raises:
        KernelRefused: when it could not be read.
    """
    try:
        done = subprocess.run(NFT, capture_output=True, text=True, check=False, timeout=DEADLINE)
    except FileNotFoundError:
        raise KernelRefused("nft is not installed; apt-get install nftables") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelRefused(f"nft did not answer: {error}") from error
    if done.returncode:
        raise KernelRefused(f"nft refused: {' '.join(done.stderr.split())}")
    return done.stdout


def _own(ruleset: str) -> FilterTable | None:
    start = ruleset.find(f"table {filter_table.NAME} {{")
    if start < 0:
        return None
    return filter_table.parse(ruleset[start : ruleset.index("\n}", start) + 2])
