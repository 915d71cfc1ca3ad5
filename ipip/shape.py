"""What a tunnel's device has whichever driver carries its packets: MTU, queue, address, state and parameters."""

import contextlib
from ipaddress import IPv4Interface
from pathlib import Path

from ipip import links
from ipip.tunnel import Tunnel, TunnelRefused

PARAMETERS = Path("/proc/sys/net")

QUEUE = 1000
"""Packets that may wait in the device: 8 ms at 1.4 Gbit/s; the TUN driver's default of 500 loses bursts."""

STRICT, LOOSE = 1, 2
"""Reverse path filter, Documentation/networking/ip-sysctl.rst."""


def shape(tunnel: Tunnel) -> None:
    """Give the device its MTU, queue, address and state.

    Raises:
        TunnelRefused: where there is no such device.
        OSError: where the kernel refuses.
    """
    link = links.read(tunnel.name)
    if link is None:
        raise TunnelRefused(f"{tunnel.name} went away while it was set up; it is tried again")
    _set_parameters(tunnel.name)
    if link.mtu != tunnel.mtu:
        links.change(link.index, mtu=tunnel.mtu)
    if link.queue != QUEUE:
        links.change(link.index, queue=QUEUE)
    wanted = frozenset() if tunnel.address is None else frozenset({IPv4Interface((tunnel.address, 32))})
    present = links.addresses(link.index)
    for address in wanted - present:  # before removals: with the last address go all routes of the device
        links.add_address(link.index, address)
    for address in present - wanted:
        links.remove_address(link.index, address)
    if link.up != tunnel.up:
        links.change(link.index, up=tunnel.up)


def _set_parameters(name: str) -> None:
    """Loosen the reverse path filter where it is strict, and keep IPv6's own chatter out of an IPv4 tunnel.

    A node that has no tunnel address sends to our pods from its underlay address: that packet comes out of the tunnel
    while the way back to its source is the uplink, and a strict filter drops it.
    """
    with contextlib.suppress(OSError):  # no IPv6 here, or /proc/sys is read-only: its packets are dropped later
        parameter = PARAMETERS / "ipv6/conf" / name / "disable_ipv6"
        if parameter.read_text().strip() != "1":
            parameter.write_text("1")
    filters = [PARAMETERS / "ipv4/conf" / each / "rp_filter" for each in ("all", name)]
    if max(int(path.read_text()) for path in filters) == STRICT:
        filters[1].write_text(str(LOOSE))
