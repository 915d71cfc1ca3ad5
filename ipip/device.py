"""The tunnel device of this node: chooses what carries its packets, reads it back, and makes it as wanted."""

import errno
import os
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Protocol

from ipip import ebpf, links
from ipip.ebpf import Ebpf
from ipip.kernel import SET_ASIDE, Kernel, make
from ipip.process import Process
from ipip.shape import shape
from ipip.substitute import Substitute
from ipip.tunnel import DEVICE, NOTHING, Asked, Driver, Facts, Tunnel, TunnelRefused

__all__ = ["Device", "TunnelRefused"]

RUN_DIRECTORY = Path("/run/felix")

PROBE = "felix-probe"
"""A device of this name stands for a moment when nobody can tell yet whether the kernel has the ipip module."""


class Carrying(Protocol):
    """What a driver offers."""

    kind: str

    def ours(self, link: links.Link) -> bool:
        """Say whether this driver could have made the device."""

    def facts(self, name: str, link: links.Link) -> Facts:
        """Say what is carried now."""

    def put(self, tunnel: Tunnel) -> None:
        """Have the device there, and its packets carried so."""

    def delete(self, name: str) -> None:
        """Remove the device and all that carries its packets; nothing of another driver's."""

    def counters(self, name: str) -> Mapping[str, int]:
        """Count packets, also those dropped."""


class Device:
    """Reads and makes the tunnel of this network namespace; for one thread.

    Attributes:
        driver: what carries the packets.
        why: one sentence about the choice.
    """

    def __init__(self, run_directory: Path = RUN_DIRECTORY, driver: Asked = "auto") -> None:
        self.driver: Driver
        self.driver, self.why = choose(driver)
        self._drivers: dict[Driver, Carrying] = {"kernel": Kernel(), "ebpf": Ebpf(), "tun": Process(run_directory)}
        self._carrying = self._drivers[self.driver]
        self._substitute = Substitute()
        self._alone = False

    def read(self, name: str) -> Tunnel | None:
        """Return the tunnel as it is; None where there is none.

        What does not work reads as what nobody wants: no packets carried is `up=False`, an address with a wrong mask
        or beside others is 0.0.0.0. So every drift is a difference.
        """
        try:
            link = links.read(name)
            if link is None or not self._carrying.ours(link):
                return None
            facts = self._carrying.facts(name, link)
            working = link.up and facts.local != NOTHING and not self._substitute.stands(name)
            if not link.up and facts.local == NOTHING and self.driver == "kernel":
                return None  # the module's own device, which nobody has asked for
            address = _only(links.addresses(link.index))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None  # it went while we looked
            raise
        return Tunnel(facts.local, link.mtu, address, facts.routes, facts.allowed, name, up=working)

    def put(self, tunnel: Tunnel) -> None:
        """Make the tunnel so; what is so already is not written.

        Where another driver of ours carries the packets, a substitute does from before that one goes until this one
        has taken over: routes are led out of the substitute, and then out of the new device, in place.

        Raises:
            TunnelRefused: with what stands in the way.
        """
        try:
            if not self._alone:
                self._take_over(tunnel)
            self._make_room(tunnel.name)
            self._carrying.put(tunnel)
            shape(tunnel)
            if not self._alone:
                self._substitute.hand_over(tunnel.name)
                self._alone = True
        except OSError as error:
            raise TunnelRefused(f"{tunnel.name} cannot be set up: {error.strerror}") from error

    def delete(self, name: str) -> None:
        """Remove the tunnel; one that is gone already counts as done.

        Raises:
            TunnelRefused: with what stands in the way.
        """
        try:
            self._carrying.delete(name)
            self._substitute.delete(name)
        except OSError as error:
            raise TunnelRefused(f"{name} cannot be removed: {error.strerror}") from error

    def counters(self, name: str = DEVICE) -> Mapping[str, int]:
        """Return packets carried and dropped, by reason."""
        return self._carrying.counters(name)

    def _take_over(self, tunnel: Tunnel) -> None:
        """Remove what another driver of ours left; what it carries, a substitute carries from before that."""
        others = [other for driver, other in self._drivers.items() if driver != self.driver]
        link = links.read(tunnel.name)
        if link is not None and link.up and any(other.ours(link) for other in others):
            self._substitute.stand_in(tunnel, link.index)
        for other in others:
            other.delete(tunnel.name)

    def _make_room(self, name: str) -> None:
        """Put the module's own device aside; refuse to touch what is nobody's that we know."""
        link = links.read(name)
        if link is not None and link.kind == Kernel.kind != self._carrying.kind and not link.up:
            # The module's own device, which it makes in every network namespace and lets nobody remove.
            links.rename(link.index, name + SET_ASIDE)
            return
        if link is not None and not self._carrying.ours(link):
            raise TunnelRefused(
                f"{name} is a device of kind {link.kind or 'unknown'}, the {self.driver} driver needs one of kind "
                f"{self._carrying.kind} that it made; remove it with `ip link del {name}`"
            )


def choose(asked: Asked) -> tuple[Driver, str]:
    """Decide what carries the packets, and say why.

    A device that stands there already decides: changing the driver would cut every connection through it.
    """
    if asked != "auto":
        return asked, f"{asked}: the settings say so"
    standing = _standing()
    if standing is not None:
        return standing
    lacking = _lacks_ipip()
    if lacking is None:
        return "kernel", "kernel: the ipip module is there"
    unusable = ebpf.unusable()
    if unusable is None:
        return "ebpf", f"ebpf: {lacking}, and it takes our BPF programs"
    return "tun", f"tun: {lacking}, and ebpf cannot do it: {unusable}"


def _standing() -> tuple[Driver, str] | None:
    """Return whose device stands there already."""
    link = links.read(DEVICE)
    if link is None:
        return None
    if link.kind == Process.kind:
        return "tun", f"tun: {DEVICE} is a TUN device already; `felix-agent cleanup` lets us choose anew"
    if link.kind == Kernel.kind:
        return "kernel", "kernel: the ipip module is loaded"
    if Ebpf().ours(link):
        return "ebpf", f"ebpf: {DEVICE} is carried by our BPF programs already"
    return None


def _lacks_ipip() -> str | None:
    """Say why the kernel makes no ipip device; None where it does."""
    try:
        make(PROBE)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return "this kernel has no ipip module"
        return f"the kernel makes no ipip device ({os.strerror(error.errno or 0).lower()})"
    probe = links.read(PROBE)
    if probe is not None:
        links.remove(probe.index)
    return None


def _only(addresses: frozenset[IPv4Interface]) -> IPv4Address | None:
    if not addresses:
        return None
    (first, *more) = addresses
    return NOTHING if more or first.network.prefixlen != 32 else first.ip  # noqa: PLR2004 - one host
