"""The VXLAN devices of this node: read back, and made as wanted; what others change is heard."""

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path

from ipip import links as interfaces
from ipip.tunnel import TunnelRefused
from vxlan import entries, links, wire
from vxlan.entries import BRIDGE, INET, INET6
from vxlan.links import KIND, Link, OwnAddress
from vxlan.tunnel import DEVICES, NOTHING, IPAddress, Vxlan
from vxlan.watch import Watch

__all__ = ["Device", "TunnelRefused"]

PARAMETERS = Path("/proc/sys/net")
STATISTICS = Path("/sys/class/net")

STRICT, LOOSE = "1", "2"
"""Reverse path filter, Documentation/networking/ip-sysctl.rst."""


class Device:
    """Reads and makes the VXLAN devices of this network namespace; for one thread, but for `fileno`.

    Attributes:
        driver, why: what carries the packets, as the drivers of IP in IP say it.
    """

    driver = "kernel"
    why = "kernel: VXLAN has no other driver"

    def __init__(self) -> None:
        self._watch = Watch()
        self._indexes: dict[str, int] = {}
        self._unsure = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when others have changed a device, its neighbours or its entries."""
        return self._watch.fileno()

    def close(self) -> None:
        """Listen no more; the devices stay."""
        self._watch.close()

    def changed(self) -> bool:
        """Say whether anybody has changed anything since this was asked last."""
        heard, unsure, self._unsure = self._watch.drain(), self._unsure, False
        return heard or unsure

    def read(self, name: str) -> Vxlan | None:
        """Return the device as it is; None where there is none.

        What does not work reads as what nobody wants: an address with a wrong mask or beside others is 0.0.0.0, and so
        is the local address of a device that learns from packets. So every drift is a difference.
        """
        try:
            link = links.read(name)
            self._hear_of(name, link)
            if link is None or link.kind != KIND:
                return None
            version = _version(name)
            found = frozenset(entry for entry, permanent in wire.read(link.index, _families(name)) if permanent)
            address = _only(links.addresses(link.index, version), version)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None  # it went while we looked
            raise
        return Vxlan(
            link.local if not link.learning else NOTHING,
            link.mtu,
            link.vni,
            link.port,
            link.mac,
            address,
            frozenset((each.mac, each.address) for each in found if each.family == BRIDGE),
            frozenset((each.mac, each.address) for each in found if each.family != BRIDGE),
            name,
            link.up,
        )

    def put(self, wanted: Vxlan) -> None:
        """Make the device so; what is so already is not written.

        Entries come before neighbours, and neighbours before anything that routes packets to them; they go in reverse.

        Raises:
            TunnelRefused: with what stands in the way.
        """
        try:
            index = self._made(wanted).index
            # Only now: with another hardware address the kernel has forgotten all neighbours.
            have = self.read(wanted.name)
            if have is not None:
                _entries(index, have, wanted)
        except OSError as error:
            raise TunnelRefused(f"{wanted.name} cannot be set up: {error.strerror}") from error
        # Our own changes have been told by now; what somebody else did meanwhile is among them, and is looked for.
        self._watch.drain()
        self._unsure = self.read(wanted.name) != wanted

    def delete(self, name: str) -> None:
        """Remove the device with all its entries; one that is gone already counts as done.

        Raises:
            TunnelRefused: with what stands in the way.
        """
        try:
            link = links.read(name)
            if link is not None and link.kind == KIND:
                interfaces.remove(link.index)
            self._hear_of(name, None)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise TunnelRefused(f"{name} cannot be removed: {error.strerror}") from error

    def counters(self, name: str) -> Mapping[str, int]:
        """Return packets carried and dropped, as the kernel counts them for the interface."""
        found = {}
        for ours, theirs in COUNTERS.items():
            with contextlib.suppress(OSError):  # it has just gone
                found[ours] = int((STATISTICS / name / "statistics" / theirs).read_text())
        return found

    def _made(self, wanted: Vxlan) -> Link:
        """Return the interface, made as wanted but for its entries; one that cannot become so is made anew."""
        link = links.read(wanted.name)
        if link is not None and link.kind != KIND:
            raise TunnelRefused(
                f"{wanted.name} is a device of kind {link.kind or 'unknown'} that is not ours; "
                f"remove it with `ip link del {wanted.name}`"
            )
        if link is not None and _incompatible(link, wanted):
            interfaces.remove(link.index)
            link = None
        link = link or _created(wanted)
        self._hear_of(wanted.name, link)
        _set_parameters(wanted.name)
        if link.local != wanted.local or link.learning:
            links.move(link.index, wanted.local)
        if link.mac != wanted.mac:
            links.set_hardware(link.index, wanted.mac)
        if link.mtu != wanted.mtu:
            interfaces.change(link.index, mtu=wanted.mtu)
        _give_address(link.index, wanted)
        if link.up != wanted.up:
            interfaces.change(link.index, up=wanted.up)
        return link

    def _hear_of(self, name: str, link: Link | None) -> None:
        if link is None:
            self._indexes.pop(name, None)
        else:
            self._indexes[name] = link.index
        self._watch.only(self._indexes.values())


COUNTERS = {
    "sent_packets": "tx_packets",
    "received_packets": "rx_packets",
    "dropped_sending": "tx_dropped",
    "dropped_receiving": "rx_dropped",
    "dropped_no_carrier": "tx_carrier_errors",
}
"""Ours by those below /sys/class/net; the last is how the driver counts packets to nodes that no route leads to."""


def _created(wanted: Vxlan) -> Link:
    try:
        links.create(wanted)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        sentence = "this kernel has no vxlan module; install it, or give vxlanMode: Never"
        raise TunnelRefused(f"{wanted.name} cannot be made: {sentence}") from error
    link = links.read(wanted.name)
    if link is None:
        raise TunnelRefused(f"{wanted.name} went away while it was set up; it is tried again")
    return link


def _version(name: str) -> int:
    return 6 if name == DEVICES[6] else 4


def _families(name: str) -> tuple[int, ...]:
    return BRIDGE, INET6 if name == DEVICES[6] else INET


def _incompatible(link: Link, wanted: Vxlan) -> bool:
    """Say whether the kernel cannot change one into the other: it keeps identifier, port and version of IP."""
    return (link.vni, link.port, link.local.version) != (wanted.vni, wanted.port, wanted.local.version)


def _entries(index: int, have: Vxlan, wanted: Vxlan) -> None:
    """Add and replace entries, then neighbours; remove neighbours, then entries."""
    wire.put(index, [entries.forwarding(*each) for each in sorted(wanted.forwarding - have.forwarding, key=str)])
    wire.put(index, [entries.neighbour(*each) for each in sorted(wanted.neighbours - have.neighbours, key=str)])
    kept = {address for _, address in wanted.neighbours}
    unwanted = [each for each in have.neighbours - wanted.neighbours if each[1] not in kept]
    wire.delete(index, [entries.neighbour(*each) for each in unwanted])
    wire.delete(index, [entries.forwarding(*each) for each in have.forwarding - wanted.forwarding])


def _give_address(index: int, wanted: Vxlan) -> None:
    of_link = wanted.address
    own: frozenset[OwnAddress] = frozenset({(of_link, of_link.max_prefixlen)} if of_link is not None else ())
    present = links.addresses(index, _version(wanted.name))
    for each in own - present:  # before removals: with the last address go all IPv4 routes of the device
        links.add_address(index, each)
    for each in present - own:
        links.remove_address(index, each)


def _only(found: frozenset[OwnAddress], version: int) -> IPAddress | None:
    if not found:
        return None
    ((address, length), *more) = found
    return NOTHING if more or length != {4: 32, 6: 128}[version] else address


def _set_parameters(name: str) -> None:
    """Keep IPv6's own chatter out of an IPv4 device, and routers' advertisements out of an IPv6 one.

    A strict reverse path filter is loosened: a node without a tunnel address sends to our pods from its underlay
    address, which comes out of the tunnel while the way back to it is the uplink.
    """
    six = _version(name) == 6  # noqa: PLR2004 - IP versions
    own = PARAMETERS / "ipv6/conf" / name
    wanted = {"disable_ipv6": "0", "accept_ra": "0", "accept_dad": "0"} if six else {"disable_ipv6": "1"}
    for parameter, value in wanted.items():
        with contextlib.suppress(OSError):  # no IPv6 here, or /proc/sys is read-only
            _write(own / parameter, value)
    filters = [PARAMETERS / "ipv4/conf" / each / "rp_filter" for each in ("all", name)]
    if max(path.read_text().strip() for path in filters) == STRICT:
        _write(filters[1], LOOSE)


def _write(path: Path, value: str) -> None:
    if path.read_text().strip() != value:
        path.write_text(value)
